//! Pipelines of many nodes with little work in each: a listing of two small files, and `sample` over and over.

use std::fmt::Write;

/// How the nodes hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Each is fed by the one before.
    Chain,
    /// All are fed by the first.
    Fan,
    /// One feeds two, which feed one, which feeds two.
    Diamonds,
}

impl Shape {
    /// All of them, with the names by which they are asked for.
    pub(crate) const ALL: [(&'static str, Shape); 3] =
        [("chain", Shape::Chain), ("fan", Shape::Fan), ("diamonds", Shape::Diamonds)];
}

/// The documents that the pipelines read.
pub(crate) const DOCUMENTS: [(&str, &str); 2] =
    [("docs/one.txt", "The first of two short documents.\n"), ("docs/two.txt", "The second one.\n")];

/// A pipeline of `n` nodes. Another `edit` is another config of the last node.
pub(crate) fn pipeline(shape: Shape, n: usize, edit: u64) -> String {
    let mut text = String::from("retort: 1\nname: many\nnodes:\n");
    text += "  n0: {op: extract, with: {paths: [\"docs/*.txt\"]}}\n";
    for i in 1..n {
        let from = match (shape, i % 3) {
            (Shape::Fan, _) => "n0".to_string(),
            (Shape::Chain, _) | (Shape::Diamonds, 1) => format!("n{}", i - 1),
            (Shape::Diamonds, 2) => format!("n{}", i - 2),
            (Shape::Diamonds, _) => format!("[n{}, n{}]", i - 2, i - 1),
        };
        let seed = if i + 1 == n { i as u64 + edit } else { i as u64 };
        // No two nodes ask the same.
        let _ = writeln!(text, "  n{i}: {{op: sample, from: {from}, with: {{rows: 2, seed: {seed}}}}}");
    }
    text
}
