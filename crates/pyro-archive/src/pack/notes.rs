//! What is told about a packed tree.

/// Paths that are listed of each sort; more are counted.
pub const MAX_LISTED: usize = 100;

/// Bytes of listed paths of each sort; what comes after is counted.
pub const MAX_LISTED_BYTES: usize = 16 * 1024;

/// What an archive holds, and what it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Members.
    pub entries: u64,
    /// Bytes of its files, holes included; a file with several names counts once.
    pub bytes: u64,
    /// Not packed because of what they are: sockets, and devices, pipes and mounted file
    /// systems unless asked for.
    pub skipped: Listed,
    /// Changed while they were read: cut or filled with zeros to the size that they had.
    pub changed: Listed,
    /// Gone, or replaced by something else, between the look at their directory and at them.
    pub vanished: Listed,
    /// Could not be read: missing, or filled with zeros, or without their attributes.
    pub unreadable: Listed,
}

/// A bounded list of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub paths: Vec<Vec<u8>>,
    bytes: usize,
}

impl Listed {
    /// Counts a path, and lists it if there is room.
    pub fn add(&mut self, path: &[u8]) {
        self.count += 1;
        let bytes = self.bytes + path.len();
        if self.paths.len() < MAX_LISTED && bytes <= MAX_LISTED_BYTES {
            self.bytes = bytes;
            self.paths.push(path.to_vec());
        }
    }
}
