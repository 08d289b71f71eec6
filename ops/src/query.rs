//! A SQL query over tables, answered by DataFusion: what it reads, which columns it gives, and its rows.
//!
//! One law holds for all who ask through here: the same query over the same rows gives the same rows in the same order.
//!
//! | what could disturb it | what is done |
//! |---|---|
//! | threads | one partition, one thread: a runtime of its own that ends with the query |
//! | batches | rows come in pieces of `BATCH`, however they are stored, so that sums of floats are taken in one way |
//! | memory | nothing spills: past its bound a query fails, and says so |
//! | the clock, chance | functions that look at them are refused (`steady`) |
//! | another DataFusion | its version is a fact of the operator `sql` (`VERSION`) |
//!
//! The async API ends here. What is wrong with a query is told by `mistake`.

mod mistake;
mod select;
mod session;
mod source;
mod steady;

pub use mistake::Mistake;
pub use select::Select;
pub(crate) use session::context;
pub(crate) use steady::steady_expr;

/// Rows that DataFusion is handed at a time, and hands on.
pub const BATCH: usize = 8192;

/// DataFusion's major version: another one may give other rows for the same query.
pub const DATAFUSION: u32 = 55;

#[cfg(test)]
mod tests;
