//! What the caller of the lab asks for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// How long a command may take if nothing else is said. The lab is 10 to 30 times slower than its host.
const TIME_LIMIT: Duration = Duration::from_mins(30);

/// Memory of the lab in MiB: enough for a few machines of 512 MiB and for what the kernel keeps of files.
const MEMORY_MIB: u32 = 3072;

/// Processors of the lab.
const CPUS: u32 = 2;

/// One command and the lab for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) time_limit: Duration,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    /// Directories, relative to the repository's root, that are empty at the start and lie on the scratch disk.
    pub(crate) fresh: Vec<PathBuf>,
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
}

impl Options {
    /// A lab of the usual size for `command`.
    pub(crate) fn of(command: Vec<String>) -> Self {
        Self {
            time_limit: TIME_LIMIT,
            memory_mib: MEMORY_MIB,
            cpus: CPUS,
            fresh: Vec::new(),
            command,
        }
    }

    /// Reads `[OPTIONS] -- CMD…`; the dashes may be left out.
    pub(crate) fn parse(words: &[&str]) -> Result<Self> {
        let mut options = Self::of(Vec::new());
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            match word {
                "--timeout-seconds" => {
                    let seconds = number(word, value(word, words.next())?)?;
                    options.time_limit = Duration::from_secs(seconds.into());
                }
                "--memory-mib" => options.memory_mib = number(word, value(word, words.next())?)?,
                "--cpus" => options.cpus = number(word, value(word, words.next())?)?,
                "--fresh" => {
                    let directory = PathBuf::from(value(word, words.next())?);
                    ensure!(
                        directory
                            .components()
                            .all(|part| matches!(part, std::path::Component::Normal(_))),
                        "--fresh takes a path below the repository's root, without `..`"
                    );
                    options.fresh.push(directory);
                }
                "--" => {
                    options.command = words.map(str::to_owned).collect();
                    break;
                }
                option if option.starts_with('-') => {
                    bail!("unknown option `{option}`; the command stands after `--`")
                }
                program => {
                    options.command = std::iter::once(program)
                        .chain(words)
                        .map(str::to_owned)
                        .collect();
                    break;
                }
            }
        }
        ensure!(
            !options.command.is_empty(),
            "no command to run: give it after `--`"
        );
        Ok(options)
    }
}

fn value<'a>(name: &str, word: Option<&'a str>) -> Result<&'a str> {
    word.with_context(|| format!("{name} needs a value"))
}

fn number(name: &str, word: &str) -> Result<u32> {
    let number: u32 = word
        .parse()
        .with_context(|| format!("{name} takes a number, not `{word}`"))?;
    ensure!(number > 0, "{name} must not be 0");
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_before_the_command_and_its_own_are_left_alone() {
        let words = [
            "--cpus",
            "1",
            "--timeout-seconds",
            "60",
            "--fresh",
            "target/x",
            "--",
            "ls",
            "--cpus",
            "--",
        ];
        let options = Options::parse(&words).unwrap();
        assert_eq!(options.cpus, 1);
        assert_eq!(options.memory_mib, MEMORY_MIB);
        assert_eq!(options.time_limit, Duration::from_mins(1));
        assert_eq!(options.fresh, [PathBuf::from("target/x")]);
        assert_eq!(options.command, ["ls", "--cpus", "--"]);
        assert_eq!(Options::parse(&["ls", "-l"]).unwrap().command, ["ls", "-l"]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (words, part) in [
            (&[][..], "no command"),
            (&["--cpus", "2"], "no command"),
            (&["--cpus"], "--cpus needs a value"),
            (&["--cpus", "0", "ls"], "must not be 0"),
            (&["--memory-mib", "much", "ls"], "takes a number"),
            (&["--fresh", "../x", "ls"], "without `..`"),
            (&["--fresh", "/x", "ls"], "below the repository"),
            (&["--quick", "ls"], "unknown option `--quick`"),
        ] {
            let error = Options::parse(words).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
