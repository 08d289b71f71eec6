//! A folder with documents, a pipeline and a store, and the `retort` command run in it from outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A folder to run pipelines in. It goes with the value.
pub struct Space {
    folder: tempfile::TempDir,
    command: PathBuf,
    env: BTreeMap<String, String>,
}

impl Space {
    /// An empty folder; `command` is the `retort` executable.
    pub fn new(command: &str) -> Self {
        Space {
            folder: tempfile::tempdir().expect("a folder for the test"),
            command: command.into(),
            env: BTreeMap::new(),
        }
    }

    /// Sets a variable of the environment in which the command runs.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_string(), value.to_string());
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file, making its folders.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("its folder can be made");
        fs::write(&path, text).expect("it can be written");
    }

    /// Replaces a text in a file; it must be there.
    pub fn edit(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path().join(name)).expect("it can be read");
        assert!(text.contains(old), "`{name}` has no `{old}`");
        self.write(name, &text.replacen(old, new, 1));
    }

    /// Runs the command to its end.
    pub fn retort(&self, args: &[&str]) -> Output {
        self.start(args).wait_with_output().expect("it ends")
    }

    /// Runs a command that must end with `status`; gives standard output and standard error.
    pub fn ends(&self, status: i32, args: &[&str]) -> (String, String) {
        let output = self.retort(args);
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("it is text"));
        assert_eq!(output.status.code(), Some(status), "{args:?}\n{out}\n{err}");
        (out, err)
    }

    /// Starts the command.
    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args).spawn().expect("it starts")
    }

    /// The command, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.command);
        command.args(args).current_dir(self.path()).env_remove("RETORT_STORE").stdin(Stdio::null());
        command.env_remove("RETORT_REMOTE").envs(&self.env);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a pipeline that must succeed, and says what happened to each node.
    pub fn run(&self, pipeline: &str) -> Story {
        self.run_with(pipeline, &[])
    }

    /// The same with further arguments.
    pub fn run_with(&self, pipeline: &str, args: &[&str]) -> Story {
        let mut all = vec!["run", pipeline, "--json"];
        all.extend_from_slice(args);
        let output = self.retort(&all);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Story::of(&output.stdout)
    }

    /// The plan as JSON.
    pub fn plan(&self, pipeline: &str) -> Value {
        let output = self.retort(&["plan", pipeline, "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("a plan is JSON")
    }

    /// All rows of a node as JSON.
    pub fn rows(&self, pipeline: &str, node: &str) -> Vec<Value> {
        let output = self.retort(&["show", pipeline, node, "--format", "json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect()
    }
}

/// What happened in a run, by node.
#[derive(Debug)]
pub struct Story {
    /// All events, in order.
    pub events: Vec<Value>,
}

impl Story {
    /// Reads a run's JSON events.
    pub fn of(stdout: &[u8]) -> Self {
        let text = String::from_utf8_lossy(stdout);
        let events = text.lines().map(|line| serde_json::from_str(line).expect("an event is JSON")).collect();
        Story { events }
    }

    /// The nodes that ran, with how many rows they were asked: `documents: 1`, `sets`.
    pub fn ran(&self) -> Vec<String> {
        let mut ran = BTreeMap::new();
        for event in self.events.iter().filter(|event| event["event"] == "finished") {
            let node = event["node"].as_str().unwrap_or_default().to_string();
            let text = event["asked"].as_u64().map_or(node.clone(), |asked| format!("{node}: {asked}"));
            ran.insert(node, text);
        }
        ran.into_values().collect()
    }

    /// The facts that a node named when it ran: `with.max_words`.
    pub fn why(&self, node: &str) -> Vec<String> {
        let started = self.events.iter().find(|event| event["event"] == "started" && event["node"] == node);
        let changes = started.and_then(|event| event["why"]["changes"].as_array());
        changes.into_iter().flatten().filter_map(|change| Some(change["fact"].as_str()?.to_string())).collect()
    }

    /// What was noted: remarks of nodes and of the store.
    pub fn notes(&self) -> Vec<&str> {
        let notes = self.events.iter().filter(|event| event["event"] == "note");
        notes.filter_map(|event| event["text"].as_str()).collect()
    }

    /// The `recalled` event of a node: remembered rows, and rows in all.
    pub fn recalled(&self, node: &str) -> Option<(u64, u64)> {
        let event = self.events.iter().find(|event| event["event"] == "recalled" && event["node"] == node)?;
        Some((event["rows"].as_u64()?, event["of"].as_u64()?))
    }
}
