//! Opening the database: its directory, its version, and what becomes of one that is damaged or whose disk is full.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pyro_protocol::code::ErrorCode;
use rusqlite::{Connection, OpenFlags};

/// Longest wait for another process that writes.
const BUSY: Duration = Duration::from_secs(20);

/// Time between two attempts at what does not wait for another process by itself.
const PAUSE: Duration = Duration::from_millis(5);

/// A disk with less room is full: the index of what was written last takes half of it.
const ROOM_BYTES: u64 = 64 * 1024;

/// What follows the name of a database that was put aside.
const ASIDE: &str = ".damaged-";

/// The version of the schema that this program writes.
const SCHEMA: u32 = 1;

/// What can go wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its directory or file cannot be made.
    #[error("cannot make `{}`", path.display())]
    Make {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A newer program wrote it.
    #[error("the database of workspaces has version {found}, and this program knows {SCHEMA}")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// The disk has no room for what is to be written down.
    #[error("the database of workspaces cannot be written: the disk of `{}` is full", directory.display())]
    NoRoom {
        /// The directory that it lies in.
        directory: PathBuf,
    },
    /// It cannot be read or written.
    #[error("the database of workspaces cannot be used")]
    Sqlite(#[from] rusqlite::Error),
}

impl StoreError {
    /// The stable class.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Make { source, .. } => crate::error::codes::io_code(source),
            Self::Newer { .. } => ErrorCode::FailedPrecondition,
            Self::NoRoom { .. } => ErrorCode::NoSpace,
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                    ErrorCode::Conflict
                }
                Some(
                    rusqlite::ErrorCode::PermissionDenied
                    | rusqlite::ErrorCode::ReadOnly
                    | rusqlite::ErrorCode::CannotOpen,
                ) => ErrorCode::PermissionDenied,
                _ => ErrorCode::Internal,
            },
        }
    }

    /// One remedy.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Newer { .. } => Some("use the newer `pyro`, or another `PYRO_STATE_DIR`".into()),
            Self::NoRoom { .. } => Some(
                "make room on that disk: `pyro workspace delete` works although it is full".into(),
            ),
            Self::Sqlite(error) if is_damaged(error) => Some(
                "move `workspaces.db` of the state directory to `workspaces.db.damaged-1`: a new one is made, and what workspaces wrote stays"
                    .into(),
            ),
            Self::Make { .. } | Self::Sqlite(_) => match self.code() {
                ErrorCode::NoSpace => Some("make room on the disk of the state directory".into()),
                ErrorCode::Conflict => Some("run it again when the other `pyro` is done".into()),
                ErrorCode::PermissionDenied => {
                    Some("make the state directory yours and writable".into())
                }
                _ => None,
            },
        }
    }
}

impl StoreError {
    /// The error as it is where `directory` may have no room left, which SQLite tells in several ways.
    pub(crate) fn at(self, directory: &Path) -> Self {
        let Self::Sqlite(error) = &self else {
            return self;
        };
        let lacks_room = match (error.sqlite_error_code(), error.sqlite_error()) {
            (Some(rusqlite::ErrorCode::DiskFull), _) => true,
            (_, Some(error)) if error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE => true,
            (Some(rusqlite::ErrorCode::SystemIoFailure | rusqlite::ErrorCode::CannotOpen), _) => {
                is_full(directory)
            }
            _ => false,
        };
        if lacks_room {
            Self::NoRoom {
                directory: directory.to_owned(),
            }
        } else {
            self
        }
    }

    /// As [`StoreError::at`], of a database that was opened to be read because there was no room.
    pub(crate) fn at_reading(self, directory: &Path) -> Self {
        match &self {
            Self::Sqlite(error)
                if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly) =>
            {
                Self::NoRoom {
                    directory: directory.to_owned(),
                }
            }
            _ => self.at(directory),
        }
    }
}

fn is_full(directory: &Path) -> bool {
    rustix::fs::statvfs(directory).is_ok_and(|found| {
        found.f_bavail.saturating_mul(found.f_frsize) < ROOM_BYTES
            || (found.f_files > 0 && found.f_favail == 0)
    })
}

/// Opens the database at `path` to be read, which takes no room: what a killed process left unmerged is indexed in memory.
pub(crate) fn open_reading(path: &Path) -> Result<Connection, StoreError> {
    let with_suffix = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    // One that is there is not opened: closing it would take SQLite's locks of this process away.
    let made = std::fs::OpenOptions::new()
        .create_new(true)
        .append(true)
        .mode(0o600)
        .open(with_suffix("-shm"));
    let alone = match made {
        Ok(_) => "readonly_shm=1",
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => "readonly_shm=1",
        // Not even a name has room. Where nothing is unmerged, nobody has it open, and nobody can open it to write.
        Err(_) if !with_suffix("-wal").exists() => "immutable=1",
        Err(source) => {
            return Err(StoreError::Make {
                path: path.to_owned(),
                source,
            });
        }
    };
    let uri = format!("file:{}?mode=ro&{alone}", escaped(path));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.busy_timeout(BUSY)?;
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        SCHEMA => Ok(connection),
        // One that was never made whole tells of nothing.
        0 => Err(StoreError::NoRoom {
            directory: path.parent().unwrap_or(path).to_owned(),
        }),
        newer => Err(StoreError::Newer { found: newer }),
    }
}

/// A path as it stands in a URI.
fn escaped(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt;
    let mut text = String::new();
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

/// Opens the database at `path`, or makes it. One that is no database any more is put aside under another name, so that
/// work goes on; what it told of is found by its directories.
pub(crate) fn open(path: &Path) -> Result<Connection, StoreError> {
    match try_open(path) {
        Err(StoreError::Sqlite(error)) if is_damaged(&error) => {
            put_aside(path)?;
            try_open(path)
        }
        opened => opened,
    }
}

fn try_open(path: &Path) -> Result<Connection, StoreError> {
    let make = |source| StoreError::Make {
        path: path.to_owned(),
        source,
    };
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(make)?;
    }
    // SQLite would make it readable to all whom the umask lets.
    let made = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(_) => {}
        // It is not opened here: closing it would take SQLite's locks of this process away.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(make(source)),
    }
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    // One that reads first and writes then is not waited for: what it has read may be old by then.
    connection.set_transaction_behavior(rusqlite::TransactionBehavior::Immediate);
    write_ahead(&connection)?;
    // What is written down before something is done must be there after a crash of the host.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        SCHEMA => {}
        0 => {
            let transaction = connection.transaction()?;
            // Another process may have made it meanwhile.
            let now: u32 =
                transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if now == 0 {
                transaction.execute_batch(include_str!("schema.sql"))?;
                transaction.pragma_update(None, "user_version", SCHEMA)?;
            }
            transaction.commit()?;
        }
        newer => return Err(StoreError::Newer { found: newer }),
    }
    Ok(connection)
}

/// Has the database written ahead. Of several processes that want that of a new one at once, SQLite refuses all but one without
/// waiting: it cannot tell that from a deadlock.
fn write_ahead(connection: &Connection) -> Result<(), rusqlite::Error> {
    let give_up = Instant::now() + BUSY;
    loop {
        let done = connection.pragma_update(None, "journal_mode", "WAL");
        let is_busy = done.as_ref().is_err_and(|error| {
            error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
        });
        if !is_busy || Instant::now() >= give_up {
            return done;
        }
        std::thread::sleep(PAUSE);
    }
}

fn is_damaged(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt)
    )
}

/// The databases that were put aside because they were damaged. As long as one is there, what its workspaces wrote is kept.
pub(crate) fn aside(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let mut prefix = name.as_encoded_bytes().to_vec();
    prefix.extend_from_slice(ASIDE.as_bytes());
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            name.starts_with(&prefix) && !name.ends_with(b"-wal") && !name.ends_with(b"-shm")
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

fn put_aside(path: &Path) -> Result<(), StoreError> {
    let at = crate::workspace::now();
    for suffix in ["", "-wal", "-shm"] {
        let mut from = path.as_os_str().to_owned();
        from.push(suffix);
        let mut to = path.as_os_str().to_owned();
        to.push(format!("{ASIDE}{at:.3}{suffix}"));
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(StoreError::Make {
                    path: to.into(),
                    source,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn several_that_come_first_at_once_all_read_and_write() {
        for _ in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("state/workspaces.db");
            let together = Barrier::new(8);
            std::thread::scope(|scope| {
                let opened: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            together.wait();
                            let mut connection = open(&path)?;
                            // As all transactions here do: they look, and then they write.
                            for _ in 0..10 {
                                let transaction = connection.transaction()?;
                                let text = "SELECT count(*) FROM workspace";
                                transaction.query_row(text, [], |row| row.get::<_, u64>(0))?;
                                transaction.execute("DELETE FROM command WHERE 0", [])?;
                                transaction.pragma_update(None, "application_id", 1)?;
                                transaction.commit()?;
                            }
                            Ok::<(), StoreError>(())
                        })
                    })
                    .collect();
                for opened in opened {
                    opened.join().unwrap().unwrap();
                }
            });
        }
    }
}
