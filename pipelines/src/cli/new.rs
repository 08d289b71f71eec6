//! `retort new`: a folder with a commented pipeline that runs.

use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use retort_engine::OpInfo;

use super::stop::{Ended, Result, Stop};

/// The pipeline, with places for its name and its paths.
const PIPELINE: &str = include_str!("new/pipeline.yaml");
/// A document to begin with, where there are none.
const DOCUMENT: &str = "\
# The retort

A retort is a glass vessel with a long neck that bends down. It was used to distil: what is heated in the bulb rises as vapour, and
runs down the neck as a liquid.

## How it is used

The liquid is put into the bulb, which is heated from below. The vapour cools in the neck. A receiver at its end collects what drips
from it.
";

/// Arguments of `new`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder that is made
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// A folder of documents that the pipeline reads; it stays where it is [default: `docs` in the new folder, with an example]
    #[arg(long, value_name = "FOLDER")]
    docs: Option<PathBuf>,
}

pub(super) fn run(args: &Args, ops: &[OpInfo]) -> Result<Ended> {
    let folder = args.folder.as_path();
    let pipeline = folder.join("pipeline.yaml");
    if pipeline.exists() {
        return Err(Stop::wrong(format!("`{}` is there already", pipeline.display())).hint("name another folder"));
    }
    if let Some(docs) = args.docs.as_deref().filter(|docs| !docs.is_dir()) {
        return Err(Stop::wrong(format!("`{}` is no folder", docs.display())));
    }
    fs::create_dir_all(folder).map_err(|error| failed("make the folder", folder, &error))?;
    let paths = match &args.docs {
        Some(docs) => paths(folder, docs)?,
        None => {
            write(&folder.join("docs/retort.md"), DOCUMENT)?;
            "docs/**/*".into()
        }
    };
    let text = PIPELINE.replace("NAME", &name(folder)).replace("PATHS", &format!("{paths:?}"));
    write(&pipeline, &text)?;
    write(&folder.join("pipeline.schema.json"), &format!("{:#}\n", crate::schema::pipeline(ops)))?;
    // It marks the project's folder: the store lies beside it.
    for (file, text) in [("retort.toml", ""), (".gitignore", "/.retort/\n")] {
        if !folder.join(file).exists() {
            write(&folder.join(file), text)?;
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", pipeline.display())?;
    super::stop::say(&format!("next: `retort run {} chunks` reads and cuts the documents", pipeline.display()));
    Ok(Ended::DONE)
}

/// The glob of all documents, as seen from the pipeline.
fn paths(folder: &Path, docs: &Path) -> Result<String> {
    let absolute = |path: &Path| path.canonicalize().map_err(|error| failed("find", path, &error));
    let (from, to) = (absolute(folder)?, absolute(docs)?);
    let parts = |path: &Path| path.components().map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>();
    let (from, to) = (parts(&from), parts(&to));
    let shared = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let up = from[shared..].iter().map(|_| Component::ParentDir.as_os_str().to_owned());
    let way: PathBuf = up.chain(to[shared..].iter().cloned()).collect();
    let Some(way) = way.to_str().map(|way| way.replace('\\', "/")) else {
        return Err(Stop::wrong(format!("the name of `{}` is no Unicode", docs.display())));
    };
    // What means something in a glob is meant as it is written.
    let escaped: String = way.chars().map(|c| if "*?[]{}".contains(c) { format!("[{c}]") } else { c.into() }).collect();
    Ok(if escaped.is_empty() { "**/*".into() } else { format!("{escaped}/**/*") })
}

/// The folder's name, made fit for a pipeline.
fn name(folder: &Path) -> String {
    let name = folder.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = name.unwrap_or_default().chars().map(plain).take(100).collect();
    if name.is_empty() { "pipeline".into() } else { name }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| failed("make the folder", folder, &error))?;
    }
    fs::write(path, text).map_err(|error| failed("write", path, &error))
}

fn failed(verb: &str, path: &Path, error: &dyn Display) -> Stop {
    Stop::Error {
        status: Ended::FAILED,
        message: format!("failed to {verb} `{}`: {error}", path.display()),
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_found_from_the_pipeline() {
        let space = tempfile::tempdir().expect("a folder");
        let (new, docs) = (space.path().join("a/new"), space.path().join("my [docs]"));
        fs::create_dir_all(&new).expect("made");
        fs::create_dir_all(docs.join("more")).expect("made");
        let seen = |from: &Path, to: &Path| paths(from, to).map_err(|_| ()).expect("a way");
        assert_eq!(seen(&new, &docs), "../../my [[]docs[]]/**/*");
        assert_eq!(seen(&docs, &docs), "**/*");
        assert_eq!(seen(&docs, &docs.join("more")), "more/**/*");
    }
}
