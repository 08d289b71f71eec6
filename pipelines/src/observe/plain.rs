//! A line an event on a plain stream, progress every few seconds: for logs and pipes.

use std::collections::BTreeMap;
use std::io::Write;

use retort_engine::EventKind;

use super::quiet::Quiet;
use super::{Ending, Moment, View, words};

/// Seconds between two lines of progress of a node.
const INTERVAL: f64 = 5.0;

/// Writes lines.
pub struct Plain<W> {
    out: W,
    shown: BTreeMap<String, f64>,
    quiet: Quiet,
}

impl<W: Write + Send> Plain<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Plain { out, shown: BTreeMap::new(), quiet: Quiet::default() }
    }

    fn line(&mut self, text: &str) {
        // One write a line, of which a terminal or a pipe gets nothing in between. Nobody reads: the run goes on.
        let _ = self.out.write_all(format!("{text}\n").as_bytes());
    }

    fn progress(&mut self, moment: &Moment<'_>) {
        let node = &moment.event.node;
        let last = self.shown.get(node).copied().unwrap_or(moment.tally.began);
        if moment.at - last >= INTERVAL {
            self.shown.insert(node.clone(), moment.at);
            self.line(&format!("{node}: {}", words::standing(moment.tally, moment.at)));
        }
    }
}

impl<W: Write + Send> View for Plain<W> {
    fn see(&mut self, moment: &Moment<'_>) {
        let (node, tally) = (&moment.event.node, moment.tally);
        if !self.quiet.tells(&moment.event.kind) {
            return;
        }
        match &moment.event.kind {
            EventKind::Fresh { .. } => self.line(&format!("{node}: fresh, {}", words::outcome(tally))),
            EventKind::Waiting { holder, process } => {
                self.line(&format!("{node}: {}", words::waiting(node, holder.as_deref(), *process)));
            }
            EventKind::Started { why } => self.line(&format!("{node}: started ({})", words::reason(why))),
            EventKind::Recalled { rows, of } if *rows > 0 => {
                self.line(&format!("{node}: {} of {} recalled", words::number(*rows), words::count(*of, "row")));
            }
            EventKind::Recalled { .. } => {}
            EventKind::Fetching { .. }
            | EventKind::Progress { .. }
            | EventKind::Tokens { .. }
            | EventKind::Metrics { .. } => self.progress(moment),
            EventKind::Note { text } => self.line(&format!("{node}: {text}")),
            EventKind::Finished { .. } => self.line(&format!("{node}: done, {}", words::finished(tally))),
            EventKind::Verified { .. } => self.line(&format!("{node}: verified, {}", words::finished(tally))),
            EventKind::Unverified { because } => self.line(&format!("{node}: not verified, {because}")),
            kind @ EventKind::Differs { .. } => self.line(&format!("{node}: DIFFERS: {}", words::parting(kind))),
            EventKind::Failed { error } => self.line(&format!("{node}: failed: {error}")),
            EventKind::Skipped { because } => self.line(&format!("{node}: skipped, `{because}` failed")),
        }
    }

    fn say(&mut self, text: &str) {
        self.line(text);
    }

    fn end(&mut self, _: &Ending<'_>) {
        if let Some(text) = self.quiet.rest() {
            self.line(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use retort_cache::{Change, ContentId, Digest, Recipe, RecipeId};
    use retort_engine::event::OutputSummary;
    use retort_engine::{Event, Reason};

    use super::super::Tally;
    use super::*;

    fn show(events: Vec<(f64, EventKind)>) -> String {
        let (mut out, mut tally) = (Vec::new(), Tally::default());
        let mut plain = Plain::new(&mut out);
        for (at, kind) in events {
            tally.take(&kind, at);
            let event = Event { node: "chunks".into(), kind };
            plain.see(&Moment { at, event: &event, tally: &tally });
        }
        String::from_utf8(out).expect("lines are text")
    }

    fn outputs(rows: u64, rejects: u64) -> Vec<OutputSummary> {
        let content = ContentId(Digest::of("test", |_| ()));
        let output = |port: &str, rows| OutputSummary { port: port.into(), content, rows };
        vec![output("out", rows), output("rejects", rejects)]
    }

    fn recipe() -> RecipeId {
        Recipe::default().id()
    }

    fn finished(rows: u64, rejects: u64) -> EventKind {
        let (recipe, outputs) = (recipe(), outputs(rows, rejects));
        EventKind::Finished { recipe, outputs, changed: true, asked: Some(100), rejects }
    }

    #[test]
    fn a_run_reads_as_lines() {
        let change = Change { fact: "with.max_tokens".into(), old: Some("384".into()), new: Some("512".into()) };
        let shown = show(vec![
            (0.0, EventKind::Started { why: Reason::Changed { changes: vec![change] } }),
            (0.0, EventKind::Recalled { rows: 20, of: 120 }),
            (1.0, EventKind::Progress { done: 21, of: 120 }),
            (10.0, EventKind::Tokens { prompt: 1000, output: 200, left: None }),
            (10.0, EventKind::Progress { done: 60, of: 120 }),
            (25.0, EventKind::Progress { done: 70, of: 120 }),
            (30.4, finished(117, 3)),
        ]);
        expect![[r#"
            chunks: started (with.max_tokens 384 → 512)
            chunks: 20 of 120 rows recalled
            chunks: 21/120 rows  0.10 rows/s  120 tokens/s  16 min 30 s left
            chunks: 70/120 rows  2.0 rows/s  48 tokens/s  25.0 s left
            chunks: done, 117 rows, 3 rejects, 20 recalled, 30.4 s, 33 prompt and 6.6 output tokens/s  (with.max_tokens 384 → 512)
        "#]]
        .assert_eq(&shown);
    }

    #[test]
    fn what_does_not_run_says_why() {
        let shown = show(vec![
            (0.0, EventKind::Fresh { recipe: recipe(), outputs: outputs(1, 0) }),
            (0.0, EventKind::Failed { error: "failed to read `x`: no such file".into() }),
            (0.0, EventKind::Skipped { because: "documents".into() }),
        ]);
        expect![[r#"
            chunks: fresh, 1 row
            chunks: failed: failed to read `x`: no such file
            chunks: skipped, `documents` failed
        "#]]
        .assert_eq(&shown);
    }
}
