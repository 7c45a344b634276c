//! An archive of the host as a plain tar of ours.
//!
//! Every member is read and written again, so that what is kept has one form whatever the
//! archive was, and a name that the guest would refuse is refused before anything is started.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use pyro_archive::beneath::Relative;
use pyro_archive::bounds::MAX_PARTS;
use pyro_archive::codec::decode::{Compression, Decoder};
use pyro_archive::pack::Listed;
use pyro_archive::tar::header::{Kind as OutKind, Member as OutMember, Time};
use pyro_archive::tar::read::{ReadError, Reader};
use pyro_archive::tar::write::Writer;
use pyro_archive::tar::{Kind, Member, shown};
use pyro_image::ProgressSink;
use rustix::fs::{Mode, OFlags};

use super::TreeError;
use super::pack::{Hashing, PackLimits, Report, SeedSummary};

/// Bytes of content that are moved at a time.
const PIECE: usize = 128 * 1024;

type Plain = Reader<BufReader<Decoder<BufReader<File>>>>;

/// An archive that is read.
pub(super) struct Archive<'a> {
    path: &'a Path,
    reader: Plain,
    limits: PackLimits,
    entries: u64,
    bytes: u64,
}

/// One of its members, with names as they are kept.
pub(super) struct Taken {
    /// Relative, without `.`, `..` or a slash at either end; the root itself is `.`.
    pub(super) path: Vec<u8>,
    pub(super) member: Member,
    /// What of a hard link's target is kept.
    target: Vec<u8>,
}

impl<'a> Archive<'a> {
    pub(super) fn open(path: &'a Path, limits: PackLimits) -> Result<Self, TreeError> {
        // A named pipe would otherwise be waited for.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file =
            rustix::fs::open(path, flags, Mode::empty()).map_err(TreeError::io("open", path))?;
        let file = File::from(file);
        if !file
            .metadata()
            .map_err(TreeError::io("read", path))?
            .is_file()
        {
            return Err(TreeError::Source {
                path: path.to_owned(),
                what: "no regular file",
            });
        }
        let plain = Decoder::new(BufReader::new(file), Compression::Auto);
        let plain = plain.map_err(|source| TreeError::Archive {
            path: path.to_owned(),
            source: ReadError::Input { source },
        })?;
        Ok(Self {
            path,
            reader: Reader::new(BufReader::with_capacity(PIECE, plain)),
            limits,
            entries: 0,
            bytes: 0,
        })
    }

    /// The next member; what does not fit the limits or could not be unpacked is an error.
    pub(super) fn next(&mut self) -> Result<Option<Taken>, TreeError> {
        let Some(member) = self
            .reader
            .next_member()
            .map_err(|error| self.read(error))?
        else {
            return Ok(None);
        };
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(self.reader.left());
        for (count, limit, what) in [
            (self.entries, self.limits.max_entries, "members"),
            (self.bytes, self.limits.max_bytes, "bytes of content"),
        ] {
            if count > limit {
                return Err(TreeError::ArchiveLimit {
                    path: self.path.to_owned(),
                    what,
                    limit,
                });
            }
        }
        let path = self.name(&member, &member.path)?;
        let target = match &member.kind {
            Kind::HardLink(target) => self.name(&member, target)?,
            Kind::File { .. }
            | Kind::Sparse { .. }
            | Kind::Directory
            | Kind::Symlink(_)
            | Kind::Fifo
            | Kind::CharDevice(_)
            | Kind::BlockDevice(_) => Vec::new(),
        };
        let is_root = path == b".";
        if is_root && member.kind != Kind::Directory {
            return Err(self.refused(&member, "the root is a directory"));
        }
        Ok(Some(Taken {
            path,
            member,
            target,
        }))
    }

    /// Bytes of the current member that are stored.
    pub(super) fn stored(&self) -> u64 {
        self.reader.left()
    }

    /// Reads what follows the last member, of which a compressed stream has a checksum.
    pub(super) fn finish(&mut self) -> Result<(), TreeError> {
        let finished = self.reader.finish();
        finished.map_err(|error| self.read(error))
    }

    fn name(&self, member: &Member, name: &[u8]) -> Result<Vec<u8>, TreeError> {
        if name.starts_with(b"/") {
            return Err(self.refused(member, "the name is absolute"));
        }
        let path = Relative::parse(name)
            .map_err(|_| self.refused(member, "the name leads out of the root"))?;
        match path.parts().len() {
            0 => Ok(b".".to_vec()),
            count if count > MAX_PARTS => {
                Err(self.refused(member, "the name has more than 200 parts"))
            }
            _ => Ok(path.to_bytes()),
        }
    }

    fn refused(&self, member: &Member, why: &'static str) -> TreeError {
        TreeError::Member {
            path: self.path.to_owned(),
            member: shown(&member.path),
            why,
        }
    }

    fn read(&self, source: ReadError) -> TreeError {
        TreeError::Archive {
            path: self.path.to_owned(),
            source,
        }
    }

    fn copy<W: Write>(&mut self, writer: &mut Writer<W>) -> Result<(), TreeError> {
        let mut buffer = vec![0; PIECE];
        while writer.owed() > 0 {
            let count = self.reader.content().read(&mut buffer);
            let count = count.map_err(|source| self.read(ReadError::Input { source }))?;
            if count == 0 {
                return Err(self.read(ReadError::Truncated { offset: 0 }));
            }
            writer.content(&buffer[..count])?;
        }
        Ok(())
    }
}

/// Writes the archive `path` as a plain tar.
pub(super) fn recode(
    path: &Path,
    limits: PackLimits,
    out: &mut impl Write,
    progress: &ProgressSink,
) -> Result<SeedSummary, TreeError> {
    let mut archive = Archive::open(path, limits)?;
    let mut writer = Writer::new(Hashing::new(out));
    let mut report = Report::new(progress);
    let mut skipped = Listed::default();
    let (mut entry_count, mut bytes_written) = (0, 0_u64);
    while let Some(taken) = archive.next()? {
        let Some(kind) = kept(&taken) else {
            skipped.add(&taken.path);
            continue;
        };
        let member = OutMember {
            path: &taken.path,
            kind,
            mode: taken.member.mode,
            uid: 0,
            gid: 0,
            modified: Time {
                seconds: taken.member.modified.tv_sec,
                nanoseconds: u32::try_from(taken.member.modified.tv_nsec).unwrap_or(0),
            },
            attributes: &taken.member.xattrs,
        };
        writer.member(&member)?;
        archive.copy(&mut writer)?;
        entry_count += 1;
        bytes_written = bytes_written.saturating_add(taken.member.kind.size());
        report.at(writer.written());
    }
    archive.finish()?;
    writer.finish()?;
    Ok(SeedSummary {
        entry_count,
        bytes_written,
        archive_bytes: writer.written(),
        sha256: writer.into_inner().finish()?,
        unreadable: Listed::default(),
        skipped,
        changed: Listed::default(),
        vanished: Listed::default(),
    })
}

/// What of a member is written; nothing of devices and pipes.
fn kept(taken: &Taken) -> Option<OutKind<'_>> {
    Some(match &taken.member.kind {
        Kind::File { size } => OutKind::File(*size),
        Kind::Sparse { size, segments } => OutKind::Sparse {
            size: *size,
            segments,
        },
        Kind::Directory => OutKind::Directory,
        Kind::Symlink(text) => OutKind::Symlink(text),
        Kind::HardLink(_) => OutKind::HardLink(&taken.target),
        Kind::Fifo | Kind::CharDevice(_) | Kind::BlockDevice(_) => return None,
    })
}
