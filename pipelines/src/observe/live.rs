//! A line a running node on a terminal; a node that has ended leaves one plain line above.

use std::collections::BTreeMap;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use retort_engine::EventKind;

use super::quiet::Quiet;
use super::{Ending, Moment, View, words};

/// Seconds between two updates of a line.
const INTERVAL: f64 = 0.1;

/// Draws on standard error.
pub struct Live {
    lines: MultiProgress,
    running: BTreeMap<String, (ProgressBar, f64)>,
    width: usize,
    quiet: Quiet,
}

impl Live {
    /// Draws lines for nodes of these names.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let width = names.into_iter().map(console::measure_text_width).max().unwrap_or(0);
        let lines = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Live { lines, running: BTreeMap::new(), width, quiet: Quiet::default() }
    }

    fn begin(&mut self, moment: &Moment<'_>, text: String) {
        self.clear(&moment.event.node);
        let bar = self.lines.add(ProgressBar::new(0));
        let template = format!("{{spinner:.cyan}} {{prefix:{}.bold}} {{bar:20.cyan/dim}} {{wide_msg}}", self.width);
        let style = ProgressStyle::with_template(&template).expect("the template is well formed");
        bar.set_style(style.progress_chars("━╸─"));
        bar.set_prefix(moment.event.node.clone());
        bar.set_message(text);
        bar.enable_steady_tick(Duration::from_millis(120));
        self.running.insert(moment.event.node.clone(), (bar, f64::NEG_INFINITY));
    }

    fn update(&mut self, moment: &Moment<'_>) {
        let Some((bar, shown)) = self.running.get_mut(&moment.event.node) else { return };
        if moment.at - *shown < INTERVAL {
            return;
        }
        *shown = moment.at;
        let tally = moment.tally;
        let count = tally.fetching.as_ref().map(|(_, done, of)| (*done, *of)).or(tally.progress);
        if let Some((done, of)) = count {
            bar.set_length(of);
            bar.set_position(done.min(of));
        }
        bar.set_message(words::standing(tally, moment.at));
    }

    fn close(&mut self, moment: &Moment<'_>, color: AnsiColor, mark: &str, text: &str) {
        self.clear(&moment.event.node);
        self.print(&moment.event.node, color, mark, text);
    }

    fn clear(&mut self, node: &str) {
        if let Some((bar, _)) = self.running.remove(node) {
            bar.finish_and_clear();
            self.lines.remove(&bar);
        }
    }

    fn print(&self, node: &str, color: AnsiColor, mark: &str, text: &str) {
        let style = Style::new().fg_color(Some(color.into()));
        let line = format!("{style}{mark}{style:#} {node:width$}  {text}", width = self.width);
        let _ = self.lines.println(line);
    }
}

impl View for Live {
    fn see(&mut self, moment: &Moment<'_>) {
        let tally = moment.tally;
        if !self.quiet.tells(&moment.event.kind) {
            return;
        }
        match &moment.event.kind {
            EventKind::Waiting { holder, process } => {
                let text = words::waiting(&moment.event.node, holder.as_deref(), *process);
                self.begin(moment, text);
            }
            EventKind::Started { why } => self.begin(moment, words::reason(why)),
            EventKind::Recalled { .. }
            | EventKind::Fetching { .. }
            | EventKind::Progress { .. }
            | EventKind::Tokens { .. }
            | EventKind::Metrics { .. } => self.update(moment),
            EventKind::Note { text } => self.print(&moment.event.node, AnsiColor::Cyan, "·", text),
            EventKind::Fresh { .. } => {
                let text = format!("{}, fresh", words::outcome(tally));
                self.close(moment, AnsiColor::BrightBlack, "=", &text);
            }
            EventKind::Finished { .. } => self.close(moment, AnsiColor::Green, "✓", &words::finished(tally)),
            EventKind::Verified { .. } => {
                self.close(moment, AnsiColor::Green, "✓", &format!("verified, {}", words::finished(tally)));
            }
            EventKind::Unverified { because } => {
                self.close(moment, AnsiColor::Yellow, "-", &format!("not verified, {because}"));
            }
            kind @ EventKind::Differs { .. } => {
                self.print(&moment.event.node, AnsiColor::Red, "✗", &format!("DIFFERS: {}", words::parting(kind)));
            }
            EventKind::Failed { error } => self.close(moment, AnsiColor::Red, "✗", error),
            EventKind::Skipped { because } => {
                self.close(moment, AnsiColor::Yellow, "-", &format!("skipped, `{because}` failed"));
            }
        }
    }

    fn say(&mut self, text: &str) {
        let _ = self.lines.println(text);
    }

    fn end(&mut self, _: &Ending<'_>) {
        if let Some(text) = self.quiet.rest() {
            self.say(&text);
        }
        for (bar, _) in std::mem::take(&mut self.running).into_values() {
            bar.finish_and_clear();
        }
    }
}
