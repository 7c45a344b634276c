//! Which images a Dockerfile needs, and the Dockerfile with other names for them.
//!
//! The host fetches images, so it has to know their names before the build. This is no
//! builder: it looks at `FROM`, at `ARG` before the first `FROM`, at `COPY --from` and at
//! `RUN --mount=from`, and takes the rest as text. Pure, and bounded: the text may be anybody's.
//!
//! Debian 12's Buildah knows no heredocs. Those of `RUN` are put into its exec form here, as
//! BuildKit would run them; those of `COPY` and `ADD` are refused.

mod expand;
mod lines;
mod run;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use expand::{Variables, expand};
use lines::{Instruction, Word, instructions};

/// Longest Dockerfile, in bytes.
pub(super) const MAX_DOCKERFILE: usize = 1024 * 1024;

/// Most instructions of one Dockerfile.
const MAX_INSTRUCTIONS: usize = 10_000;

/// Most stages of one Dockerfile.
const MAX_STAGES: usize = 256;

/// Most different images that one Dockerfile names.
const MAX_IMAGES: usize = 64;

/// Longest word after variables are filled in, in bytes.
const MAX_WORD: usize = 64 * 1024;

/// The only platform that is built on and for.
const PLATFORM: &str = "linux/amd64";

/// A Dockerfile that cannot be built here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DockerfileError {
    /// It is no text in UTF-8, or too long to be one.
    #[error("the Dockerfile is no text of at most {MAX_DOCKERFILE} bytes in UTF-8")]
    NoText,
    /// An instruction is not what it should be.
    #[error("line {line} of the Dockerfile: {reason}")]
    Malformed {
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// `COPY` or `ADD` with a heredoc.
    #[error("line {line} of the Dockerfile: heredocs work with `RUN` only")]
    Heredoc {
        /// Its line, from 1.
        line: usize,
    },
    /// A stage is to be built for another platform.
    #[error(
        "line {line} of the Dockerfile: the platform is `{found}`, and only {PLATFORM} runs here"
    )]
    Platform {
        /// Its line, from 1.
        line: usize,
        /// What is asked for.
        found: String,
    },
    /// The stage to be built does not exist.
    #[error("the Dockerfile has no stage `{target}`")]
    UnknownTarget {
        /// What was asked for.
        target: String,
        /// The names there are.
        known: Vec<String>,
    },
}

impl DockerfileError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Heredoc { .. } => Some("put the text into a file beside the Dockerfile".into()),
            Self::UnknownTarget { known, .. } if !known.is_empty() => {
                Some(format!("it has {}", known.join(", ")))
            }
            _ => None,
        }
    }
}

/// A Dockerfile that was looked through.
#[derive(Debug)]
pub(super) struct Dockerfile<'t> {
    text: &'t str,
    images: Vec<ImageUse>,
    /// What is put in the place of other parts of the text.
    edits: Vec<(Range<usize>, String)>,
}

/// A place where an image is named.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ImageUse {
    name: String,
    place: Range<usize>,
}

impl<'t> Dockerfile<'t> {
    /// Looks through `text`. With a `target`, images of later stages are left out. `build_args`
    /// are the values of declared `ARG`s.
    pub(super) fn parse(
        text: &'t [u8],
        build_args: &BTreeMap<String, String>,
        target: Option<&str>,
    ) -> Result<Self, DockerfileError> {
        let text = match std::str::from_utf8(text) {
            Ok(text) if text.len() <= MAX_DOCKERFILE => text,
            _ => return Err(DockerfileError::NoText),
        };
        let (instructions, escape) = instructions(text)?;
        let mut scan = Scan {
            build_args,
            target,
            escape,
            globals: platform_variables(),
            stages: Vec::new(),
            shell: None,
            found: Self {
                text,
                images: Vec::new(),
                edits: Vec::new(),
            },
        };
        for instruction in &instructions {
            scan.instruction(instruction)?;
        }
        scan.finish()
    }

    /// The names of the images that are needed, in the order of their first use, none twice.
    pub(super) fn images(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for image in &self.images {
            if !names.contains(&image.name.as_str()) {
                names.push(&image.name);
            }
        }
        names
    }

    /// The Dockerfile with `local` names in the place of the images'; where there is none, the
    /// name stays.
    pub(super) fn rewritten(&self, local: &BTreeMap<String, String>) -> String {
        let named = self.images.iter().filter_map(|image| {
            let local = local.get(&image.name)?;
            Some((image.place.clone(), local.as_str()))
        });
        let other = self
            .edits
            .iter()
            .map(|(place, text)| (place.clone(), text.as_str()));
        let mut edits: Vec<_> = named.chain(other).collect();
        edits.sort_by_key(|(place, _)| place.start);
        let mut out = String::with_capacity(self.text.len());
        let mut at = 0;
        for (place, text) in edits {
            out.push_str(&self.text[at..place.start]);
            out.push_str(text);
            at = place.end;
        }
        out.push_str(&self.text[at..]);
        out
    }
}

/// The walk through the instructions.
struct Scan<'a, 't> {
    build_args: &'a BTreeMap<String, String>,
    target: Option<&'a str>,
    escape: char,
    globals: Variables,
    /// The names of the stages so far, in small letters; empty for one without.
    stages: Vec<String>,
    /// What the last `SHELL` of the stage says.
    shell: Option<Vec<String>>,
    found: Dockerfile<'t>,
}

impl<'t> Scan<'_, 't> {
    fn instruction(&mut self, instruction: &Instruction) -> Result<(), DockerfileError> {
        let words = instruction.rest.words(self.escape);
        match instruction.keyword.as_str() {
            "ARG" if self.stages.is_empty() => self.declare(&words),
            "FROM" => self.stage(instruction, &words)?,
            _ if self.stages.is_empty() => {
                return Err(malformed(
                    instruction,
                    "only `ARG` may stand before the first `FROM`",
                ));
            }
            "COPY" | "ADD" if !instruction.heredocs.is_empty() => {
                return Err(DockerfileError::Heredoc {
                    line: instruction.line,
                });
            }
            "COPY" => self.copy(instruction, &words)?,
            "RUN" => self.run(instruction, &words)?,
            "SHELL" => self.shell = serde_json::from_str(instruction.rest.text.trim()).ok(),
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Dockerfile<'t>, DockerfileError> {
        if self.stages.is_empty() {
            return Err(DockerfileError::Malformed {
                line: 1,
                reason: "there is no `FROM`".into(),
            });
        }
        match self.target {
            Some(target) if !self.has_target(&self.stages) => Err(DockerfileError::UnknownTarget {
                target: target.to_owned(),
                known: self
                    .stages
                    .into_iter()
                    .filter(|name| !name.is_empty())
                    .collect(),
            }),
            _ => Ok(self.found),
        }
    }

    /// `ARG NAME`, `ARG NAME=VALUE`, several of them.
    fn declare(&mut self, words: &[Word<'_>]) {
        for word in words {
            let (name, default) = match word.raw.split_once('=') {
                Some((name, default)) => (name, expand(default, &self.globals, self.escape)),
                None => (word.raw, None),
            };
            let value = self.build_args.get(name).cloned().or(default);
            match value {
                Some(value) => drop(self.globals.insert(name.to_owned(), value)),
                // A default that nobody here understands: what uses it is left to the builder.
                None if word.raw.contains('=') => drop(self.globals.remove(name)),
                None => {}
            }
        }
    }

    fn stage(
        &mut self,
        instruction: &Instruction,
        words: &[Word<'_>],
    ) -> Result<(), DockerfileError> {
        let flags = words.iter().take_while(|word| word.raw.starts_with("--"));
        for flag in flags.clone() {
            if let Some(platform) = flag.raw.strip_prefix("--platform=") {
                let platform = expand(platform, &self.globals, self.escape);
                let place = place(instruction, flag, 0..flag.raw.len());
                match (platform, place) {
                    (Some(platform), Some(place)) if is_platform(&platform) => {
                        self.found.edits.push((place, String::new()));
                    }
                    (found, _) => {
                        return Err(DockerfileError::Platform {
                            line: instruction.line,
                            found: found.unwrap_or_else(|| flag.raw.to_owned()),
                        });
                    }
                }
            }
        }
        let (image, name) = match &words[flags.count()..] {
            [image] => (image, String::new()),
            [image, word, name] if word.raw.eq_ignore_ascii_case("as") => {
                (image, name.raw.to_ascii_lowercase())
            }
            _ => return Err(malformed(instruction, "it is not `FROM IMAGE [AS NAME]`")),
        };
        if self.stages.len() == MAX_STAGES {
            return Err(malformed(
                instruction,
                &format!("there are more than {MAX_STAGES} stages"),
            ));
        }
        self.shell = None;
        if let Some(resolved) = expand(image.raw, &self.globals, self.escape) {
            let known = resolved == "scratch" || self.is_stage(&resolved);
            if !known {
                self.need(instruction, image, 0..image.raw.len(), resolved)?;
            }
        }
        self.stages.push(name);
        Ok(())
    }

    fn copy(
        &mut self,
        instruction: &Instruction,
        words: &[Word<'_>],
    ) -> Result<(), DockerfileError> {
        for flag in words.iter().take_while(|word| word.raw.starts_with("--")) {
            if let Some(from) = flag.raw.strip_prefix("--from=") {
                let start = flag.raw.len() - from.len();
                self.from(instruction, flag, start..flag.raw.len())?;
            }
        }
        Ok(())
    }

    fn run(
        &mut self,
        instruction: &Instruction,
        words: &[Word<'_>],
    ) -> Result<(), DockerfileError> {
        let flags = words.iter().take_while(|word| word.raw.starts_with("--"));
        for flag in flags.clone() {
            if !flag.raw.starts_with("--mount=") {
                continue;
            }
            let mut start = "--mount=".len();
            for option in flag.raw[start..].split(',') {
                if let Some(from) = option.strip_prefix("from=") {
                    let end = start + option.len();
                    self.from(instruction, flag, end - from.len()..end)?;
                }
                start += option.len() + 1;
            }
        }
        if !instruction.heredocs.is_empty()
            && let Some(first) = words.get(flags.count())
        {
            let edit = run::exec_form(instruction, first, self.shell.as_deref());
            self.found.edits.extend(edit);
        }
        Ok(())
    }

    /// A name behind `from=`: a stage's name or number, or an image. Variables in it belong to
    /// the stage, and are left to the builder.
    fn from(
        &mut self,
        instruction: &Instruction,
        word: &Word<'_>,
        range: Range<usize>,
    ) -> Result<(), DockerfileError> {
        let raw = &word.raw[range.clone()];
        let Some(name) = expand(raw, &Variables::new(), self.escape) else {
            return Ok(());
        };
        let is_number = name.parse::<usize>().is_ok();
        if raw.contains('$') || is_number || name == "scratch" || self.is_stage(&name) {
            return Ok(());
        }
        self.need(instruction, word, range, name)
    }

    /// Notes an image, unless it is of a stage behind the one that is built.
    fn need(
        &mut self,
        instruction: &Instruction,
        word: &Word<'_>,
        range: Range<usize>,
        name: String,
    ) -> Result<(), DockerfileError> {
        if name.is_empty() {
            return Err(malformed(instruction, "its image has no name"));
        }
        let Some(place) = place(instruction, word, range) else {
            return Err(malformed(
                instruction,
                "the name of its image is torn apart by a line's end",
            ));
        };
        if !self.is_wanted(instruction) {
            return Ok(());
        }
        self.found.images.push(ImageUse { name, place });
        if self.found.images().len() > MAX_IMAGES {
            return Err(malformed(
                instruction,
                &format!("it names more than {MAX_IMAGES} images"),
            ));
        }
        Ok(())
    }

    /// Whether the stage of this instruction is built: the target and what stands before it.
    fn is_wanted(&self, instruction: &Instruction) -> bool {
        let before = if instruction.keyword == "FROM" {
            self.stages.as_slice()
        } else {
            self.stages
                .split_last()
                .map_or(&[][..], |(_, before)| before)
        };
        !self.has_target(before)
    }

    /// Whether one of the first stages, which these are, is the one to be built.
    fn has_target(&self, stages: &[String]) -> bool {
        let Some(target) = self.target else {
            return false;
        };
        let by_name = stages.iter().any(|name| name.eq_ignore_ascii_case(target));
        by_name
            || target
                .parse()
                .is_ok_and(|number: usize| number < stages.len())
    }

    fn is_stage(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.stages.contains(&name)
    }
}

/// Where a part of a word stands in the text.
fn place(instruction: &Instruction, word: &Word<'_>, range: Range<usize>) -> Option<Range<usize>> {
    let range = word.start + range.start..word.start + range.end;
    instruction.rest.place(range)
}

fn malformed(instruction: &Instruction, reason: &str) -> DockerfileError {
    DockerfileError::Malformed {
        line: instruction.line,
        reason: reason.to_owned(),
    }
}

fn is_platform(text: &str) -> bool {
    matches!(
        text,
        "linux" | "amd64" | "linux/amd64" | "linux/amd64/v1" | "linux/x86_64"
    )
}

/// What is known in every `FROM` without an `ARG`.
fn platform_variables() -> Variables {
    let mut variables = Variables::new();
    for which in ["BUILD", "TARGET"] {
        for (name, value) in [
            ("PLATFORM", PLATFORM),
            ("OS", "linux"),
            ("ARCH", "amd64"),
            ("VARIANT", ""),
        ] {
            variables.insert(format!("{which}{name}"), value.to_owned());
        }
    }
    variables
}
