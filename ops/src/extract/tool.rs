//! Files that have no reader of ours are turned into some that have, by programs of this machine: PostScript into PDF, Word files of before 2007
//! into DocBook or DOCX.
//!
//! A program is started only where the pipeline names it and the user has allowed the node to start programs. It gets nothing but the file, in a
//! folder of its own; like the process of `apart.rs` it has a limit of memory and of the processor's time, which the shell sets.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use retort_engine::Cx;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::apart::Limits;
use super::format::Format;
use super::reader::{MAX_BYTES, Unreadable};
use crate::running::Running;

/// How often it is looked whether the person asked to stop.
const LOOK: Duration = Duration::from_millis(50);
/// So long is waited for a program, whatever time of the processor it uses.
const PATIENCE: Duration = Duration::from_mins(10);
/// Bytes of what a program says that are kept.
const SAID: u64 = 4096;

/// A program that turns files into others that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// `gs`: PostScript to PDF.
    Ghostscript,
    /// `antiword`: Word files of before 2007 to DocBook, with their headings, lists and tables. Small and fast.
    Antiword,
    /// `soffice`: Word files of before 2007 to DOCX. Reads what `antiword` does not; a second or two a file.
    LibreOffice,
}

impl Tool {
    /// As it is called at the shell.
    fn program(self) -> &'static str {
        match self {
            Self::Ghostscript => "gs",
            Self::Antiword => "antiword",
            Self::LibreOffice => "soffice",
        }
    }

    /// What it makes of a format.
    fn makes(self, of: Format) -> Option<Format> {
        match (self, of) {
            (Self::Ghostscript, Format::PostScript) => Some(Format::Pdf),
            (Self::Antiword, Format::Word) => Some(Format::DocBook),
            (Self::LibreOffice, Format::Word) => Some(Format::Docx),
            _ => None,
        }
    }

    /// Its arguments. All but LibreOffice read their standard input and write to their standard output.
    fn args(self, folder: &Path) -> Vec<OsString> {
        let plain = |args: &[&str]| args.iter().map(OsString::from).collect();
        match self {
            // -dSAFER: no file but those that are named here, no program.
            Self::Ghostscript => plain(&[
                "-q",
                "-dSAFER",
                "-dBATCH",
                "-dNOPAUSE",
                "-dNOPROMPT",
                "-sDEVICE=pdfwrite",
                "-sstdout=%stderr",
                "-sOutputFile=-",
                "-",
            ]),
            Self::Antiword => plain(&["-m", "UTF-8.txt", "-x", "db", "-"]),
            Self::LibreOffice => {
                // In a profile of its own: it would join one that runs.
                let mut profile = OsString::from("-env:UserInstallation=file://");
                profile.push(folder.join("profile"));
                let mut args: Vec<OsString> = plain(&["--headless", "--norestore", "--convert-to", "docx", "file.doc"]);
                args.insert(0, profile);
                args
            }
        }
    }
}

/// What may be used to read the files of a node.
pub struct Tools<'a> {
    /// Those that the pipeline names; of two that can do it the first does.
    pub named: &'a [Tool],
    /// Says whether programs may run, and when to stop; nothing where none may.
    pub cx: Option<&'a Cx<'a>>,
}

impl Tools<'_> {
    /// Without any.
    pub const NONE: Self = Self { named: &[], cx: None };

    /// A file as it is, or turned into one of a format that has a reader.
    pub(super) fn readable<'b>(&self, format: Format, bytes: &'b [u8]) -> Result<(Format, Cow<'b, [u8]>), Unreadable> {
        let hint = match format {
            Format::PostScript => "`tools: [ghostscript]`, or convert it with `ps2pdf`",
            Format::Word => {
                "`tools: [antiword]` or `tools: [libreoffice]`, or convert it with `soffice --convert-to docx`"
            }
            _ => return Ok((format, Cow::Borrowed(bytes))),
        };
        let (Some((tool, made)), Some(cx)) =
            (self.named.iter().find_map(|tool| Some((*tool, tool.makes(format)?))), self.cx)
        else {
            return Err(Unreadable::NeedsTool(format, hint));
        };
        Ok((made, Cow::Owned(convert(tool, format, bytes, cx)?)))
    }
}

/// Nothing that the file is to blame for.
fn not_run(why: impl std::fmt::Display) -> Unreadable {
    Unreadable::NotRun(why.to_string())
}

fn convert(tool: Tool, format: Format, bytes: &[u8], cx: &Cx<'_>) -> Result<Vec<u8>, Unreadable> {
    let program = tool.program();
    let Some(allowed) = cx.programs() else {
        let name = cx.node().split('@').next().unwrap_or_default();
        return Err(not_run(format!(
            "it would run `{program}`, which you have not allowed: say `--allow-exec {name}`"
        )));
    };
    let found = std::env::split_paths(&allowed.path).map(|folder| folder.join(program)).find(|path| path.is_file());
    let Some(found) = found else {
        return Err(not_run(format!(
            "`{program}` is not installed; install it, or take it from `tools`, and such files become rejects"
        )));
    };
    let folder = tempfile::tempdir().map_err(not_run)?;
    let seconds = Limits::default().seconds_for(bytes.len());
    let mut command = limited(&found, &tool.args(folder.path()), seconds);
    command.current_dir(folder.path()).env_clear().env("PATH", &allowed.path).env("HOME", folder.path());
    let by_files = tool == Tool::LibreOffice;
    if by_files {
        fs::write(folder.path().join("file.doc"), bytes).map_err(not_run)?;
    }
    let ended = talk(&mut command, if by_files { &[] } else { bytes }, cx)?;
    let made = if by_files { at_most(folder.path().join("file.docx")) } else { Ok(ended.made) };
    judge(tool, format, seconds, ended.status, &ended.said, made.unwrap_or_default())
}

/// A program under the limits of [`Limits`]. A system that knows one of them not goes without.
#[cfg(unix)]
fn limited(program: &Path, args: &[OsString], seconds: u64) -> Command {
    const SHELL: &str =
        r#"ulimit -S -t "$1" 2>/dev/null; ulimit -S -v "$2" 2>/dev/null; ulimit -c 0; shift 2; exec "$@""#;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SHELL, "sh", &seconds.to_string(), &(Limits::default().memory >> 10).to_string()]);
    command.arg(program).args(args);
    command
}

#[cfg(not(unix))]
fn limited(program: &Path, args: &[OsString], _seconds: u64) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// How a program ended.
struct Ended {
    status: ExitStatus,
    made: Vec<u8>,
    said: Vec<u8>,
}

/// Starts a program, feeds it, and hears it to its end.
fn talk(command: &mut Command, bytes: &[u8], cx: &Cx<'_>) -> Result<Ended, Unreadable> {
    let (mut running, (mut stdin, stdout, stderr)) = Running::start(command).map_err(not_run)?;
    let (tell, heard) = mpsc::channel();
    std::thread::scope(|threads| {
        // One that reads no further is its own business; its exit status tells.
        threads.spawn(move || stdin.write_all(bytes));
        let made = threads.spawn(move || {
            let made = taken(stdout, MAX_BYTES + 1);
            drop(tell);
            made
        });
        let said = threads.spawn(move || taken(stderr, SAID));
        let waited = wait(&mut running, &heard, cx);
        // With the program the pipes end, and so do the threads.
        drop(running);
        let (made, said) = (made.join().unwrap_or_default(), said.join().unwrap_or_default());
        Ok(Ended { status: waited?, made, said })
    })
}

fn wait(running: &mut Running, heard: &mpsc::Receiver<()>, cx: &Cx<'_>) -> Result<ExitStatus, Unreadable> {
    let mut waited = Duration::ZERO;
    while waited < PATIENCE {
        cx.check().map_err(|_| Unreadable::Stopped)?;
        if heard.recv_timeout(LOOK) == Err(RecvTimeoutError::Disconnected) {
            // It has closed its output, and is about to end.
            std::thread::sleep(LOOK / 25);
            waited += LOOK / 25;
        } else {
            waited += LOOK;
        }
        if let Some(status) = running.ended().map_err(not_run)? {
            return Ok(status);
        }
    }
    Err(not_run("a program that it started did not end in ten minutes"))
}

/// The first bytes of a stream; what follows is read and dropped, so that the writer can end.
fn taken(mut stream: impl Read, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = (&mut stream).take(most).read_to_end(&mut bytes);
    // A pipe that breaks ends what can be heard.
    let _ = read.and_then(|_| io::copy(&mut stream, &mut io::sink()));
    bytes
}

fn at_most(file: PathBuf) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the end of a program says of the file.
fn judge(
    tool: Tool,
    format: Format,
    seconds: u64,
    status: ExitStatus,
    said: &[u8],
    made: Vec<u8>,
) -> Result<Vec<u8>, Unreadable> {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        use nix::libc;
        return Err(match signal {
            libc::SIGXCPU => Unreadable::TooSlow(format, seconds),
            libc::SIGKILL | libc::SIGTERM | libc::SIGINT | libc::SIGHUP => Unreadable::Ended(status.to_string()),
            _ => Unreadable::ToolFailed(tool.program(), status.to_string()),
        });
    }
    let _ = (format, seconds);
    if made.len() as u64 > MAX_BYTES {
        return Err(Unreadable::TooLarge("file that was made of it"));
    }
    if status.success() && !made.is_empty() {
        return Ok(made);
    }
    let said = String::from_utf8_lossy(said);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty());
    let line = line.unwrap_or("it made nothing of it, and did not say why");
    Err(Unreadable::ToolFailed(tool.program(), line.chars().take(200).collect()))
}

#[cfg(test)]
mod tests;
