//! What holds for the whole, driven from outside: what an edit costs, the real model, laws of operators, manual pages, tidiness.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::needless_raw_string_hashes, reason = "as `UPDATE_EXPECT=1` writes them")]

mod edits;
mod help;
mod laws;
mod model;
mod nodes;
mod tidy;
