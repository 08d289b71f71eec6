//! `foreach`: what the copies are called, what they read, and where their mistakes are shown.

use expect_test::expect;

use super::*;

const SHELVES: &str = "\
retort: 1
params:
  shelves:
    - {name: manuals, paths: [manuals], words: 250}
    - {name: faq, paths: [faq.md], words: 80}
nodes:
  shelf:
    foreach: ${params.shelves}
    nodes:
      documents: {op: extract, with: {paths: '${item.paths}'}}
      chunks: {op: chunk, from: documents, with: {max_tokens: '${item.words}'}}
  sets: {op: split-eval, from: chunks, with: {eval: 0.1, seed: 1}}
  some: {op: split-eval, from: [documents@faq, chunks@manuals.rejects, chunks.rejects], with: {eval: 0.1, seed: 1}}
";

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.nodes.iter().map(|node| node.name.as_str()).collect()
}

/// Reads a pipeline whose tables need not fit.
fn lowered(text: &str) -> Vec<(String, Vec<String>)> {
    let mut files = Files::default();
    let mut problems = Vec::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.yaml");
    fs::write(&path, text).unwrap();
    let document = document::read(&path, &mut files, &mut problems).unwrap();
    let lowered = lower(document, &[], OPS, &files, &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    let specs = lowered.nodes.into_iter().map(|node| node.spec);
    specs.map(|spec| (spec.name, spec.from.into_iter().flat_map(|feed| feed.sources).collect())).collect()
}

#[test]
fn a_group_is_repeated_for_the_items_of_a_param() {
    let read = lowered(SHELVES);
    let names: Vec<_> = read.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["documents@manuals", "documents@faq", "chunks@manuals", "chunks@faq", "sets", "some"]);
    // In the group a copy reads that of its own item; from outside all are read, or the one that is named.
    assert_eq!(read[3].1, ["documents@faq"]);
    assert_eq!(read[4].1, ["chunks@manuals", "chunks@faq"]);
    assert_eq!(read[5].1, ["documents@faq", "chunks@manuals.rejects", "chunks@manuals.rejects", "chunks@faq.rejects"]);
}

#[test]
fn values_of_an_item_keep_their_types() {
    let text = SHELVES.lines().filter(|line| !line.starts_with("  some")).collect::<Vec<_>>().join("\n");
    let loaded = super::read(&text);
    assert_eq!(with(&loaded, "documents@manuals"), json!({"paths": ["manuals"]}));
    assert_eq!(with(&loaded, "chunks@faq"), json!({"max_tokens": 80}));
    let inline = super::read(
        "retort: 1\nnodes:\n  documents: {foreach: [a/b, 2, true], op: extract, with: {paths: ['x/${item}']}}\n",
    );
    assert_eq!(names(&inline), ["documents@a-b", "documents@2", "documents@true"]);
    assert_eq!(with(&inline, "documents@2"), json!({"paths": ["x/2"]}));
}

#[test]
fn a_matrix_multiplies_what_is_repeated_and_goes_on_alone() {
    let text = "\
retort: 1
matrix: {words: [100, 200]}
nodes:
  documents: {foreach: [a, b], op: extract, with: {paths: ['${item}']}}
  chunks: {foreach: [x, y], op: chunk, from: documents, with: {max_tokens: '${words}', column: '${item}'}}
  sets: {op: split-eval, from: chunks, with: {eval: 0.1, seed: 1}}
";
    let read = lowered(text);
    let names: Vec<_> = read.iter().map(|(name, _)| name.as_str()).collect();
    let chunks = ["chunks@x,words=100", "chunks@x,words=200", "chunks@y,words=100", "chunks@y,words=200"];
    assert_eq!(names[2..6], chunks);
    assert_eq!(names[6..], ["sets@words=100", "sets@words=200"]);
    assert_eq!(read[2].1, ["documents@a", "documents@b"]);
    assert_eq!(read[7].1, ["chunks@x,words=200", "chunks@y,words=200"]);
}

#[test]
fn a_profile_reaches_the_list_and_the_nodes_of_a_group() {
    let text = SHELVES.lines().filter(|line| !line.starts_with("  some")).collect::<Vec<_>>().join("\n");
    let text = format!(
        "{text}\nprofiles:\n  quick:\n    nodes: {{shelf: {{foreach: [{{name: faq, paths: [x], words: 9}}]}}, chunks: {{with: {{by: sentences}}}}}}\n"
    );
    let loaded =
        load_files(&[("p.yaml", text.as_bytes())], &options(&[], Some("quick"))).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(names(&loaded), ["documents@faq", "chunks@faq", "sets"]);
    assert_eq!(with(&loaded, "chunks@faq"), json!({"max_tokens": 9, "by": "sentences"}));
}

#[test]
fn a_source_that_is_wrong_is_shown_where_it_is_written() {
    broken(
        "\
retort: 1
nodes:
  documents: {foreach: [a, b], op: extract, with: {paths: ['${item}']}}
  chunks: {op: chunk, from: [documents, dokuments], with: {max_tokens: 99}}
",
        &expect![[r"
            error: unknown node `dokuments`
             --> p.yaml:4:41
              |
            4 |   chunks: {op: chunk, from: [documents, dokuments], with: {max_tokens: 99}}
              |                                         ^^^^^^^^^
              |
              = hint: did you mean `documents@a`?
        "]],
    );
}
