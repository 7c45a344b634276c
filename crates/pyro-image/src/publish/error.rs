//! Why an image cannot be made.

use std::path::PathBuf;

use crate::disk::DiskError;

/// A publication that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file could not be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A text of the metadata cannot be used.
    #[error("`{value}` is no {what} that can be published")]
    Name {
        /// Which text.
        what: &'static str,
        /// What it is.
        value: String,
    },
    /// A file is not what can be published.
    #[error("`{}` is no regular file with content", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// A file has changed since it was hashed.
    #[error("`{}` was changed while it was published", path.display())]
    SourceChanged {
        /// The file.
        path: PathBuf,
    },
    /// Something else is where the layout would be.
    #[error("`{}` is there and is no OCI layout", path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
    },
}

impl PublishError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Disk(error) => error.hint(),
            Self::Name { .. } => Some(
                "use letters, digits, `.`, `_` and `-`, and in a name `:` as well, beginning with a letter or digit"
                    .to_owned(),
            ),
            Self::NotAFile { .. } => Some("name the file itself, no link or device".to_owned()),
            Self::SourceChanged { .. } => {
                Some("publish a file that no machine writes to, and try again".to_owned())
            }
            Self::Occupied { .. } => Some("move it away, or choose another directory".to_owned()),
        }
    }
}
