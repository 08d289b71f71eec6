//! What happened before: the runs of a store as their records tell it, and what differs between two of them.
//!
//! `observe/record.rs` writes the records; they are read here and nowhere else.

mod difference;
mod metrics;
mod pace;
mod rows;
mod runs;
mod sides;
mod story;
mod text;
mod why;

pub use difference::{Difference, FactDiff, MetricDiff, NodeDiff, TableDiff, between};
pub use metrics::losses;
pub use pace::{Pace, Paces, Wanted, paces};
pub use rows::{Cell, RowDiff, RowsDiff, compare};
pub use runs::{Counts, Found, Run, Status, Unreadable, asked, find, ids, read};
pub use sides::{Side, SideNode, of_pipeline, of_run};
pub use story::{Line, NodeStory, Series, Story, lines, story};
pub use text::parts;
pub use why::details;
