//! Removes what a plan names, batch by batch, as far as nobody has used it since.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::decide::in_use;
use super::survey::{answer, newest, sharded, stamp, walk};
use super::{Id, Item, Kind, Plan, Rules, Seen};
use crate::claim::{Claimed, Claims};
use crate::pins::{self, Alone, Users};
use crate::{ContentId, RecipeId, StoreError};

/// Things that are removed while nobody may begin to use the store.
const BATCH: usize = 4096;
/// Between two batches those who wait for the pins have their turn.
const TURN: Duration = Duration::from_millis(2);

/// What a sweep removed, by kind: how many, and their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// What went.
    pub kinds: BTreeMap<Kind, (u64, u64)>,
    /// Things that someone began to use meanwhile, and that stayed.
    pub spared: u64,
}

impl Freed {
    /// Bytes that went.
    pub fn bytes(&self) -> u64 {
        self.kinds.values().map(|(_, bytes)| bytes).sum()
    }
}

pub(super) fn sweep(root: &Path, rules: &Rules, plan: &Plan) -> Result<Freed, StoreError> {
    let mut work = Sweep {
        root,
        rules,
        claims: Claims::in_folder(root.join("claims")),
        plan,
        spared: BTreeSet::new(),
        freed: Freed::default(),
    };
    for batch in plan.items.chunk_by(|one, other| one.kind == other.kind).flat_map(|kind| kind.chunks(BATCH)) {
        work.batch(batch)?;
        std::thread::sleep(TURN);
    }
    work.tidy()?;
    Ok(work.freed)
}

struct Sweep<'a> {
    root: &'a Path,
    rules: &'a Rules,
    claims: Claims,
    plan: &'a Plan,
    /// Tables of answers that stay after all.
    spared: BTreeSet<ContentId>,
    freed: Freed,
}

impl Sweep<'_> {
    fn batch(&mut self, batch: &[Item]) -> Result<(), StoreError> {
        let alone = Alone::wait(&pins::folder(self.root))?;
        let users = alone.users()?;
        let reached: BTreeSet<_> = match batch[0].kind {
            Kind::Answer => newest(self.root, &self.rules.reach)?.into_iter().map(|(_, recipe)| recipe).collect(),
            _ => BTreeSet::new(),
        };
        if batch[0].kind == Kind::Table {
            self.spare_new_answers()?;
        }
        for item in batch {
            if self.may_go(item, &users, &reached)? && self.remove(item)? {
                let (n, bytes) = self.freed.kinds.entry(item.kind).or_default();
                (*n, *bytes) = (*n + 1, *bytes + item.bytes);
            } else {
                self.freed.spared += 1;
                if let Id::Answer(_, outputs) = &item.id {
                    self.spared.extend(outputs.iter().copied());
                }
            }
        }
        Ok(())
    }

    /// Answers may have come that have an old table: theirs stay.
    fn spare_new_answers(&mut self) -> Result<(), StoreError> {
        let mut new = Vec::new();
        walk(&self.root.join("answers"), &mut |path, metadata| {
            let (Some(name), Some(shard)) = (text(path.file_name()), text(path.parent().and_then(Path::file_name)))
            else {
                return;
            };
            let stamp = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if let Some(recipe) = sharded(shard, name, ".json")
                && self.plan.answers.get(&RecipeId(recipe)) != Some(&stamp)
            {
                new.push(Seen { path: path.to_path_buf(), bytes: 0, stamp });
            }
        })?;
        self.spared.extend(new.into_iter().flat_map(|seen| answer(seen).outputs));
        Ok(())
    }

    /// Whether all still is as it was when the plan was made. Asked alone with the pins.
    fn may_go(&self, item: &Item, users: &Users, reached: &BTreeSet<RecipeId>) -> Result<bool, StoreError> {
        let is_needed = match &item.id {
            Id::Answer(recipe, _) => reached.contains(recipe),
            Id::Table(content) => self.spared.contains(content),
            _ => false,
        };
        Ok(!is_needed && !in_use(item, users) && stamp(&item.path)? == Some(item.stamp))
    }

    fn remove(&self, item: &Item) -> Result<bool, StoreError> {
        let removed = match &item.id {
            Id::Rows(_) => fs::remove_dir_all(&item.path),
            Id::Work(recipe) => {
                // Whoever works there has the claim.
                let Claimed::Ours(_claim) = self.claims.take(*recipe, "cache gc")? else { return Ok(false) };
                fs::remove_dir_all(&item.path)
            }
            Id::Answer(..) | Id::Table(_) | Id::File => fs::remove_file(&item.path),
        };
        match removed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("remove", &item.path)(error)),
        }
    }

    /// Claims of dead processes; links that lead nowhere and empty folders, if nobody uses the store.
    fn tidy(&self) -> Result<(), StoreError> {
        let mut claimed = Vec::new();
        walk(&self.root.join("claims"), &mut |path, _| {
            claimed.extend(path.file_name().and_then(|name| crate::Digest::from_hex(name.to_str()?)));
        })?;
        for recipe in claimed {
            // A claim that nobody holds is ours for a moment, and goes with it.
            drop(self.claims.take(RecipeId(recipe), "cache gc")?);
        }
        let alone = Alone::wait(&pins::folder(self.root))?;
        if alone.users()?.count() > 0 {
            return Ok(());
        }
        let (mut dead, mut folders) = (Vec::new(), Vec::new());
        walk(&self.root.join("view"), &mut |path, metadata| {
            if metadata.is_symlink() && !path.exists() {
                dead.push(path.to_path_buf());
            }
        })?;
        for link in dead {
            fs::remove_file(&link).map_err(StoreError::io("remove", &link))?;
        }
        for kind in ["tables", "answers", "rows", "work", "view", "quarantine"] {
            folders.push(self.root.join(kind));
            walk(&self.root.join(kind), &mut |path, metadata| {
                if metadata.is_dir() {
                    folders.push(path.to_path_buf());
                }
            })?;
        }
        // Inner ones come after outer ones; one that is not empty refuses.
        folders.iter().rev().for_each(|folder| drop(fs::remove_dir(folder)));
        Ok(())
    }
}

fn text(name: Option<&OsStr>) -> Option<&str> {
    name.and_then(OsStr::to_str)
}
