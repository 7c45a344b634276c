//! A Rust file as the checks see it: code, comments and tests told apart, offsets unchanged.
//!
//! A lexer of literals and comments, not a parser: it is exact about what is code and what is prose, and finds test code
//! by `#[cfg(test)]` and by path.

use std::ops::Range;

use super::Violation;

/// One Rust file of the repository.
pub(crate) struct Source<'a> {
    /// Relative to the repository's root, with `/`.
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
    /// The text with comments and the content of literals blanked.
    pub(crate) code: String,
    /// The text with everything but comments blanked.
    pub(crate) comments: String,
    tests: Vec<Range<usize>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(path: &'a str, text: &'a str) -> Self {
        let (code, comments) = separated(text);
        let tests = if is_test_path(path) || code.contains("#![cfg(test)]") {
            std::iter::once(0..code.len()).collect()
        } else {
            test_items(&code)
        };
        Self {
            path,
            text,
            code,
            comments,
            tests,
        }
    }

    /// The crate that the file belongs to: `pyro-vm`, or `xtask`.
    pub(crate) fn crate_name(&self) -> &'a str {
        let mut parts = self.path.split('/');
        match (parts.next(), parts.next()) {
            (Some("crates"), Some(name)) => name,
            (Some(top), _) => top,
            (None, _) => "",
        }
    }

    /// Whether the offset lies in code that only tests run.
    pub(crate) fn is_test(&self, offset: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&offset))
    }

    /// What was found outside test code, in the order of the text.
    pub(crate) fn outside_tests<'n>(
        &self,
        mut found: Vec<(usize, &'n str)>,
    ) -> impl Iterator<Item = (usize, &'n str)> + use<'n> {
        found.retain(|(at, _)| !self.is_test(*at));
        found.sort_unstable();
        found.into_iter()
    }

    pub(crate) fn is_build_script(&self) -> bool {
        self.path.ends_with("/build.rs")
    }

    /// Whether the file is a module of a crate of the product, rather than of its tests and tools.
    pub(crate) fn is_product(&self) -> bool {
        self.path.starts_with("crates/") && !is_test_path(self.path) && !self.is_build_script()
    }

    pub(crate) fn violation(&self, offset: usize, message: impl Into<String>) -> Violation {
        Violation::at(self.path, self.text, offset, message)
    }

    /// Offsets of `name` as a whole word of the code.
    pub(crate) fn words(&self, name: &str) -> Vec<usize> {
        words(&self.code, name)
    }

    /// Offsets of whole words in the code with the bytes that follow, blanks skipped: `calls("exit", "(")`.
    pub(crate) fn calls(&self, name: &str, opening: &str) -> Vec<usize> {
        let mut found = self.words(name);
        found.retain(|offset| {
            self.code[offset + name.len()..]
                .trim_start()
                .starts_with(opening)
        });
        found
    }

    /// Where the code names one of `names` inside `module`, either as a path (`env::var`) or in a group
    /// (`use std::{env::{self, var}}`): the offset and the name.
    pub(crate) fn uses<'n>(&self, module: &str, names: &[&'n str]) -> Vec<(usize, &'n str)> {
        let mut found = Vec::new();
        for offset in self.words(module) {
            let after = &self.code[offset + module.len()..];
            let Some(rest) = after.trim_start().strip_prefix("::") else {
                continue;
            };
            let rest = rest.trim_start();
            let start = self.code.len() - rest.len();
            if rest.starts_with('{') {
                let group = &rest[..group_end(rest)];
                for &name in names {
                    let members = words(group, name).into_iter();
                    found.extend(
                        members
                            .filter(|&at| is_group_member(group, at))
                            .map(|at| (start + at, name)),
                    );
                }
            } else if let Some(name) = names
                .iter()
                .find(|name| words(rest, name).first() == Some(&0))
            {
                found.push((start, *name));
            }
        }
        found.sort_unstable();
        found
    }
}

/// Files that nothing of the product contains: tests, what they need, and programs that developers run.
fn is_test_path(path: &str) -> bool {
    path.starts_with("crates/pyro-testing/")
        || path.contains("/tests/")
        || path.contains("/benches/")
        || path.contains("/examples/")
        || path.ends_with("/tests.rs")
}

/// Offsets of `word` in `text` where no identifier goes on before or behind it.
pub(crate) fn words(text: &str, word: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    text.match_indices(word)
        .map(|(offset, _)| offset)
        .filter(|&offset| {
            let before = offset.checked_sub(1).map(|at| bytes[at]);
            let behind = bytes.get(offset + word.len()).copied();
            !before.is_some_and(is_word_byte) && !behind.is_some_and(is_word_byte)
        })
        .collect()
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether the word at `at` stands at the first level of a `{…}` group and begins a path there.
fn is_group_member(group: &str, at: usize) -> bool {
    let before = &group[..at];
    before.matches('{').count() == before.matches('}').count() + 1
        && before.trim_end().ends_with(['{', ','])
}

/// The length of the bracketed group that `text` begins with.
fn group_end(text: &str) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return offset + 1;
        }
    }
    text.len()
}

/// The items behind `#[cfg(test)]`, from the attribute to the closing brace or semicolon.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for mark in ["#[cfg(test)]", "#[cfg(all(test,"] {
        for (start, _) in code.match_indices(mark) {
            let attribute_end = start + 1 + group_end(&code[start + 1..]);
            found.push(start..item_end(code, attribute_end));
        }
    }
    found
}

fn item_end(code: &str, start: usize) -> usize {
    let mut at = start;
    while let Some(byte) = code.as_bytes().get(at) {
        match byte {
            b'{' => return at + group_end(&code[at..]),
            b';' => return at + 1,
            b'(' | b'[' => at += group_end(&code[at..]),
            _ => at += 1,
        }
    }
    code.len()
}

/// What the bytes at an offset are.
enum Piece {
    Code,
    Comment,
    Literal,
}

/// The text twice: without comments and literals, and without anything else than comments.
fn separated(text: &str) -> (String, String) {
    let mut code = String::with_capacity(text.len());
    let mut comments = String::with_capacity(text.len());
    let mut offset = 0;
    while offset < text.len() {
        let (piece, length) = next_piece(text, offset);
        let content = &text[offset..offset + length];
        match piece {
            Piece::Code => {
                code.push_str(content);
                blank(&mut comments, content);
            }
            Piece::Comment => {
                blank(&mut code, content);
                comments.push_str(content);
            }
            Piece::Literal => {
                blank(&mut code, content);
                blank(&mut comments, content);
            }
        }
        offset += length;
    }
    (code, comments)
}

/// As many bytes of blanks, lines kept.
fn blank(target: &mut String, content: &str) {
    target.extend(
        content
            .bytes()
            .map(|byte| if byte == b'\n' { '\n' } else { ' ' }),
    );
}

/// The piece that begins at `offset` and its length, never 0.
fn next_piece(text: &str, offset: usize) -> (Piece, usize) {
    let rest = &text[offset..];
    let starts_word = !text[..offset].bytes().next_back().is_some_and(is_word_byte);
    if rest.starts_with("//") {
        return (Piece::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Piece::Comment, block_comment_length(rest));
    }
    if rest.starts_with('"') {
        return (Piece::Literal, string_length(rest));
    }
    if starts_word && let Some(length) = raw_string_length(rest) {
        return (Piece::Literal, length);
    }
    if rest.starts_with('\'') {
        return match char_length(rest) {
            Some(length) => (Piece::Literal, length),
            None => (Piece::Code, 1),
        };
    }
    // The first byte is no start of anything; go on to the next that could be one.
    let first = rest.chars().next().map_or(1, char::len_utf8);
    let plain = rest[first..].find(['/', '"', '\'', 'r', 'b', 'c']);
    (
        Piece::Code,
        plain.map_or(rest.len(), |length| first + length),
    )
}

fn block_comment_length(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn string_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn raw_string_length(text: &str) -> Option<usize> {
    let unprefixed = ["r", "br", "cr"]
        .into_iter()
        .find_map(|prefix| text.strip_prefix(prefix))?;
    let opened = unprefixed.trim_start_matches('#');
    let content = opened.strip_prefix('"')?;
    let closing = format!("\"{}", "#".repeat(unprefixed.len() - opened.len()));
    let rest = content
        .find(&closing)
        .map_or("", |end| &content[end + closing.len()..]);
    Some(text.len() - rest.len())
}

/// The length of a character literal; none for a lifetime.
fn char_length(text: &str) -> Option<usize> {
    let mut characters = text.char_indices().skip(1);
    let (_, first) = characters.next()?;
    if first == '\\' {
        let (_, _escaped) = characters.next()?;
        return characters
            .find(|&(_, one)| one == '\'')
            .map(|(at, _)| at + 1);
    }
    characters
        .next()
        .filter(|&(_, one)| one == '\'')
        .map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = concat!(
            "let a = \"one // two\"; // three \"four\"\n",
            "/* five /* six */ */ let b = r#\"seven \" eight\"#;\n",
            "let c = b\"\\\"nine\"; let d = '\"'; let e: &'static str = f('\\''); let ten = br\"\\\";\n",
        );
        let source = Source::new("crates/a/src/b.rs", text);
        assert_eq!(source.code.len(), text.len());
        assert_eq!(source.comments.len(), text.len());
        for word in [
            "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
        ] {
            assert!(source.words(word).is_empty(), "{word}: {}", source.code);
        }
        for word in ["a", "b", "c", "d", "e", "f", "static", "str", "ten"] {
            assert!(!source.words(word).is_empty(), "{word}: {}", source.code);
        }
        for word in ["three", "four", "five", "six"] {
            assert!(
                source.comments.contains(word),
                "{word}: {}",
                source.comments
            );
        }
        assert!(!source.comments.contains("two"), "{}", source.comments);
    }

    #[test]
    fn test_items_end_with_their_brace() {
        let text = "fn a() {}\n#[cfg(test)]\n#[path = \"x\"]\nmod tests;\nfn b() {}\n\
                    #[cfg(test)]\nfn c(x: [u8; 2]) { if d { } }\nfn e() {}\n#[cfg(all(test, unix))]\nmod f { fn g() {} }\n";
        let source = Source::new("crates/a/src/b.rs", text);
        let tested = |name| source.is_test(source.words(name)[0]);
        assert!(["tests", "c", "d", "f", "g"].into_iter().all(tested));
        assert!(!["a", "b", "e"].into_iter().any(tested));
    }

    #[test]
    fn whole_files_of_tests_are_known_by_their_path() {
        for path in [
            "crates/a/tests/it/b.rs",
            "crates/a/src/b/tests/c.rs",
            "crates/a/src/b/tests.rs",
            "crates/a/examples/b.rs",
            "crates/pyro-testing/src/lib.rs",
        ] {
            let source = Source::new(path, "fn a() {}");
            assert!(source.is_test(0) && !source.is_product(), "{path}");
        }
        let source = Source::new("crates/a/src/latests.rs", "fn a() {}");
        assert!(!source.is_test(0) && source.is_product());
        assert_eq!(source.crate_name(), "a");
        assert!(!Source::new("crates/a/build.rs", "").is_product());
    }

    #[test]
    fn uses_are_found_as_paths_and_in_groups() {
        let uses = |text| {
            let source = Source::new("crates/a/src/b.rs", text);
            let found = source.uses("env", &["var", "vars"]);
            found.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
        };
        assert_eq!(uses("std::env::var(x); env :: vars()"), ["var", "vars"]);
        assert_eq!(uses("use std::{fs, env::{self, var}};"), ["var"]);
        assert_eq!(
            uses("use std::env::{\n    consts::{var},\n    vars,\n};"),
            ["vars"]
        );
        assert!(uses("env::variable(); my_env::var(); // env::var").is_empty());
    }

    #[test]
    fn calls_are_whole_words_with_their_bracket() {
        let source = Source::new(
            "crates/a/src/b.rs",
            "wait_exit(1); exit (2); exit; exited(3);",
        );
        assert_eq!(source.calls("exit", "(").len(), 1);
    }
}
