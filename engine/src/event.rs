//! Everything that happens, as one stream. Terminal, JSON log, run record and TensorBoard files are its observers; they own the clock.

use retort_cache::{ContentId, RecipeId};
use serde::{Deserialize, Deserializer, Serialize};

use crate::plan::Reason;

/// Something happened to a node.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// The node's name.
    pub node: String,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened to a node. Records of runs are read back as they were written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// Its answer is known; nothing runs.
    Fresh {
        /// Its question: the answer's record has the facts.
        recipe: RecipeId,
        /// The known answer.
        outputs: Vec<OutputSummary>,
    },
    /// Someone else answers the same question at the moment; their answer will do.
    Waiting {
        /// The node for which it is answered, as the store knows it: `pipeline/node`.
        holder: Option<String>,
        /// The process that answers it.
        process: Option<u32>,
    },
    /// It begins to run.
    Started {
        /// Why.
        why: Reason,
    },
    /// So many of its rows were answered before.
    Recalled {
        /// Remembered rows.
        rows: u64,
        /// Rows in all.
        of: u64,
    },
    /// An asset is being fetched; bytes.
    Fetching {
        /// The asset's name.
        asset: String,
        /// Bytes that are there.
        done: u64,
        /// Bytes in all; 0 when the other side does not say.
        of: u64,
    },
    /// Rows (or an operator's own unit) that are answered.
    Progress {
        /// Answered, remembered ones included.
        done: u64,
        /// In all.
        of: u64,
    },
    /// Tokens processed since the last such event.
    Tokens {
        /// Prompt tokens.
        prompt: u64,
        /// Output tokens.
        output: u64,
        /// Tokens that are still to come, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        left: Option<u64>,
    },
    /// A training step's values.
    Metrics {
        /// The step.
        step: u64,
        /// Named values, in order.
        #[serde(deserialize_with = "values")]
        values: Vec<(String, f64)>,
    },
    /// A line for the person who watches.
    Note {
        /// The line.
        text: String,
    },
    /// It has an answer.
    Finished {
        /// Its question: the answer's record has the facts.
        recipe: RecipeId,
        /// The tables, in port order.
        outputs: Vec<OutputSummary>,
        /// Whether they differ from the node's answer before: if not, the wave stops here.
        changed: bool,
        /// Rows that the operator was asked, where it is a row operator.
        asked: Option<u64>,
        /// Rows that it refused.
        rejects: u64,
    },
    /// It was asked again, and gave the answer that is known.
    Verified {
        /// Its question.
        recipe: RecipeId,
        /// The tables, in port order.
        outputs: Vec<OutputSummary>,
    },
    /// Its answer is not known, so there is nothing to compare with.
    Unverified {
        /// Why.
        because: String,
    },
    /// The same question has two answers: the operator gives what its facts do not decide. Told where they part.
    Differs {
        /// The output; none where a remembered row is not what the operator says of it now.
        port: Option<String>,
        /// The table that is known.
        was: Option<ContentId>,
        /// The table that came out now.
        now: Option<ContentId>,
        /// The first row that differs, from 0: of the table, or of the input where a remembered row differs.
        row: u64,
        /// The first column that does; none where rows are missing.
        column: Option<String>,
        /// The known value, from shortly before it parts.
        old: Option<String>,
        /// The value now.
        new: Option<String>,
    },
    /// It could not answer.
    Failed {
        /// Why, with the causes.
        error: String,
    },
    /// It was not tried.
    Skipped {
        /// The node that failed.
        because: String,
    },
}

/// One output of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputSummary {
    /// The port.
    pub port: String,
    /// The table.
    pub content: ContentId,
    /// Its rows.
    pub rows: u64,
}

/// Is told everything that happens, from any thread.
pub trait Observer: Send + Sync {
    /// One event.
    fn on(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> Observer for F {
    fn on(&self, event: &Event) {
        self(event);
    }
}

/// JSON has no word for what is no number: it reads as null.
fn values<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, f64)>, D::Error> {
    let values = Vec::<(String, Option<f64>)>::deserialize(from)?;
    Ok(values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}
