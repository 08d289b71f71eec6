//! The listing of files: globs to paths, sizes and digests. Asked on every run, since only looking tells what is there.
//!
//! `extract` without a `from` is fed by it. Rows are sorted by path, and hold paths relative to the pipeline's folder,
//! with `/`, so that a listing is the same wherever the folder lies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use globset::{GlobBuilder, GlobMatcher};
use rayon::prelude::*;
use retort_cache::TableWriter;
use retort_engine::{Cx, Failure, Input, Inputs, Problem, SlotSpec, TableOp};
use walkdir::{DirEntry, WalkDir};

/// The columns of a listing: `path`, `digest` (BLAKE3 of the content, hexadecimal), `bytes`.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("path", DataType::Utf8, false),
        Field::new("digest", DataType::Utf8, false),
        Field::new("bytes", DataType::UInt64, false),
    ]))
}

/// Lists the files that globs find.
pub struct Files {
    base: PathBuf,
    paths: Vec<String>,
}

impl Files {
    /// A listing of `paths`, relative to the folder `base`. Problems are those of the globs themselves.
    pub fn new(base: &Path, paths: &[String]) -> Result<Self, Problem> {
        if paths.is_empty() {
            return Err(Problem::at_field("paths", "`paths` names no files")
                .hint("`paths: [\"docs/**/*\"]` takes all below `docs`"));
        }
        for (index, path) in paths.iter().enumerate() {
            let field = format!("paths[{index}]");
            if path.starts_with('/') || Path::new(path).is_absolute() {
                return Err(Problem::at_field(field, format!("`{path}` is an absolute path"))
                    .hint("paths are relative to the pipeline's folder, so that a pipeline can be handed on"));
            }
            matcher(path)
                .map_err(|error| Problem::at_field(field, format!("`{path}` is no glob: {}", error.kind())))?;
        }
        Ok(Self { base: base.to_owned(), paths: paths.to_vec() })
    }

    /// Name and place of every file, sorted by name; what could not be listed is told to `note`.
    pub fn list(&self, note: &mut dyn FnMut(String)) -> Result<BTreeMap<String, PathBuf>, Failure> {
        let mut found = BTreeMap::new();
        for path in &self.paths {
            let before = found.len();
            let matched = self.list_one(path, &mut found, note)?;
            if matched == 0 && found.len() == before {
                return Err(Failure::op(self.nothing(path)));
            }
        }
        Ok(found)
    }

    /// Adds what one glob finds; gives how many that were.
    fn list_one(
        &self,
        path: &str,
        found: &mut BTreeMap<String, PathBuf>,
        note: &mut dyn FnMut(String),
    ) -> Result<usize, Failure> {
        let path = path.trim_start_matches("./");
        let folder = self.base.join(path);
        // A folder means all that is in it.
        let path = if folder.is_dir() && !is_bundle(&folder) {
            format!("{}/**/*", path.trim_end_matches('/'))
        } else {
            path.to_owned()
        };
        let glob = matcher(&path).map_err(Failure::op)?;
        let prefix = fixed_part(&path);
        let hidden = path.split('/').any(|part| part.starts_with('.') && !matches!(part, "." | ".."));
        let root = self.base.join(&prefix);
        if !root.exists() {
            return Ok(0);
        }
        let mut matched = 0;
        let mut walk = WalkDir::new(&root).follow_links(true).sort_by_file_name().into_iter();
        while let Some(entry) = walk.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => match dead_link(&error) {
                    Some(told) => {
                        note(told);
                        continue;
                    }
                    None => return Err(Failure::op(format!("failed to list `{path}`: {error}"))),
                },
            };
            if !hidden && entry.depth() > 0 && is_hidden(&entry) {
                if entry.file_type().is_dir() {
                    walk.skip_current_dir();
                }
                continue;
            }
            let bundle = is_bundle(entry.path());
            if bundle && entry.file_type().is_dir() {
                walk.skip_current_dir();
            } else if !entry.file_type().is_file() {
                continue;
            }
            let Some(name) = name_of(&prefix, &root, entry.path()) else {
                note(format!("left out `{}`: its name is no Unicode", entry.path().display()));
                continue;
            };
            if glob.is_match(&name) || bundle && glob.is_match(format!("{name}/TXT.rtf")) {
                matched += 1;
                found.insert(name, entry.into_path());
            }
        }
        Ok(matched)
    }

    /// The message for a glob that finds nothing: how far its folders exist.
    fn nothing(&self, path: &str) -> String {
        let fixed = fixed_part(path);
        let mut there = Path::new(&fixed);
        while !self.base.join(there).exists() {
            there = there.parent().unwrap_or(Path::new(""));
        }
        let missing = Path::new(&fixed).strip_prefix(there).ok().and_then(|rest| rest.components().next());
        let place = if there.as_os_str().is_empty() {
            "the pipeline's folder".to_owned()
        } else {
            format!("`{}`", there.display())
        };
        match missing {
            Some(missing) => format!("`{path}` finds no file: {place} has no `{}`", missing.as_os_str().display()),
            None => format!("`{path}` finds no file in {place}"),
        }
    }
}

impl TableOp for Files {
    fn slots(&self) -> Vec<SlotSpec> {
        Vec::new()
    }

    fn schemas(&self, _inputs: &Inputs<SchemaRef>) -> Result<Vec<SchemaRef>, Problem> {
        Ok(vec![schema()])
    }

    fn run(&self, _inputs: &Inputs<Input>, out: &mut [Box<dyn TableWriter>], cx: &Cx<'_>) -> Result<(), Failure> {
        let found = self.list(&mut |note| cx.note(note))?;
        let content = |(name, path): (String, PathBuf)| -> Result<(String, String, u64), Failure> {
            cx.check()?;
            let (digest, size) = cx.file_content(&content_path(&path))?;
            Ok((name, digest.hex(), size))
        };
        let found = found.into_par_iter().map(content).collect::<Result<Vec<_>, _>>()?;
        let (mut paths, mut digests, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        for (name, digest, size) in found {
            paths.push(name);
            digests.push(digest);
            sizes.push(size);
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(paths)),
            Arc::new(StringArray::from(digests)),
            Arc::new(UInt64Array::from(sizes)),
        ];
        let batch = RecordBatch::try_new(schema(), columns).expect("three columns of one length");
        out[0].write(&batch)?;
        Ok(())
    }
}

/// The file that holds an entry's content: the file itself, or the text of an RTFD folder.
pub fn content_path(path: &Path) -> PathBuf {
    if !is_bundle(path) || !path.is_dir() {
        return path.to_owned();
    }
    path.join("TXT.rtf")
}

/// An RTFD document: a folder with a text and its pictures.
fn is_bundle(path: &Path) -> bool {
    let is_rtfd = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("rtfd"));
    is_rtfd && path.join("TXT.rtf").is_file()
}

/// What is said of a link that leads to no file, or back to a folder that it lies in: there is nothing to read.
fn dead_link(error: &walkdir::Error) -> Option<String> {
    let path = error.path()?;
    if error.loop_ancestor().is_some() {
        return Some(format!("left out `{}`: a link to a folder that it lies in", path.display()));
    }
    let gone = error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    (gone && path.is_symlink()).then(|| format!("left out `{}`: a link to what is not there", path.display()))
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().to_str().is_some_and(|name| name.starts_with('.'))
}

fn matcher(path: &str) -> Result<GlobMatcher, globset::Error> {
    Ok(GlobBuilder::new(path.trim_start_matches("./")).literal_separator(true).build()?.compile_matcher())
}

/// The folders of a glob before its first wildcard.
fn fixed_part(path: &str) -> String {
    let parts: Vec<&str> = path.trim_start_matches("./").split('/').collect();
    let fixed = parts.iter().take_while(|part| !part.contains(['*', '?', '[', '{', '\\'])).count();
    parts[..fixed].join("/")
}

/// The name of an entry: the glob's fixed part, and the way from there.
fn name_of(prefix: &str, root: &Path, path: &Path) -> Option<String> {
    let mut name = prefix.to_owned();
    for part in path.strip_prefix(root).ok()?.components() {
        if !name.is_empty() {
            name.push('/');
        }
        name.push_str(part.as_os_str().to_str()?);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in [
            "docs/b.txt",
            "docs/a/c.html",
            "docs/a/.hidden",
            "docs/Help.rtfd/TXT.rtf",
            "docs/Help.rtfd/p.tiff",
            "other.md",
        ] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        folder
    }

    fn list(base: &Path, paths: &[&str]) -> Result<Vec<String>, String> {
        let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
        let files = Files::new(base, &paths).map_err(|problem| problem.message)?;
        let found = files.list(&mut |_| {}).map_err(|failure| failure.to_string())?;
        Ok(found.into_keys().collect())
    }

    #[test]
    fn order_of_globs_and_doubles_do_not_matter() {
        let folder = folder();
        let all = list(folder.path(), &["docs/**/*", "other.md"]).unwrap();
        assert_eq!(all, ["docs/Help.rtfd", "docs/a/c.html", "docs/b.txt", "other.md"]);
        assert_eq!(list(folder.path(), &["./other.md", "docs/**/*.rtfd", "docs", "docs/*.txt"]).unwrap(), all);
        assert_eq!(list(folder.path(), &["**/*.rtf"]).unwrap(), ["docs/Help.rtfd"]);
        assert_eq!(list(&folder.path().join("docs/a"), &["../*.txt"]).unwrap(), ["../b.txt"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_to_nothing_are_left_out_and_told() {
        let folder = folder();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
        link("nowhere.txt", "docs/dead.txt");
        link("..", "docs/a/around");
        link("../other.md", "docs/alive.md");
        let mut told = Vec::new();
        let files = Files::new(folder.path(), &["docs/**/*".into()]).unwrap();
        let found = files.list(&mut |note| told.push(note)).unwrap();
        let names: Vec<_> = found.into_keys().collect();
        assert_eq!(names, ["docs/Help.rtfd", "docs/a/c.html", "docs/alive.md", "docs/b.txt"]);
        let place = |name: &str| folder.path().join(name).display().to_string();
        assert_eq!(
            told,
            [
                format!("left out `{}`: a link to a folder that it lies in", place("docs/a/around")),
                format!("left out `{}`: a link to what is not there", place("docs/dead.txt")),
            ]
        );
    }

    #[test]
    fn nothing_found_is_said_with_the_way_there() {
        let folder = folder();
        let told = |path: &str| list(folder.path(), &[path]).unwrap_err();
        assert_eq!(told("docs/z/**/*.txt"), "`docs/z/**/*.txt` finds no file: `docs` has no `z`");
        assert_eq!(told("docs/*.pdf"), "`docs/*.pdf` finds no file in `docs`");
        assert_eq!(told("doc/*.pdf"), "`doc/*.pdf` finds no file: the pipeline's folder has no `doc`");
        assert_eq!(told("/etc/*"), "`/etc/*` is an absolute path");
        assert!(told("docs/[").starts_with("`docs/[` is no glob"));
    }

    #[test]
    fn an_rtfd_folder_is_its_text() {
        let folder = folder();
        assert!(content_path(&folder.path().join("docs/Help.rtfd")).ends_with("Help.rtfd/TXT.rtf"));
    }
}
