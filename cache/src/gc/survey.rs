//! One walk over a store: what there is, how large, and when it was written or used last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Kind, Reach};
use crate::answers::{self, Found};
use crate::digest::Digest;
use crate::files::is_temporary;
use crate::{ContentId, RecipeId, StoreError};

/// A file, or a folder with all that is in it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub path: PathBuf,
    pub bytes: u64,
    /// The newest time stamp.
    pub stamp: SystemTime,
}

/// An answer's record, and what it leads to.
pub(super) struct AnswerSeen {
    pub seen: Seen,
    pub op: String,
    pub op_id: RecipeId,
    /// Each once.
    pub outputs: Vec<ContentId>,
    /// Digests of models.
    pub assets: Vec<String>,
}

/// What there is.
#[derive(Default)]
pub(super) struct Survey {
    pub answers: BTreeMap<RecipeId, AnswerSeen>,
    pub tables: BTreeMap<ContentId, Seen>,
    pub rows: BTreeMap<RecipeId, Seen>,
    pub work: BTreeMap<RecipeId, Seen>,
    /// By digest.
    pub models: BTreeMap<String, Seen>,
    /// Files that go by their age alone.
    pub files: Vec<(Kind, Seen)>,
    pub total: u64,
}

impl Survey {
    pub(super) fn of(root: &Path) -> Result<Self, StoreError> {
        let mut survey = Survey::default();
        walk(root, &mut |path, metadata| survey.add(root, path, metadata))?;
        Ok(survey)
    }

    fn add(&mut self, root: &Path, path: &Path, metadata: &Metadata) {
        let bytes = if metadata.is_dir() { 0 } else { metadata.len() };
        self.total += bytes;
        let stamp = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let seen = Seen { path: path.to_path_buf(), bytes, stamp };
        let inner = path.strip_prefix(root).expect("the walk began there");
        let parts: Vec<_> = inner.iter().map(|part| part.to_string_lossy()).collect();
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        match parts.as_slice() {
            // Folders that are one thing. Their own stamps count too.
            ["rows", op, ..] if id(op).is_some() => gather(&mut self.rows, id(op), &root.join("rows").join(op), &seen),
            ["work", of, ..] if id(of).is_some() => gather(&mut self.work, id(of), &root.join("work").join(of), &seen),
            _ if metadata.is_dir() => {}
            [.., name] if is_temporary(name) => self.files.push((Kind::Temporary, seen)),
            ["tables", shard, name] => {
                if let Some(content) = sharded(shard, name, ".parquet") {
                    self.tables.insert(ContentId(content), seen);
                }
            }
            ["answers", shard, name] => {
                if let Some(recipe) = sharded(shard, name, ".json") {
                    self.answers.insert(RecipeId(recipe), answer(seen));
                }
            }
            ["assets", "models", name] => {
                let digest = name.split('.').next().unwrap_or_default();
                self.models.insert(digest.to_string(), seen);
            }
            ["assets", "downloads", ..] => self.files.push((Kind::Download, seen)),
            ["quarantine", ..] => self.files.push((Kind::Quarantine, seen)),
            _ => {}
        }
    }
}

fn id(hex: &str) -> Option<RecipeId> {
    Digest::from_hex(hex).map(RecipeId)
}

/// `8c/2f….parquet` as a digest.
pub(super) fn sharded(shard: &str, name: &str, suffix: &str) -> Option<Digest> {
    Digest::from_hex(&format!("{shard}{}", name.strip_suffix(suffix)?))
}

fn gather(folders: &mut BTreeMap<RecipeId, Seen>, id: Option<RecipeId>, path: &Path, seen: &Seen) {
    let Some(id) = id else { return };
    let empty = || Seen { path: path.to_path_buf(), bytes: 0, stamp: SystemTime::UNIX_EPOCH };
    let folder = folders.entry(id).or_insert_with(empty);
    folder.bytes += seen.bytes;
    folder.stamp = folder.stamp.max(seen.stamp);
}

/// Reads an answer's record. One that can't be read leads nowhere.
pub(super) fn answer(seen: Seen) -> AnswerSeen {
    let Ok(Found::Answer(answer)) = answers::read(&seen.path) else {
        let nothing = RecipeId(Digest::from_bytes([0; 32]));
        return AnswerSeen { seen, op: String::new(), op_id: nothing, outputs: Vec::new(), assets: Vec::new() };
    };
    let outputs: BTreeSet<_> = answer.outputs.iter().map(|output| output.content).collect();
    let assets = answer.recipe.op.iter().filter(|fact| fact.name.starts_with("asset."));
    AnswerSeen {
        seen,
        op_id: answer.recipe.op_id(),
        outputs: outputs.into_iter().collect(),
        assets: assets.map(|fact| fact.value.clone()).collect(),
        op: answer.op,
    }
}

/// The newest answer of every node that things are reached from.
pub(super) fn newest(root: &Path, reach: &Reach) -> Result<Vec<(String, RecipeId)>, StoreError> {
    let view = root.join("view");
    let mut newest = Vec::new();
    match reach {
        Reach::Views => walk(&view, &mut |path, metadata| {
            if let Some(node) =
                path.strip_prefix(&view).ok().and_then(Path::to_str).and_then(|name| name.strip_suffix(".json"))
                && !metadata.is_dir()
            {
                newest.extend(leads_to(path).map(|recipe| (node.to_string(), recipe)));
            }
        })?,
        Reach::Nodes(nodes) => {
            for node in nodes {
                let recipe = leads_to(&view.join(format!("{}.json", node.node)));
                newest.extend(recipe.map(|recipe| (node.node.clone(), recipe)));
            }
        }
    }
    Ok(newest)
}

/// The answer that a link leads to. Where links are copies, the copy says whose it is.
fn leads_to(link: &Path) -> Option<RecipeId> {
    if let Ok(target) = fs::read_link(link) {
        let mut parts = target.iter().rev().filter_map(|part| part.to_str());
        let (name, shard) = (parts.next()?, parts.next()?);
        return sharded(shard, name, ".json").map(RecipeId);
    }
    match answers::read(link) {
        Ok(Found::Answer(answer)) => Some(answer.recipe.id()),
        _ => None,
    }
}

/// Calls `visit` for everything below a folder. What goes meanwhile is passed over; links are not followed.
pub(super) fn walk(folder: &Path, visit: &mut dyn FnMut(&Path, &Metadata)) -> Result<(), StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("list", folder)(error)),
    };
    for entry in entries {
        let path = entry.map_err(StoreError::io("list", folder))?.path();
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("inspect", &path)(error)),
        };
        visit(&path, &metadata);
        if metadata.is_dir() {
            walk(&path, visit)?;
        }
    }
    Ok(())
}

/// The newest time stamp of a file, or of a folder and all that is in it. `None` if it is gone.
pub(super) fn stamp(path: &Path) -> Result<Option<SystemTime>, StoreError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(None) };
    let mut newest = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    if metadata.is_dir() {
        walk(path, &mut |_, metadata| newest = newest.max(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)))?;
    }
    Ok(Some(newest))
}
