//! Turns a YAML file into a run that a person can follow: documents, diagnostics, sources, the command line, observers.
//!
//! For programs of one's own this crate is the door to all of Retort: [`engine`] says what an operator is, [`ops`] has those that come with it,
//! and [`cli::main`] is the whole command for whatever operators it is given. `examples/own_operator.rs` is such a program.

pub use retort_cache as cache;
pub use retort_engine as engine;
pub use retort_ops as ops;

pub mod cli;
mod config;
mod context;
pub mod diagnostics;
mod document;
pub mod expect;
pub mod export;
pub mod fetch;
pub mod fmt;
mod foreach;
pub mod graph_view;
pub mod history;
#[cfg(feature = "hub")]
pub mod hub;
pub mod load;
pub mod lock;
mod lower;
mod matrix;
mod models;
pub mod observe;
pub mod pack;
mod params;
pub mod publish;
pub mod report;
pub mod schema;
pub mod serve;
pub mod source;
pub mod tables;
pub mod tuned;
mod yaml;
