//! What happened before: the runs of a store as their records tell it, and what differs between two of them.
//!
//! `observe/record.rs` writes the records; they are read here and nowhere else.

mod rows;
mod runs;
mod story;
mod text;

pub use rows::{Cell, RowDiff, RowsDiff, compare};
pub use runs::{Counts, Found, Run, Status, Unreadable, find, ids, read};
pub use story::{Line, NodeStory, Series, Story, lines, story};
pub use text::{Edit, lines as line_edits, parts};
