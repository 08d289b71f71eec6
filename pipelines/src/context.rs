//! Budgets of tokens against the contexts of models, where the models are there to be asked: a chunk that no prompt can hold, an answer
//! that leaves no room for a question.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use retort_engine::{Asset, Graph, NodeId, Operator, Problem, TokenBudget};

use crate::source::Source;

/// Every budget that is too large for its model. `fetched` is the folder where models lie that were fetched.
pub(crate) fn problems(graph: &Graph, fetched: Option<&Path>) -> Vec<Problem> {
    let mut contexts: HashMap<PathBuf, Option<usize>> = HashMap::new();
    let mut problems = Vec::new();
    for id in graph.order() {
        let node = graph.node(*id);
        let (Some(budget), Some(model)) = (node.made.budget, node.made.assets.first()) else { continue };
        let Some(path) = file(model, fetched) else { continue };
        let context = *contexts.entry(path).or_insert_with_key(|path| retort_lm::header::context_length(path));
        let Some(context) = context else { continue };
        if budget.tokens > context {
            let message =
                format!("{} tokens are more than the model takes in: its context has {context}", budget.tokens);
            problems.push(Problem { code: "context", ..Problem::at_field(budget.field, message) }.in_node(&node.name));
        } else if let Some((source, text)) = longest(graph, *id, model)
            && text.tokens + budget.tokens > context
        {
            let message = format!(
                "`{source}` gives texts of up to {} tokens; with answers of up to {} they do not fit the model's context of {context}",
                text.tokens, budget.tokens
            );
            let problem = Problem::new("context", "from", message).hint(format!(
                "lower `{}` of `{source}`, or `{}` here, or take a model with a larger context",
                text.field, budget.field
            ));
            problems.push(problem.in_node(&node.name));
        }
    }
    problems
}

/// The file of a model that is here.
fn file(model: &Asset, fetched: Option<&Path>) -> Option<PathBuf> {
    if let [source] = model.sources.as_slice()
        && let Ok(Source::File(path)) = Source::parse(source)
    {
        return Some(model.base.join(path));
    }
    Some(fetched?.join(format!("{}.gguf", model.sha256.as_ref()?)))
}

/// The node that wrote the longest text that a row operator reads, counted by the same model.
fn longest<'a>(graph: &'a Graph, id: NodeId, model: &Asset) -> Option<(&'a str, TokenBudget)> {
    let Operator::Rows(op) = &graph.node(id).made.operator else { return None };
    let written = |column: String| writer(graph, id, &column, model);
    op.reads().into_iter().filter_map(written).max_by_key(|(_, budget)| budget.tokens)
}

/// The node upstream that wrote a column, if it has a budget for it.
fn writer<'a>(graph: &'a Graph, id: NodeId, column: &str, model: &Asset) -> Option<(&'a str, TokenBudget)> {
    let mut found: Vec<(&str, TokenBudget)> = Vec::new();
    let (mut waiting, mut seen) = (graph.feeds(id), HashSet::new());
    while let Some(feed) = waiting.pop() {
        let node = graph.node(feed);
        let has_it = node.ports.iter().any(|(_, schema)| schema.field_with_name(column).is_ok());
        if !has_it || !seen.insert(feed) {
            continue;
        }
        match node.made.budget.filter(|budget| budget.column == column) {
            Some(budget) => {
                let own = node.made.assets.first();
                let same = own.is_some_and(|own| (&own.sources, &own.sha256) == (&model.sources, &model.sha256));
                found.extend(same.then_some((node.name.as_str(), budget)));
            }
            None => waiting.extend(graph.feeds(feed)),
        }
    }
    found.into_iter().max_by_key(|(_, budget)| budget.tokens)
}
