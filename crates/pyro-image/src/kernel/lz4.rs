//! Decodes lz4 in its legacy framing, which is what the kernel's build uses (`lz4 -l`).
//!
//! Debian compresses its cloud kernels so (seen with 6.1), and hosts seldom have the program
//! `lz4`. This module reads and writes memory only, never more than it is allowed to.

/// What a file of this framing begins with.
pub(super) const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// A match is at least this long.
const MIN_MATCH: usize = 4;

/// The decoded content; `None` if the file is damaged or has more than `limit` bytes of content.
pub(super) fn decode(file: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut rest = file.strip_prefix(&MAGIC)?;
    let mut content = Vec::new();
    while !rest.is_empty() {
        let (size, after) = rest.split_first_chunk()?;
        let (block, after) = after.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        decode_block(block, &mut content, limit)?;
        rest = after;
    }
    Some(content)
}

/// A block is a row of literals and matches, and ends after literals.
fn decode_block(block: &[u8], content: &mut Vec<u8>, limit: usize) -> Option<()> {
    let start = content.len();
    let mut rest = block;
    loop {
        let [token] = take(&mut rest)?;
        let length = length(token >> 4, &mut rest)?;
        let (literals, after) = rest.split_at_checked(length)?;
        require_room(content, length, limit)?;
        content.extend_from_slice(literals);
        if after.is_empty() {
            return Some(());
        }
        rest = after;
        let distance = usize::from(u16::from_le_bytes(take(&mut rest)?));
        let length = self::length(token & 0xf, &mut rest)? + MIN_MATCH;
        if distance == 0 || distance > content.len() - start {
            return None;
        }
        require_room(content, length, limit)?;
        repeat(content, distance, length);
    }
}

/// A length of 15 goes on in the following bytes, up to the first that is not 255.
fn length(nibble: u8, rest: &mut &[u8]) -> Option<usize> {
    let mut length = usize::from(nibble);
    let mut more = nibble == 0xf;
    while more {
        let [byte] = take(rest)?;
        length += usize::from(byte);
        more = byte == 0xff;
    }
    Some(length)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

fn require_room(content: &[u8], length: usize, limit: usize) -> Option<()> {
    (length <= limit.saturating_sub(content.len())).then_some(())
}

/// Appends what stands `distance` bytes before the end, again and again up to `length` bytes.
fn repeat(content: &mut Vec<u8>, distance: usize, length: usize) {
    let from = content.len() - distance;
    let mut missing = length;
    while missing > 0 {
        let count = missing.min(content.len() - from);
        content.extend_from_within(from..from + count);
        missing -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(blocks: &[&[u8]]) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        for block in blocks {
            file.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
            file.extend(*block);
        }
        file
    }

    fn decoded(block: &[u8]) -> Option<String> {
        let content = decode(&file(&[block]), 1000)?;
        Some(String::from_utf8(content).unwrap())
    }

    #[test]
    fn literals_and_matches_are_decoded() {
        assert_eq!(decoded(b"\x50hello").unwrap(), "hello");
        assert_eq!(decoded(b"\x40abcd\x04\0\x10!").unwrap(), "abcdabcd!");
        // A match may overlap with what it writes.
        assert_eq!(
            decoded(b"\x23ab\x02\0\x10!").unwrap(),
            "ab".repeat(4) + "a!"
        );
        let long = decoded(b"\x1fx\x01\0\xff\x01\x10!").unwrap();
        assert_eq!(long, "x".repeat(1 + 15 + 256 + 4) + "!");
        let literals = [b"\xf0\x05".as_slice(), &[b'y'; 20]].concat();
        assert_eq!(decoded(&literals).unwrap(), "y".repeat(20));
        let two = decode(&file(&[b"\x10a", b"\x10b"]), 1000).unwrap();
        assert_eq!(two, b"ab");
        assert_eq!(decode(&MAGIC, 1000).unwrap(), b"");
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = file(&[b"\x1fx\x01\0\xff\x01\x10!"]);
        for end in (0..whole.len()).filter(|&end| end != MAGIC.len()) {
            assert_eq!(decode(&whole[..end], 1000), None, "{end}");
        }
        let length = decode(&whole, 1000).unwrap().len();
        assert!(decode(&whole, length).is_some());
        assert_eq!(decode(&whole, length - 1), None);
    }

    #[test]
    fn a_match_stays_inside_its_block() {
        assert_eq!(decoded(b"\x10a\x02\0\x10!"), None);
        assert_eq!(decoded(b"\x10a\0\0\x10!"), None);
        assert_eq!(
            decode(&file(&[b"\x40abcd", b"\x00\x04\0\x10!"]), 1000),
            None
        );
    }
}
