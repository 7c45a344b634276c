//! What the host's apt knows: its Debian mirrors, its proxies, and how to download one package.
//!
//! Packages are only ever downloaded, never installed, and always with apt's signature checks:
//! no option here lets an unauthenticated package through. Work that needs other package lists
//! than the system's keeps them in a directory of ours, so it needs no privileges.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk::{self, DiskError};
use crate::host::{HostError, HostProgram, Invocation};
use crate::progress::{self, ProgressSink};

/// The Debian release that environments and fall-back sources use.
pub(crate) const RELEASE: &str = "bookworm";
/// Its sources where the host has none of its own; also what a new environment gets.
pub(crate) const DEFAULT_SOURCES: &str = "\
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
";
/// Where Debian's own and most derived systems keep the archive's keys.
const ARCHIVE_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Looking into local lists takes a second or two.
const QUERY_DEADLINE: Duration = Duration::from_mins(2);
/// A download of lists or of one kernel, over a slow line.
const DOWNLOAD_DEADLINE: Duration = Duration::from_mins(30);
/// How often a growing download is measured.
const TICK: Duration = Duration::from_millis(250);

/// The package lists to ask: the system's or private ones.
pub(crate) struct PackageLists {
    options: Vec<OsString>,
}

/// The version of a package that apt would install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) package: String,
    pub(crate) version: String,
    /// Names of the packages that it depends on, without versions and alternatives.
    pub(crate) depends: Vec<String>,
    /// Hex digits from the signed package list.
    pub(crate) sha256: Option<String>,
    pub(crate) size: Option<u64>,
}

impl PackageLists {
    /// The lists that the system has. They may be missing or old.
    pub(crate) fn system() -> Self {
        let mut options = Vec::new();
        for setting in [
            "APT::Get::AllowUnauthenticated=false",
            "Acquire::AllowInsecureRepositories=false",
            // Root's apt would change to a user who cannot reach our private directories.
            "APT::Sandbox::User=root",
        ] {
            options.extend(["-o".into(), setting.into()]);
        }
        Self { options }
    }

    /// Fetches lists of Debian's current stable kernel and packages into `directory`.
    pub(crate) async fn fetch(
        directory: &Path,
        progress: &ProgressSink,
    ) -> Result<Self, FetchError> {
        let lists = directory.join("lists");
        let cache = directory.join("cache");
        disk::create_private_dir(&lists.join("partial"))?;
        disk::create_private_dir(&cache.join("archives/partial"))?;
        let sources = directory.join("sources.list");
        let host = host_sources().await?;
        let text = if host.is_empty() {
            DEFAULT_SOURCES.to_owned()
        } else {
            host.join("\n") + "\n"
        };
        disk::write_new(&sources, signed_by_archive(&text).as_bytes())?;

        let mut this = Self::system();
        for (name, value) in [
            ("Dir::State::Lists", lists),
            ("Dir::Cache", cache),
            ("Dir::Etc::SourceList", sources),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
            ("Acquire::Languages", PathBuf::from("none")),
        ] {
            let mut setting = OsString::from(format!("{name}="));
            setting.push(value);
            this.options.extend(["-o".into(), setting]);
        }
        progress::phase(progress, "package-lists", "fetching package lists");
        Invocation::new(HostProgram::AptGet, DOWNLOAD_DEADLINE)
            .args(&this.options)
            .args(["--quiet", "update"])
            .answer()
            .await?;
        Ok(this)
    }

    /// The candidate of a package, or `None` if the lists do not have it.
    pub(crate) async fn candidate(&self, package: &str) -> Result<Option<Candidate>, HostError> {
        let answer = Invocation::new(HostProgram::AptCache, QUERY_DEADLINE)
            .args(&self.options)
            .args(["show", "--no-all-versions", package])
            .answer()
            .await;
        match answer {
            Ok(text) => Ok(parse_candidate(&text)),
            // Status 100 is apt's only one; "no packages found" is the usual reason.
            Err(HostError::Failed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Downloads a package into an empty directory and gives the file's path.
    pub(crate) async fn download(
        &self,
        candidate: &Candidate,
        directory: &Path,
        progress: &ProgressSink,
    ) -> Result<PathBuf, FetchError> {
        let download = Invocation::new(HostProgram::AptGet, DOWNLOAD_DEADLINE)
            .args(&self.options)
            .args(["--quiet", "download"])
            .args([format!("{}={}", candidate.package, candidate.version)])
            .current_dir(directory)
            .answer();
        let measure = async {
            loop {
                tokio::time::sleep(TICK).await;
                let done = disk::sizes(directory).map_or(0, |(apparent, _)| apparent);
                progress::bytes(progress, "kernel", done, candidate.size);
            }
        };
        tokio::select! {
            result = download => result.map(|_| ())?,
            () = measure => {}
        }
        let name = disk::names(directory)?
            .into_iter()
            .find(|name| Path::new(name).extension().is_some_and(|end| end == "deb"))
            .ok_or_else(|| FetchError::NothingDownloaded {
                package: candidate.package.clone(),
            })?;
        Ok(directory.join(name))
    }
}

/// Why package lists or a package could not be fetched.
#[derive(Debug)]
pub(crate) enum FetchError {
    Host(HostError),
    Disk(DiskError),
    NothingDownloaded { package: String },
}

impl From<HostError> for FetchError {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

impl From<DiskError> for FetchError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

/// The host's own lines for [`RELEASE`] and its updates; empty if it has no such sources.
pub(crate) async fn host_sources() -> Result<Vec<String>, HostError> {
    if HostProgram::AptGet.find().is_none() {
        return Ok(Vec::new());
    }
    // With release information apt shows only targets that it has downloaded, and who signed
    // for them; without, everything that is configured.
    for (option, trust) in [
        (None, SourceTrust::ByOrigin),
        (Some("--no-release-info"), SourceTrust::ByAddress),
    ] {
        let text = Invocation::new(HostProgram::AptGet, QUERY_DEADLINE)
            .args(["indextargets"])
            .args(option)
            .args(["Created-By: Packages"])
            .answer()
            .await?;
        let sources = parse_index_targets(&text, trust);
        if !sources.is_empty() {
            return Ok(sources);
        }
    }
    Ok(Vec::new())
}

/// The host's settings that its mirrors need: proxies, and tolerance of frozen mirrors.
pub(crate) async fn host_settings() -> Result<Vec<String>, HostError> {
    if HostProgram::AptConfig.find().is_none() {
        return Ok(Vec::new());
    }
    let text = Invocation::new(HostProgram::AptConfig, QUERY_DEADLINE)
        .args(["dump"])
        .answer()
        .await?;
    Ok(text
        .lines()
        .filter(|line| is_mirror_setting(line))
        .map(str::to_owned)
        .collect())
}

#[derive(Debug, Clone, Copy)]
enum SourceTrust {
    /// The signed release file says who made it.
    ByOrigin,
    /// There is no release file yet: the address has to end as Debian's mirrors do.
    ByAddress,
}

fn parse_index_targets(text: &str, trust: SourceTrust) -> Vec<String> {
    let mut sources = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name| field(stanza, name).unwrap_or_default();
        let (address, suite) = (field("Repo-URI"), field("Release"));
        let is_debian = match trust {
            SourceTrust::ByOrigin => field("Origin") == "Debian",
            SourceTrust::ByAddress => {
                let end = address.trim_end_matches('/').rsplit('/').next();
                matches!(end, Some("debian" | "debian-security"))
            }
        };
        let is_release = suite
            .strip_prefix(RELEASE)
            .is_some_and(|rest| matches!(rest, "" | "-updates" | "-security"));
        let is_remote = address.starts_with("http://") || address.starts_with("https://");
        let is_main = field("Component") == "main" && field("Architecture") == "amd64";
        let line = format!("deb {address} {suite} main");
        if is_debian && is_release && is_remote && is_main && !sources.contains(&line) {
            sources.push(line);
        }
    }
    // Updates alone make no system.
    let has_release = sources
        .iter()
        .any(|line| line.ends_with(&format!(" {RELEASE} main")));
    if has_release { sources } else { Vec::new() }
}

fn parse_candidate(text: &str) -> Option<Candidate> {
    let stanza = text.split("\n\n").next()?;
    Some(Candidate {
        package: field(stanza, "Package")?.to_owned(),
        version: field(stanza, "Version")?.to_owned(),
        depends: field(stanza, "Depends")
            .unwrap_or_default()
            .split(',')
            .filter_map(|one| one.split_whitespace().next())
            .map(str::to_owned)
            .collect(),
        sha256: field(stanza, "SHA256").map(str::to_owned),
        size: field(stanza, "Size").and_then(|size| size.parse().ok()),
    })
}

fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn is_mirror_setting(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    let wanted = lower.starts_with("acquire::http::proxy")
        || lower.starts_with("acquire::https::proxy")
        || lower.starts_with("acquire::check-valid-until ");
    wanted && !lower.ends_with(" \"\";")
}

/// Names the archive's keyring in each line, if the host has it.
fn signed_by_archive(sources: &str) -> String {
    if Path::new(ARCHIVE_KEYRING).is_file() {
        sources.replace("deb ", &format!("deb [signed-by={ARCHIVE_KEYRING}] "))
    } else {
        sources.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str, suite: &str, component: &str, origin: &str) -> String {
        format!(
            "MetaKey: {component}/binary-amd64/Packages\nOrigin: {origin}\n\
             Architecture: amd64\nComponent: {component}\nRelease: {suite}\nRepo-URI: {address}\n"
        )
    }

    #[test]
    fn only_debian_bookworm_is_taken_from_the_host() {
        let text = [
            target(
                "http://mirror.example/debian/",
                "bookworm",
                "main",
                "Debian",
            ),
            target(
                "http://mirror.example/debian/",
                "bookworm",
                "main",
                "Debian",
            ),
            target(
                "http://mirror.example/debian/",
                "bookworm-updates",
                "main",
                "Debian",
            ),
            target(
                "http://mirror.example/debian/",
                "bookworm-backports",
                "main",
                "Debian",
            ),
            target(
                "http://mirror.example/debian/",
                "bookworm",
                "contrib",
                "Debian",
            ),
            target(
                "https://sec.example/debian-security/",
                "bookworm-security",
                "main",
                "Debian",
            ),
            target("http://tools.example/debian/", "bookworm", "main", "Tools"),
            target("file:/srv/debian/", "bookworm", "main", "Debian"),
        ]
        .join("\n");
        assert_eq!(
            parse_index_targets(&text, SourceTrust::ByOrigin),
            [
                "deb http://mirror.example/debian/ bookworm main",
                "deb http://mirror.example/debian/ bookworm-updates main",
                "deb https://sec.example/debian-security/ bookworm-security main",
            ]
        );
    }

    #[test]
    fn without_release_files_the_address_decides() {
        let text = [
            target("http://mirror.example/debian/", "bookworm", "main", ""),
            target("http://tools.example/apt/", "bookworm", "main", ""),
        ]
        .join("\n");
        assert_eq!(
            parse_index_targets(&text, SourceTrust::ByAddress),
            ["deb http://mirror.example/debian/ bookworm main"]
        );
        let only_updates = target("http://m.example/debian/", "bookworm-updates", "main", "");
        assert!(parse_index_targets(&only_updates, SourceTrust::ByAddress).is_empty());
    }

    #[test]
    fn a_candidate_is_read_from_its_stanza() {
        let text = "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n\
                    Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), other | another\n\
                    Size: 1504\nSHA256: 00be\n\nPackage: second\nVersion: 1\n";
        assert_eq!(
            parse_candidate(text).unwrap(),
            Candidate {
                package: "linux-image-cloud-amd64".to_owned(),
                version: "6.1.192-2".to_owned(),
                depends: vec![
                    "linux-image-6.1.0-56-cloud-amd64".to_owned(),
                    "other".to_owned()
                ],
                sha256: Some("00be".to_owned()),
                size: Some(1504),
            }
        );
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn proxies_are_mirror_settings() {
        assert!(is_mirror_setting(
            "Acquire::http::Proxy \"http://p.example:3142\";"
        ));
        assert!(is_mirror_setting("Acquire::Check-Valid-Until \"false\";"));
        assert!(!is_mirror_setting("Acquire::http::Proxy \"\";"));
        assert!(!is_mirror_setting(
            "Acquire::AllowInsecureRepositories \"1\";"
        ));
    }

    #[test]
    fn every_default_source_is_signed() {
        let signed = signed_by_archive(DEFAULT_SOURCES);
        assert_eq!(signed.lines().count(), 3);
        assert!(signed.lines().all(|line| line.starts_with("deb ")));
    }
}
