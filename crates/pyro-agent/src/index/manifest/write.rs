//! Writing a manifest, record by record.

use std::io::Write;

use pyro_protocol::code::ErrorCode;
use pyro_protocol::files::ArtifactType;
use pyro_protocol::index::TreeDigest;
use pyro_protocol::limits::{MAX_TREE_PATH, MAX_WALK_ENTRIES};
use sha2::{Digest, Sha256};

use super::{BLOCK, Head, MAGIC, MAX_BLOCK, Prefix, Record, Totals, VERSION};
use crate::files::fault::{Outcome, fault, io_at};

/// A manifest that is being written.
pub(crate) struct Writer<W> {
    file: W,
    block: Vec<u8>,
    records: u32,
    number: u32,
    totals: Totals,
    generation: Sha256,
}

impl<W: Write> Writer<W> {
    /// Begins `file` with `head`.
    pub(crate) fn new(mut file: W, head: &Head) -> Outcome<Self> {
        let head = serde_json::to_vec(head).expect("a head has no maps and no floats");
        let mut start = Vec::with_capacity(BLOCK);
        start.extend_from_slice(MAGIC);
        start.extend_from_slice(&Prefix::of(VERSION, 0, &head).encode());
        start.extend_from_slice(&head);
        file.write_all(&start).map_err(failed)?;
        Ok(Self {
            file,
            block: Vec::with_capacity(MAX_BLOCK),
            records: 0,
            number: 0,
            totals: Totals {
                entries: 0,
                files: 0,
                bytes: 0,
                generation: TreeDigest([0; 32]),
            },
            generation: Sha256::new(),
        })
    }

    /// Adds a record; they come in the order of their paths.
    pub(crate) fn put(&mut self, record: &Record) -> Outcome<()> {
        let limit = |text: &str| fault(ErrorCode::LimitExceeded, &record.path, text);
        if record.path.len() > MAX_TREE_PATH {
            return Err(limit(&format!("is longer than {MAX_TREE_PATH} bytes")));
        }
        if self.totals.entries == MAX_WALK_ENTRIES {
            return Err(limit(&format!("comes after {MAX_WALK_ENTRIES} entries")));
        }
        self.totals.entries += 1;
        if record.kind == ArtifactType::File {
            self.totals.files += 1;
            self.totals.bytes = self.totals.bytes.saturating_add(record.size);
        }
        record.add_to(&mut self.generation);
        record.encode(&mut self.block);
        self.records += 1;
        if self.block.len() >= BLOCK {
            self.write_block()?;
        }
        Ok(())
    }

    /// Writes what is left and the totals, out of every buffer: one that is dropped tells of no full disk.
    pub(crate) fn finish(mut self) -> Outcome<Totals> {
        if self.records > 0 {
            self.write_block()?;
        }
        self.totals.generation = TreeDigest(self.generation.finalize_reset().into());
        self.block.extend_from_slice(&self.totals.encode());
        self.write_block()?;
        self.file.flush().map_err(failed)?;
        Ok(self.totals)
    }

    fn write_block(&mut self) -> Outcome<()> {
        let prefix = Prefix::of(self.number, self.records, &self.block);
        self.file.write_all(&prefix.encode()).map_err(failed)?;
        self.file.write_all(&self.block).map_err(failed)?;
        self.block.clear();
        self.records = 0;
        self.number += 1;
        Ok(())
    }
}

fn failed(error: std::io::Error) -> pyro_protocol::code::ErrorReply {
    io_at(b"the index of the tree")(error)
}
