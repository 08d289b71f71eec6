//! Batches, windows, threads and the order in which rows are finished do not show: every way of running gives the key's tables.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use retort_cache::digests::FileDigests;
use retort_cache::{ContentId, Memory, Store};
use retort_engine::{Event, EventKind, Limits};

use super::answer::answer;
use super::made::{forget_probes, probe};
use super::ops::{Docs, Kind, Row, Whole};
use super::world::{Op, Sketch, World};
use crate::nodes::NoAssets;

/// More than a window of the engine holds, and more than twice where two tables are appended.
const LINES: usize = 5000;

/// A way of running: jobs, rows in a batch, whether batches run side by side, whether rows are finished out of order by two threads.
const WAYS: [(usize, usize, bool, bool); 6] = [
    (1, 1, false, false),
    (8, 1, true, true),
    (1, 1000, false, true),
    (8, 1000, true, true),
    (8, 64, true, false),
    (1, 5000, true, true),
];

fn world((_, batch, parallel, scramble): (usize, usize, bool, bool)) -> World {
    let row = Row {
        reads: vec!["text".into()],
        adds: "w".into(),
        many: 2,
        refuse: 7,
        remember: true,
        nullable: true,
        batch,
        parallel,
        scramble,
        ..Row::default()
    };
    let cheap = Row { remember: false, number: Some("n".into()), adds: "v".into(), ..row.clone() };
    let docs = Docs { paths: "d0".into(), lines: true, ..Docs::default() };
    let whole = |kind| Op::Whole(Whole { kind, salt: 0 });
    let node = |name: &str, op: Op, from: &[(Option<&str>, &[&str])]| Sketch {
        name: name.into(),
        op,
        from: from
            .iter()
            .map(|(slot, sources)| (slot.map(Into::into), sources.iter().map(ToString::to_string).collect()))
            .collect(),
        spelled: true,
    };
    let mut world = World::default();
    // Some lines stand there twice, on both sides of a window's end.
    let text: Vec<_> = (0..LINES).map(|line| format!("line {}", line % (LINES - 700))).collect();
    world.docs.insert(("d0".into(), "f0".into()), text.join("\n"));
    world.nodes = vec![
        node("docs", Op::Docs(docs), &[]),
        node("some", whole(Kind::Pick), &[(None, &["docs"])]),
        node("rows", Op::Row(row.clone()), &[(None, &["docs"])]),
        node("cheap", Op::Row(cheap.clone()), &[(None, &["rows"])]),
        node("parts", whole(Kind::Part), &[(None, &["cheap"])]),
        // The same rows in other windows: as two tables, and as one.
        node("list", Op::Row(cheap.clone()), &[(None, &["some", "docs"])]),
        node("joined", whole(Kind::Join), &[(Some("left"), &["some", "docs"])]),
        node("one", Op::Row(cheap), &[(None, &["joined.rows"])]),
    ];
    world
}

/// The tables of every node, by name and port.
fn tables(world: &World, root: &Path, jobs: usize) -> Vec<(String, String, ContentId)> {
    let graph = world.check(root).expect("it checks");
    world.nodes.iter().for_each(|node| probe(&root.join(&node.name)).begin(None));
    let (store, digests, failures) = (Memory::default(), FileDigests::in_memory(), Mutex::new(Vec::new()));
    let events = |event: &Event| {
        if let EventKind::Failed { error } = &event.kind {
            failures.lock().unwrap().push(error.clone());
        }
    };
    let cancelled = AtomicBool::new(false);
    let at = retort_engine::World {
        store: &store,
        assets: &NoAssets,
        digests: &digests,
        events: &events,
        cancelled: &cancelled,
    };
    retort_engine::run(&graph, &[], at, &Limits { jobs, keep_going: false, force: Vec::new() });
    assert_eq!(*failures.lock().unwrap(), Vec::<String>::new());
    let answer = |node: &Sketch| store.last(&format!("fuzz/{}", node.name)).unwrap().unwrap().outputs;
    let named = world.nodes.iter().flat_map(|node| answer(node).into_iter().map(|output| (node.name.clone(), output)));
    named.map(|(node, output)| (node, output.port, output.content)).collect()
}

#[test]
fn no_way_of_running_shows() {
    let folder = tempfile::tempdir().unwrap();
    let first = world(WAYS[0]);
    for ((folder_of, name), text) in &first.docs {
        let path = folder.path().join("docs").join(folder_of);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(name), text).unwrap();
    }
    let key = answer(&first);
    let expected: Vec<_> = first
        .nodes
        .iter()
        .flat_map(|node| key[&node.name].outputs.iter().map(|(port, id, _)| (node.name.clone(), port.clone(), *id)))
        .collect();
    assert!(key["list"].outputs[0].2.num_rows() > LINES);
    assert_eq!(key["list"].outputs[0].1, key["one"].outputs[0].1);
    for way in WAYS {
        assert_eq!(tables(&world(way), folder.path(), way.0), expected, "{way:?}");
    }
    forget_probes(folder.path());
}
