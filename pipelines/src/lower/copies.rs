//! Which copy of a node a mistake is in, where it is not in all of them.

use std::collections::{BTreeSet, HashMap};

use super::Lowered;
use crate::diagnostics::Diagnostic;

impl Lowered {
    /// Shows of each mistake that some copies of a node have, and others not, what made the copy.
    pub(crate) fn tell_copies(&self, problems: &mut [Diagnostic]) {
        if self.nodes.iter().all(|node| node.given.is_none()) {
            return;
        }
        let nodes: HashMap<&str, _> = self.nodes.iter().map(|node| (node.spec.name.as_str(), node)).collect();
        let alike = |problem: &Diagnostic| (problem.span, problem.code, problem.message.clone());
        let mut copies: HashMap<_, BTreeSet<String>> = HashMap::new();
        for problem in problems.iter() {
            copies.entry(alike(problem)).or_default().extend(problem.node.clone());
        }
        for problem in problems.iter_mut().filter(|problem| problem.also.is_none()) {
            let Some(name) = &problem.node else { continue };
            let Some(given) = nodes.get(name.as_str()).and_then(|node| node.given.as_ref()) else { continue };
            let copies = &copies[&alike(problem)];
            if copies.len() < given.of && copies.first() == Some(name) {
                let others = if copies.len() > 1 { format!(", and {} more", copies.len() - 1) } else { String::new() };
                problem.also = Some((given.span, format!("in the copy `{name}`{others}")));
            }
        }
    }
}
