//! What can go wrong below the operators, as values.

/// An error of the model layer. Messages are fragments that follow "failed to", without a full stop.
#[derive(Debug, thiserror::Error)]
pub enum LmError {
    /// A file could not be read or written.
    #[error("failed to {verb} `{path}`")]
    Io {
        /// What was tried: `open`, `read`, `write`.
        verb: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be: cut short, another format, a missing tensor, an unknown architecture.
    #[error("`{path}` is not a usable model: {reason}")]
    Model {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer could not be made or used.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template could not be rendered.
    #[error("chat template: {0}")]
    Template(String),
    /// An argument outside what the model can do, such as a prompt longer than its context.
    #[error("{0}")]
    Argument(String),
    /// Another process that trains with this one could not take its part.
    #[error("rank {rank} could not take its part of a step: {reason}")]
    Replica {
        /// Which.
        rank: i32,
        /// What it said.
        reason: String,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
