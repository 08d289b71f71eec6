//! Where a row came from, and what came of it. Nothing is stored for it: the answers themselves tell.
//!
//! | operator | how a row is followed |
//! |---|---|
//! | rows, remembered | output rows are in the order of the input's: how many rows each input row gave, its remembered answer says |
//! | rows, recomputed | the same, with the operator applied again, which is cheap by its own word |
//! | tables | by what the operator declares (`Lineage`), input by input; what declares nothing depends on whole tables |
//! | a source's listing | the row of the file |
//!
//! What can't be told any more is said to be lost, with the reason: rows that were forgotten, tables that are gone, a node that
//! changed since. Nothing is guessed. Tables are read batch by batch; no table is held in memory.

mod matching;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use arrow::array::RecordBatch;
use retort_cache::{Answer, StoreError, Table};

use crate::graph::{FILES_PORT, Graph, Node, NodeId};
use crate::question::{Question, input_facts, op_facts};
use crate::rows::{self, Outcome};
use crate::{Cx, Failure, Input, Inputs, Operator, World, plan};
use matching::Matching;

/// What the rows of an output of a table operator have to do with the rows of one of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lineage {
    /// Every row depends on all rows of the input. What is always true.
    Whole,
    /// Every row is a row of the input that was passed on. Equal rows keep their order, and the last of them are those left out.
    Passed,
    /// Every row stands for the rows of the input that have the same values: pairs of a column of the output and one of the input.
    Columns(Vec<(String, String)>),
}

/// A row of a node's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    /// The node.
    pub node: NodeId,
    /// The output, by its place in the node's ports.
    pub port: usize,
    /// The row, from 0.
    pub row: u64,
}

/// Where a row came from, by one of its node's inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// These rows, in order.
    Rows(Vec<Spot>),
    /// All rows of these outputs.
    Whole(Vec<(NodeId, usize)>),
    /// It can't be told.
    Lost(Lost),
}

/// What came of some rows in a node that read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offspring {
    /// The row that it came from, and the row that came of it.
    Rows(Vec<(u64, Spot)>),
    /// All that the node gave.
    Whole,
    /// It can't be told.
    Lost(Lost),
}

/// Why a row can't be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// A node has no answer.
    #[error("`{0}` has no answer")]
    NoAnswer(String),
    /// A node's answer was made by other facts than the pipeline has now.
    #[error("`{0}`, or what feeds it, changed after it last ran")]
    Changed(String),
    /// Remembered answers are gone.
    #[error("remembered rows of `{0}` are gone from the store")]
    Forgotten(String),
    /// A table is gone.
    #[error("a table of `{0}` is gone from the store")]
    Gone(String),
    /// A row has no counterpart: the operator's declaration does not hold, or a table was exchanged.
    #[error("`{0}` has a row that none of its input matches")]
    Unmatched(String),
}

/// A pipeline with its answers, in which rows can be followed.
pub struct Trail<'a> {
    graph: &'a Graph,
    world: World<'a>,
    answers: BTreeMap<NodeId, Answer>,
    /// Nodes whose answers are those of the pipeline as it stands.
    current: BTreeSet<NodeId>,
}

/// What a node was asked, or why that can't be told.
type Asked = Result<Question, Lost>;

impl<'a> Trail<'a> {
    /// The answers of the targets and of all that they need: those of the pipeline as it stands, or else the newest there are.
    pub fn new(graph: &'a Graph, targets: &[NodeId], world: World<'a>) -> Result<Self, Failure> {
        let (mut answers, mut current) = (BTreeMap::new(), BTreeSet::new());
        for planned in plan(graph, targets, world)? {
            let answer = match planned.answer {
                Some(answer) => {
                    current.insert(planned.id);
                    Some(answer)
                }
                None => world.store.last(&graph.store_name(planned.id))?,
            };
            answers.extend(answer.map(|answer| (planned.id, answer)));
        }
        Ok(Trail { graph, world, answers, current })
    }

    /// Whether a node's answer is that of the pipeline as it stands, and not an earlier one.
    pub fn is_current(&self, node: NodeId) -> bool {
        self.current.contains(&node)
    }

    /// A node's answer.
    pub fn answer(&self, node: NodeId) -> Option<&Answer> {
        self.answers.get(&node)
    }

    /// The table of a node's output.
    pub fn table(&self, node: NodeId, port: usize) -> Result<Result<Table, Lost>, StoreError> {
        let name = || self.graph.node(node).name.clone();
        let Some(answer) = self.answers.get(&node) else { return Ok(Err(Lost::NoAnswer(name()))) };
        let wanted = &self.graph.node(node).ports[port].0;
        let Some(output) = answer.outputs.iter().find(|output| output.port == *wanted) else {
            return Ok(Err(Lost::Changed(name())));
        };
        Ok(self.world.store.open(output.content)?.ok_or_else(|| Lost::Gone(name())))
    }

    /// Where a row came from, by each of its node's inputs. A row of a listing, or of a node without inputs, came from nowhere.
    pub fn parents(&self, spot: Spot) -> Result<Vec<(String, Origin)>, Failure> {
        let node = self.graph.node(spot.node);
        let port = node.ports[spot.port].0.as_str();
        if port == FILES_PORT && node.made.source.is_some() {
            return Ok(Vec::new());
        }
        let slots = node.inputs.iter().map(|(slot, _)| slot.as_str());
        let slots: Vec<_> = node.made.source.iter().map(|_| FILES_PORT).chain(slots).collect();
        let question = match self.question(spot.node)? {
            Ok(question) => question,
            Err(lost) => {
                return Ok(slots.iter().map(|slot| ((*slot).to_string(), Origin::Lost(lost.clone()))).collect());
            }
        };
        let mut parents = Vec::new();
        for slot in slots {
            let origin = match &node.made.operator {
                Operator::Rows(_) => self.parent_of_row(spot, &question)?,
                Operator::Table(op) => self.match_back(spot, slot, &op.lineage(port, slot), &question)?,
            };
            parents.push((slot.to_string(), origin));
        }
        Ok(parents)
    }

    /// What came of some rows of an output: by each node that reads it, its input, and what came of them there.
    pub fn children(
        &self,
        node: NodeId,
        port: usize,
        rows: &BTreeSet<u64>,
    ) -> Result<Vec<(NodeId, String, Offspring)>, Failure> {
        let mut children = Vec::new();
        if self.graph.node(node).made.source.is_some() && self.graph.node(node).ports[port].0 == FILES_PORT {
            let question = self.question(node)?;
            let found = question.map(|question| self.rows_forth(node, &question, &spread(rows, &[0])));
            children.push((node, FILES_PORT.to_string(), flat(found)?));
        }
        for reader in self.graph.order().iter().copied() {
            for (slot, sources) in &self.graph.node(reader).inputs {
                if !sources.contains(&(node, port)) || !self.answers.contains_key(&reader) {
                    continue;
                }
                let found = match self.question(reader)? {
                    Ok(question) => self.offspring(reader, slot, (node, port), rows, &question)?,
                    Err(lost) => Offspring::Lost(lost),
                };
                children.push((reader, slot.clone(), found));
            }
        }
        Ok(children)
    }

    /// What a node was asked, put together from the answers of what feeds it, if that is what its answer was made of.
    fn question(&self, id: NodeId) -> Result<Asked, Failure> {
        let node = self.graph.node(id);
        let changed = || Lost::Changed(node.name.clone());
        let Some(answer) = self.answers.get(&id) else { return Ok(Err(Lost::NoAnswer(node.name.clone()))) };
        if answer.recipe.op != op_facts(node, self.world)? {
            return Ok(Err(changed()));
        }
        let mut inputs = Vec::new();
        if node.made.source.is_some() {
            let Some(port) = listing(node) else { return Ok(Err(changed())) };
            let table = match self.table(id, port)? {
                Ok(table) => table,
                Err(lost) => return Ok(Err(lost)),
            };
            inputs.push((FILES_PORT.to_string(), Input { schema: table.schema.clone(), tables: vec![table] }));
        }
        for ((slot, sources), schema) in node.inputs.iter().zip(&node.input_schemas) {
            let mut tables = Vec::new();
            for (feed, port) in sources {
                match self.table(*feed, *port)? {
                    Ok(table) => tables.push(table),
                    Err(lost) => return Ok(Err(lost)),
                }
            }
            inputs.push((slot.clone(), Input { schema: schema.clone(), tables }));
        }
        let facts: Vec<_> = inputs.iter().flat_map(|(slot, input)| input_facts(slot, input)).collect();
        if facts != answer.recipe.inputs {
            return Ok(Err(changed()));
        }
        Ok(Ok(Question { recipe: answer.recipe.clone(), inputs: Inputs(inputs), listing: None }))
    }

    /// The input row of a row operator that gave a row.
    fn parent_of_row(&self, spot: Spot, question: &Question) -> Result<Origin, Failure> {
        let rejected = spot.port == 1;
        let (mut before, mut found) = (0, Origin::Lost(Lost::Unmatched(self.graph.node(spot.node).name.clone())));
        self.outcomes(spot.node, question, &mut |row, outcome| {
            before += match outcome {
                Outcome::Answered { kept, .. } if !rejected => kept,
                Outcome::Answered { rejected: refused, .. } => u64::from(refused),
                Outcome::Forgotten => {
                    found = Origin::Lost(Lost::Forgotten(self.graph.node(spot.node).name.clone()));
                    return ControlFlow::Break(());
                }
            };
            if spot.row >= before {
                return ControlFlow::Continue(());
            }
            found = Origin::Rows(vec![self.spot(spot.node, 0, row, &question.inputs.0[0].1)]);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    fn outcomes(
        &self,
        id: NodeId,
        question: &Question,
        each: &mut dyn FnMut(u64, Outcome) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let node = self.graph.node(id);
        let Operator::Rows(op) = &node.made.operator else { unreachable!("asked of row operators only") };
        let quiet = |_: &crate::Event| ();
        let cx = Cx {
            world: World { events: &quiet, ..self.world },
            node: &node.name,
            recipe: question.recipe.id(),
            inherits: false,
        };
        rows::outcomes(op.as_ref(), question, &cx, each)
    }

    /// The row of a node's input as a row of what feeds it.
    fn spot(&self, id: NodeId, slot: usize, mut row: u64, input: &Input) -> Spot {
        let node = self.graph.node(id);
        if let Some(port) = node.made.source.as_ref().and_then(|_| listing(node)) {
            return Spot { node: id, port, row };
        }
        for ((feed, port), table) in node.inputs[slot].1.iter().zip(&input.tables) {
            if row < table.rows {
                return Spot { node: *feed, port: *port, row };
            }
            row -= table.rows;
        }
        unreachable!("a row of an input lies in one of its tables")
    }

    fn match_back(&self, spot: Spot, slot: &str, lineage: &Lineage, question: &Question) -> Result<Origin, Failure> {
        let node = self.graph.node(spot.node);
        let at = node.inputs.iter().position(|(name, _)| name == slot).expect("one of its inputs");
        let input = &question.inputs.0[at].1;
        let out = match self.table(spot.node, spot.port)? {
            Ok(table) => table,
            Err(lost) => return Ok(Origin::Lost(lost)),
        };
        let Some(matching) = Matching::of(lineage, &out.schema, &input.schema) else {
            return Ok(Origin::Whole(node.inputs[at].1.clone()));
        };
        let rows = matching.back(&out, spot.row, input)?;
        if rows.is_empty() {
            return Ok(Origin::Lost(Lost::Unmatched(node.name.clone())));
        }
        Ok(Origin::Rows(rows.into_iter().map(|row| self.spot(spot.node, at, row, input)).collect()))
    }

    fn offspring(
        &self,
        reader: NodeId,
        slot: &str,
        from: (NodeId, usize),
        rows: &BTreeSet<u64>,
        question: &Question,
    ) -> Result<Offspring, Failure> {
        let node = self.graph.node(reader);
        let at = node.inputs.iter().position(|(name, _)| name == slot).expect("one of its inputs");
        let input = &question.inputs.0[at].1;
        let (mut offsets, mut before) = (Vec::new(), 0);
        for (source, table) in node.inputs[at].1.iter().zip(&input.tables) {
            if *source == from {
                offsets.push(before);
            }
            before += table.rows;
        }
        let rows = spread(rows, &offsets);
        let Operator::Table(op) = &node.made.operator else { return self.rows_forth(reader, question, &rows) };
        let mut found = Vec::new();
        for (port, (name, _)) in node.ports.iter().enumerate() {
            let out = match self.table(reader, port)? {
                Ok(table) => table,
                Err(lost) => return Ok(Offspring::Lost(lost)),
            };
            let lineage = op.lineage(name, slot);
            let Some(matching) = Matching::of(&lineage, &out.schema, &input.schema) else { continue };
            let pairs = matching.forth(input, &rows.keys().copied().collect(), &out)?;
            found.extend(pairs.into_iter().map(|(parent, row)| (rows[&parent], Spot { node: reader, port, row })));
        }
        let declares = |(port, _): &(String, _)| op.lineage(port, slot) != Lineage::Whole;
        if !node.ports.iter().any(declares) {
            return Ok(Offspring::Whole);
        }
        found.sort_unstable();
        Ok(Offspring::Rows(found))
    }

    /// What came of rows of a row operator's input: each row of the input, with the row that it is to who asks.
    fn rows_forth(&self, node: NodeId, question: &Question, rows: &BTreeMap<u64, u64>) -> Result<Offspring, Failure> {
        let Some(last) = rows.keys().next_back().copied() else { return Ok(Offspring::Rows(Vec::new())) };
        let (mut kept, mut rejected, mut found, mut forgotten) = (0, 0, Vec::new(), false);
        self.outcomes(node, question, &mut |row, outcome| {
            let Outcome::Answered { kept: n_kept, rejected: refused } = outcome else {
                forgotten = true;
                return ControlFlow::Break(());
            };
            let n_rejected = u64::from(refused);
            if let Some(parent) = rows.get(&row) {
                for (port, begin, n) in [(0, kept, n_kept), (1, rejected, n_rejected)] {
                    found.extend((begin..begin + n).map(|row| (*parent, Spot { node, port, row })));
                }
            }
            (kept, rejected) = (kept + n_kept, rejected + n_rejected);
            if row == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if forgotten {
            return Ok(Offspring::Lost(Lost::Forgotten(self.graph.node(node).name.clone())));
        }
        found.sort_unstable();
        Ok(Offspring::Rows(found))
    }
}

/// Rows of a table as rows of an input in which it stands at `offsets`, each with the row that it is in the table.
fn spread(rows: &BTreeSet<u64>, offsets: &[u64]) -> BTreeMap<u64, u64> {
    offsets.iter().flat_map(|offset| rows.iter().map(move |row| (offset + row, *row))).collect()
}

/// The output that holds what a node's source listed.
fn listing(node: &Node) -> Option<usize> {
    node.ports.iter().position(|(port, _)| port == FILES_PORT)
}

fn flat(found: Result<Result<Offspring, Failure>, Lost>) -> Result<Offspring, Failure> {
    found.unwrap_or_else(|lost| Ok(Offspring::Lost(lost)))
}

/// One row of a table, as a batch; `None` past its end. What comes after it is not read.
pub fn row(table: &Table, row: u64) -> Result<Option<RecordBatch>, StoreError> {
    let mut before = 0;
    for batch in table.batches()? {
        let batch = batch?;
        let n = batch.num_rows() as u64;
        if row < before + n {
            return Ok(Some(batch.slice((row - before) as usize, 1)));
        }
        before += n;
    }
    Ok(None)
}
