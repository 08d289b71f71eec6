//! Cuts a failing case down to what is needed to fail.

use super::ops::{Docs, Row, Whole};
use super::world::{Op, Run, Step};

/// How often a case is tried again in all.
const TRIES: usize = 4000;

/// A small case that fails too, and how it does. `fails` says how a case fails.
pub(crate) fn shrink(steps: Vec<Step>, told: String, fails: &dyn Fn(&[Step]) -> Option<String>) -> (Vec<Step>, String) {
    let mut small = Small { steps, told, tries: TRIES, fails };
    loop {
        let before = small.steps.clone();
        small.drop_steps();
        small.simplify();
        if small.steps == before || small.tries == 0 {
            return (small.steps, small.told);
        }
    }
}

struct Small<'a> {
    steps: Vec<Step>,
    told: String,
    tries: usize,
    fails: &'a dyn Fn(&[Step]) -> Option<String>,
}

impl Small<'_> {
    fn attempt(&mut self, steps: Vec<Step>) -> bool {
        if self.tries == 0 {
            return false;
        }
        self.tries -= 1;
        let Some(told) = (self.fails)(&steps) else { return false };
        (self.steps, self.told) = (steps, told);
        true
    }

    fn drop_steps(&mut self) {
        let mut size = self.steps.len() / 2;
        while size > 0 {
            let mut at = 0;
            while at < self.steps.len() {
                let mut fewer = self.steps.clone();
                fewer.drain(at..(at + size).min(fewer.len()));
                if !self.attempt(fewer) {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    fn simplify(&mut self) {
        for at in 0..self.steps.len() {
            for simpler in simpler(&self.steps[at].clone()) {
                let mut steps = self.steps.clone();
                steps[at] = simpler;
                self.attempt(steps);
            }
        }
    }
}

/// The same step with one thing less.
fn simpler(step: &Step) -> Vec<Step> {
    match step {
        Step::Run(run) => {
            let plain = Run::plain();
            let some = [
                plain.clone(),
                Run { jobs: 1, ..run.clone() },
                Run { force: Vec::new(), ..run.clone() },
                Run { targets: Vec::new(), ..run.clone() },
                Run { trouble: None, ..run.clone() },
            ];
            some.into_iter().filter(|simpler| simpler != run).map(Step::Run).collect()
        }
        Step::Write(folder, name, text) => {
            let lines: Vec<_> = text.lines().collect();
            let without = |at: usize| {
                let mut fewer = lines.clone();
                fewer.remove(at);
                Step::Write(folder.clone(), name.clone(), fewer.join("\n"))
            };
            (0..lines.len()).map(without).collect()
        }
        Step::Configure(name, op) => simpler_ops(op).into_iter().map(|op| Step::Configure(name.clone(), op)).collect(),
        Step::Add(at, sketch) => {
            let mut some: Vec<_> = Vec::new();
            for op in simpler_ops(&sketch.op) {
                let mut sketch = sketch.clone();
                sketch.op = op;
                some.push(Step::Add(*at, sketch));
            }
            for slot in 0..sketch.from.len() {
                let mut sketch = sketch.clone();
                sketch.from[slot].1.truncate(1);
                some.push(Step::Add(*at, sketch));
            }
            some.into_iter().filter(|simpler| simpler != step).collect()
        }
        _ => Vec::new(),
    }
}

fn simpler_ops(op: &Op) -> Vec<Op> {
    let some: Vec<Op> = match op {
        Op::Row(row) => {
            let (plain, row) = (Row::default(), row.clone());
            [
                Row { reads: row.reads[..row.reads.len().min(1)].to_vec(), ..row.clone() },
                Row { maybe: plain.maybe, ..row.clone() },
                Row { number: plain.number, ..row.clone() },
                Row { carries: plain.carries, ..row.clone() },
                Row { drops: plain.drops, ..row.clone() },
                Row { remember: plain.remember, ..row.clone() },
                Row { salt: plain.salt, ..row.clone() },
                Row { coarse: plain.coarse, ..row.clone() },
                Row { many: plain.many, ..row.clone() },
                Row { refuse: plain.refuse, ..row.clone() },
                Row { nullable: plain.nullable, ..row.clone() },
                Row { batch: 64, ..row.clone() },
                Row { parallel: plain.parallel, ..row.clone() },
                Row { scramble: plain.scramble, ..row },
            ]
            .map(Op::Row)
            .into()
        }
        Op::Docs(docs) => [
            Docs { by_content: false, ..docs.clone() },
            Docs { lines: false, ..docs.clone() },
            Docs { salt: 0, ..docs.clone() },
        ]
        .map(Op::Docs)
        .into(),
        Op::Whole(whole) => vec![Op::Whole(Whole { salt: 0, ..whole.clone() })],
    };
    some.into_iter().filter(|simpler| simpler != op).collect()
}
