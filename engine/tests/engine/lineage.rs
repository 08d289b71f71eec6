//! Lineage: what the engine says of every row, of every table of random pipelines, is what a naive computation says that
//! carries each row's parents along. And what can't be told is not told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use retort_engine::lineage::{Lost, Offspring, Origin, Spot, Trail};
use retort_engine::{Graph, NodeId};
use serde_json::json;

use crate::space::{Space, on_every_store};

/// A table with the rows that each of its rows came from.
type Naive = Vec<(Vec<String>, Vec<Spot>)>;
type Tables = BTreeMap<(NodeId, usize), Naive>;

/// Numbers that look random and are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Documents of few words, so that many are equal; some are refused, of some a word.
fn pipeline(space: &mut Space, chance: &mut Chance) -> (Vec<(String, String)>, u64) {
    let mut documents = Vec::new();
    for n in 0..chance.below(7) {
        let words = (0..chance.below(6)).map(|_| ["a", "b", "c", "#"][chance.below(4) as usize]).collect::<Vec<_>>();
        let text = if chance.below(4) == 0 { "bad".to_string() } else { words.join(" ") };
        let name = format!("{n}.md");
        space.edit(&name, &text);
        documents.push((name, text));
    }
    let most = 1 + chance.below(3);
    let recompute = chance.below(2) == 0;
    space.node("docs", "files", "", json!({"paths": "docs"}));
    space.node("loud", "upper", "docs", json!({"recompute": recompute}));
    space.node("all", "upper", "loud, docs, loud", json!({"suffix": " c", "recompute": !recompute}));
    space.node("words", "words", "all", json!({}));
    space.node("refused", "words", "loud.rejects", json!({}));
    space.node("picked", "pick", "words", json!({"most": most}));
    space.node("counts", "count", "picked", json!({}));
    (documents, most)
}

/// The pipeline again, one row after the other.
fn naive(graph: &Graph, documents: &[(String, String)], most: u64) -> Tables {
    let id = |name: &str| graph.find(name).unwrap();
    let mut tables = Tables::new();
    let files = documents.iter().map(|(name, _)| (vec![name.clone()], Vec::new())).collect();
    tables.insert((id("docs"), 2), files);
    let read = |(row, (name, text)): (usize, &(String, String))| {
        (vec![name.clone(), text.clone()], vec![Spot { node: id("docs"), port: 2, row: row as u64 }])
    };
    tables.insert((id("docs"), 0), documents.iter().enumerate().map(read).collect());
    let upper = |tables: &mut Tables, name: &str, feeds: &[&str], suffix: &str| {
        let (mut kept, mut refused) = (Naive::new(), Naive::new());
        for feed in feeds {
            for (row, (values, _)) in tables[&(id(feed), 0)].iter().enumerate() {
                let parents = vec![Spot { node: id(feed), port: 0, row: row as u64 }];
                match values[1].trim() {
                    "bad" => refused.push((values.clone(), parents)),
                    text => kept.push((vec![values[0].clone(), text.to_uppercase() + suffix], parents)),
                }
            }
        }
        tables.insert((id(name), 0), kept);
        tables.insert((id(name), 1), refused);
    };
    upper(&mut tables, "loud", &["docs"], "");
    upper(&mut tables, "all", &["loud", "docs", "loud"], " c");
    let words = |tables: &mut Tables, name: &str, feed: (NodeId, usize)| {
        let (mut found, mut refused) = (Naive::new(), Naive::new());
        for (row, (values, _)) in tables[&feed].iter().enumerate() {
            let parent = Spot { node: feed.0, port: feed.1, row: row as u64 };
            let words = values[1].split_whitespace().filter(|word| !word.contains('#'));
            found.extend(words.map(|word| (vec![values[0].clone(), word.into()], vec![parent])));
            if values[1].contains('#') {
                refused.push((values.clone(), vec![parent]));
            }
        }
        tables.insert((id(name), 0), found);
        tables.insert((id(name), 1), refused);
    };
    words(&mut tables, "words", (id("all"), 0));
    words(&mut tables, "refused", (id("loud"), 1));
    let (mut picked, mut seen) = (Naive::new(), BTreeMap::<Vec<String>, u64>::new());
    for (row, (values, _)) in tables[&(id("words"), 0)].iter().enumerate() {
        let n = seen.entry(values.clone()).or_default();
        *n += 1;
        if *n <= most {
            picked.push((values.clone(), vec![Spot { node: id("words"), port: 0, row: row as u64 }]));
        }
    }
    picked.sort_by(|(one, _), (other, _)| one[1].cmp(&other[1]));
    let mut counts = BTreeMap::<String, Vec<Spot>>::new();
    for (row, (values, _)) in picked.iter().enumerate() {
        counts.entry(values[1].clone()).or_default().push(Spot { node: id("picked"), port: 0, row: row as u64 });
    }
    tables.insert((id("picked"), 0), picked);
    tables.insert((id("counts"), 0), counts.into_iter().map(|(word, rows)| (vec![word], rows)).collect());
    tables
}

fn parents(trail: &Trail<'_>, spot: Spot) -> Vec<Spot> {
    let rows = |(_, origin): (String, Origin)| match origin {
        Origin::Rows(rows) => rows,
        other => panic!("{spot:?}: {other:?}"),
    };
    trail.parents(spot).unwrap().into_iter().flat_map(rows).collect()
}

#[test]
fn every_row_has_the_parents_of_a_naive_computation_and_their_children_are_the_same() {
    let mut n_rows = 0;
    for seed in 1..=60 {
        let (mut space, mut chance) = (Space::in_memory(), Chance(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed)));
        let (documents, most) = pipeline(&mut space, &mut chance);
        let summary = space.run().summary;
        assert_eq!(summary.ran, 7);
        space.follow(|graph, trail| {
            let tables = naive(graph, &documents, most);
            let mut children: BTreeMap<Spot, BTreeSet<Spot>> = BTreeMap::new();
            for ((node, port), rows) in &tables {
                let table = trail.table(*node, *port).unwrap().unwrap();
                assert_eq!(table.rows as usize, rows.len(), "seed {seed}, {}", graph.node(*node).name);
                for (row, (_, wanted)) in rows.iter().enumerate() {
                    let spot = Spot { node: *node, port: *port, row: row as u64 };
                    assert_eq!(parents(trail, spot), *wanted, "seed {seed}, row {row} of {}", graph.node(*node).name);
                    wanted.iter().for_each(|parent| _ = children.entry(*parent).or_default().insert(spot));
                    n_rows += 1;
                }
            }
            for ((node, port), rows) in &tables {
                let all: BTreeSet<u64> = (0..rows.len() as u64).filter(|row| (row + seed) % 3 > 0).collect();
                let mut found: BTreeMap<Spot, BTreeSet<Spot>> = BTreeMap::new();
                for (_, _, offspring) in trail.children(*node, *port, &all).unwrap() {
                    let Offspring::Rows(pairs) = offspring else { panic!("{offspring:?}") };
                    for (row, child) in pairs {
                        found.entry(Spot { node: *node, port: *port, row }).or_default().insert(child);
                    }
                }
                let is_asked = |spot: &Spot| (spot.node, spot.port) == (*node, *port) && all.contains(&spot.row);
                let wanted: BTreeMap<_, _> = children.iter().filter(|(spot, _)| is_asked(spot)).collect();
                assert_eq!(found.iter().collect::<BTreeMap<_, _>>(), wanted, "seed {seed}, {}", graph.node(*node).name);
            }
        });
    }
    assert!(n_rows > 2000, "only {n_rows} rows were followed");
}

/// Where the first row of a node came from.
fn origin(space: &Space, node: &str) -> Origin {
    space.follow(|graph, trail| {
        let spot = Spot { node: graph.find(node).unwrap(), port: 0, row: 0 };
        trail.parents(spot).unwrap().remove(0).1
    })
}

#[test]
fn what_declares_nothing_depends_on_all() {
    on_every_store(|mut space| {
        space.edit("a.md", "one");
        space.node("docs", "files", "", json!({"paths": "docs"}));
        space.node("met", "meet", "docs", json!({"name": "x", "wants": 0}));
        space.run();
        space.follow(|graph, trail| {
            let [docs, met] = ["docs", "met"].map(|name| graph.find(name).unwrap());
            let spot = Spot { node: met, port: 0, row: 0 };
            assert_eq!(trail.parents(spot).unwrap(), [("from".to_string(), Origin::Whole(vec![(docs, 0)]))]);
            let children = trail.children(docs, 0, &BTreeSet::from([0])).unwrap();
            assert_eq!(children, [(met, "from".to_string(), Offspring::Whole)]);
        });
    });
}

#[test]
fn what_can_not_be_told_is_said_and_not_guessed() {
    let lost = |lost: Lost| Origin::Lost(lost);
    let mut space = Space::on_disk();
    space.edit("a.md", "one two");
    space.edit("b.md", "three");
    space.node("docs", "files", "", json!({"paths": "docs"}));
    space.node("loud", "upper", "docs", json!({}));
    space.node("words", "words", "loud", json!({}));
    space.run();
    assert!(matches!(origin(&space, "loud"), Origin::Rows(_)));

    fs::remove_dir_all(space.root().join("rows")).unwrap();
    assert_eq!(origin(&space, "loud"), lost(Lost::Forgotten("loud".into())));
    assert!(matches!(origin(&space, "words"), Origin::Rows(_)), "what is cheap is asked again");

    space.node("loud", "upper", "docs", json!({"suffix": "!"}));
    assert_eq!(origin(&space, "loud"), lost(Lost::Changed("loud".into())));
    assert!(matches!(origin(&space, "words"), Origin::Rows(_)), "its answer and what it was made of are still there");
    space.node("loud", "upper", "docs", json!({}));

    space.node("new", "upper", "loud", json!({"suffix": "?"}));
    assert_eq!(origin(&space, "new"), lost(Lost::NoAnswer("new".into())));
    fs::remove_dir_all(space.root().join("tables")).unwrap();
    assert_eq!(origin(&space, "words"), lost(Lost::Gone("loud".into())));
}
