//! What happened in a run, node by node, folded from the events that were recorded.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use retort_cache::StoreError;
use retort_engine::EventKind;
use serde::Deserialize;
use serde_json::Value;

use crate::observe::{EVENTS_FILE, RUNS_FOLDER, Tally};

/// What happened in a run.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// The nodes that something happened to, in the order in which it began.
    pub nodes: Vec<NodeStory>,
    /// The numbers of lines that can't be read, from 1.
    pub unread: Vec<usize>,
    /// Seconds from the run's beginning to the last event.
    pub seconds: f64,
}

/// What happened to a node.
#[derive(Clone, Debug, Default)]
pub struct NodeStory {
    /// Its name.
    pub name: String,
    /// What it came to.
    pub tally: Tally,
    /// What it said, with seconds since the run began.
    pub notes: Vec<(f64, String)>,
    /// What it measured, by name.
    pub series: Vec<Series>,
}

/// A value that was measured again and again.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// How often.
    pub values: u64,
    /// The first value.
    pub first: f64,
    /// The smallest.
    pub best: f64,
    /// The last.
    pub last: f64,
}

/// A line of `events.jsonl`.
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// As it stands.
    pub text: String,
    /// The node that it tells of, where it can be read.
    pub node: Option<String>,
    event: Option<(EventKind, f64)>,
}

#[derive(Deserialize)]
struct HeadWire {
    node: String,
    at: f64,
}

/// The lines of a run's events, in order.
pub fn lines(root: &Path, id: &str) -> Result<impl Iterator<Item = Result<Line, StoreError>>, StoreError> {
    let path = root.join(RUNS_FOLDER).join(id).join(EVENTS_FILE);
    let file = File::open(&path).map_err(StoreError::io("open", &path))?;
    let lines = BufReader::new(file).split(b'\n').zip(1..);
    Ok(lines.map(move |(line, number)| {
        let text = String::from_utf8_lossy(&line.map_err(StoreError::io("read", &path))?).into_owned();
        let head = serde_json::from_str::<HeadWire>(&text).ok();
        let kind = serde_json::from_str::<Value>(&text).ok().and_then(|value| serde_json::from_value(value).ok());
        let event = head.as_ref().and_then(|head| Some((kind?, head.at)));
        Ok(Line { number, text, node: head.map(|head| head.node), event })
    }))
}

/// A run's story.
pub fn story(root: &Path, id: &str) -> Result<Story, StoreError> {
    let (mut story, mut index) = (Story::default(), HashMap::new());
    for line in lines(root, id)? {
        let Line { number, node, event, .. } = line?;
        let (Some(node), Some((event, at))) = (node, event) else {
            story.unread.push(number);
            continue;
        };
        let place = *index.entry(node.clone()).or_insert_with(|| {
            story.nodes.push(NodeStory { name: node, ..NodeStory::default() });
            story.nodes.len() - 1
        });
        story.seconds = at;
        story.nodes[place].take(event, at);
    }
    Ok(story)
}

impl NodeStory {
    fn take(&mut self, event: EventKind, at: f64) {
        self.tally.take(&event, at);
        match event {
            EventKind::Note { text } => self.notes.push((at, text)),
            EventKind::Metrics { values, .. } => values.into_iter().for_each(|(name, value)| self.measure(name, value)),
            _ => {}
        }
    }

    fn measure(&mut self, name: String, value: f64) {
        match self.series.iter_mut().find(|series| series.name == name) {
            Some(series) => {
                series.values += 1;
                series.best = series.best.min(value);
                series.last = value;
            }
            None => self.series.push(Series { name, values: 1, first: value, best: value, last: value }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::observe::State;

    #[test]
    fn what_can_be_read_is_told_and_what_can_not_is_named() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join(RUNS_FOLDER).join("2026");
        fs::create_dir_all(&folder).unwrap();
        let events = "\
            {\"event\":\"started\",\"node\":\"a\",\"why\":{\"reason\":\"first-run\"},\"at\":0.5}\n\
            {\"event\":\"metrics\",\"node\":\"a\",\"step\":1,\"values\":[[\"loss\",3.0]],\"at\":0.6}\n\
            {\"event\":\"metrics\",\"node\":\"a\",\"step\":2,\"values\":[[\"loss\",1.0]],\"at\":0.7}\n\
            {\"event\":\"metrics\",\"node\":\"a\",\"step\":3,\"values\":[[\"loss\",null]],\"at\":0.8}\n\
            {\"event\":\"dreamt\",\"node\":\"a\",\"at\":0.9}\n\
            {\"event\":\"note\",\"node\":\"b\",\"text\":\"x\",\"at\":1.0}\n\
            {\"event\":\"fini";
        fs::write(folder.join(EVENTS_FILE), events).unwrap();
        let story = story(store.path(), "2026").unwrap();
        assert_eq!((story.unread.as_slice(), story.seconds), (&[5, 7][..], 1.0));
        let [a, b] = story.nodes.as_slice() else { panic!("{story:?}") };
        assert_eq!((a.tally.state.clone(), b.notes.clone()), (State::Running, vec![(1.0, "x".to_string())]));
        let loss = &a.series[0];
        assert_eq!((loss.values, loss.first, loss.best), (3, 3.0, 1.0));
        assert!(loss.last.is_nan());
    }
}
