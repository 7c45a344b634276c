//! What an artifact image says about the environment that it holds.
//!
//! Plain data, told by who published the image: for people and for choosing, never for deciding
//! what is run or trusted. The form is the original's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The content of `environment.json` in an artifact image. Whatever is absent is empty; fields
/// that are not known are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvironmentMetadata {
    /// The version of the bundle that the image was made from.
    pub bundle_version: String,
    /// What the guest is able to do, such as `guest_exec`.
    pub capabilities: BTreeMap<String, bool>,
    /// Versions of what the image was made of, such as `kernel`.
    pub component_versions: BTreeMap<String, String>,
    /// The packages that it is for.
    pub default_packages: Vec<String>,
    /// A sentence for people.
    pub description: String,
    /// The distribution, such as `debian`.
    pub distribution: String,
    /// Its version, such as `12`.
    pub distribution_version: String,
    /// The environment's name, such as `debian:12`.
    pub environment: String,
    /// The platform in the catalog's words, such as `linux-x86_64`.
    pub platform: String,
    /// What the root image was made from, such as `debian-git`.
    pub source_profile: String,
    /// The environment's version.
    pub version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_absent_fields_are_no_fault() {
        let text = r#"{"environment": "debian:12", "capabilities": {"vm_boot": true}, "new": [1]}"#;
        let read: EnvironmentMetadata = serde_json::from_str(text).unwrap();
        assert_eq!(read.environment, "debian:12");
        assert!(read.capabilities["vm_boot"]);
        assert!(read.default_packages.is_empty());
        assert!(serde_json::from_str::<EnvironmentMetadata>("{\"version\": 1}").is_err());
    }
}
