//! The builder's command line: what goes into a layer and what stays out.
//!
//! Pure. Nothing of the host may end up in a layer: no host name, resolver, mirror or proxy.

use crate::apt;
use crate::catalog::CatalogEntry;
use crate::recipe::BuildMode;

/// No file of a layer is younger: 2023-06-10, the day of Debian 12.
pub(super) const SOURCE_DATE_EPOCH: &str = "1686355200";

/// Packages of every environment beside its own.
const COMMON_PACKAGES: [&str; 1] = ["ca-certificates"];

/// Files that nobody in a throw-away machine reads. Copyright files have to stay.
const PATH_RULES: [&str; 9] = [
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/linda/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
];

/// Makes the system neutral; `$1` is its root directory, `@SOURCES@` stands for Debian's sources.
const NEUTRALISE: &str = r#"set -eu
root="$1"
put() { rm -f "$root/$1"; cat > "$root/$1"; chmod 0644 "$root/$1"; }
echo localhost | put etc/hostname
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' | put etc/hosts
put etc/resolv.conf < /dev/null
put etc/machine-id < /dev/null
printf '%s' '@SOURCES@' | put etc/apt/sources.list
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/var/lib/dbus/machine-id"
rm -rf "$root/var/lib/apt/lists" "$root/var/cache/apt"
mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
# Written while Python starts, with bytes that differ from run to run.
rm -rf "$root/usr/share/python3/debpython/__pycache__"
mkdir -p "$root/workspace"
"#;

/// What to ask for: sorted, without doubles.
pub(super) fn packages(entry: &CatalogEntry) -> Vec<String> {
    let mut packages = entry.default_packages.clone();
    packages.extend(COMMON_PACKAGES.map(str::to_owned));
    packages.sort();
    packages.dedup();
    packages
}

/// The whole command line. `settings` are lines of apt's configuration for `sources`, the host's
/// mirrors; without any, the builder takes Debian's own.
pub(super) fn arguments(
    mode: BuildMode,
    packages: &[String],
    settings: &[String],
    sources: &[String],
) -> Vec<String> {
    let mut arguments = vec![
        format!("--mode={}", mode.builder_mode()),
        "--variant=minbase".to_owned(),
        "--format=tar".to_owned(),
        "--architectures=amd64".to_owned(),
        format!("--include={}", packages.join(",")),
        r#"--aptopt=Acquire::Languages "none""#.to_owned(),
        // A private directory is out of reach for apt's own user; and whether it is would show
        // in the owners of two directories.
        r#"--aptopt=APT::Sandbox::User "root""#.to_owned(),
    ];
    if mode == BuildMode::UserNamespace {
        // A user namespace may not mount a new sysfs, and no package of ours misses it.
        arguments.push("--skip=chroot/mount/sys".to_owned());
    }
    arguments.extend(settings.iter().map(|line| format!("--aptopt={line}")));
    arguments.extend(PATH_RULES.map(|rule| format!("--dpkgopt={rule}")));
    let neutralise = NEUTRALISE.replace("@SOURCES@", apt::DEFAULT_SOURCES);
    arguments.push(format!("--customize-hook={neutralise}"));
    arguments.push(apt::RELEASE.to_owned());
    // The tar goes to the standard output.
    arguments.push("-".to_owned());
    arguments.extend_from_slice(sources);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn the_build_environment_has_its_tools() {
        let catalog = Catalog::builtin();
        let names = |name| packages(catalog.get(name).unwrap()).join(",");
        assert_eq!(names("debian:12-base"), "bash,ca-certificates,coreutils");
        assert_eq!(
            names("debian:12-build"),
            "bash,ca-certificates,cmake,coreutils,gcc,git,make,python3"
        );
    }

    #[test]
    fn mirrors_and_their_settings_are_handed_on() {
        let line = "deb http://mirror.example/debian bookworm main".to_owned();
        let setting = "Acquire::http::Proxy \"http://p.example:3142\";".to_owned();
        let arguments = arguments(
            BuildMode::UserNamespace,
            &["bash".to_owned()],
            std::slice::from_ref(&setting),
            std::slice::from_ref(&line),
        );
        assert_eq!(arguments.last(), Some(&line));
        assert!(arguments.contains(&format!("--aptopt={setting}")));
        assert!(arguments.contains(&"--mode=root".to_owned()));
        assert!(!arguments.iter().any(|one| one.contains("@SOURCES@")));
        let position = arguments.iter().position(|one| one == "bookworm").unwrap();
        assert_eq!(arguments[position + 1], "-");
    }

    #[test]
    fn nothing_switches_signature_checks_off() {
        let all = arguments(BuildMode::Root, &[], &[], &[])
            .join("\n")
            .to_lowercase();
        for word in ["unauthenticated", "insecure", "trusted=", "no-check"] {
            assert!(!all.contains(word), "{word}");
        }
    }
}
