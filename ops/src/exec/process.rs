//! One program: started, fed, heard, ended. Whoever stops waiting ends it.
//!
//! A thread writes its standard input, one reads Arrow from its standard output, one keeps the end of its standard error. The
//! caller hands over what comes and looks in between whether the person asked to stop.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use retort_cache::{Batches, StoreError};
use retort_engine::{Cx, Failure};

use crate::running::{Pipes, Running};

/// How often it is looked whether the person asked to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes of standard error that are kept.
const TAIL: usize = 4096;
/// Lines of standard error that are shown.
const LINES: usize = 12;

/// A program as it is started.
pub(super) struct Program {
    pub(super) command: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) folder: PathBuf,
}

/// What the reading thread says.
enum Heard {
    Batch(RecordBatch),
    /// The stream is whole.
    End,
    /// It is no stream, or one that was cut.
    Broken(String),
}

impl Program {
    /// Feeds rows to the program and hands over what comes back, to the end of both.
    pub(super) fn talk(
        &self,
        schema: SchemaRef,
        rows: Batches,
        cx: &Cx<'_>,
        take: &mut dyn FnMut(&RecordBatch) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        cx.check()?;
        let (mut running, (stdin, stdout, stderr)) = self.start(cx)?;
        let store_failed = Arc::new(Mutex::new(None));
        let (tell, heard) = mpsc::sync_channel(2);
        let (tail, failed) = (Tail::default(), store_failed.clone());
        std::thread::spawn(move || write(stdin, &schema, rows, &failed));
        std::thread::spawn(move || read(stdout, &tell));
        let silent = tail.follow(stderr);

        let broken = hear(&heard, cx, take)?;
        let status = wait(&mut running, cx)?;
        let lost = store_failed.lock().expect("no thread panicked").take();
        if let Some(error) = lost {
            return Err(Failure::Store(error));
        }
        if status.success() && broken.is_none() {
            return Ok(());
        }
        // What it left behind may still hold the pipe: its last words are not waited for long.
        let _ = silent.recv_timeout(LOOK * 4);
        Err(self.failure(status, broken, &tail))
    }

    fn start(&self, cx: &Cx<'_>) -> Result<(Running, Pipes), Failure> {
        let shown = self.shown();
        let Some(allowed) = cx.programs() else {
            let node = cx.node();
            let name = node.split('@').next().unwrap_or(node);
            return Err(Failure::op(format!(
                "it would run `{shown}`, which you have not allowed; look at it, then say `--allow-exec {name}`"
            )));
        };
        let mut command = if self.command[0].contains('/') {
            // A relative path would be looked for from two folders.
            Command::new(std::path::absolute(self.folder.join(&self.command[0])).map_err(Failure::op)?)
        } else {
            Command::new(&self.command[0])
        };
        command
            .args(&self.command[1..])
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", &allowed.path)
            .envs(&self.env);
        Running::start(&mut command).map_err(|error| Failure::op(format!("failed to start `{shown}`: {error}")))
    }

    /// The command in one line, cut where it is long.
    fn shown(&self) -> String {
        let line = self.command.join(" ").replace('\n', " ");
        if line.chars().count() > 80 { format!("{}…", line.chars().take(79).collect::<String>()) } else { line }
    }

    fn failure(&self, status: ExitStatus, broken: Option<String>, tail: &Tail) -> Failure {
        let shown = self.shown();
        let what = match broken {
            Some(broken) if status.success() => format!("`{shown}` wrote no Arrow stream: {broken}"),
            _ => format!("`{shown}` ended with {status}"),
        };
        let said = tail.lines();
        if said.is_empty() {
            return Failure::op(format!("{what}; it said nothing on standard error"));
        }
        Failure::op(format!("{what}; the end of what it said:\n  {}", said.join("\n  ")))
    }
}

/// Hands over batches until the stream ends; gives what is wrong with it, if anything.
fn hear(
    heard: &Receiver<Heard>,
    cx: &Cx<'_>,
    take: &mut dyn FnMut(&RecordBatch) -> Result<(), Failure>,
) -> Result<Option<String>, Failure> {
    loop {
        cx.check()?;
        match heard.recv_timeout(LOOK) {
            Ok(Heard::Batch(batch)) => take(&batch)?,
            Ok(Heard::End) => return Ok(None),
            Ok(Heard::Broken(what)) => return Ok(Some(what)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(Some("it can't be read".into())),
        }
    }
}

fn wait(running: &mut Running, cx: &Cx<'_>) -> Result<ExitStatus, Failure> {
    loop {
        if let Some(status) = running.ended().map_err(Failure::op)? {
            return Ok(status);
        }
        cx.check()?;
        std::thread::sleep(LOOK / 10);
    }
}

/// Writes rows to a program. One that reads no further is its own business; its exit status tells.
fn write(stdin: ChildStdin, schema: &SchemaRef, rows: Batches, failed: &Mutex<Option<StoreError>>) {
    let written = || -> Result<(), ArrowError> {
        let mut writer = StreamWriter::try_new(BufWriter::new(stdin), schema)?;
        for batch in rows {
            match batch {
                Ok(batch) => writer.write(&batch)?,
                Err(error) => {
                    *failed.lock().expect("no thread panics while it holds the error") = Some(error);
                    return Ok(());
                }
            }
        }
        writer.finish()?;
        writer.get_mut().flush()?;
        Ok(())
    };
    let _ = written();
}

fn read(stdout: ChildStdout, tell: &SyncSender<Heard>) {
    let end = match batches(stdout, tell) {
        Ok(()) => Heard::End,
        Err(what) => Heard::Broken(what),
    };
    // Nobody listens any more: the program is being ended.
    let _ = tell.send(end);
}

fn batches(stdout: ChildStdout, tell: &SyncSender<Heard>) -> Result<(), String> {
    let mut stdout = BufReader::new(stdout);
    let begin = stdout.fill_buf().map_err(|error| error.to_string())?;
    if begin.is_empty() {
        return Err("nothing on standard output".into());
    }
    if begin.starts_with(b"ARROW1") {
        return Err("it is an Arrow file; write the streaming format".into());
    }
    if begin.len() < 4 || begin[..4] != [0xff; 4] {
        let text = String::from_utf8_lossy(&begin[..begin.len().min(40)]).escape_debug().to_string();
        return Err(format!("it begins with `{text}`; print what is for people to standard error"));
    }
    let mut reader = StreamReader::try_new(stdout, None).map_err(|error| error.to_string())?;
    for batch in reader.by_ref() {
        let batch = batch.map_err(|error| format!("it is cut or damaged: {error}"))?;
        if tell.send(Heard::Batch(batch)).is_err() {
            return Ok(());
        }
    }
    let mut rest = Vec::new();
    reader.get_mut().take(64).read_to_end(&mut rest).map_err(|error| error.to_string())?;
    if rest.is_empty() { Ok(()) } else { Err("something follows the end of the stream".into()) }
}

/// The end of what a program says on standard error.
#[derive(Clone, Default)]
struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    /// Reads on a thread; the receiver hears when the other side is closed.
    fn follow(&self, mut stderr: ChildStderr) -> Receiver<()> {
        let (tell, silent) = mpsc::sync_channel(1);
        let tail = self.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 1024];
            while let Ok(n) = stderr.read(&mut piece) {
                if n == 0 {
                    break;
                }
                let mut kept = tail.0.lock().expect("no thread panics while it holds the text");
                kept.extend_from_slice(&piece[..n]);
                let surplus = kept.len().saturating_sub(TAIL);
                kept.drain(..surplus);
            }
            let _ = tell.send(());
        });
        silent
    }

    fn lines(&self) -> Vec<String> {
        let kept = self.0.lock().expect("no thread panics while it holds the text");
        let text = String::from_utf8_lossy(&kept).into_owned();
        let lines: Vec<_> =
            text.lines().map(|line| line.trim_end().to_string()).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(LINES)..].to_vec()
    }
}
