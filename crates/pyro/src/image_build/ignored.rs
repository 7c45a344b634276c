//! What of a directory certainly need not be sent, by its ignore file.
//!
//! The builder applies the whole of the ignore file itself. This only spares the way of what it
//! would leave out in any case, so a pattern that is not understood here, or an exception
//! anywhere (`!…`), makes more be sent, never less.

/// Most patterns that are looked at.
const MAX_PATTERNS: usize = 1000;

/// Patterns, each as the parts between its slashes.
#[derive(Debug, Default)]
pub(super) struct Ignored {
    patterns: Vec<Vec<Vec<u8>>>,
}

impl Ignored {
    /// The patterns of an ignore file.
    pub(super) fn parse(text: &[u8]) -> Self {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let lines = || text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        if lines().any(|line| line.starts_with(b"!")) {
            return Self::default();
        }
        Self {
            patterns: lines().filter_map(pattern).take(MAX_PATTERNS).collect(),
        }
    }

    /// Whether a path is left out. What lies below it is too.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        self.patterns
            .iter()
            .any(|pattern| matches_all(pattern, &parts))
    }
}

/// The parts of one line; `None` for a comment and for what is not understood.
fn pattern(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let is_known = |byte: &u8| !matches!(byte, b'\\' | b'[' | b']');
    if line.is_empty() || line.starts_with(b"#") || !line.iter().all(is_known) {
        return None;
    }
    let parts = line.split(|byte| *byte == b'/');
    let parts: Vec<Vec<u8>> = parts
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
        .collect();
    // Two asterisks mean something as a part of their own, and there at most twice here, so that
    // looking for a match takes no long time.
    let wide = parts.iter().filter(|part| *part == b"**").count();
    let is_clear = |part: &Vec<u8>| part != b".." && (part == b"**" || !has_pair(part));
    (!parts.is_empty() && wide <= 2 && parts.iter().all(is_clear)).then_some(parts)
}

fn has_pair(part: &[u8]) -> bool {
    part.windows(2).any(|pair| pair == b"**")
}

fn matches_all(pattern: &[Vec<u8>], parts: &[&[u8]]) -> bool {
    match pattern.split_first() {
        None => parts.is_empty(),
        // At its end it stands for at least one part.
        Some((first, [])) if first == b"**" => !parts.is_empty(),
        Some((first, rest)) if first == b"**" => {
            (0..=parts.len()).any(|skipped| matches_all(rest, &parts[skipped..]))
        }
        Some((first, rest)) => match parts.split_first() {
            Some((part, parts)) => matches_part(first, part) && matches_all(rest, parts),
            None => false,
        },
    }
}

/// `*` and `?` within one part.
fn matches_part(pattern: &[u8], part: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where the last asterisk stands, and how far what it took reaches.
    let mut star: Option<(usize, usize)> = None;
    while from < part.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' && part[from].is_ascii() || *byte == part[from] => {
                at += 1;
                from += 1;
            }
            _ => match &mut star {
                Some((place, taken)) => {
                    *taken += 1;
                    (at, from) = (*place + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood_is_left_out() {
        let ignored = Ignored::parse(
            b"\xef\xbb\xbf# comment\n /target/ \nnode_modules\n**/*.log\r\n./a/b?\n*.tmp\nx/**\ndeep/**/end\n",
        );
        let matched = |path: &str| ignored.matches(path.as_bytes());
        for path in [
            "target",
            "node_modules",
            "a.log",
            "b/c/d.log",
            "a/b1",
            ".tmp",
            "y.tmp",
            "x/y",
            "deep/end",
            "deep/a/b/end",
        ] {
            assert!(matched(path), "{path}");
        }
        for path in [
            "sub/target",
            "targets",
            "a/b",
            "a/b12",
            "sub/y.tmp",
            "x",
            "log",
            "# comment",
        ] {
            assert!(!matched(path), "{path}");
        }
    }

    #[test]
    fn what_is_not_understood_is_sent() {
        assert!(!Ignored::parse(b"target\n!target/keep\n").matches(b"target"));
        for line in [
            "[t]arget",
            "\\target",
            "../target",
            "t**",
            "**/a/**/b/**/target",
        ] {
            assert!(
                !Ignored::parse(line.as_bytes()).matches(b"target"),
                "{line}"
            );
        }
        assert!(!Ignored::parse(b"\n.\n/\n").matches(b"target"));
    }
}
