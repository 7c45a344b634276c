//! The headers of a member as bytes: its ustar block, and the extended header before it where
//! a ustar block cannot say everything.
//!
//! What a ustar block can say is said there alone, so that an ordinary tree costs no extended
//! header. The order of records is fixed: the same member always gives the same bytes.

use std::io::Write as _;

use super::{BLOCK, Segment};

/// What comes before the name of an extended attribute in its record.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Name of every extended header. It is no file; unpacked by a program that knows no
/// extended headers it does no harm.
const EXTENDED_NAME: &[u8] = b"././@PaxHeader";

/// What a member is and what it is called.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// Its path without a slash at either end; any bytes but NUL.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind<'a>,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change.
    pub modified: Time,
    /// Extended attributes, name and value.
    pub attributes: &'a [(Vec<u8>, Vec<u8>)],
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A file of so many bytes.
    File(u64),
    /// A file of which only some segments are stored; the rest is holes.
    Sparse {
        /// Bytes of the file, holes included.
        size: u64,
        /// The segments, in order, none overlapping.
        segments: &'a [Segment],
    },
    /// A directory.
    Directory,
    /// A symbolic link with this text.
    Symlink(&'a [u8]),
    /// Another name of the member with this path.
    HardLink(&'a [u8]),
    /// A named pipe.
    Fifo,
    /// A character device, major and minor number.
    CharDevice(u32, u32),
    /// A block device, major and minor number.
    BlockDevice(u32, u32),
}

/// A time of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds since the epoch.
    pub seconds: i64,
    /// Nanoseconds after that, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Member<'_> {
    /// Writes the member's headers to the end of `out`, with the map of a sparse file, and
    /// says how many bytes of content follow.
    pub fn encode(&self, out: &mut Vec<u8>) -> u64 {
        let map = self.sparse_map();
        let stored = self.stored() + map.len() as u64;
        let path = self.stored_path();
        let link = self.link();
        let split = split(&path);
        let mut records = Vec::new();
        self.records(&mut records, &path, split.is_some(), stored);
        if !records.is_empty() {
            let header = Ustar {
                name: EXTENDED_NAME,
                prefix: b"",
                mode: 0o644,
                uid: 0,
                gid: 0,
                size: records.len() as u64,
                seconds: 0,
                flag: b'x',
                link: b"",
                device: (0, 0),
            };
            out.extend_from_slice(&header.block());
            out.extend_from_slice(&records);
            pad(out);
        }
        // What does not fit stands in a record, which wins.
        let (prefix, name) = split.unwrap_or((b"", &path[..path.len().min(100)]));
        let header = Ustar {
            name,
            prefix,
            mode: self.mode & 0o7777,
            uid: u64::from(self.uid),
            gid: u64::from(self.gid),
            size: stored,
            seconds: self.modified.seconds,
            flag: self.flag(),
            link: &link[..link.len().min(100)],
            device: match self.kind {
                Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => (major, minor),
                _ => (0, 0),
            },
        };
        out.extend_from_slice(&header.block());
        out.extend_from_slice(&map);
        stored - map.len() as u64
    }

    /// Bytes of content that are stored.
    fn stored(&self) -> u64 {
        match self.kind {
            Kind::File(size) => size,
            Kind::Sparse { segments, .. } => segments.iter().map(|one| one.length).sum(),
            Kind::Directory
            | Kind::Symlink(_)
            | Kind::HardLink(_)
            | Kind::Fifo
            | Kind::CharDevice(..)
            | Kind::BlockDevice(..) => 0,
        }
    }

    fn flag(&self) -> u8 {
        match self.kind {
            Kind::File(_) | Kind::Sparse { .. } => b'0',
            Kind::HardLink(_) => b'1',
            Kind::Symlink(_) => b'2',
            Kind::CharDevice(..) => b'3',
            Kind::BlockDevice(..) => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        }
    }

    fn link(&self) -> &[u8] {
        match self.kind {
            Kind::Symlink(link) | Kind::HardLink(link) => link,
            Kind::File(_)
            | Kind::Sparse { .. }
            | Kind::Directory
            | Kind::Fifo
            | Kind::CharDevice(..)
            | Kind::BlockDevice(..) => b"",
        }
    }

    /// The path as the header has it. A sparse file has another there, so that a program that
    /// knows no sparse files does not mistake the map for content.
    fn stored_path(&self) -> Vec<u8> {
        match self.kind {
            Kind::Directory => [self.path, b"/"].concat(),
            Kind::Sparse { .. } => {
                let slash = self.path.iter().rposition(|byte| *byte == b'/');
                let (above, name) = self.path.split_at(slash.map_or(0, |slash| slash + 1));
                [above, b"GNUSparseFile.0/", name].concat()
            }
            Kind::File(_)
            | Kind::Symlink(_)
            | Kind::HardLink(_)
            | Kind::Fifo
            | Kind::CharDevice(..)
            | Kind::BlockDevice(..) => self.path.to_vec(),
        }
    }

    /// The map that stands before the content of a sparse file (GNU's format 1.0).
    fn sparse_map(&self) -> Vec<u8> {
        let mut map = Vec::new();
        if let Kind::Sparse { segments, .. } = self.kind {
            push(&mut map, format_args!("{}\n", segments.len()));
            for one in segments {
                push(&mut map, format_args!("{}\n{}\n", one.offset, one.length));
            }
            pad(&mut map);
        }
        map
    }

    fn records(&self, out: &mut Vec<u8>, path: &[u8], path_fits: bool, stored: u64) {
        let link = self.link();
        let path_recorded = !path_fits || is_foreign_text(path);
        let link_recorded = link.len() > 100 || is_foreign_text(link);
        let is_sparse = matches!(self.kind, Kind::Sparse { .. });
        let is_text = |recorded: bool, name: &[u8]| !recorded || std::str::from_utf8(name).is_ok();
        if !is_text(path_recorded || is_sparse, path) || !is_text(link_recorded, link) {
            // Records are UTF-8 unless this says that names are bytes.
            record(out, b"hdrcharset", b"BINARY");
        }
        if path_recorded {
            record(out, b"path", path);
        }
        if link_recorded {
            record(out, b"linkpath", link);
        }
        if !fits(stored, 11) {
            record(out, b"size", stored.to_string().as_bytes());
        }
        for (key, id) in [(b"uid", self.uid), (b"gid", self.gid)] {
            if !fits(u64::from(id), 7) {
                record(out, key, id.to_string().as_bytes());
            }
        }
        let seconds = u64::try_from(self.modified.seconds);
        if self.modified.nanoseconds != 0 || !seconds.is_ok_and(|seconds| fits(seconds, 11)) {
            record(out, b"mtime", self.modified.decimal().as_bytes());
        }
        if let Kind::Sparse { size, .. } = self.kind {
            record(out, b"GNU.sparse.major", b"1");
            record(out, b"GNU.sparse.minor", b"0");
            record(out, b"GNU.sparse.name", self.path);
            record(out, b"GNU.sparse.realsize", size.to_string().as_bytes());
        }
        for (name, value) in self.attributes {
            let mut key = XATTR.to_vec();
            for byte in name {
                // GNU tar's spelling of what would end a keyword.
                match byte {
                    b'=' => key.extend_from_slice(b"%3D"),
                    b'%' => key.extend_from_slice(b"%25"),
                    byte => key.push(*byte),
                }
            }
            record(out, &key, value);
        }
    }
}

impl Time {
    /// Seconds with nine digits behind the point.
    fn decimal(self) -> String {
        let Self {
            seconds,
            nanoseconds,
        } = self;
        if seconds < 0 && nanoseconds > 0 {
            // Nanoseconds count upwards, a negative decimal downwards.
            let whole = (seconds + 1).unsigned_abs();
            return format!("-{whole}.{:09}", 1_000_000_000 - nanoseconds);
        }
        format!("{seconds}.{nanoseconds:09}")
    }
}

/// Fills up the last block with zeros.
pub(super) fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

struct Ustar<'a> {
    name: &'a [u8],
    prefix: &'a [u8],
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    seconds: i64,
    flag: u8,
    link: &'a [u8],
    device: (u32, u32),
}

impl Ustar<'_> {
    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..self.name.len()].copy_from_slice(self.name);
        octal(&mut block[100..108], u64::from(self.mode));
        octal(&mut block[108..116], self.uid);
        octal(&mut block[116..124], self.gid);
        octal(&mut block[124..136], self.size);
        octal(
            &mut block[136..148],
            u64::try_from(self.seconds).unwrap_or(0),
        );
        block[148..156].fill(b' ');
        block[156] = self.flag;
        block[157..157 + self.link.len()].copy_from_slice(self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], u64::from(self.device.0));
        octal(&mut block[337..345], u64::from(self.device.1));
        block[345..345 + self.prefix.len()].copy_from_slice(self.prefix);
        let sum = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block[148..155], sum);
        block
    }
}

/// Writes `value` into `field` as octal digits and a NUL; zero if it does not fit, which then
/// stands in a record.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let mut rest = if fits(value, digits) { value } else { 0 };
    field[digits] = 0;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 8).unwrap_or(0);
        rest /= 8;
    }
}

fn fits(value: u64, octal_digits: usize) -> bool {
    value >> (3 * octal_digits) == 0
}

/// `path` in the two fields that a ustar block has for it, prefix and name.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The slash at the end of a directory does not part.
    let slashes = (1..path.len() - 1).rev().filter(|at| path[*at] == b'/');
    let mut fitting = slashes.filter(|at| *at <= 155 && path.len() - at - 1 <= 100);
    let slash = fitting.next()?;
    Some((&path[..slash], &path[slash + 1..]))
}

/// Whether `name` is text of which a ustar block would not say what text it is.
fn is_foreign_text(name: &[u8]) -> bool {
    !name.is_ascii() && std::str::from_utf8(name).is_ok()
}

/// One record: its own length, a blank, key, `=`, value, newline.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length += 1;
    }
    push(out, format_args!("{length} "));
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes every byte");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member<'a>(path: &'a [u8], kind: Kind<'a>) -> Member<'a> {
        Member {
            path,
            kind,
            mode: 0o100_644,
            uid: 0,
            gid: 0,
            modified: Time {
                seconds: 1,
                nanoseconds: 0,
            },
            attributes: &[],
        }
    }

    fn encoded(member: &Member<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        member.encode(&mut out);
        assert_eq!(out.len() % BLOCK, 0);
        out
    }

    fn records(member: &Member<'_>) -> String {
        let out = encoded(member);
        if out[156] != b'x' {
            return String::new();
        }
        let end = out.len() - BLOCK;
        let text = String::from_utf8_lossy(&out[BLOCK..end]).into_owned();
        text.trim_end_matches('\0').to_owned()
    }

    #[test]
    fn an_ordinary_member_is_one_block() {
        let long = [b"d".repeat(155), b"f".repeat(100)].join(&b'/');
        for path in [&b"a"[..], &long, b"not \xff text"] {
            assert_eq!(encoded(&member(path, Kind::File(7))).len(), BLOCK);
        }
        let directory = [&long[..254], b""].concat();
        assert_eq!(encoded(&member(&directory, Kind::Directory)).len(), BLOCK);
    }

    #[test]
    fn what_does_not_fit_stands_in_records() {
        let link = "é".as_bytes();
        assert_eq!(
            records(&member(b"a", Kind::Symlink(link))),
            "15 linkpath=é\n"
        );
        let long = vec![0xff; 101];
        assert!(
            records(&member(&long, Kind::Directory)).starts_with("21 hdrcharset=BINARY\n112 path=")
        );
        let big = member(b"a", Kind::File(1 << 33));
        assert_eq!(records(&big), "19 size=8589934592\n");
        let owned = Member {
            uid: 2_097_152,
            ..member(b"a", Kind::Fifo)
        };
        assert_eq!(records(&owned), "15 uid=2097152\n");
        let attributes = [(b"user.a=%".to_vec(), b"\n=".to_vec())];
        let attributed = Member {
            attributes: &attributes,
            ..member(b"a", Kind::Directory)
        };
        assert_eq!(records(&attributed), "32 SCHILY.xattr.user.a%3D%25=\n=\n");
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in (0..2000).chain([9_990, 99_990]) {
            let mut out = Vec::new();
            record(&mut out, b"k", &vec![b'v'; length]);
            let told = out.split(|byte| *byte == b' ').next().unwrap();
            let told: usize = std::str::from_utf8(told).unwrap().parse().unwrap();
            assert_eq!(told, out.len());
        }
    }

    #[test]
    fn times_before_the_epoch_count_downwards() {
        for (seconds, nanoseconds, text) in [
            (5, 7, "5.000000007"),
            (-1, 0, "-1.000000000"),
            (-1, 500_000_000, "-0.500000000"),
            (-2, 1, "-1.999999999"),
        ] {
            let time = Time {
                seconds,
                nanoseconds,
            };
            assert_eq!(time.decimal(), text);
        }
    }
}
