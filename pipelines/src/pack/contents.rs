//! What goes into a pack of a pipeline: its files from the folder it lies in, and pieces of its store.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use retort_cache::adopt::segment_digest;
use retort_cache::remote::Object;
use retort_cache::{Answer, Disk, StoreError};
use retort_engine::Asset;

use super::{PROJECT, PackError, STORE, names};
use crate::diagnostics::{Files, folder};
use crate::load::Loaded;
use crate::lock::{Lock, path_of};
use crate::source::Source;
use crate::yaml::{Data, Yaml};

/// The file that marks a project's folder, so that the store is found beside it.
const MARK: &str = "retort.toml";
const MARK_TEXT: &str = "# Marks the project's folder: its store is `.retort`, beside this file.\n";

/// What is packed beside the pipeline, its documents and its lock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    /// The answers of all nodes, and their tables.
    pub tables: bool,
    /// The remembered rows of its operators.
    pub rows: bool,
    /// The local files of its models.
    pub assets: bool,
}

/// What a member is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A file, as it lies there.
    File(PathBuf),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// The members of a pack, by path.
pub struct Contents {
    pub(super) pipeline: String,
    pub(super) members: Vec<(String, Content)>,
}

impl Contents {
    /// Gathers what a pipeline and its answers consist of. `lock` is that of `answers`.
    pub fn of(
        loaded: &Loaded,
        lock: &Lock,
        answers: &[Answer],
        disk: &Disk,
        choice: Choice,
    ) -> Result<Self, PackError> {
        let root = absolute(&loaded.base)?;
        let mut gather = Gather { root, project: BTreeMap::new() };
        let pipeline = gather.pipeline(&loaded.path)?;
        gather.insert(path_of(Path::new(&pipeline)).display().to_string(), Content::Bytes(lock.text().into_bytes()))?;
        let mark = loaded.base.join(MARK);
        let mark = if mark.is_file() { Content::File(mark) } else { Content::Bytes(MARK_TEXT.into()) };
        gather.insert(MARK.into(), mark)?;
        gather.documents(loaded, lock)?;
        gather.models(loaded, choice.assets)?;
        let mut members: Vec<_> =
            gather.project.into_iter().map(|(path, content)| (format!("{PROJECT}{path}"), content)).collect();
        // Tables before the answers that name them: a reader can check one member after the other.
        if choice.tables {
            members.extend(pieces(tables(answers), disk));
        }
        if choice.rows {
            members.extend(rows(answers, disk)?);
        }
        if choice.tables {
            members.extend(pieces(answers.iter().map(|answer| Object::Answer(answer.recipe.id())).collect(), disk));
        }
        Ok(Contents { pipeline, members })
    }
}

struct Gather {
    root: PathBuf,
    project: BTreeMap<String, Content>,
}

impl Gather {
    fn insert(&mut self, path: String, content: Content) -> Result<(), PackError> {
        names::check(&path).map_err(|why| PackError::Name { path: path.clone(), why })?;
        self.project.entry(path).or_insert(content);
        Ok(())
    }

    /// Adds a file under its path from the root.
    fn file(&mut self, what: &'static str, path: &Path, named: &str) -> Result<String, PackError> {
        let outside = || PackError::Outside { what, path: named.into() };
        let absolute = absolute(path)?;
        let below = absolute.strip_prefix(&self.root).map_err(|_| outside())?;
        let parts: Option<Vec<&str>> = below.iter().map(|part| part.to_str()).collect();
        let name = parts.ok_or_else(outside)?.join("/");
        self.insert(name.clone(), Content::File(path.into()))?;
        Ok(name)
    }

    /// The pipeline's file and those that it includes; gives the first one's name.
    fn pipeline(&mut self, path: &Path) -> Result<String, PackError> {
        let (mut files, mut problems) = (Files::default(), Vec::new());
        if let Some(document) = crate::document::read(path, &mut files, &mut problems) {
            let sections = [&document.models, &document.nodes, &document.profiles];
            if let Some(secret) = sections.into_iter().flatten().find_map(|entry| secret(&entry.value)) {
                return Err(PackError::Secret { path: files.0[secret].path.display().to_string() });
            }
        }
        let mut names = Vec::new();
        for file in &files.0 {
            names.push(self.file("the file", &file.path, &file.path.display().to_string())?);
        }
        Ok(names.swap_remove(0))
    }

    /// The files that its nodes list.
    fn documents(&mut self, loaded: &Loaded, lock: &Lock) -> Result<(), PackError> {
        for (node, files) in &lock.sources {
            let base = loaded.nodes.iter().find(|spec| spec.name == *node).map_or(&loaded.base, |spec| &spec.base);
            for name in files.keys() {
                self.file("the file", &retort_ops::files::content_path(&base.join(name)), name)?;
            }
        }
        Ok(())
    }

    /// Models that are local files: packed, or else pinned; and the files of programs.
    fn models(&mut self, loaded: &Loaded, packed: bool) -> Result<(), PackError> {
        for id in loaded.graph.order() {
            let node = loaded.graph.node(*id);
            // What a program is made of is small and part of the experiment.
            let packed = packed || node.op == "exec";
            for asset in &node.made.assets {
                let Some(files) = local(asset) else { continue };
                if !packed && asset.sha256.is_none() {
                    return Err(PackError::Unpinned { node: node.name.clone() });
                }
                for name in files.iter().filter(|_| packed) {
                    self.file("the file", &asset.base.join(name), name)?;
                }
            }
        }
        Ok(())
    }
}

/// The paths of an asset that is nothing but local files.
fn local(asset: &Asset) -> Option<Vec<String>> {
    let path = |source: &String| match Source::parse(source) {
        Ok(Source::File(path)) => Some(path),
        _ => None,
    };
    asset.sources.iter().map(path).collect()
}

/// The file in which a key is written out, not named as a variable of the environment.
fn secret(value: &Yaml) -> Option<usize> {
    match &value.data {
        Data::Map(entries) => entries.iter().find_map(|entry| match &entry.value.data {
            Data::Text(text) if entry.key == "api_key" && !text.trim().starts_with("${env.") => {
                Some(entry.value.span.file)
            }
            _ => secret(&entry.value),
        }),
        Data::List(items) => items.iter().find_map(secret),
        _ => None,
    }
}

fn tables(answers: &[Answer]) -> BTreeSet<Object> {
    answers.iter().flat_map(|answer| &answer.outputs).map(|output| Object::Table(output.content)).collect()
}

fn pieces(objects: BTreeSet<Object>, disk: &Disk) -> impl Iterator<Item = (String, Content)> {
    let file = |object: Object| (format!("{STORE}{}", object.path()), Content::File(disk.root().join(object.path())));
    objects.into_iter().map(file)
}

fn rows(answers: &[Answer], disk: &Disk) -> Result<Vec<(String, Content)>, PackError> {
    let operators: BTreeSet<_> = answers.iter().map(|answer| answer.recipe.op_id()).collect();
    let mut found = BTreeMap::new();
    for op in operators {
        for path in disk.row_segments(op)? {
            let mut file = File::open(&path).map_err(StoreError::io("open", &path))?;
            let (digest, _) = segment_digest(&mut file, u64::MAX).map_err(StoreError::io("read", &path))?;
            found.insert(format!("{STORE}{}", Object::Rows(op, digest).path()), Content::File(path));
        }
    }
    Ok(found.into_iter().collect())
}

/// A path from the root of the file system, `..` taken back by name.
fn absolute(path: &Path) -> Result<PathBuf, PackError> {
    let path = if path == Path::new("") { folder(path) } else { path.to_path_buf() };
    let absolute = std::path::absolute(&path).map_err(StoreError::io("find", &path))?;
    let mut plain = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    Ok(plain)
}
