//! The records of an extended header: `length key=value` and a newline, the length counting
//! all of it. A value may hold newlines; only the length tells where it ends.

use rustix::fs::Timespec;

use super::{ReadError, number};
use crate::bounds::{
    MAX_PATH, MAX_SEGMENTS, MAX_SIZE, MAX_XATTR_NAME, MAX_XATTR_VALUE, MAX_XATTRS,
};
use crate::tar::Segment;

/// Records with extended attributes begin so.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What the extended header of one member says in the place of its header's fields.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) facts: Facts,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

/// What a header for all members that follow may say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) modified: Option<Timespec>,
}

/// What GNU tar says about a sparse file, in any of its three forms.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    /// Of form 1.0 when both are told.
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// The map of the forms 0.0 and 0.1.
    pub(super) map: Option<Vec<Segment>>,
    /// The offset of a segment of form 0.0 whose length has not come yet.
    begun: Option<u64>,
}

impl Sparse {
    /// Whether anything was said.
    pub(super) fn is_told(&self) -> bool {
        self.major.is_some() || self.minor.is_some() || self.size.is_some() || self.map.is_some()
    }

    fn push(&mut self, segment: Segment) -> Result<(), ReadError> {
        let map = self.map.get_or_insert_default();
        if map.len() >= MAX_SEGMENTS {
            return Err(ReadError::too_large("a sparse map", MAX_SEGMENTS as u64));
        }
        map.push(segment);
        Ok(())
    }
}

impl Pax {
    /// Reads the records of the extended header that ends before `offset`.
    pub(super) fn parse(mut records: &[u8], offset: u64) -> Result<Self, ReadError> {
        let mut pax = Self::default();
        while !records.is_empty() {
            let (key, value, rest) = record(records)
                .ok_or_else(|| ReadError::damaged(offset, "a record is malformed"))?;
            pax.take(key, value, offset)?;
            records = rest;
        }
        if pax.sparse.begun.is_some() {
            return Err(ReadError::damaged(offset, "a sparse map is malformed"));
        }
        Ok(pax)
    }

    /// The facts of a header that holds for all members. One that would rename or resize
    /// them all is refused: readers differ about what it means.
    pub(super) fn global(self, offset: u64) -> Result<Facts, ReadError> {
        if self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.sparse.is_told()
            || self.sparse.name.is_some()
        {
            return Err(ReadError::damaged(
                offset,
                "a header for all members names or sizes them",
            ));
        }
        Ok(self.facts)
    }

    fn take(&mut self, key: &[u8], value: &[u8], offset: u64) -> Result<(), ReadError> {
        let malformed = || ReadError::damaged(offset, "the value of a record is malformed");
        if let Some(name) = key.strip_prefix(XATTR) {
            return self.take_xattr(name, value, offset);
        }
        // An empty value takes back what was said before.
        let given = !value.is_empty();
        match key {
            b"path" => self.path = given.then(|| value.to_vec()),
            b"linkpath" => self.link = given.then(|| value.to_vec()),
            b"size" => self.size = decimal_or_none(value).ok_or_else(malformed)?,
            b"uid" => self.facts.uid = id(value).ok_or_else(malformed)?,
            b"gid" => self.facts.gid = id(value).ok_or_else(malformed)?,
            b"mtime" => {
                self.facts.modified = if given {
                    Some(time(value).ok_or_else(malformed)?)
                } else {
                    None
                };
            }
            b"GNU.sparse.major" => {
                self.sparse.major = Some(number::decimal(value).ok_or_else(malformed)?);
            }
            b"GNU.sparse.minor" => {
                self.sparse.minor = Some(number::decimal(value).ok_or_else(malformed)?);
            }
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse.size = Some(number::decimal(value).ok_or_else(malformed)?);
            }
            b"GNU.sparse.offset" => {
                let begun = number::decimal(value).ok_or_else(malformed)?;
                if self.sparse.begun.replace(begun).is_some() {
                    return Err(malformed());
                }
            }
            b"GNU.sparse.numbytes" => {
                let begun = self.sparse.begun.take().ok_or_else(malformed)?;
                let length = number::decimal(value).ok_or_else(malformed)?;
                let segment = Segment {
                    offset: begun,
                    length,
                };
                self.sparse.push(segment)?;
            }
            b"GNU.sparse.map" => {
                let mut numbers = value.split(|byte| *byte == b',').map(number::decimal);
                while let Some(begun) = numbers.next() {
                    let segment = Segment {
                        offset: begun.ok_or_else(malformed)?,
                        length: numbers.next().flatten().ok_or_else(malformed)?,
                    };
                    self.sparse.push(segment)?;
                }
            }
            // Remarks, other people's forms, and what a header tells well enough.
            _ => {}
        }
        for path in [&self.path, &self.link, &self.sparse.name]
            .into_iter()
            .flatten()
        {
            if path.len() > MAX_PATH {
                return Err(ReadError::too_large("a name", MAX_PATH as u64));
            }
        }
        Ok(())
    }

    fn take_xattr(&mut self, name: &[u8], value: &[u8], offset: u64) -> Result<(), ReadError> {
        if name.is_empty() || name.contains(&0) {
            return Err(ReadError::damaged(offset, "an attribute has no sound name"));
        }
        if name.len() > MAX_XATTR_NAME {
            return Err(ReadError::too_large(
                "the name of an attribute",
                MAX_XATTR_NAME as u64,
            ));
        }
        if value.len() > MAX_XATTR_VALUE {
            return Err(ReadError::too_large("an attribute", MAX_XATTR_VALUE as u64));
        }
        if self.xattrs.len() >= MAX_XATTRS {
            return Err(ReadError::too_large(
                "the list of attributes",
                MAX_XATTRS as u64,
            ));
        }
        self.xattrs.push((attribute_name(name), value.to_vec()));
        Ok(())
    }
}

/// The name of an attribute out of its record's key, in which `=` and `%` stand as GNU tar
/// writes them: the key ends at the first `=`.
fn attribute_name(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match rest {
            [b'%', b'3', b'D', ..] => (b'=', &rest[3..]),
            [b'%', b'2', b'5', ..] => (b'%', &rest[3..]),
            _ => (*first, after),
        };
        name.push(byte);
        rest = after;
    }
    name
}

/// Key and value of the first record, and what follows it.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // No length has more digits.
    let head = &records[..records.len().min(20)];
    let blank = head.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(number::decimal(&records[..blank])?).ok()?;
    let record = records.get(blank + 1..length)?;
    let (last, record) = record.split_last()?;
    if *last != b'\n' {
        return None;
    }
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    (!key.is_empty()).then_some((key, value, &records[length..]))
}

/// The outer `None`: no number.
#[expect(
    clippy::option_option,
    reason = "a record may be malformed, and one that is not may take a value back"
)]
fn decimal_or_none(value: &[u8]) -> Option<Option<u64>> {
    if value.is_empty() {
        return Some(None);
    }
    number::decimal(value)
        .filter(|size| *size <= MAX_SIZE)
        .map(Some)
}

#[expect(clippy::option_option, reason = "as above")]
fn id(value: &[u8]) -> Option<Option<u32>> {
    match decimal_or_none(value)? {
        None => Some(None),
        Some(id) => u32::try_from(id).ok().map(Some),
    }
}

/// Seconds since the epoch with as many digits behind the point as the archiver liked.
fn time(value: &[u8]) -> Option<Timespec> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(value) => (true, value),
        None => (false, value),
    };
    let mut pieces = value.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(number::decimal(pieces.next()?)?).ok()?;
    let mut nanoseconds = 0_i64;
    let mut rest = false;
    if let Some(fraction) = pieces.next() {
        for (at, digit) in fraction.iter().enumerate() {
            let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
            if at < 9 {
                nanoseconds = nanoseconds * 10 + digit;
            } else {
                rest |= digit != 0;
            }
        }
        for _ in fraction.len()..9 {
            nanoseconds *= 10;
        }
    }
    if !negative {
        return Some(Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        });
    }
    // A time is a second and nanoseconds after it, before the epoch too.
    nanoseconds += i64::from(rest);
    Some(if nanoseconds == 0 {
        Timespec {
            tv_sec: -seconds,
            tv_nsec: 0,
        }
    } else {
        Timespec {
            tv_sec: -seconds - 1,
            tv_nsec: 1_000_000_000 - nanoseconds,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_alone_ends_a_record() {
        let records = b"21 path=a\n13 path=b\n\n8 uid=7\n";
        let pax = Pax::parse(records, 0).unwrap();
        assert_eq!(pax.path.unwrap(), b"a\n13 path=b\n");
        assert_eq!(pax.facts.uid, Some(7));
    }

    #[test]
    fn malformed_records_are_refused() {
        for records in [
            &b"5 a=b"[..],
            b"7 a=b\n",
            b"999 a=b\n",
            b"0 a=b\n",
            b"2 a=b\n",
            b" a=b\n",
            b"-6 a=b\n",
            b"99999999999999999999999 a=b\n",
            b"6 =bb\n",
            b"6 abc\n",
            b"9 uid=-7\n",
            b"11 size=1x\n",
            b"28 size=9223372036854775808\n",
            b"18 uid=4294967296\n",
            b"11 mtime=x\n",
            b"13 mtime=1.x\n",
            b"22 GNU.sparse.map=1\n",
            b"24 GNU.sparse.offset=1\n",
            b"26 GNU.sparse.numbytes=1\n",
            b"6 a=b\n\0\0",
        ] {
            assert!(Pax::parse(records, 0).is_err(), "{records:?}");
        }
    }

    #[test]
    fn times_have_nanoseconds() {
        for (text, seconds, nanoseconds) in [
            ("1", 1, 0),
            ("1.5", 1, 500_000_000),
            ("1.0000000019", 1, 1),
            ("-1", -1, 0),
            ("-1.25", -2, 750_000_000),
            ("-0.000000001", -1, 999_999_999),
            ("-1.9999999999", -2, 0),
        ] {
            let time = time(text.as_bytes()).unwrap();
            assert_eq!(
                (time.tv_sec, time.tv_nsec),
                (seconds, nanoseconds),
                "{text}"
            );
        }
    }

    #[test]
    fn what_holds_for_all_members_names_none() {
        let global = |records: &[u8]| Pax::parse(records, 0).unwrap().global(0);
        let facts = global(b"11 mtime=7\n13 comment=x\n").unwrap();
        assert_eq!(facts.modified.unwrap().tv_sec, 7);
        for records in [
            &b"10 path=a\n"[..],
            b"10 size=1\n",
            b"21 GNU.sparse.size=1\n",
        ] {
            assert!(global(records).is_err(), "{records:?}");
        }
    }
}
