//! Decides which nodes run, and runs them: graph, check, plan, run, events.
//!
//! Knows no YAML, no model and no terminal. It looks at no clock and no environment.

mod ahead;
pub mod asset;
pub mod check;
mod claim;
pub mod cx;
pub mod define;
pub mod event;
pub mod graph;
pub mod lineage;
pub mod operator;
pub mod plan;
mod problem;
mod question;
mod recover;
mod rows;
pub mod run;
mod schedule;
pub mod verify;

pub use asset::{Asset, Assets, Programs};
pub use check::check;
pub use cx::{Cx, Failure, World};
pub use define::{Define, Env, Made, OpInfo, TokenBudget};
pub use event::{Event, EventKind, Observer, OutputSummary};
pub use graph::{Feed, Graph, Node, NodeId, NodeSpec};
pub use lineage::Lineage;
pub use operator::{Answers, Batching, Carry, Input, Inputs, Lane, Memo, Operator, RowBatch, RowOp, SlotSpec, TableOp};
pub use plan::{NodePlan, Reason, Verdict, plan};
pub use problem::{Locus, Problem, nearest};
pub use question::{listing, op_facts};
pub use run::{Limits, Summary, run};
pub use verify::verify;
