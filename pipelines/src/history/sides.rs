//! What is compared: a run, or a pipeline as it stands, each node with its facts and its tables.

use std::collections::BTreeMap;
use std::path::Path;

use retort_cache::{Disk, Fact};
use retort_engine::event::OutputSummary;
use retort_engine::{Failure, Graph, Verdict, World, op_facts, plan};

use super::story::Series;
use super::{Run, story};
use crate::observe::State;

/// One of two things that are compared.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// What it is, in a few words.
    pub title: String,
    /// Its nodes.
    pub nodes: Vec<SideNode>,
}

/// A node of a side.
#[derive(Clone, Debug, Default)]
pub struct SideNode {
    /// Its name.
    pub name: String,
    /// Its operator, where that is known.
    pub op: Option<String>,
    /// Whether it has an answer, or why not: `fresh`, `ran`, `failed`, `stale`.
    pub state: String,
    /// The operator's facts, where they are known.
    pub op_facts: Option<Vec<Fact>>,
    /// The contents of its inputs, where they are known.
    pub input_facts: Option<Vec<Fact>>,
    /// Its tables, where it has an answer.
    pub outputs: Vec<OutputSummary>,
    /// What was measured while it ran.
    pub series: Vec<Series>,
}

/// A run, with the facts that its answers' records have.
pub fn of_run(root: &Path, disk: &Disk, run: &Run) -> Result<Side, Failure> {
    let mut side =
        Side { title: format!("run {} of {}, {}", run.id, run.asked.pipeline, run.status.word()), ..Side::default() };
    for node in story(root, &run.id)?.nodes {
        let record = node.tally.recipe.map(|recipe| disk.record(recipe)).transpose()?.flatten();
        let answered = matches!(node.tally.state, State::Fresh | State::Ran);
        let state =
            if answered && record.is_none() { "its facts are gone from the store" } else { node.tally.state.word() };
        side.nodes.push(SideNode {
            name: node.name,
            state: state.into(),
            op: record.as_ref().map(|record| record.op.clone()),
            op_facts: record.as_ref().map(|record| record.recipe.op.clone()),
            input_facts: record.map(|record| record.recipe.inputs),
            outputs: node.tally.outputs,
            series: node.series,
        });
    }
    Ok(side)
}

/// A pipeline as it stands: the answers of its fresh nodes, and the facts of all.
pub fn of_pipeline(path: &Path, graph: &Graph, world: World<'_>) -> Result<Side, Failure> {
    let mut side = Side { title: format!("pipeline {} ({})", graph.name(), path.display()), ..Side::default() };
    for planned in plan(graph, &[], world)? {
        let node = graph.node(planned.id);
        let state = match planned.verdict {
            Verdict::Fresh => "fresh",
            Verdict::Stale(_) => "stale",
            Verdict::Waiting(_) => "waiting",
        };
        let answer = planned.answer.as_ref();
        let outputs = answer.into_iter().flat_map(|answer| &answer.outputs).map(|output| OutputSummary {
            port: output.port.clone(),
            content: output.content,
            rows: output.rows,
        });
        side.nodes.push(SideNode {
            name: node.name.clone(),
            op: Some(node.op.clone()),
            state: state.into(),
            op_facts: Some(op_facts(node, world)?),
            input_facts: answer.map(|answer| answer.recipe.inputs.clone()),
            outputs: outputs.collect(),
            series: Vec::new(),
        });
    }
    Ok(side)
}

impl Side {
    /// The node of a name.
    pub fn find(&self, name: &str) -> Option<&SideNode> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The outputs by their contents: `chunks`, `sets.train`. Of equal ones the first.
    pub(super) fn sources(&self) -> BTreeMap<String, String> {
        let mut sources = BTreeMap::new();
        for node in &self.nodes {
            for output in &node.outputs {
                let name =
                    || if output.port == "out" { node.name.clone() } else { format!("{}.{}", node.name, output.port) };
                sources.entry(output.content.to_string()).or_insert_with(name);
            }
        }
        sources
    }
}
