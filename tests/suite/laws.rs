//! The law of row operators, for every one of the registry: rows permuted, parted and doubled are answered alike.
//!
//! An operator that needs a model is held to it by its own tests.

use std::path::Path;

use retort_cache::row_digests;
use retort_engine::{Env, NodeSpec, Operator};
use serde_json::{Value, json};

use crate::nodes::{Order, node, ops, run};

/// Row operators that list their own input: their rows can be chosen, not rearranged.
const LIST_THEIR_INPUT: &[&str] = &["extract"];

/// Row operators whose law is kept by a program that the user names (`exec.rs`).
const ASK_PROGRAMS: &[&str] = &["exec"];

/// What feeds an operator here, as nodes of which the last is its input, and its configs.
fn fed(op: &str) -> Option<(Vec<NodeSpec>, Vec<Value>)> {
    match op {
        "chunk" => Some((
            vec![documents("nextstep/docs/**/*.{md,txt}")],
            vec![json!({"max_words": 60}), json!({"max_words": 400})],
        )),
        "filter" => {
            let conditions = [
                "length(output) > 20 AND finish_reason = 'stop'",
                "output IS NULL OR CAST(substr(path, 1, 1) AS int) > 3 OR output LIKE '%?%'",
                // Of some rows it can't be told: they must not take their neighbours along.
                "finish_reason = 'stop' AND CAST(substr(output, 1, 1) AS int) > 3",
            ];
            Some((vec![outputs()], conditions.map(|text| json!({"where": text})).into()))
        }
        "parse" => {
            let columns = json!({"input": "question", "output": "answer", "file": "path"});
            let configs = vec![
                json!({"format": "question-answer"}),
                json!({"format": "question-answer", "columns": columns}),
                json!({"format": "regex", "pattern": "(?m)^A: (?<fact>.*)$"}),
            ];
            Some((vec![outputs()], configs))
        }
        _ => None,
    }
}

fn documents(glob: &str) -> NodeSpec {
    node("input", "extract", "", json!({"paths": [format!("pipelines/{glob}")]}))
}

/// What a small model wrote, in all shades.
fn outputs() -> NodeSpec {
    let row = |n: usize| {
        let output = match n % 6 {
            0 => {
                Some(format!("Question: What is {n}?\nAnswer: A number.\n\nQuestion: And {}?\nAnswer: Another.", n + 1))
            }
            1 => Some(format!("Q: Which? A: The {n}th. Q: Why? A: Because.")),
            2 => Some("There is nothing to ask.".into()),
            3 => Some("Q: Half?\nA: Whole.\nQ: Cut?\nA: Cut o".into()),
            4 => Some(String::new()),
            _ => None,
        };
        let reason = if n % 6 == 3 { "length" } else { "stop" };
        vec![output, Some(reason.into()), Some(format!("{}.md", n / 4))]
    };
    let rows: Vec<Vec<Option<String>>> = (0..100).map(row).collect();
    node("input", "literal", "", json!({"columns": ["output", "finish_reason", "path"], "rows": rows}))
}

/// The rows of `out` and of `rejects`, sorted, each by its digest.
fn answers(nodes: &[NodeSpec], op: &str, with: &Value, order: Order) -> Vec<(usize, String)> {
    let input = nodes.last().expect("something feeds it").name.clone();
    let mut specs = nodes.to_vec();
    specs.push(node("arranged", "arrange", &input, json!({"order": order})));
    specs.push(node("answered", op, "arranged", with.clone()));
    let tables = run(&specs, &[("answered", "out"), ("answered", "rejects")]);
    sorted(
        tables
            .iter()
            .enumerate()
            .flat_map(|(port, table)| row_digests(table).unwrap().into_iter().map(move |digest| (port, digest.hex()))),
    )
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort();
    items
}

#[test]
fn rows_are_answered_by_themselves() {
    for (op, nodes, with) in row_ops()
        .into_iter()
        .filter_map(|op| fed(op).map(|(nodes, configs)| (op, nodes, configs)))
        .flat_map(|(op, nodes, configs)| configs.into_iter().map(move |with| (op, nodes.clone(), with)))
    {
        let whole = answers(&nodes, op, &with, Order::AsTheyAre);
        assert!(whole.len() > 10, "`{op}` with {with}: too few rows to tell");
        assert_eq!(whole, answers(&nodes, op, &with, Order::Reversed), "`{op}` with {with}: permuted");
        let parted = [Order::FirstThird, Order::Others].into_iter().flat_map(|part| answers(&nodes, op, &with, part));
        assert_eq!(whole, sorted(parted), "`{op}` with {with}: parted");
        let twice = sorted(whole.iter().chain(&whole).cloned());
        assert_eq!(twice, answers(&nodes, op, &with, Order::Twice), "`{op}` with {with}: doubled");
    }
}

#[test]
fn every_row_operator_is_held_to_the_law() {
    for op in row_ops() {
        let known = fed(op).is_some() || LIST_THEIR_INPUT.contains(&op) || ASK_PROGRAMS.contains(&op);
        assert!(known, "say in `laws.rs` what feeds `{op}`");
    }
}

#[test]
fn documents_are_extracted_each_by_itself() {
    let digests = |glob: &str| {
        let table = run(&[documents(glob)], &[("input", "out")]).remove(0);
        sorted(row_digests(&table).unwrap().into_iter().map(|digest| digest.hex()))
    };
    let folders = ["*", "apps/*", "develop/*", "disks/*", "netinfo/*", "printing/*", "system/*"];
    let whole = digests("nextstep/docs/**/*");
    assert!(whole.len() > 20, "{}", whole.len());
    assert_eq!(whole, sorted(folders.iter().flat_map(|folder| digests(&format!("nextstep/docs/{folder}")))));
}

/// The row operators of the registry, told by their config here or on their manual page. One that needs a model is not told: its config names an
/// entry of `models:`.
fn row_ops() -> Vec<&'static str> {
    let env = Env { base: Path::new(".") };
    let is_row_op = |name: &str| {
        let info = ops().into_iter().find(|info| info.name == name).expect("it is registered");
        let mut configs = fed(name).map(|(_, configs)| configs).unwrap_or_default();
        configs.extend(crate::help::config_of_example(&info));
        configs
            .into_iter()
            .any(|with| matches!((info.make)(with, &env).map(|made| made.operator), Ok(Operator::Rows(_))))
    };
    retort_ops::REGISTRY.iter().map(|info| info.name).filter(|name| is_row_op(name)).collect()
}
