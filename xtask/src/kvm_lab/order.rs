//! What the lab is told to do: the files that its first process reads.
//!
//! Pure. A shell inside reads them, so every word is quoted; a word may hold any byte but a NUL, which no argument can.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

/// Variables that the command sees with their values of outside. All others are left out.
const VARIABLES: &[&str] = &["PATH", "HOME", "USER", "TERM", "CI", "CARGO", "RUSTFLAGS"];

/// Beginnings of further ones.
const PREFIXES: &[&str] = &["CARGO_", "PYRO_", "RUST_", "RUSTUP_", "NEXTEST"];

/// The script that becomes the command: directory, variables, program.
pub(super) fn script(
    directory: &Path,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    command: &[String],
) -> Vec<u8> {
    let mut text = b"cd ".to_vec();
    text.extend(quoted(directory.as_os_str()));
    text.extend(b" || exit 125\n");
    let mut environment: Vec<_> = environment
        .into_iter()
        .filter(|(name, _)| passes(name))
        .collect();
    environment.sort();
    for (name, value) in environment {
        text.extend(b"export ");
        text.extend(name.as_bytes());
        text.push(b'=');
        text.extend(quoted(&value));
        text.push(b'\n');
    }
    text.extend(b"exec");
    for word in command {
        text.push(b' ');
        text.extend(quoted(OsStr::new(word)));
    }
    text.push(b'\n');
    text
}

/// One path on a line.
pub(super) fn line(path: &Path) -> Vec<u8> {
    let mut bytes = path.as_os_str().to_owned().into_vec();
    bytes.push(b'\n');
    bytes
}

fn passes(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    let is_word = bytes
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    is_word
        && name.to_str().is_some_and(|name| {
            VARIABLES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        })
}

fn quoted(word: &OsStr) -> Vec<u8> {
    let mut text = vec![b'\''];
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => text.extend(br"'\''"),
            _ => text.push(byte),
        }
    }
    text.push(b'\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    #[test]
    fn the_command_sees_its_directory_and_the_listed_variables() {
        let environment = variables(&[
            ("PATH", "/bin"),
            ("SSH_AUTH_SOCK", "/secret"),
            ("PYRO_ENGINE", "qemu-kvm"),
            ("CARGO_HOME", "/it's"),
            ("PYRO_BAD-NAME", "x"),
        ]);
        let command = [
            "cargo".to_owned(),
            "a b".to_owned(),
            "$HOME".to_owned(),
            String::new(),
        ];
        let text = String::from_utf8(script(Path::new("/a dir"), environment, &command)).unwrap();
        assert_eq!(
            text,
            r"cd '/a dir' || exit 125
export CARGO_HOME='/it'\''s'
export PATH='/bin'
export PYRO_ENGINE='qemu-kvm'
exec 'cargo' 'a b' '$HOME' ''
"
        );
    }

    #[test]
    fn a_shell_reads_the_words_as_they_were() {
        let odd = "it's \"$HOME\" `id` \\ \n\t*";
        let command = [
            "printf".to_owned(),
            "%s|".to_owned(),
            odd.to_owned(),
            "-".to_owned(),
        ];
        let text = script(
            Path::new("/"),
            variables(&[("PATH", &std::env::var("PATH").unwrap())]),
            &command,
        );
        let shell = std::process::Command::new("sh")
            .arg("-c")
            .arg(OsStr::from_bytes(&text))
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(shell.stdout).unwrap(),
            format!("{odd}|-|")
        );
    }
}
