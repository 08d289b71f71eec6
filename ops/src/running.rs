//! A program that runs, and with it all that it starts: both end with the value that stands for it, at the latest.

use std::io;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

/// A program that runs, in a process group of its own: who interrupts the run at a terminal ends it by the run, not beside it.
pub(crate) struct Running(Child);

/// The ends of its standard input, output and error.
pub(crate) type Pipes = (ChildStdin, ChildStdout, ChildStderr);

impl Running {
    /// Starts a program with three pipes.
    pub(crate) fn start(command: &mut Command) -> io::Result<(Self, Pipes)> {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let Child { stdin, stdout, stderr, .. } = &mut child;
        let piped = "all three were asked for";
        let pipes = (stdin.take().expect(piped), stdout.take().expect(piped), stderr.take().expect(piped));
        Ok((Self(child), pipes))
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What a program that has ended by itself left behind was meant to stay.
        if let Ok(None) = self.0.try_wait() {
            #[cfg(unix)]
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(self.0.id() as i32), nix::sys::signal::SIGKILL);
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
