//! The instructions of a Dockerfile, found in its text with their places.
//!
//! Owns continuation lines, comments, the `escape` directive and the ends of heredocs. Every
//! byte of an instruction keeps its place in the text, so that a word can be replaced there.

use std::ops::Range;

use super::{DockerfileError, MAX_INSTRUCTIONS};

/// One instruction.
#[derive(Debug)]
pub(super) struct Instruction {
    /// Its first line, counted from 1.
    pub(super) line: usize,
    /// Such as `FROM`, in capitals.
    pub(super) keyword: String,
    /// What follows the keyword, on one line.
    pub(super) rest: Logical,
    /// Where it ends in the text: behind its last line, heredocs included, without line end.
    pub(super) end: usize,
    /// The documents that follow it.
    pub(super) heredocs: Vec<Heredoc>,
}

/// A document behind an instruction.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heredoc {
    /// What ends it.
    pub(super) name: String,
    /// Whether tabs before its lines do not count: `<<-`.
    pub(super) strips_tabs: bool,
    /// Its lines, each with its end.
    pub(super) content: String,
}

/// A logical line: one without its continuations.
#[derive(Debug, Default)]
pub(super) struct Logical {
    pub(super) text: String,
    /// For each byte of `text`, where it stands in the file.
    places: Vec<usize>,
}

/// A word of a logical line, as it is written.
#[derive(Clone, Debug)]
pub(super) struct Word<'t> {
    pub(super) raw: &'t str,
    /// Where it begins in the logical line.
    pub(super) start: usize,
}

impl Logical {
    fn push(&mut self, text: &str, place: usize) {
        self.text.push_str(text);
        self.places.extend(place..place + text.len());
    }

    /// Where these bytes stand in the file, unless a continuation tears them apart.
    pub(super) fn place(&self, range: Range<usize>) -> Option<Range<usize>> {
        let first = *self.places.get(range.start)?;
        let last = *self.places.get(range.end.checked_sub(1)?)?;
        (last - first == range.end - 1 - range.start).then_some(first..last + 1)
    }

    /// Where this byte stands in the file.
    pub(super) fn place_of(&self, at: usize) -> Option<usize> {
        self.places.get(at).copied()
    }

    /// The words. Quotes and escaped characters hold one together, and stay in it.
    pub(super) fn words(&self, escape: char) -> Vec<Word<'_>> {
        let mut words = Vec::new();
        let mut start = None;
        let mut quote = None;
        let mut escaped = false;
        for (at, letter) in self.text.char_indices() {
            let is_space = letter.is_whitespace() && quote.is_none() && !escaped;
            match start {
                Some(begin) if is_space => {
                    words.push(self.word(begin, at));
                    start = None;
                }
                None if !is_space => start = Some(at),
                _ => {}
            }
            if escaped {
                escaped = false;
            } else if letter == escape && quote != Some('\'') {
                escaped = true;
            } else if quote == Some(letter) {
                quote = None;
            } else if quote.is_none() && matches!(letter, '"' | '\'') {
                quote = Some(letter);
            }
        }
        if let Some(begin) = start {
            words.push(self.word(begin, self.text.len()));
        }
        words
    }

    fn word(&self, start: usize, end: usize) -> Word<'_> {
        Word {
            raw: &self.text[start..end],
            start,
        }
    }
}

/// A Dockerfile as instructions, and the character that escapes in it.
pub(super) fn instructions(text: &str) -> Result<(Vec<Instruction>, char), DockerfileError> {
    let escape = escape_directive(text)?;
    let mut found = Vec::new();
    let mut lines = Lines::new(text);
    while let Some(first) = lines.next() {
        if first.is_skipped() {
            continue;
        }
        if found.len() == MAX_INSTRUCTIONS {
            return Err(DockerfileError::Malformed {
                line: first.number,
                reason: format!("there are more than {MAX_INSTRUCTIONS} instructions"),
            });
        }
        found.push(instruction(first, &mut lines, escape)?);
    }
    Ok((found, escape))
}

#[derive(Clone, Copy)]
struct Line<'t> {
    number: usize,
    place: usize,
    /// Without its line end.
    text: &'t str,
}

impl Line<'_> {
    fn is_skipped(&self) -> bool {
        let text = self.text.trim_start();
        text.is_empty() || text.starts_with('#')
    }
}

struct Lines<'t> {
    text: &'t str,
    number: usize,
    place: usize,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let place = if text.starts_with('\u{feff}') { 3 } else { 0 };
        Self {
            text,
            number: 0,
            place,
        }
    }
}

impl<'t> Iterator for Lines<'t> {
    type Item = Line<'t>;

    fn next(&mut self) -> Option<Line<'t>> {
        let whole = self.text[self.place..].split_inclusive('\n').next()?;
        let place = self.place;
        self.place += whole.len();
        self.number += 1;
        let text = whole.strip_suffix('\n').unwrap_or(whole);
        Some(Line {
            number: self.number,
            place,
            text: text.strip_suffix('\r').unwrap_or(text),
        })
    }
}

fn instruction(
    first: Line<'_>,
    lines: &mut Lines<'_>,
    escape: char,
) -> Result<Instruction, DockerfileError> {
    let mut whole = Logical::default();
    let indent = first.text.len() - first.text.trim_start().len();
    let mut current = Line {
        place: first.place + indent,
        text: &first.text[indent..],
        ..first
    };
    loop {
        let (kept, continues) = without_continuation(current.text, escape);
        whole.push(kept, current.place);
        if !continues {
            break;
        }
        match lines.by_ref().find(|line| !line.is_skipped()) {
            Some(line) => current = line,
            None => break,
        }
    }
    let split = whole
        .text
        .find(char::is_whitespace)
        .unwrap_or(whole.text.len());
    let rest = Logical {
        text: whole.text[split..].to_owned(),
        places: whole.places[split..].to_vec(),
    };
    let keyword = whole.text[..split].to_ascii_uppercase();
    let mut end = current.place + current.text.len();
    let mut heredocs = Vec::new();
    if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") && !rest.text.trim().starts_with('[') {
        for word in rest.words(escape) {
            if let Some((name, strips_tabs)) = heredoc_start(word.raw) {
                let (content, last) = heredoc(&name, strips_tabs, lines, first.number)?;
                end = last;
                heredocs.push(Heredoc {
                    name,
                    strips_tabs,
                    content,
                });
            }
        }
    }
    Ok(Instruction {
        line: first.number,
        keyword,
        rest,
        end,
        heredocs,
    })
}

/// Whether the next line belongs to this one, and what is left of this one then.
fn without_continuation(text: &str, escape: char) -> (&str, bool) {
    let trimmed = text.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        // An escaped escape character stands for itself.
        Some(kept) if !kept.ends_with(escape) => (kept, true),
        _ => (text, false),
    }
}

/// `<<NAME`, `<<-NAME`, `<<"NAME"`, each with a number before it: name, and whether tabs count.
fn heredoc_start(word: &str) -> Option<(String, bool)> {
    let rest = word
        .trim_start_matches(|letter: char| letter.is_ascii_digit())
        .strip_prefix("<<")?;
    let (rest, strips_tabs) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let name: String = rest.chars().filter(|c| !matches!(c, '"' | '\'')).collect();
    let is_name =
        !name.is_empty() && !name.contains(['<', '>', '|', '&', ';', '(', ')', '$', '\\']);
    is_name.then_some((name, strips_tabs))
}

fn heredoc(
    name: &str,
    strips_tabs: bool,
    lines: &mut Lines<'_>,
    line: usize,
) -> Result<(String, usize), DockerfileError> {
    let mut content = String::new();
    for one in lines.by_ref() {
        let candidate = if strips_tabs {
            one.text.trim_start_matches('\t')
        } else {
            one.text
        };
        if candidate == name {
            return Ok((content, one.place + one.text.len()));
        }
        content.push_str(one.text);
        content.push('\n');
    }
    Err(DockerfileError::Malformed {
        line,
        reason: format!("its heredoc `{name}` has no end"),
    })
}

/// What `# escape=` at the top of the file says.
fn escape_directive(text: &str) -> Result<char, DockerfileError> {
    for line in Lines::new(text) {
        let directive = line.text.trim_start().strip_prefix('#');
        let Some((key, value)) = directive.and_then(|text| text.split_once('=')) else {
            break;
        };
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            break;
        }
        if key.eq_ignore_ascii_case("escape") {
            return match value.trim() {
                "\\" => Ok('\\'),
                "`" => Ok('`'),
                _ => Err(DockerfileError::Malformed {
                    line: line.number,
                    reason: "`escape` can be `\\` or a backquote only".into(),
                }),
            };
        }
    }
    Ok('\\')
}
