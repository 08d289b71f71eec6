//! How a command ends: a status, or why it could not go on, said in one line with a way out.

use std::error::Error;
use std::io;

use anstyle::{AnsiColor, Style};
use retort_cache::StoreError;
use retort_engine::Failure;

use crate::diagnostics::Diagnostics;

/// The exit status of a command that said all there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended(pub u8);

impl Ended {
    pub(super) const DONE: Ended = Ended(0);
    pub(super) const FAILED: Ended = Ended(1);
    pub(super) const WRONG: Ended = Ended(2);
    pub(super) const DIFFERS: Ended = Ended(3);
    pub(super) const INTERRUPTED: Ended = Ended(130);
}

/// Why a command could not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The pipeline has mistakes.
    Mistakes(Box<Diagnostics>),
    /// An error, the exit status it ends with, and perhaps a way out.
    Error { status: Ended, message: String, hint: Option<String> },
    /// Nobody reads the output any more, which is nobody's mistake.
    Unread,
}

pub(super) type Result<T> = std::result::Result<T, Stop>;

impl Stop {
    /// The arguments are wrong.
    pub(super) fn wrong(message: impl Into<String>) -> Self {
        Stop::Error { status: Ended::WRONG, message: message.into(), hint: None }
    }

    /// The world got in the way.
    pub(super) fn failed(error: &(dyn Error + 'static)) -> Self {
        Stop::Error { status: Ended::FAILED, message: chain(error), hint: hint_of(error).map(str::to_owned) }
    }

    /// Adds a way out.
    pub(super) fn hint(mut self, text: impl Into<String>) -> Self {
        if let Stop::Error { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// Adds `did you mean …`, if a name is near enough, or else another way out.
    pub(super) fn did_you_mean<'a>(
        self,
        wrong: &str,
        names: impl IntoIterator<Item = &'a str>,
        otherwise: impl Into<String>,
    ) -> Self {
        match retort_engine::nearest(wrong, names) {
            Some(name) => self.hint(format!("did you mean `{name}`?")),
            None => self.hint(otherwise),
        }
    }

    /// Says it on standard error; gives the exit status.
    pub(super) fn say(self) -> u8 {
        match self {
            Stop::Mistakes(diagnostics) => {
                diagnose(&diagnostics);
                Ended::WRONG.0
            }
            Stop::Error { status, message, hint } => {
                error(&message, hint.as_deref());
                status.0
            }
            Stop::Unread => Ended::DONE.0,
        }
    }
}

/// Says a line on standard error.
pub(super) fn say(text: &str) {
    use io::Write;
    // Where standard error is closed, there is nobody to tell.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Says `error: …` and perhaps `hint: …`.
pub(super) fn error(message: &str, hint: Option<&str>) {
    say(&format!("{}: {message}", labelled("error", AnsiColor::Red)));
    if let Some(hint) = hint {
        say(&format!("{}: {hint}", labelled("hint", AnsiColor::Cyan)));
    }
}

/// Says `warning: …`.
pub(super) fn warn(message: &str) {
    say(&format!("{}: {message}", labelled("warning", AnsiColor::Yellow)));
}

/// Shows the mistakes of a pipeline.
pub(super) fn diagnose(diagnostics: &Diagnostics) {
    let text = diagnostics.render(true);
    say(text.trim_end());
}

/// Prints the mistakes of a pipeline as JSON, an object a line.
pub(super) fn print_json(diagnostics: &Diagnostics, out: &mut dyn io::Write) -> io::Result<()> {
    diagnostics.to_json().iter().try_for_each(|object| writeln!(out, "{object}"))
}

fn labelled(label: &str, color: AnsiColor) -> String {
    let style = Style::new().bold().fg_color(Some(color.into()));
    format!("{style}{label}{style:#}")
}

/// The way out that the store knows, where an error of it is the cause.
fn hint_of(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        match (error.downcast_ref::<StoreError>(), error.downcast_ref::<Failure>()) {
            (Some(error), _) | (_, Some(Failure::Store(error))) => return error.hint(),
            _ => cause = error.source(),
        }
    }
    None
}

/// An error with its causes, joined by colons.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Stop::Unread } else { Stop::failed(&error) }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Stop::failed(&error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Cancelled => Stop::Error { status: Ended::INTERRUPTED, message: "interrupted".into(), hint: None },
            Failure::Store(error) => Stop::from(error),
            other @ Failure::Op(_) => Stop::failed(&other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_named_once() {
        let source = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = StoreError::io("read", std::path::Path::new("x"))(source);
        assert_eq!(chain(&error), "failed to read `x`: no such file");
        assert_eq!(chain(&Failure::Store(error)), "failed to read `x`: no such file");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let stop = Stop::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(matches!(stop, Stop::Unread));
    }
}
