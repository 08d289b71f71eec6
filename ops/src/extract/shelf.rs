//! Files that hold other files (zip, tar, gzip, mailboxes, messages with attachments, tables of texts): each thing in them
//! that can be read is a document of its own.
//!
//! A document inside is called by the way to it: `docs.zip/guide/a.html`, `box.mbox#3`. Nothing is ever written to disk, so no name can
//! climb anywhere; one that tries to is refused all the same, since it would not say where the document lies. What is
//! unpacked, at every depth together, is held under [`MAX_BYTES`], [`MAX_MEMBERS`] and [`MAX_NESTING`].

use std::io::{Cursor, Read};

use super::format::{self, Container, Format};
use super::reader::{MAX_BYTES, Unreadable, quietly, read_named};
use super::tool::Tools;
use super::{mail, records};
use crate::document::Document;

/// No more files than this are taken out of one.
pub const MAX_MEMBERS: usize = 20_000;
/// Archives inside archives: no deeper than this.
pub const MAX_NESTING: usize = 4;

/// What came of a file: its documents, and what in it could not be read, each by its path.
#[derive(Debug, Default)]
pub struct Outcome {
    /// In the file's order.
    pub documents: Vec<(String, Document)>,
    /// With the reasons.
    pub refused: Vec<(String, Unreadable)>,
}

/// Reads a file, and whatever is in it. `path` is only a name (with `/`), nothing is opened.
///
/// The error is that of a file that gave no document at all.
pub fn documents(path: &str, bytes: &[u8], tools: &Tools<'_>) -> Result<Outcome, Unreadable> {
    let mut shelf = Shelf { tools, outcome: Outcome::default(), left: MAX_BYTES, members: 0 };
    shelf.put(path, path, bytes, 0)?;
    let outcome = shelf.outcome;
    match outcome.refused.first() {
        Some((_, reason)) if outcome.documents.is_empty() && outcome.refused.len() == 1 => Err(reason.clone()),
        Some(_) if outcome.documents.is_empty() => Err(Unreadable::AllRefused(outcome.reasons())),
        None if outcome.documents.is_empty() => Err(Unreadable::Empty),
        _ => Ok(outcome),
    }
}

impl Outcome {
    /// What was refused, each with its reason; the first twenty.
    pub fn reasons(&self) -> String {
        let shown = self.refused.iter().take(20).map(|(path, reason)| format!("`{path}`: {reason}"));
        let said = shown.collect::<Vec<_>>().join("; ");
        match self.refused.len().checked_sub(20) {
            Some(more @ 1..) => format!("{said}; and {more} more"),
            _ => said,
        }
    }
}

struct Shelf<'a> {
    tools: &'a Tools<'a>,
    outcome: Outcome,
    /// Bytes that may yet be unpacked.
    left: u64,
    members: usize,
}

impl Shelf<'_> {
    /// Reads one thing. `name` tells its format where its content does not; an error is one that ends the whole file.
    fn put(&mut self, path: &str, name: &str, bytes: &[u8], depth: usize) -> Result<(), Unreadable> {
        let Some(container) = format::container(name, bytes) else {
            match read_named(path, name, bytes, self.tools) {
                Ok(document) => self.outcome.documents.push((path.to_owned(), document)),
                Err(reason) => self.outcome.refused.push((path.to_owned(), reason)),
            }
            return Ok(());
        };
        if depth >= MAX_NESTING {
            self.outcome.refused.push((path.to_owned(), Unreadable::NestedArchives));
            return Ok(());
        }
        let unpacked = match container {
            Container::Gzip => self.gzip(path, name, bytes, depth),
            Container::Zip => self.zip(path, bytes, depth),
            Container::Tar => self.tar(path, bytes, depth),
            Container::Mailbox => self.mailbox(path, bytes, depth),
            Container::Mail => self.mail(path, bytes, depth),
            Container::Records => self.records(path, name, bytes),
        };
        match unpacked {
            // Past a limit nothing more of the file is read; what is merely broken is told beside its neighbours.
            Err(limit @ (Unreadable::TooLarge(_) | Unreadable::TooMany)) => Err(limit),
            Err(reason) => {
                self.outcome.refused.push((path.to_owned(), reason));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Reads to the end, but never past what may yet be unpacked.
    fn unpack(&mut self, from: impl Read, format: Format) -> Result<Vec<u8>, Unreadable> {
        let mut bytes = Vec::new();
        let read = from.take(self.left + 1).read_to_end(&mut bytes);
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(Unreadable::TooLarge("archive"))?;
        read.map_err(|error| Unreadable::malformed(format, error))?;
        Ok(bytes)
    }

    fn count(&mut self) -> Result<(), Unreadable> {
        self.members += 1;
        if self.members > MAX_MEMBERS { Err(Unreadable::TooMany) } else { Ok(()) }
    }

    /// A member of an archive, under its own name.
    fn member(&mut self, path: &str, name: &str, bytes: &[u8], depth: usize) -> Result<(), Unreadable> {
        self.put(&format!("{path}/{}", name.trim_end_matches("/TXT.rtf")), name, bytes, depth + 1)
    }

    fn gzip(&mut self, path: &str, name: &str, bytes: &[u8], depth: usize) -> Result<(), Unreadable> {
        let inner = self.unpack(flate2::read::MultiGzDecoder::new(bytes), Format::Gzip)?;
        let lower = name.to_ascii_lowercase();
        let stem = match lower.strip_suffix(".tgz") {
            Some(stem) => format!("{}.tar", &name[..stem.len()]),
            None => name[..lower.strip_suffix(".gz").map_or(name.len(), str::len)].to_owned(),
        };
        self.put(path, &stem, &inner, depth + 1)
    }

    fn zip(&mut self, path: &str, bytes: &[u8], depth: usize) -> Result<(), Unreadable> {
        let malformed = |error| Unreadable::malformed(Format::Zip, error);
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(malformed)?;
        for index in 0..archive.len() {
            self.count()?;
            let member = match archive.by_index(index) {
                Ok(member) => member,
                Err(error) => {
                    let encrypted = error.to_string().contains("assword");
                    let reason = if encrypted { Unreadable::Encrypted(Format::Zip) } else { malformed(error) };
                    self.outcome.refused.push((format!("{path}#{index}"), reason));
                    continue;
                }
            };
            let name = match member.name() {
                Ok(name) => name.replace('\\', "/"),
                Err(error) => {
                    self.outcome.refused.push((format!("{path}#{index}"), malformed(error)));
                    continue;
                }
            };
            if member.is_dir() || is_litter(&name) {
                continue;
            }
            if climbs_out(&name) {
                self.outcome.refused.push((format!("{path}/{name}"), Unreadable::ClimbsOut));
                continue;
            }
            match self.unpack(member, Format::Zip) {
                Ok(inner) => self.member(path, &name, &inner, depth)?,
                Err(limit @ Unreadable::TooLarge(_)) => return Err(limit),
                Err(reason) => self.outcome.refused.push((format!("{path}/{name}"), reason)),
            }
        }
        Ok(())
    }

    fn tar(&mut self, path: &str, bytes: &[u8], depth: usize) -> Result<(), Unreadable> {
        let malformed = |error| Unreadable::malformed(Format::Tar, error);
        let mut archive = tar::Archive::new(bytes);
        for entry in archive.entries().map_err(malformed)? {
            self.count()?;
            let entry = entry.map_err(malformed)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if !entry.header().entry_type().is_file() || is_litter(&name) {
                continue;
            }
            if climbs_out(&name) {
                self.outcome.refused.push((format!("{path}/{name}"), Unreadable::ClimbsOut));
                continue;
            }
            let inner = self.unpack(entry, Format::Tar)?;
            self.member(path, name.trim_start_matches("./"), &inner, depth)?;
        }
        Ok(())
    }

    fn mailbox(&mut self, path: &str, bytes: &[u8], depth: usize) -> Result<(), Unreadable> {
        for (number, message) in mail::messages(bytes).enumerate() {
            self.count()?;
            self.mail(&format!("{path}#{}", number + 1), &message, depth)?;
        }
        Ok(())
    }

    fn mail(&mut self, path: &str, bytes: &[u8], depth: usize) -> Result<(), Unreadable> {
        let message = quietly(Format::Mail, || mail::read(bytes))?;
        let empty = message.document.blocks.is_empty();
        if empty && message.attachments.is_empty() {
            self.outcome.refused.push((path.to_owned(), Unreadable::NoText(Format::Mail)));
        } else if !empty {
            self.outcome.documents.push((path.to_owned(), message.document));
        }
        for (number, (name, attached)) in message.attachments.into_iter().enumerate() {
            self.count()?;
            self.left = self.left.checked_sub(attached.len() as u64).ok_or(Unreadable::TooLarge("archive"))?;
            let name = name.filter(|name| !climbs_out(name)).unwrap_or_else(|| format!("attachment-{}", number + 1));
            self.member(path, &name, &attached, depth)?;
        }
        Ok(())
    }

    fn records(&mut self, path: &str, name: &str, bytes: &[u8]) -> Result<(), Unreadable> {
        for (number, document) in quietly(Format::Records, || records::read(name, bytes))? {
            let path = number.map_or_else(|| path.to_owned(), |number| format!("{path}#{number}"));
            self.outcome.documents.push((path, document));
        }
        Ok(())
    }
}

/// What a Mac or a repository leaves in archives beside the files.
fn is_litter(name: &str) -> bool {
    name.starts_with("__MACOSX/") || name.split('/').any(|part| part.starts_with('.') && part != "." && part != "..")
}

fn climbs_out(name: &str) -> bool {
    name.starts_with('/')
        || name.split('/').any(|part| part == "..")
        || name.get(1..3) == Some(":/")
        || name.contains('\0')
}

#[cfg(test)]
mod tests;
