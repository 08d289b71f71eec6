//! PDF files are read in a process of their own, which can be ended: their reader is large, not ours, and given files that were made to
//! break it.
//!
//! The process is the program itself once more, told by [`by`] how it is started; it calls [`serve`]. Where nobody told (a program
//! that uses this crate as a library), files are read in place. A process reads one file after the other, so that starting it costs nothing worth
//! naming; as many are there as threads read PDF files at the same time, and all end with the pipes to them.
//!
//! Over the pipes go lengths and bytes: a file there, a `Reply` back. The process holds itself to [`Limits`]: memory as a whole, and for
//! each file the processor's time, not the clock's, so that a busy machine refuses no more than an idle one.

use std::ffi::OsString;
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use super::format::Format;
use super::pdf;
use super::reader::{MAX_BYTES, Unreadable, quietly};
use crate::document::Document;

/// What a process that reads files may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of address space that it may have, with what its allocator sets aside at the start.
    pub memory: u64,
    /// Seconds of processor time for a file; one more for each MiB of it.
    pub seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 4 << 30, seconds: 60 }
    }
}

impl Limits {
    pub(super) fn seconds_for(self, bytes: usize) -> u64 {
        self.seconds + (bytes as u64 >> 20)
    }
}

/// How a process that reads files is started.
#[derive(Clone, Debug)]
struct Program {
    path: PathBuf,
    args: Vec<OsString>,
}

/// The processes of this one.
struct Pool {
    program: Program,
    limits: Limits,
    /// Those that have nothing to do.
    idle: Mutex<Vec<Reader>>,
}

static POOL: OnceLock<Pool> = OnceLock::new();

/// From now on PDF files are read by processes that are started so. Their arguments must lead to [`serve`] with the default [`Limits`].
pub fn by(path: PathBuf, args: Vec<OsString>) {
    // The first word counts.
    let _ = POOL.set(Pool::new(Program { path, args }, Limits::default()));
}

/// Ends the processes that have nothing to do, so that what they used is counted with this process.
pub fn end() {
    if let Some(pool) = POOL.get() {
        pool.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Reads a PDF file in another process; nothing if there is none to be had.
pub(super) fn read(bytes: &[u8]) -> Option<Result<Document, Unreadable>> {
    POOL.get()?.read(bytes)
}

/// Reads the files that come in, one after the other, until there are no more: the other side of the pipes.
///
/// # Errors
/// A pipe broke, or the limits cannot be set.
pub fn serve(mut files: impl Read, mut answers: impl Write, limits: Limits) -> io::Result<()> {
    limit::memory(limits.memory)?;
    while let Some(bytes) = receive(&mut files)? {
        limit::more_seconds(limits.seconds_for(bytes.len()))?;
        let reply = Reply::of(quietly(Format::Pdf, || pdf::read(&bytes)));
        send(&mut answers, &serde_json::to_vec(&reply).map_err(io::Error::other)?)?;
    }
    Ok(())
}

/// What became of a file.
#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Read(Document),
    Encrypted,
    NoTextLayer(usize),
    Malformed(String),
    Panicked(String),
}

impl Reply {
    fn of(outcome: Result<Document, Unreadable>) -> Self {
        match outcome {
            Ok(document) => Self::Read(document),
            Err(Unreadable::Encrypted(_)) => Self::Encrypted,
            Err(Unreadable::NoTextLayer(pages)) => Self::NoTextLayer(pages),
            Err(Unreadable::Malformed(_, detail)) => Self::Malformed(detail),
            Err(Unreadable::Panicked(_, detail)) => Self::Panicked(detail),
            Err(other) => Self::Malformed(other.to_string()),
        }
    }

    fn outcome(self) -> Result<Document, Unreadable> {
        match self {
            Self::Read(document) => Ok(document),
            Self::Encrypted => Err(Unreadable::Encrypted(Format::Pdf)),
            Self::NoTextLayer(pages) => Err(Unreadable::NoTextLayer(pages)),
            Self::Malformed(detail) => Err(Unreadable::Malformed(Format::Pdf, detail)),
            Self::Panicked(detail) => Err(Unreadable::Panicked(Format::Pdf, detail)),
        }
    }
}

impl Pool {
    fn new(program: Program, limits: Limits) -> Self {
        Self { program, limits, idle: Mutex::new(Vec::new()) }
    }

    fn read(&self, bytes: &[u8]) -> Option<Result<Document, Unreadable>> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let known = idle().pop();
        let mut reader = match known {
            Some(reader) => reader,
            None => Reader::start(&self.program).ok()?,
        };
        match reader.ask(bytes) {
            Ok(reply) => {
                idle().push(reader);
                Some(reply.outcome())
            }
            Err(_) => Some(Err(reader.obituary(self.limits.seconds_for(bytes.len())))),
        }
    }
}

/// A process that reads files; it ends with this value at the latest.
struct Reader {
    child: Child,
    files: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Reader {
    fn start(program: &Program) -> io::Result<Self> {
        let mut command = Command::new(&program.path);
        command.args(&program.args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Who interrupts the run at a terminal waits for the rows in flight, and must not end them.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let (files, answers) = (child.stdin.take(), child.stdout.take());
        let (files, answers) = files.zip(answers).expect("both were asked for");
        Ok(Self { child, files, answers: BufReader::new(answers) })
    }

    fn ask(&mut self, bytes: &[u8]) -> io::Result<Reply> {
        send(&mut self.files, bytes)?;
        let reply = receive(&mut self.answers)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        serde_json::from_slice(&reply).map_err(io::Error::other)
    }

    /// Why there was no answer.
    fn obituary(mut self, seconds: u64) -> Unreadable {
        // One that still lives has said what is no answer.
        let ended = match self.child.try_wait() {
            Ok(None) => {
                std::thread::sleep(std::time::Duration::from_millis(100));
                self.child.try_wait()
            }
            other => other,
        };
        match ended {
            Ok(Some(status)) => died(status, seconds),
            Ok(None) => Unreadable::Died(Format::Pdf, "its answer is none".to_owned()),
            Err(error) => Unreadable::Ended(error.to_string()),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // One that has ended already is not there to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the end of a process says of the file: signals that it drew upon itself, or those of others.
fn died(status: ExitStatus, seconds: u64) -> Unreadable {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        use nix::libc;
        let died = |of: &str| Unreadable::Died(Format::Pdf, of.to_owned());
        return match signal {
            libc::SIGXCPU => Unreadable::TooSlow(Format::Pdf, seconds),
            libc::SIGABRT => died("no memory left, or it gave up"),
            libc::SIGSEGV | libc::SIGBUS => died("no stack left, or a wrong address"),
            libc::SIGILL | libc::SIGFPE | libc::SIGTRAP => died("a wrong instruction"),
            _ => Unreadable::Ended(status.to_string()),
        };
    }
    let _ = seconds;
    Unreadable::Died(Format::Pdf, status.to_string())
}

fn send(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(&(bytes.len() as u64).to_le_bytes())?;
    to.write_all(bytes)?;
    to.flush()
}

/// The next bytes, or nothing at the end of the stream.
fn receive(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 8];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u64::from_le_bytes(length);
    // A document in JSON is a little longer than its text.
    if length > 8 * MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(Some(bytes)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// What a process allows itself.
#[cfg(unix)]
mod limit {
    use std::io;

    use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};

    pub(super) fn memory(bytes: u64) -> io::Result<()> {
        #[cfg(not(target_os = "macos"))]
        lower(Resource::RLIMIT_AS, bytes)?;
        #[cfg(target_os = "macos")]
        let _ = bytes;
        // A process that dies of a file leaves no picture of its memory behind.
        lower(Resource::RLIMIT_CORE, 0)
    }

    /// Lets the process run for so many seconds from now on; past them the kernel ends it.
    pub(super) fn more_seconds(seconds: u64) -> io::Result<()> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let used = usage.user_time().tv_sec() + usage.system_time().tv_sec();
        lower(Resource::RLIMIT_CPU, (used as u64 + 1).saturating_add(seconds).min(1 << 30))
    }

    /// Sets the soft limit, and leaves the hard one, below which it may be set anew.
    fn lower(resource: Resource, limit: u64) -> io::Result<()> {
        let (_, hard) = getrlimit(resource)?;
        Ok(setrlimit(resource, limit.min(hard), hard)?)
    }
}

/// Without limits a process can still be ended.
#[cfg(not(unix))]
mod limit {
    use std::io;

    pub(super) fn memory(_bytes: u64) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn more_seconds(_seconds: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
