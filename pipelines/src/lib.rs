//! Turns a YAML file into a run that a person can follow: documents, diagnostics, sources, the command line, observers.

pub mod cli;
mod config;
mod context;
pub mod diagnostics;
mod document;
pub mod export;
pub mod fetch;
pub mod graph_view;
pub mod history;
pub mod load;
pub mod lock;
mod lower;
mod matrix;
mod models;
pub mod observe;
pub mod pack;
mod params;
pub mod schema;
pub mod source;
pub mod tables;
pub mod tuned;
mod yaml;
