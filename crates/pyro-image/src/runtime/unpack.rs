//! The programs out of the archive.
//!
//! Owns finding them by their whole path and checking them. No name in the archive becomes a path, and nothing but the
//! wanted programs is written.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use pyro_archive::codec::decode::{Compression, Decoder};
use pyro_archive::tar::Kind;
use pyro_archive::tar::read::Reader;

use super::error::RuntimeError;
use super::release::{Program, Release};
use crate::digest::Sha256Digest;
use crate::disk::{self, DiskError};

/// The largest program. Firecracker's has 3 MB.
const MAX_PROGRAM_BYTES: u64 = 64 * 1024 * 1024;

/// How much of the archive is looked through: beside the programs it holds their debugging symbols.
const MAX_ARCHIVE_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Writes the programs of `release` into the empty directory `into`.
pub(super) fn unpack(release: &Release, archive: &Path, into: &Path) -> Result<(), RuntimeError> {
    let broken = |source| RuntimeError::Archive {
        name: release.name,
        source,
    };
    let file = File::open(archive).map_err(|source| DiskError::new("open", archive, source))?;
    let plain = Decoder::new(BufReader::new(file), Compression::Gzip).map_err(broken)?;
    let mut reader = Reader::new(BufReader::new(plain.take(MAX_ARCHIVE_BYTES)));
    let mut missing: Vec<&Program> = release.programs.iter().collect();
    while !missing.is_empty() {
        let member = reader
            .next_member()
            .map_err(|error| broken(io::Error::other(error)))?;
        let Some(member) = member else {
            break;
        };
        let path = member.path.strip_prefix(b"./").unwrap_or(&member.path);
        let wanted = missing
            .iter()
            .position(|program| program.member.as_bytes() == path);
        let Some(wanted) = wanted else { continue };
        match member.kind {
            Kind::File { size } if size <= MAX_PROGRAM_BYTES => {}
            _ => {
                return Err(broken(io::Error::other(
                    "the program in it is no file of a bounded size",
                )));
            }
        }
        let program = missing.swap_remove(wanted);
        let to = into.join(program.name);
        write(&to, &mut reader.content()).map_err(|fault| match fault {
            Fault::Read(source) => broken(source),
            Fault::Write(source) => DiskError::new("write", &to, source).into(),
        })?;
        let (found, _) =
            Sha256Digest::of_file(&to).map_err(|source| DiskError::new("read", &to, source))?;
        if found != program.digest {
            return Err(RuntimeError::WrongDigest {
                member: program.member,
                expected: program.digest,
                found,
            });
        }
    }
    match missing.first() {
        Some(program) => Err(RuntimeError::Missing {
            name: release.name,
            member: program.member,
        }),
        None => Ok(disk::sync(into)?),
    }
}

enum Fault {
    Read(io::Error),
    Write(io::Error),
}

fn write(to: &Path, content: &mut impl Read) -> Result<(), Fault> {
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(to)
        .map_err(Fault::Write)?;
    let mut out = BufWriter::new(file);
    let mut chunk = vec![0; 256 * 1024];
    loop {
        let length = content.read(&mut chunk).map_err(Fault::Read)?;
        if length == 0 {
            break;
        }
        out.write_all(&chunk[..length]).map_err(Fault::Write)?;
    }
    let file = out
        .into_inner()
        .map_err(|error| Fault::Write(error.into_error()))?;
    // The engine runs as another user than the one who installs it, whose mask may forbid that.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .and_then(|()| file.sync_all())
        .map_err(Fault::Write)
}
