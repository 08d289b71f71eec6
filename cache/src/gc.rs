//! Sweeps a store: by age, by size, and by what is reachable.
//!
//! What is *reachable* stays: of every node that a `view/` link names (or of the pipelines that are named only) the newest
//! answer, its tables, the rows remembered under the node's operator facts and the models that the facts name. What else there
//! is goes when nobody has used it for long enough, or, least recently used first, until the store fits a size. The record of
//! runs is no cache: it stays.
//!
//! | step | what holds |
//! |---|---|
//! | survey | one walk over the store: every file with its bytes and time stamp; nothing is locked |
//! | decide | what would go. A dry run ends here |
//! | sweep | batch by batch, alone with the pins (`pins`): what was used, stamped, linked or written since the survey is spared. Answers go first, then tables that no answer is left for, then the rest |
//! | tidy | pins and claims of dead processes; links that lead nowhere and empty folders, if nobody uses the store |
//!
//! A crash in between leaves a whole store: a table without an answer is swept next time, an answer without a table is a miss,
//! a row log that lost a segment knows fewer rows.

mod decide;
mod survey;
mod sweep;
mod usage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::{ContentId, RecipeId, StoreError};

pub use sweep::Freed;
pub use usage::{NodeUsage, PipelineUsage, Usage, usage};

use crate::pins::{self, Users};
use survey::{Seen, Survey};

/// What a sweep takes and leaves.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What is reachable.
    pub reach: Reach,
    /// What was not used for so long goes. `None`: nothing goes for its age.
    pub older_than: Option<Duration>,
    /// The store is to fit so many bytes.
    pub max_size: Option<u64>,
    /// The time by which age is judged.
    pub now: SystemTime,
}

/// From where things are reached.
#[derive(Clone, Debug)]
pub enum Reach {
    /// From every link under `view/`.
    Views,
    /// From these nodes alone.
    Nodes(Vec<Root>),
}

/// A node from which things are reached.
#[derive(Clone, Debug)]
pub struct Root {
    /// Its name in the store: `pipeline/node`.
    pub node: String,
    /// Its operator facts as they stand now; its newest answer may have others.
    pub op: RecipeId,
    /// The digests of the models that it uses now.
    pub assets: Vec<String>,
}

/// What a sweep can remove. In the order in which it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The record of an answer.
    Answer,
    /// A table.
    Table,
    /// The remembered rows of an operator with one config.
    Rows,
    /// Checkpoints of what was not finished.
    Work,
    /// A fetched model.
    Model,
    /// A download that was cut.
    Download,
    /// What was found damaged and put aside.
    Quarantine,
    /// What a dead process left half-written.
    Temporary,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Kind; 8] = [
        Kind::Answer,
        Kind::Table,
        Kind::Rows,
        Kind::Work,
        Kind::Model,
        Kind::Download,
        Kind::Quarantine,
        Kind::Temporary,
    ];

    /// A word for several of it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Answer => "answers",
            Kind::Table => "tables",
            Kind::Rows => "rows",
            Kind::Work => "work",
            Kind::Model => "models",
            Kind::Download => "downloads",
            Kind::Quarantine => "quarantine",
            Kind::Temporary => "temporary",
        }
    }
}

/// Something that would go.
#[derive(Clone, Debug)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Its file or folder.
    pub path: PathBuf,
    /// What it is of: an operator's name, a model's digest, a file's name.
    pub about: String,
    /// Its size.
    pub bytes: u64,
    /// When it was used last.
    pub used: SystemTime,
    /// Its newest time stamp when it was surveyed: another one spares it.
    stamp: SystemTime,
    id: Id,
}

/// By which name the rest of the store knows an item.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Id {
    Answer(RecipeId, Vec<ContentId>),
    Table(ContentId),
    Rows(RecipeId),
    Work(RecipeId),
    File,
}

impl Id {
    /// How a process that uses it pins it.
    fn pin(&self) -> String {
        match self {
            Id::Answer(recipe, _) => pins::answer(*recipe),
            Id::Table(content) => pins::table(*content),
            Id::Rows(op) => pins::rows(*op),
            Id::Work(_) | Id::File => String::new(),
        }
    }
}

/// What would go, and what would be left.
#[derive(Debug)]
pub struct Plan {
    /// What would go: answers first, then tables, then the rest.
    pub items: Vec<Item>,
    /// Bytes of the whole store.
    pub total: u64,
    /// Processes that use the store now; what they use stays.
    pub users: usize,
    /// The time stamps of all answers: one that is not among them came later.
    answers: BTreeMap<RecipeId, SystemTime>,
}

impl Plan {
    /// Bytes that would go.
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }
}

/// What would go from the store in `root`. Nothing is changed.
pub fn plan(root: &Path, rules: &Rules) -> Result<Plan, StoreError> {
    let survey = Survey::of(root)?;
    let users = pins::users(&pins::folder(root), false)?;
    decide::decide(root, &survey, &users, rules)
}

/// Removes what a plan names, as far as nobody has used it since.
pub fn sweep(root: &Path, rules: &Rules, plan: &Plan) -> Result<Freed, StoreError> {
    sweep::sweep(root, rules, plan)
}
