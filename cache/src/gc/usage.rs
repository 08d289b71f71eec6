//! What a store holds, by pipeline and node: of each node the newest answer's tables and its remembered rows.
//!
//! A thing that several nodes have is counted once in the whole, and told as shared at each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::survey::{Survey, newest};
use super::{ContentId, Reach, RecipeId, StoreError};

/// What a store holds.
#[derive(Debug)]
pub struct Usage {
    /// The pipelines that have answers, by name.
    pub pipelines: Vec<PipelineUsage>,
    /// Bytes of tables and rows that some node's newest answer has, each counted once.
    pub reachable: u64,
}

/// What a pipeline holds.
#[derive(Debug)]
pub struct PipelineUsage {
    /// Its name.
    pub name: String,
    /// Bytes that no other pipeline has.
    pub own: u64,
    /// Bytes that other pipelines have too.
    pub shared: u64,
    /// Its nodes, by name.
    pub nodes: Vec<NodeUsage>,
}

/// What a node holds.
#[derive(Debug)]
pub struct NodeUsage {
    /// Its name in the pipeline.
    pub name: String,
    /// Bytes of its tables.
    pub tables: u64,
    /// Bytes of its remembered rows.
    pub rows: u64,
    /// How much of both other nodes have too.
    pub shared: u64,
}

/// A table, or the rows of an operator.
type Part = (Option<ContentId>, Option<RecipeId>);

/// What the store in `root` holds, by pipeline and node.
pub fn usage(root: &Path) -> Result<Usage, StoreError> {
    let survey = Survey::of(root)?;
    let mut pipelines: BTreeMap<String, Vec<(String, BTreeSet<Part>)>> = BTreeMap::new();
    let (mut nodes_with, mut pipelines_with) =
        (BTreeMap::<Part, u64>::new(), BTreeMap::<Part, BTreeSet<String>>::new());
    for (node, recipe) in newest(root, &Reach::Views)? {
        let Some((pipeline, name)) = node.split_once('/') else { continue };
        let parts = parts(&survey, recipe);
        for part in &parts {
            *nodes_with.entry(*part).or_default() += 1;
            pipelines_with.entry(*part).or_default().insert(pipeline.to_string());
        }
        pipelines.entry(pipeline.to_string()).or_default().push((name.to_string(), parts));
    }
    let size = |part: &Part| bytes(&survey, part);
    let pipelines = pipelines.into_iter().map(|(name, nodes)| {
        let all: BTreeSet<_> = nodes.iter().flat_map(|(_, parts)| parts.iter().copied()).collect();
        let (shared, own): (Vec<_>, Vec<_>) = all.iter().partition(|part| pipelines_with[*part].len() > 1);
        let node = |(name, parts): (String, BTreeSet<Part>)| NodeUsage {
            name,
            tables: parts.iter().filter(|part| part.0.is_some()).map(size).sum(),
            rows: parts.iter().filter(|part| part.1.is_some()).map(size).sum(),
            shared: parts.iter().filter(|part| nodes_with[*part] > 1).map(size).sum(),
        };
        let mut nodes: Vec<_> = nodes.into_iter().map(node).collect();
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        PipelineUsage { name, own: own.into_iter().map(size).sum(), shared: shared.into_iter().map(size).sum(), nodes }
    });
    Ok(Usage { pipelines: pipelines.collect(), reachable: nodes_with.keys().map(size).sum() })
}

fn parts(survey: &Survey, recipe: RecipeId) -> BTreeSet<Part> {
    let Some(answer) = survey.answers.get(&recipe) else { return BTreeSet::new() };
    let tables = answer.outputs.iter().map(|content| (Some(*content), None));
    let rows = survey.rows.contains_key(&answer.op_id).then_some((None, Some(answer.op_id)));
    tables.chain(rows).collect()
}

fn bytes(survey: &Survey, part: &Part) -> u64 {
    let seen = match part {
        (Some(content), _) => survey.tables.get(content),
        (_, Some(op)) => survey.rows.get(op),
        _ => None,
    };
    seen.map_or(0, |seen| seen.bytes)
}
