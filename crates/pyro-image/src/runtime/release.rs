//! Which releases are installed, by the digests of their programs.

use crate::digest::Sha256Digest;

/// A release of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its name with the version; also the name of its directory.
    pub name: &'static str,
    /// The archive: a tar, compressed with gzip.
    pub url: &'static str,
    /// The programs that are taken out of it. Nothing else is.
    pub programs: Vec<Program>,
}

/// A program of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its name once it is installed.
    pub name: &'static str,
    /// Its path in the archive.
    pub member: &'static str,
    /// Its content.
    pub digest: Sha256Digest,
}

impl Release {
    /// The Firecracker that this version of pyro is made for.
    pub fn firecracker() -> Self {
        let digest = |hex: &str| hex.parse().expect("64 hex digits are a digest");
        Self {
            name: "firecracker-1.12.1",
            url: "https://github.com/firecracker-microvm/firecracker/releases/download/v1.12.1/firecracker-v1.12.1-x86_64.tgz",
            programs: vec![
                Program {
                    name: "firecracker",
                    member: "release-v1.12.1-x86_64/firecracker-v1.12.1-x86_64",
                    digest: digest(
                        "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
                    ),
                },
                Program {
                    name: "jailer",
                    member: "release-v1.12.1-x86_64/jailer-v1.12.1-x86_64",
                    digest: digest(
                        "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
                    ),
                },
            ],
        }
    }
}
