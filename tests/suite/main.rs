//! What holds for the whole, driven from outside: what an edit costs, the real model, laws of operators, manual pages, tidiness.
#![expect(clippy::unwrap_used, reason = "tests")]

mod apart;
mod budget;
mod diff;
mod edits;
mod embed;
mod exec;
#[cfg(target_os = "linux")]
mod faults;
mod gc;
mod handing_on;
mod help;
mod history;
#[cfg(feature = "hub")]
mod hub;
mod key;
mod laws;
mod lock;
mod many;
mod model;
mod nodes;
mod pack;
#[cfg(feature = "mpi")]
mod ranks;
mod remote;
mod schema;
mod serve;
mod server;
mod sql;
mod tidy;
mod tools;
mod trace;
mod verify;
