//! Events as JSON Lines: `{"event": "recalled", "node": "documents", "rows": 199, "of": 200, "at": 0.412}`, and last a `summary`.

use std::io::{self, Write};
use std::path::Path;

use retort_cache::StoreError;
use retort_engine::{Event, Summary};
use serde::Serialize;

use super::tally::{NodeLine, milliseconds};
use super::thin::Thin;
use super::{Ending, Moment, View};

/// Seconds between two counts of progress of a node.
const INTERVAL: f64 = 0.5;

/// Writes an object a line.
pub struct Json<W> {
    out: W,
    thin: Thin,
    trouble: Option<io::Error>,
}

impl<W: Write + Send> Json<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Json { out, thin: Thin::every(INTERVAL), trouble: None }
    }

    fn line(&mut self, text: &str) {
        // One write a line. Whoever stops reading is nobody's trouble; the run goes on in any case.
        let line = format!("{text}\n");
        if let Err(error) = self.out.write_all(line.as_bytes()).and_then(|()| self.out.flush())
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            self.trouble.get_or_insert(error);
        }
    }
}

impl<W: Write + Send> View for Json<W> {
    fn see(&mut self, moment: &Moment<'_>) {
        for event in self.thin.take(moment.event, moment.at) {
            self.line(&object(&event, moment.at));
        }
    }

    fn end(&mut self, ending: &Ending<'_>) {
        self.line(&text(&summary(ending)));
    }

    fn trouble(&mut self) -> Option<StoreError> {
        self.trouble.take().map(StoreError::io("write", Path::new("standard output")))
    }
}

/// An event as an object: `event` and `node` first, `at` (seconds since the run began) last.
pub(super) fn object(event: &Event, at: f64) -> String {
    let kind = text(&event.kind);
    // The tag comes first, and no tag has a comma: the node's name goes behind it.
    let (tag, rest) = kind.split_at(kind.find([',', '}']).unwrap_or(kind.len()));
    let rest = rest.strip_suffix('}').unwrap_or_default();
    format!("{tag},\"node\":{}{rest},\"at\":{}}}", text(&event.node), text(&milliseconds(at)))
}

fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("events are plain data")
}

/// The last line: what the run came to, and every node with its tables.
#[derive(Serialize)]
pub(super) struct SummaryLine<'a> {
    event: &'static str,
    #[serde(flatten)]
    counts: &'a Summary,
    nodes: Vec<NodeLine<'a>>,
    at: f64,
}

/// What a run came to, to be written down.
pub(super) fn summary<'a>(ending: &Ending<'a>) -> SummaryLine<'a> {
    let nodes = ending.nodes.iter().map(|(name, tally)| tally.line(name)).collect();
    SummaryLine { event: "summary", counts: ending.summary, nodes, at: milliseconds(ending.at) }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use retort_engine::{EventKind, Reason};

    use super::super::Tally;
    use super::*;

    #[test]
    fn an_event_is_an_object_with_its_name_first() {
        let event = Event { node: "documents".into(), kind: EventKind::Recalled { rows: 199, of: 200 } };
        expect![[r#"{"event":"recalled","node":"documents","rows":199,"of":200,"at":0.412}"#]]
            .assert_eq(&object(&event, 0.41234));
        let event = Event { node: "documents".into(), kind: EventKind::Started { why: Reason::FirstRun } };
        expect![[r#"{"event":"started","node":"documents","why":{"reason":"first-run"},"at":0.0}"#]]
            .assert_eq(&object(&event, 0.0));
    }

    #[test]
    fn the_summary_is_last_and_names_every_node() {
        let mut tally = Tally::default();
        tally.take(&EventKind::Skipped { because: "listing".into() }, 0.0);
        let nodes = [("documents".to_string(), tally)];
        let counts = Summary { skipped: 1, ..Summary::default() };
        let mut out = Vec::new();
        Json::new(&mut out).end(&Ending { at: 1.0, summary: &counts, nodes: &nodes });
        expect![[r#"
            {"event":"summary","ran":0,"fresh":0,"failed":0,"skipped":1,"cancelled":false,"nodes":[{"node":"documents","state":"skipped","seconds":0.0,"recalled":null,"asked":null,"rejects":0,"recipe":null,"outputs":[],"because":"listing"}],"at":1.0}
        "#]]
        .assert_eq(&String::from_utf8(out).unwrap());
    }
}
