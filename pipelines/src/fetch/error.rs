//! What can go wrong on the way to a model.

use std::path::{Path, PathBuf};

use retort_engine::{Asset, Failure};

/// Why a model could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A file could not be used.
    #[error("failed to {verb} `{path}`: {error}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The source is not written as one.
    #[error("`{source_text}` is no source: {message}")]
    Source {
        /// As it is written.
        source_text: String,
        /// What is wrong with it.
        message: String,
    },
    /// The server could not be reached, or the connection broke again and again.
    #[error("failed to fetch `{url}`: {message} (what came so far is kept: run it again to go on)")]
    Connection {
        /// From where.
        url: String,
        /// What happened.
        message: String,
    },
    /// The server refused.
    #[error("failed to fetch `{url}`: the server says {status}{hint}")]
    Status {
        /// From where.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it may mean, after a colon.
        hint: &'static str,
    },
    /// No index has the package or the version.
    #[error("{0}")]
    Index(String),
    /// The archive can't be read, or does not have the file.
    #[error("{0}")]
    Archive(String),
    /// The content is another than the one that was asked for.
    #[error("`{what}` has the SHA-256 {found}, but {expected} was expected")]
    Mismatch {
        /// What was fetched.
        what: String,
        /// The digest that it should have.
        expected: String,
        /// The digest that it has.
        found: String,
    },
    /// A remote model without a digest.
    #[error("`{0}` is not pinned: its `sha256` is needed")]
    Unpinned(String),
    /// The person asked to stop.
    #[error(transparent)]
    Stopped(Failure),
}

impl FetchError {
    pub(super) fn io(verb: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |error| FetchError::Io { verb, path: path.as_ref().to_path_buf(), error }
    }

    pub(super) fn source(text: &str, message: String) -> Self {
        FetchError::Source { source_text: text.into(), message }
    }

    pub(super) fn mismatch(asset: &Asset, expected: &str, found: &str) -> Self {
        FetchError::Mismatch { what: asset.sources.join("`, `"), expected: expected.into(), found: found.into() }
    }

    pub(super) fn unpinned(asset: &Asset) -> Self {
        FetchError::Unpinned(asset.sources.join("`, `"))
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Stopped(failure) => failure,
            error => Failure::op(error),
        }
    }
}
