//! What would go: everything that is not reachable and was not used for long, and more of it until the store fits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::survey::newest;
use super::{Id, Item, Kind, Plan, Reach, Rules, Seen, Survey, Users};
use crate::{ContentId, RecipeId, StoreError};

/// What is of no use to anybody goes after so long, whatever the rules say: tables without an answer, checkpoints of what is answered.
const LEFT_OVER: Duration = Duration::from_hours(24);
/// Half-written files go after so long.
const HALF_WRITTEN: Duration = Duration::from_hours(1);

pub(super) fn decide(root: &Path, survey: &Survey, users: &Users, rules: &Rules) -> Result<Plan, StoreError> {
    let reached = Reached::of(root, survey, rules)?;
    let mut choice = Choice { survey, users, rules, reached, refs: BTreeMap::new(), items: Vec::new(), freed: 0 };
    for answer in survey.answers.values() {
        for content in &answer.outputs {
            *choice.refs.entry(*content).or_default() += 1;
        }
    }
    let mut candidates = choice.candidates();
    candidates.sort_by_key(|candidate| (candidate.item.used, candidate.item.kind));
    for candidate in candidates {
        let too_large = rules.max_size.is_some_and(|most| survey.total - choice.freed > most);
        if too_large || choice.is_old(candidate.item.used, candidate.age) {
            choice.doom(candidate.item);
        }
    }
    let mut items = choice.items;
    items.sort_by(|one, other| one.kind.cmp(&other.kind).then(other.bytes.cmp(&one.bytes)));
    let answers = survey.answers.iter().map(|(recipe, answer)| (*recipe, answer.seen.stamp)).collect();
    Ok(Plan { items, total: survey.total, users: users.count(), answers })
}

/// What stays in any case.
struct Reached {
    answers: BTreeSet<RecipeId>,
    tables: BTreeSet<ContentId>,
    ops: BTreeSet<RecipeId>,
    assets: BTreeSet<String>,
}

impl Reached {
    fn of(root: &Path, survey: &Survey, rules: &Rules) -> Result<Self, StoreError> {
        let answers: BTreeSet<_> = newest(root, &rules.reach)?.into_iter().map(|(_, recipe)| recipe).collect();
        let (mut tables, mut ops, mut assets) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for answer in answers.iter().filter_map(|recipe| survey.answers.get(recipe)) {
            tables.extend(answer.outputs.iter().copied());
            ops.insert(answer.op_id);
            assets.extend(answer.assets.iter().cloned());
        }
        if let Reach::Nodes(nodes) = &rules.reach {
            ops.extend(nodes.iter().map(|node| node.op));
            assets.extend(nodes.iter().flat_map(|node| node.assets.iter().cloned()));
        }
        Ok(Reached { answers, tables, ops, assets })
    }
}

/// Something that may go.
struct Candidate {
    item: Item,
    /// After how long it goes; `None` for its age never.
    age: Option<Duration>,
}

struct Choice<'a> {
    survey: &'a Survey,
    users: &'a Users,
    rules: &'a Rules,
    reached: Reached,
    /// How many answers that stay have a table.
    refs: BTreeMap<ContentId, usize>,
    items: Vec<Item>,
    freed: u64,
}

impl Choice<'_> {
    /// What is neither reachable nor in use.
    fn candidates(&self) -> Vec<Candidate> {
        let Survey { answers, tables, rows, work, models, files, .. } = self.survey;
        let age = self.rules.older_than;
        let left_over = Some(age.map_or(LEFT_OVER, |age| age.min(LEFT_OVER)));
        // Who has not signed in may write too, but not for long.
        let half_written = Some(HALF_WRITTEN);
        let (mut rows_used, mut models_used) = (BTreeMap::new(), BTreeMap::new());
        for answer in answers.values() {
            later(&mut rows_used, answer.op_id, answer.seen.stamp);
            answer.assets.iter().for_each(|asset| later(&mut models_used, asset.clone(), answer.seen.stamp));
        }
        let mut all = Vec::new();
        let mut add = |kind, seen: &Seen, used: Option<&SystemTime>, about: &str, id: Id, age| {
            let used = used.copied().unwrap_or(seen.stamp).max(seen.stamp);
            let (path, bytes, stamp) = (seen.path.clone(), seen.bytes, seen.stamp);
            all.push(Candidate { item: Item { kind, path, about: about.into(), bytes, used, stamp, id }, age });
        };
        for (recipe, answer) in answers.iter().filter(|(recipe, _)| !self.reached.answers.contains(recipe)) {
            add(Kind::Answer, &answer.seen, None, &answer.op, Id::Answer(*recipe, answer.outputs.clone()), age);
        }
        let orphan = |content: &ContentId| !self.refs.contains_key(content) && !self.reached.tables.contains(content);
        for (content, seen) in tables.iter().filter(|(content, _)| orphan(content)) {
            add(Kind::Table, seen, None, "no answer", Id::Table(*content), left_over);
        }
        for (op, seen) in rows.iter().filter(|(op, _)| !self.reached.ops.contains(op)) {
            let name = answers.values().find(|answer| answer.op_id == *op).map_or("no answer", |answer| &answer.op);
            add(Kind::Rows, seen, rows_used.get(op), name, Id::Rows(*op), age);
        }
        for (recipe, seen) in work {
            let answered = answers.get(recipe);
            let age = if answered.is_some() { left_over } else { age };
            add(Kind::Work, seen, None, answered.map_or("", |answer| &answer.op), Id::Work(*recipe), age);
        }
        for (digest, seen) in models.iter().filter(|(digest, _)| !self.reached.assets.contains(*digest)) {
            add(Kind::Model, seen, models_used.get(digest), digest, Id::File, age);
        }
        for (kind, seen) in files {
            let age = if *kind == Kind::Temporary { half_written } else { age };
            let name = seen.path.file_name().unwrap_or_default().to_string_lossy();
            add(*kind, seen, None, &name, Id::File, age);
        }
        all.retain(|candidate| !in_use(&candidate.item, self.users));
        all
    }

    fn is_old(&self, used: SystemTime, age: Option<Duration>) -> bool {
        age.is_some_and(|age| self.rules.now.duration_since(used).unwrap_or_default() >= age)
    }

    /// Marks something, and the tables that no answer is left for.
    fn doom(&mut self, item: Item) {
        self.freed += item.bytes;
        let outputs = if let Id::Answer(_, outputs) = &item.id { outputs.clone() } else { Vec::new() };
        let about = item.about.clone();
        let used = item.used;
        self.items.push(item);
        for content in outputs {
            let left = self.refs.get_mut(&content).expect("counted above");
            *left -= 1;
            let Some(seen) = self.survey.tables.get(&content) else { continue };
            if *left > 0 || self.reached.tables.contains(&content) {
                continue;
            }
            let (path, bytes, stamp) = (seen.path.clone(), seen.bytes, seen.stamp);
            let (about, id) = (about.clone(), Id::Table(content));
            let table = Item { kind: Kind::Table, path, about, bytes, used: used.max(stamp), stamp, id };
            if !in_use(&table, self.users) {
                self.freed += bytes;
                self.items.push(table);
            }
        }
    }
}

/// Whether a process that lives may use it.
pub(super) fn in_use(item: &Item, users: &Users) -> bool {
    match item.kind {
        Kind::Temporary => users.may_write(item.stamp),
        // They are opened by their name and read as long as a run lasts, and written nowhere down.
        Kind::Model | Kind::Download => users.count() > 0,
        // Their claims tell.
        Kind::Work => false,
        Kind::Answer | Kind::Table | Kind::Rows | Kind::Quarantine => users.keep(&item.id.pin(), item.stamp),
    }
}

fn later<K: Ord>(used: &mut BTreeMap<K, SystemTime>, key: K, stamp: SystemTime) {
    let newest = used.entry(key).or_insert(stamp);
    *newest = stamp.max(*newest);
}
