//! Patterns for paths, as shells and git have them, on bytes.
//!
//! `*` stands for any run inside one part of a path, `?` for one byte of it, `[a-z]`, `[!a]`
//! and `[[:digit:]]` for one byte of a set, `\` takes the meaning from what follows. A part
//! `**` stands for any number of parts, at the end for one at least. Nothing is compiled: a
//! pattern is its own program, so its text is all the memory that it takes. Matching takes
//! at most the product of the two lengths.
//!
//! Why not a crate: `docs/design/glob-matcher.md`.

use pyro_protocol::limits::MAX_ALTERNATIVES;

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadPattern {
    #[error("a `[` is not closed")]
    OpenClass,
    #[error("a range in `[…]` runs backwards")]
    BackwardRange,
    #[error("a `{{` is not closed")]
    OpenAlternatives,
    #[error("a `}}` closes nothing")]
    ClosedTwice,
    #[error("it ends in a `\\`")]
    DanglingEscape,
    #[error("its alternatives are more than {MAX_ALTERNATIVES} patterns")]
    TooManyAlternatives,
}

/// Several patterns, one of which has to match. In them `{a,b}` stands for either; an
/// alternative may be empty.
#[derive(Clone, Debug)]
pub(crate) struct Patterns(Vec<Vec<u8>>);

impl Patterns {
    pub(super) fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, BadPattern> {
        let mut patterns = Vec::new();
        for text in texts {
            let mut waiting = vec![text.as_ref().as_bytes().to_vec()];
            while let Some(pattern) = waiting.pop() {
                if waiting.len() + patterns.len() >= MAX_ALTERNATIVES {
                    return Err(BadPattern::TooManyAlternatives);
                }
                match alternatives(&pattern)? {
                    Some(group) => waiting.extend(group),
                    None => patterns.push(pattern),
                }
            }
        }
        Ok(Self(patterns))
    }

    /// Whether `path`, which neither begins nor ends with `/`, matches one of them.
    pub(crate) fn is_match(&self, path: &[u8]) -> bool {
        self.0.iter().any(|pattern| matches(pattern, path))
    }
}

/// Whether `pattern`, which is sound, matches all of `path`.
pub(super) fn matches(pattern: &[u8], path: &[u8]) -> bool {
    if ends_differently(pattern, path) {
        return false;
    }
    let (mut patterns, mut parts) = (Some(pattern), Some(path));
    // Behind the last `**`, and the parts that it does not stand for so far.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (patterns, parts) {
            (None, None) => return true,
            (Some(rest), Some(left)) => {
                let (first, behind) = split_pattern(rest);
                let (part, after) = split(left);
                if first == b"**" {
                    let Some(behind) = behind else { return true };
                    retry = Some((behind, left));
                    patterns = Some(behind);
                    continue;
                }
                if matches_part(first, part) {
                    (patterns, parts) = (behind, after);
                    continue;
                }
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        // The last `**` takes one part more. Earlier ones need not: it could take theirs.
        let Some((behind, left)) = retry else {
            return false;
        };
        let (_, after) = split(left);
        let Some(after) = after else { return false };
        retry = Some((behind, after));
        (patterns, parts) = (Some(behind), Some(after));
    }
}

/// Whether `pattern` matches all of `part`, which has no `/`.
pub(super) fn matches_part(pattern: &[u8], part: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Behind the last `*`, and how far what it stands for goes so far.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(at), part.get(seen)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                at += 1;
                retry = Some((at, seen));
                continue;
            }
            (Some(_), Some(byte)) => {
                let (length, fits) = one(&pattern[at..], *byte);
                if fits {
                    at += length;
                    seen += 1;
                    continue;
                }
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        match retry {
            Some((behind, end)) if end < part.len() => {
                retry = Some((behind, end + 1));
                (at, seen) = (behind, end + 1);
            }
            Some(_) | None => return false,
        }
    }
}

/// Whether every `[` is closed and something follows every `\`. A pattern that is not sound
/// matches nothing in git.
pub(super) fn is_sound(pattern: &[u8]) -> bool {
    let mut rest = pattern;
    while !rest.is_empty() {
        match skip(rest) {
            Ok(length) => rest = &rest[length..],
            Err(_) => return false,
        }
    }
    true
}

/// A quick look that tells most patterns and paths apart.
fn ends_differently(pattern: &[u8], path: &[u8]) -> bool {
    match (pattern.last(), path.last()) {
        // The end of something that stands for other bytes.
        (Some(b'*' | b'?' | b']'), _) => false,
        (pattern, path) => pattern != path,
    }
}

/// The first part of a path and what follows its `/`.
fn split(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
        None => (path, None),
    }
}

/// The same of a pattern, where a `/` in `[…]` or behind a `\` parts nothing.
fn split_pattern(pattern: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut at = 0;
    while let Some(byte) = pattern.get(at) {
        if *byte == b'/' {
            return (&pattern[..at], Some(&pattern[at + 1..]));
        }
        at += skip(&pattern[at..]).unwrap_or(1);
    }
    (pattern, None)
}

/// How long the first element of `pattern` is.
fn skip(pattern: &[u8]) -> Result<usize, BadPattern> {
    match pattern {
        [b'\\'] => Err(BadPattern::DanglingEscape),
        [b'\\', ..] => Ok(2),
        [b'[', ..] => Ok(Class::at(pattern)?.length),
        _ => Ok(1),
    }
}

/// Length of the first element of `pattern`, which is no `*`, and whether it stands for
/// `byte`.
fn one(pattern: &[u8], byte: u8) -> (usize, bool) {
    match pattern {
        [b'?', ..] => (1, true),
        [b'\\', escaped, ..] => (2, *escaped == byte),
        [b'[', ..] => match Class::at(pattern) {
            Ok(class) => (class.length, class.has(byte)),
            Err(_) => (1, false),
        },
        [literal, ..] => (1, *literal == byte),
        [] => (0, false),
    }
}

/// A set of bytes, `[…]`.
struct Class<'a> {
    /// With its brackets.
    length: usize,
    is_negated: bool,
    members: &'a [u8],
}

/// One member of a set.
enum Member<'a> {
    Range(u8, u8),
    Named(&'a [u8]),
}

impl<'a> Class<'a> {
    /// The set that `pattern` begins with.
    fn at(pattern: &'a [u8]) -> Result<Self, BadPattern> {
        let is_negated = matches!(pattern.get(1), Some(b'!' | b'^'));
        let begin = 1 + usize::from(is_negated);
        let mut at = begin;
        loop {
            match pattern.get(at) {
                None => return Err(BadPattern::OpenClass),
                // The first one is a member.
                Some(b']') if at > begin => break,
                Some(_) => at += member(&pattern[at..]).ok_or(BadPattern::OpenClass)?.0,
            }
        }
        Ok(Self {
            length: at + 1,
            is_negated,
            members: &pattern[begin..at],
        })
    }

    fn members(&self) -> impl Iterator<Item = Member<'a>> {
        let mut rest = self.members;
        std::iter::from_fn(move || {
            let (length, found) = member(rest)?;
            rest = &rest[length..];
            Some(found)
        })
    }

    fn has(&self, byte: u8) -> bool {
        let is_member = self.members().any(|member| match member {
            // Of a range that runs backwards, which only git takes, it is the first.
            Member::Range(first, last) => byte == first || (first..=last).contains(&byte),
            Member::Named(name) => is_of(name, byte),
        });
        is_member != self.is_negated
    }
}

/// The member that `members` begins with, and its length. `None` at the end and where no
/// set goes on like that.
fn member(members: &[u8]) -> Option<(usize, Member<'_>)> {
    if let [b'[', b':', rest @ ..] = members {
        let end = rest.iter().position(|byte| *byte == b']')?;
        // `[:` without `:]` is two members.
        if let Some(name) = rest[..end].strip_suffix(b":") {
            return is_name(name).then_some((end + 3, Member::Named(name)));
        }
    }
    let (length, first) = plain(members)?;
    match &members[length..] {
        [b'-', last @ ..] if !matches!(last, [] | [b']', ..]) => {
            let (more, last) = plain(last)?;
            Some((length + 1 + more, Member::Range(first, last)))
        }
        _ => Some((length, Member::Range(first, first))),
    }
}

fn plain(members: &[u8]) -> Option<(usize, u8)> {
    match members {
        [] | [b'\\'] => None,
        [b'\\', escaped, ..] => Some((2, *escaped)),
        [byte, ..] => Some((1, *byte)),
    }
}

fn is_name(name: &[u8]) -> bool {
    matches!(
        name,
        b"alnum"
            | b"alpha"
            | b"blank"
            | b"cntrl"
            | b"digit"
            | b"graph"
            | b"lower"
            | b"print"
            | b"punct"
            | b"space"
            | b"upper"
            | b"xdigit"
    )
}

fn is_of(name: &[u8], byte: u8) -> bool {
    match name {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

/// What the first `{…}` of `pattern` makes of it, the last alternative first; `None` if it has
/// none and is sound.
fn alternatives(pattern: &[u8]) -> Result<Option<Vec<Vec<u8>>>, BadPattern> {
    let mut at = 0;
    let mut depth = 0_usize;
    // Where the group begins, and the ends of its alternatives.
    let (mut open, mut ends) = (0, Vec::new());
    while let Some(byte) = pattern.get(at) {
        match byte {
            b'{' => {
                if depth == 0 {
                    open = at;
                }
                depth += 1;
            }
            b',' if depth == 1 => ends.push(at),
            b'}' => {
                depth = depth.checked_sub(1).ok_or(BadPattern::ClosedTwice)?;
                if depth == 0 {
                    ends.push(at);
                    break;
                }
            }
            b'[' => {
                let class = Class::at(&pattern[at..])?;
                let runs_back = class
                    .members()
                    .any(|member| matches!(member, Member::Range(first, last) if first > last));
                if runs_back {
                    return Err(BadPattern::BackwardRange);
                }
            }
            _ => {}
        }
        at += skip(&pattern[at..])?;
    }
    if depth > 0 {
        return Err(BadPattern::OpenAlternatives);
    }
    let Some(close) = ends.last() else {
        return Ok(None);
    };
    let begins = std::iter::once(&open).chain(&ends);
    let group = begins.zip(&ends).map(|(begin, end)| {
        [
            &pattern[..open],
            &pattern[begin + 1..*end],
            &pattern[close + 1..],
        ]
        .concat()
    });
    let mut group: Vec<_> = group.collect();
    group.reverse();
    Ok(Some(group))
}

#[cfg(test)]
pub(super) mod tests;
