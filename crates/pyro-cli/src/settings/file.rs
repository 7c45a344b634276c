//! `config.toml`: the user's settings, each with its line. A key that is not known is an error, because it was meant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pyro::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::KEYS;

/// The settings of a file.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

/// One setting.
#[derive(Debug)]
struct Entry {
    value: Value,
    line: usize,
}

/// What may be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
    Flag(bool),
}

impl ConfigFile {
    /// Reads the file at `path`. Without a file nothing is set.
    pub(super) fn load(path: PathBuf) -> Result<Self, Error> {
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self {
                path,
                entries: BTreeMap::new(),
            }),
            Err(source) => Err(Error::Io {
                action: "read",
                path,
                source,
            }),
        }
    }

    fn parse(path: PathBuf, text: &str) -> Result<Self, Error> {
        let table = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            refused(
                &path,
                line,
                error.message(),
                "write it as TOML, such as `offline = true`",
            )
        })?;
        let mut entries = BTreeMap::new();
        collect(&path, text, "", table.get_ref(), &mut entries)?;
        Ok(Self { path, entries })
    }

    /// Where it is, or would be.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What `key` is set to, and in which line.
    pub(super) fn get(&self, key: &str) -> Option<(&Value, usize)> {
        self.entries
            .get(key)
            .map(|entry| (&entry.value, entry.line))
    }

    /// The error of a value that cannot be used.
    pub(super) fn wrong(&self, key: &str, wanted: &str) -> Error {
        let line = self.entries.get(key).map_or(1, |entry| entry.line);
        refused(
            &self.path,
            line,
            &format!("`{key}` is not {wanted}"),
            &format!("set `{key}` to {wanted}, or remove the line"),
        )
    }
}

fn collect(
    path: &Path,
    text: &str,
    prefix: &str,
    table: &DeTable<'_>,
    entries: &mut BTreeMap<String, Entry>,
) -> Result<(), Error> {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        let line = line_of(text, key.span().start);
        if let DeValue::Table(inner) = value.get_ref() {
            if KEYS
                .iter()
                .any(|known| known.starts_with(&format!("{name}.")))
            {
                collect(path, text, &format!("{name}."), inner, entries)?;
                continue;
            }
        } else if KEYS.contains(&name.as_str()) {
            let value = plain(value).ok_or_else(|| {
                refused(
                    path,
                    line,
                    &format!("`{name}` is neither text, a whole number nor `true` or `false`"),
                    "see `pyro config show` for what it is without the file",
                )
            })?;
            entries.insert(name, Entry { value, line });
            continue;
        }
        return Err(refused(
            path,
            line,
            &format!("there is no setting `{name}`"),
            &format!("remove it, or use one of {}", KEYS.join(", ")),
        ));
    }
    Ok(())
}

fn plain(value: &Spanned<DeValue<'_>>) -> Option<Value> {
    match value.get_ref() {
        DeValue::String(text) => Some(Value::Text(text.clone().into_owned())),
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(Value::Number),
        DeValue::Boolean(flag) => Some(Value::Flag(*flag)),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    before.matches('\n').count() + 1
}

fn refused(path: &Path, line: usize, what: &str, remedy: &str) -> Error {
    Error::InvalidArgument {
        message: format!("`{}`, line {line}: {what}", path.display()),
        hint: Some(remedy.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<ConfigFile, Error> {
        ConfigFile::parse("/c/config.toml".into(), text)
    }

    #[test]
    fn settings_have_lines() {
        let file = parsed("# mine\noffline = true\n\n[limits]\nrunning = 4\n").unwrap();
        assert_eq!(file.get("offline"), Some((&Value::Flag(true), 2)));
        assert_eq!(file.get("limits.running"), Some((&Value::Number(4), 5)));
        assert_eq!(file.get("engine"), None);
    }

    #[test]
    fn what_is_not_known_is_an_error_with_its_line() {
        for (text, line, told) in [
            (
                "offline = true\nengin = \"auto\"\n",
                2,
                "no setting `engin`",
            ),
            ("[limits]\n\nrun = 4\n", 3, "no setting `limits.run`"),
            ("[limit]\nrunning = 4\n", 1, "no setting `limit`"),
            ("limits = 4\n", 1, "no setting `limits`"),
            ("offline = 1.5\n", 1, "neither text"),
            ("[limits]\nrunning = -1\n", 2, "neither text"),
            ("a\n", 1, ""),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            let place = format!("`/c/config.toml`, line {line}: ");
            assert!(error.starts_with(&place), "{error}");
            assert!(error.contains(told), "{error}");
        }
    }
}
