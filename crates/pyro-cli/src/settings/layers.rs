//! One setting after the other out of the layers that may set it, and where each came from.

use std::env;
use std::path::PathBuf;

use clap::ValueEnum;
use clap::parser::ValueSource;
use pyro::Error;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::file::{ConfigFile, Value};
use super::{MIB, path};
use crate::args::Engine;

/// The layers, and what was taken out of them so far.
#[derive(Debug)]
pub(super) struct Layers {
    file: ConfigFile,
    shown: Vec<Shown>,
}

/// A setting as it is.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Shown {
    /// Its name in the file.
    pub(crate) name: &'static str,
    /// What it is; null if it is not set.
    pub(crate) value: Json,
    /// Where that came from.
    #[serde(flatten)]
    pub(crate) origin: Origin,
    /// The variable that sets it.
    pub(crate) variable: &'static str,
}

/// Where a setting came from.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "source")]
pub(crate) enum Origin {
    /// Nobody set it.
    Default,
    /// The file.
    File {
        /// In which line.
        line: usize,
    },
    /// Its environment variable.
    Variable,
    /// Its flag.
    Flag,
}

impl Layers {
    pub(super) fn new(file: ConfigFile) -> Self {
        Self {
            file,
            shown: Vec::new(),
        }
    }

    /// The file's path, and every setting.
    pub(super) fn into_shown(self) -> (PathBuf, Vec<Shown>) {
        (self.file.path().to_owned(), self.shown)
    }

    /// The engine; `given` is what the flag, its variable or its default say.
    pub(super) fn engine(
        &mut self,
        given: Engine,
        source: Option<ValueSource>,
    ) -> Result<Engine, Error> {
        let (engine, origin) = match (self.file.get("engine"), stated(source)) {
            (_, Some(origin)) => (given, origin),
            (None, None) => (given, Origin::Default),
            (Some((Value::Text(text), line)), None) => {
                let engine = Engine::from_str(text, false).map_err(|_| self.no_engine())?;
                (engine, Origin::File { line })
            }
            (Some((Value::Number(_) | Value::Flag(_), _)), None) => return Err(self.no_engine()),
        };
        let name = engine
            .to_possible_value()
            .map(|value| value.get_name().to_owned());
        self.show("engine", "PYRO_ENGINE", json!(name), origin);
        Ok(engine)
    }

    fn no_engine(&self) -> Error {
        self.file.wrong(
            "engine",
            "one of \"auto\", \"qemu-kvm\", \"qemu-tcg\" and \"firecracker\"",
        )
    }

    /// The kernel; `given` is what the flag or its variable say.
    pub(super) fn kernel(
        &mut self,
        given: Option<PathBuf>,
        source: Option<ValueSource>,
    ) -> Result<Option<PathBuf>, Error> {
        let (kernel, origin) = match stated(source) {
            Some(origin) => (given, origin),
            None => self.file_path("kernel")?,
        };
        self.show("kernel", "PYRO_KERNEL", json!(kernel), origin);
        Ok(kernel)
    }

    /// Whether the network is left alone; `given` is what the flag or its variable say.
    pub(super) fn offline(
        &mut self,
        given: bool,
        source: Option<ValueSource>,
    ) -> Result<bool, Error> {
        let (offline, origin) = match (self.file.get("offline"), stated(source)) {
            (_, Some(origin)) => (given, origin),
            (None, None) => (given, Origin::Default),
            (Some((Value::Flag(flag), line)), None) => (*flag, Origin::File { line }),
            (Some((Value::Text(_) | Value::Number(_), _)), None) => {
                return Err(self.file.wrong("offline", "`true` or `false`"));
            }
        };
        self.show("offline", "PYRO_OFFLINE", json!(offline), origin);
        Ok(offline)
    }

    /// An absolute path that need not be set.
    pub(super) fn path(
        &mut self,
        key: &'static str,
        variable: &'static str,
    ) -> Result<Option<PathBuf>, Error> {
        let (found, origin) = match path(variable)? {
            Some(path) => (Some(path), Origin::Variable),
            None => self.file_path(key)?,
        };
        self.show(key, variable, json!(found), origin);
        Ok(found)
    }

    /// A directory, by default `fallback`.
    pub(super) fn directory(
        &mut self,
        key: &'static str,
        variable: &'static str,
        fallback: impl FnOnce() -> Result<PathBuf, Error>,
    ) -> Result<PathBuf, Error> {
        let found = match path(variable)? {
            Some(path) => (Some(path), Origin::Variable),
            None => self.file_path(key)?,
        };
        let (directory, origin) = match found {
            (Some(path), origin) => (path, origin),
            (None, _) => (fallback()?, Origin::Default),
        };
        self.show(key, variable, json!(directory), origin);
        Ok(directory)
    }

    /// A whole number.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        variable: &'static str,
        default: u64,
    ) -> Result<u64, Error> {
        self.bounded(key, variable, default, u64::MAX)
    }

    /// A number of MiB, as bytes.
    pub(super) fn mebibytes(
        &mut self,
        key: &'static str,
        variable: &'static str,
        default_bytes: u64,
    ) -> Result<u64, Error> {
        let mib = self.bounded(key, variable, default_bytes / MIB, u64::MAX / MIB)?;
        Ok(mib * MIB)
    }

    fn bounded(
        &mut self,
        key: &'static str,
        variable: &'static str,
        default: u64,
        most: u64,
    ) -> Result<u64, Error> {
        let set = env::var_os(variable).filter(|value| !value.is_empty());
        let (number, origin) = match (set, self.file.get(key)) {
            (Some(text), _) => {
                let number = text.to_str().and_then(|text| text.parse().ok());
                let number = number.filter(|number| *number <= most);
                let number = number.ok_or_else(|| Error::InvalidArgument {
                    message: format!("`{variable}` is `{}`", text.display()),
                    hint: Some(format!("set `{variable}` to a whole number")),
                })?;
                (number, Origin::Variable)
            }
            (None, None) => (default, Origin::Default),
            (None, Some((Value::Number(number), line))) if *number <= most => {
                (*number, Origin::File { line })
            }
            (None, Some(_)) => return Err(self.file.wrong(key, "a whole number")),
        };
        self.show(key, variable, json!(number), origin);
        Ok(number)
    }

    fn file_path(&self, key: &str) -> Result<(Option<PathBuf>, Origin), Error> {
        match self.file.get(key) {
            None => Ok((None, Origin::Default)),
            Some((Value::Text(text), line)) if text.starts_with('/') => {
                Ok((Some(text.into()), Origin::File { line }))
            }
            Some(_) => Err(self.file.wrong(key, "an absolute path")),
        }
    }

    fn show(&mut self, name: &'static str, variable: &'static str, value: Json, origin: Origin) {
        self.shown.push(Shown {
            name,
            value,
            origin,
            variable,
        });
    }
}

/// Where a flag's value came from, if somebody gave it.
fn stated(source: Option<ValueSource>) -> Option<Origin> {
    match source {
        Some(ValueSource::CommandLine) => Some(Origin::Flag),
        Some(ValueSource::EnvVariable) => Some(Origin::Variable),
        // Whatever the parser may tell besides is nothing that a user said.
        Some(_) | None => None,
    }
}
