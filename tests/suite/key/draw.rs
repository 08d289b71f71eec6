//! Draws worlds and edits from a seed.

use std::path::Path;

use arrow::datatypes::SchemaRef;

use super::answer::answer;
use super::ops::{Carries, Docs, Kind, Row, Whole, mix};
use super::world::{FOLDERS, Loss, Op, Run, Sketch, Step, Trouble, World};

/// No table grows above this.
const MOST_ROWS: usize = 120;
const COLUMNS: [&str; 5] = ["text", "w", "path", "reason", "n"];
const TEXTS: [&str; 10] = ["a", "b", "c", "a\nb", "b\nc\na", "bad", "a a", "", "d\nd", "e\nf\ng\nh"];

/// A generator of pseudo-random numbers that will never change.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(mix(seed))
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) % n as u64) as usize
    }

    /// True in `percent` of a hundred throws.
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }
}

/// A case: a world is built, then run and edited by turns.
pub(crate) fn case(seed: u64) -> Vec<Step> {
    let mut dice = Dice::new(seed);
    let mut drawing = Drawing { world: World::default(), steps: Vec::new(), dice: &mut dice };
    for _ in 0..2 + drawing.dice.below(5) {
        let step = drawing.write();
        drawing.take(step);
    }
    for _ in 0..3 + drawing.dice.below(6) {
        let step = drawing.add();
        drawing.take(step);
    }
    drawing.steps.push(Step::Run(Run::plain()));
    for _ in 0..3 + drawing.dice.below(5) {
        for _ in 0..=drawing.dice.below(2) {
            let step = drawing.edit();
            drawing.take(step);
        }
        let run = drawing.run();
        let troubled = run.trouble.is_some();
        drawing.steps.push(Step::Run(run));
        if troubled {
            drawing.steps.push(Step::Run(Run::plain()));
        }
    }
    drawing.steps
}

struct Drawing<'a> {
    world: World,
    steps: Vec<Step>,
    dice: &'a mut Dice,
}

/// `node` or `node.port`, with its columns.
type Source = (String, SchemaRef);

impl Drawing<'_> {
    fn take(&mut self, step: Option<Step>) {
        let Some(step) = step else { return };
        let Some(world) = self.world.after(&step, Path::new("/nowhere")) else { return };
        let rows =
            answer(&world).values().flat_map(|keyed| keyed.outputs.iter().map(|(.., batch)| batch.num_rows())).max();
        if rows.unwrap_or(0) <= MOST_ROWS {
            self.world = world;
            self.steps.push(step);
        }
    }

    fn write(&mut self) -> Option<Step> {
        let name = format!("f{}", self.dice.below(4));
        Some(Step::Write(self.dice.pick(&FOLDERS).into(), name, self.dice.pick(&TEXTS).into()))
    }

    fn sources(&self) -> Vec<Source> {
        let graph = self.world.check(Path::new("/nowhere")).expect("the world checks");
        let nodes = graph.order().iter().map(|id| graph.node(*id));
        let ports = nodes.flat_map(|node| {
            node.ports.iter().map(|(port, schema)| {
                let source = if port == "out" { node.name.clone() } else { format!("{}.{port}", node.name) };
                (source, schema.clone())
            })
        });
        ports.collect()
    }

    /// A source, or several that can be appended.
    fn list(&mut self, sources: &[Source]) -> (Vec<String>, SchemaRef) {
        let (first, schema) = self.dice.pick(sources);
        let shape = |schema: &SchemaRef| -> Vec<String> {
            schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect()
        };
        let alike: Vec<_> = sources.iter().filter(|(_, other)| shape(other) == shape(&schema)).cloned().collect();
        let mut list = vec![first];
        while self.dice.chance(30) && list.len() < 3 {
            let other = self.dice.pick(&alike).0;
            list.insert(self.dice.below(list.len() + 1), other);
        }
        (list, schema)
    }

    fn name(&mut self) -> String {
        format!("n{}", self.dice.below(10))
    }

    fn add(&mut self) -> Option<Step> {
        let sources = self.sources();
        let name = self.name();
        let (op, from) = if sources.is_empty() || self.dice.chance(15) {
            (self.docs(), Vec::new())
        } else {
            let (list, schema) = self.list(&sources);
            let op = if self.dice.chance(60) { self.row(&schema) } else { self.whole() };
            let joins = matches!(&op, Op::Whole(Whole { kind: Kind::Join, .. }));
            let mut from = vec![(joins.then(|| "left".to_string()), list)];
            if joins && self.dice.chance(60) {
                let right = self.list(&sources).0;
                from.insert(self.dice.below(2), (Some("right".into()), right));
            }
            (op, from)
        };
        let at = self.dice.below(self.world.nodes.len() + 1);
        Some(Step::Add(at, Sketch { name, op, from, spelled: self.dice.chance(50) }))
    }

    fn docs(&mut self) -> Op {
        Op::Docs(Docs {
            paths: self.dice.pick(&FOLDERS).into(),
            by_content: self.dice.chance(40),
            lines: self.dice.chance(60),
            salt: self.dice.below(2) as u64,
        })
    }

    fn whole(&mut self) -> Op {
        let kind = self.dice.pick(&[Kind::Reverse, Kind::Sum, Kind::Pick, Kind::Part, Kind::Join]);
        Op::Whole(Whole { kind, salt: self.dice.below(2) as u64 })
    }

    fn row(&mut self, schema: &SchemaRef) -> Op {
        let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let mut reads = vec![self.dice.pick(&columns)];
        let more = self.dice.pick(&columns);
        if self.dice.chance(30) && !reads.contains(&more) {
            reads.push(more);
        }
        let dice = &mut *self.dice;
        let some = |dice: &mut Dice, percent| {
            if dice.chance(percent) { vec![dice.pick(&COLUMNS).to_string()] } else { vec![] }
        };
        Op::Row(Row {
            reads,
            maybe: some(dice, 30),
            adds: dice.pick(&COLUMNS[..4]).into(),
            number: dice.chance(25).then(|| "n".into()),
            carries: dice.pick(&[Carries::All, Carries::All, Carries::Some, Carries::Nothing]),
            drops: some(dice, 60),
            remember: dice.chance(65),
            salt: dice.below(3) as u64,
            coarse: dice.pick(&[0, 2, 4]),
            many: dice.pick(&[0, 0, 2, 3]),
            refuse: dice.pick(&[0, 0, 2, 4]),
            nullable: dice.chance(25),
            batch: dice.pick(&[1, 2, 3, 64]),
            parallel: dice.chance(50),
            scramble: dice.chance(25),
        })
    }

    fn edit(&mut self) -> Option<Step> {
        let node = (!self.world.nodes.is_empty()).then(|| self.dice.pick(&self.world.nodes));
        let doc = (!self.world.docs.is_empty()).then(|| {
            let docs: Vec<_> = self.world.docs.keys().cloned().collect();
            self.dice.pick(&docs)
        });
        match self.dice.below(20) {
            0..3 => self.write(),
            3 => doc.map(|(folder, name)| Step::Delete(folder, name)),
            4 => doc.map(|(folder, name)| Step::Move(folder, name, format!("f{}", self.dice.below(5)))),
            5 => doc.map(|(folder, name)| Step::Touch(folder, name)),
            6..9 => node.map(|node| Step::Configure(node.name, self.another(&node.op))),
            9 => self.add(),
            10 => node.map(|node| Step::Remove(node.name)),
            11 => node.map(|node| Step::Rename(node.name, self.name())),
            12 | 13 => self.rewire(node?),
            14 => node.map(|node| Step::Spell(node.name)),
            15 => Some(Step::Version(self.dice.pick(&["row", "whole", "docs"]).into(), 1 + self.dice.below(3) as u32)),
            _ => Some(Step::Lose(self.loss(node?.name))),
        }
    }

    fn loss(&mut self, node: String) -> Loss {
        match self.dice.below(6) {
            0 | 1 => Loss::Table(self.dice.below(1000)),
            2 => Loss::Answer(self.dice.below(1000)),
            3 => Loss::Rows(self.dice.below(1000)),
            4 => Loss::View(node),
            _ => Loss::Digests,
        }
    }

    /// The operator with one key of its config changed.
    fn another(&mut self, op: &Op) -> Op {
        match op.clone() {
            Op::Docs(mut docs) => {
                match self.dice.below(4) {
                    0 => docs.paths = self.dice.pick(&FOLDERS).into(),
                    1 => docs.by_content = !docs.by_content,
                    2 => docs.lines = !docs.lines,
                    _ => docs.salt = self.dice.below(2) as u64,
                }
                Op::Docs(docs)
            }
            Op::Whole(mut whole) => {
                if self.dice.chance(30) {
                    return self.whole();
                }
                whole.salt = self.dice.below(2) as u64;
                Op::Whole(whole)
            }
            Op::Row(mut row) => {
                match self.dice.below(12) {
                    0..3 => row.salt = self.dice.below(3) as u64,
                    3 => row.coarse = self.dice.pick(&[0, 2, 4]),
                    4 => row.many = self.dice.pick(&[0, 2, 3]),
                    5 => row.refuse = self.dice.pick(&[0, 2, 4]),
                    6 => row.remember = !row.remember,
                    7 => row.batch = self.dice.pick(&[1, 2, 3, 64]),
                    8 => row.maybe = vec![self.dice.pick(&COLUMNS).into()],
                    9 => row.drops = vec![self.dice.pick(&COLUMNS).into()],
                    10 => row.carries = self.dice.pick(&[Carries::All, Carries::Some, Carries::Nothing]),
                    _ => row.nullable = !row.nullable,
                }
                Op::Row(row)
            }
        }
    }

    /// Other sources, or the same in another order.
    fn rewire(&mut self, node: Sketch) -> Option<Step> {
        let mut from = node.from.clone();
        if from.is_empty() {
            return None;
        }
        if self.dice.chance(40) {
            from.rotate_left(1);
            from.iter_mut().for_each(|(_, sources)| sources.rotate_left(1));
        } else {
            let slot = self.dice.below(from.len());
            let sources = self.sources();
            from[slot].1 = self.list(&sources).0;
        }
        Some(Step::Feed(node.name, from))
    }

    fn run(&mut self) -> Run {
        let names: Vec<_> = self.world.nodes.iter().map(|node| node.name.clone()).collect();
        let dice = &mut *self.dice;
        let some = |dice: &mut Dice, percent| {
            if !names.is_empty() && dice.chance(percent) { vec![dice.pick(&names)] } else { vec![] }
        };
        Run {
            jobs: dice.pick(&[1, 1, 1, 2, 4, 8]),
            keep_going: dice.chance(50),
            force: some(dice, 12),
            targets: some(dice, 15),
            trouble: dice.chance(20).then(|| (dice.pick(&[Trouble::Stop, Trouble::Fail]), dice.below(12) as i64)),
        }
    }
}
