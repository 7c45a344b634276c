//! `registries.toml`: how a user's registries are reached.
//!
//! ```toml
//! plain_http = ["registry.lan:5000"]     # may be spoken to without TLS; TLS is tried first
//! ca_files = ["company.pem"]             # trusted beside the system's; relative to this file
//!
//! [[mirror]]
//! of = "docker.io"                       # the registry that is named in references
//! host = "mirror.lan"                    # the registry to ask first
//! ```
//!
//! A key that is not known is an error, so that a slip of the pen is noticed.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::oci::reference::RegistryHost;
use crate::oci::settings::{Mirror, RegistrySettings};

/// A file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the settings of registries in `{}` cannot be used: {reason}", path.display())]
pub struct RegistriesFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and where.
    pub reason: String,
}

impl RegistriesFileError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(format!("mend `{}` or move it away", self.path.display()))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    plain_http: Vec<String>,
    #[serde(default)]
    ca_files: Vec<PathBuf>,
    #[serde(default)]
    mirror: Vec<RawMirror>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMirror {
    of: String,
    host: String,
}

impl RegistrySettings {
    /// Adds what a file says, whose text is `text` and whose place is `path`.
    pub fn add_file(&mut self, text: &str, path: &Path) -> Result<(), RegistriesFileError> {
        let refused = |reason: String| RegistriesFileError {
            path: path.to_owned(),
            reason,
        };
        let file: File = toml::from_str(text).map_err(|error| refused(error.to_string()))?;
        let host =
            |text: &str| RegistryHost::parse(text).map_err(|error| refused(error.to_string()));
        let base = path.parent().unwrap_or(Path::new("/"));
        for text in &file.plain_http {
            self.plain_http_hosts.push(host(text)?);
        }
        for mirror in &file.mirror {
            self.mirrors.push(Mirror {
                of: host(&mirror.of)?,
                host: host(&mirror.host)?,
            });
        }
        let files = file.ca_files.iter().map(|file| base.join(file));
        self.extra_ca_files.extend(files);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_adds_to_the_settings() {
        let mut settings = RegistrySettings::default();
        let text = r#"
            plain_http = ["registry.lan:5000"]
            ca_files = ["a.pem", "/b.pem"]
            [[mirror]]
            of = "docker.io"
            host = "mirror.lan"
        "#;
        settings
            .add_file(text, Path::new("/c/registries.toml"))
            .unwrap();
        assert_eq!(settings.plain_http_hosts[0].as_str(), "registry.lan:5000");
        assert_eq!(
            settings.extra_ca_files,
            [PathBuf::from("/c/a.pem"), PathBuf::from("/b.pem")]
        );
        assert_eq!(settings.mirrors[0].of.as_str(), "docker.io");
    }

    #[test]
    fn a_slip_of_the_pen_is_told_with_its_place() {
        for text in ["plain-http = []", "[[mirror]]\nof = 'a b'\nhost = 'x'", "="] {
            let mut settings = RegistrySettings::default();
            let error = settings.add_file(text, Path::new("/c/r.toml")).unwrap_err();
            assert!(error.to_string().contains("/c/r.toml"), "{error}");
            assert!(error.hint().unwrap().contains("/c/r.toml"));
        }
    }
}
