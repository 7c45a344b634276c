//! Makes archives, sound ones and every other kind: each byte is the caller's to choose.

/// Time of every member that names no other.
pub const MODIFIED: u64 = 1_000_000_000;

const BLOCK: usize = 512;

/// An archive in the making.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Forge {
    bytes: Vec<u8>,
}

impl Forge {
    /// An archive without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a file.
    pub fn file(self, path: &str, content: &str) -> Self {
        self.entry(Entry::new(b'0', path).content(content))
    }

    /// Appends a directory.
    pub fn directory(self, path: &str) -> Self {
        self.entry(Entry::new(b'5', path))
    }

    /// Appends a symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(Entry::new(b'2', path).link(target))
    }

    /// Appends a hard link.
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(Entry::new(b'1', path).link(target))
    }

    /// Appends a member exactly as it is.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "an entry is made where it is appended"
    )]
    pub fn entry(mut self, entry: Entry) -> Self {
        self.bytes.extend_from_slice(&entry.sealed());
        self.padded(&entry.content)
    }

    /// Appends an extended header for the next member.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.entry(Entry::new(b'x', "PaxHeader").content(pax(records)))
    }

    /// Appends GNU's extension for a long name (`L`) or link (`K`).
    pub fn long(self, kind: u8, text: &[u8]) -> Self {
        let text = [text, b"\0"].concat();
        self.entry(Entry::new(kind, "././@LongLink").content(text))
    }

    /// Appends bytes as they are, padded to whole blocks.
    pub fn padded(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// The archive with its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    /// The archive without one.
    pub fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

/// The records of an extended header.
pub fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        bytes.extend_from_slice(format!("{length} {key}=").as_bytes());
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
    }
    bytes
}

/// One member: a header whose every field can be set, and content.
#[derive(Clone, Debug)]
#[must_use]
pub struct Entry {
    block: [u8; BLOCK],
    content: Vec<u8>,
    checksum: bool,
}

impl Entry {
    /// A member of this kind; it belongs to this process.
    pub fn new(kind: u8, path: impl AsRef<[u8]>) -> Self {
        let path = path.as_ref();
        let mut block = [0; BLOCK];
        block[..path.len()].copy_from_slice(path);
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar  \0");
        let entry = Self {
            block,
            content: Vec::new(),
            checksum: true,
        };
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        entry
            .mode(mode)
            .uid(rustix::process::geteuid().as_raw().into())
            .gid(rustix::process::getegid().as_raw().into())
            .modified(MODIFIED)
            .size(0)
    }

    /// Its content, and the size to it.
    pub fn content(mut self, content: impl AsRef<[u8]>) -> Self {
        self.content = content.as_ref().to_vec();
        let size = self.content.len() as u64;
        self.size(size)
    }

    /// The text of a link.
    pub fn link(self, target: impl AsRef<[u8]>) -> Self {
        self.field(157, target.as_ref())
    }

    /// Its permission bits.
    pub fn mode(self, mode: u64) -> Self {
        self.field(100, format!("{mode:07o}\0").as_bytes())
    }

    /// Number of its owner.
    pub fn uid(self, uid: u64) -> Self {
        self.field(108, &number(uid, 8))
    }

    /// Number of its group.
    pub fn gid(self, gid: u64) -> Self {
        self.field(116, &number(gid, 8))
    }

    /// The size that the header claims.
    pub fn size(self, size: u64) -> Self {
        self.field(124, &number(size, 12))
    }

    /// When it was changed, in seconds since 1970.
    pub fn modified(self, seconds: u64) -> Self {
        self.field(136, &number(seconds, 12))
    }

    /// The number of a device.
    pub fn device(self, major: u64, minor: u64) -> Self {
        self.field(329, &number(major, 8))
            .field(337, &number(minor, 8))
    }

    /// Any bytes anywhere in the header.
    pub fn field(mut self, at: usize, bytes: &[u8]) -> Self {
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Makes the checksum of its header wrong.
    pub fn wrong_checksum(mut self) -> Self {
        self.checksum = false;
        self
    }

    fn sealed(&self) -> [u8; BLOCK] {
        let mut block = self.block;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let sum = if self.checksum { sum } else { sum + 1 };
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

/// A number as GNU tar writes it: octal, or binary where that does not fit.
fn number(value: u64, width: usize) -> Vec<u8> {
    let digits = width - 1;
    let octal = format!("{value:0digits$o}\0");
    if octal.len() == width {
        return octal.into_bytes();
    }
    let mut bytes = vec![0; width.saturating_sub(8)];
    bytes.extend_from_slice(&value.to_be_bytes());
    let mut bytes = bytes.split_off(bytes.len() - width);
    bytes[0] |= 0x80;
    bytes
}
