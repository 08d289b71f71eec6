//! The engine with small real operators on real stores: what runs, why, how often, and what it says of mistakes.
#![expect(clippy::unwrap_used, reason = "tests")]

mod check;
mod freshness;
mod lineage;
mod ops;
mod rows;
mod scale;
mod scheduling;
mod space;
mod verify;
