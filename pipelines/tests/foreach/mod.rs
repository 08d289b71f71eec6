//! Nodes that are repeated for each item of a list, run and shown.

use super::Project;

const SHELVES: &str = "\
retort: 1
name: shelves
nodes:
  shelf:
    foreach:
      - {name: printing, path: docs/a.md, words: 50}
      - {name: users, path: docs/b.md, words: 80}
    nodes:
      documents: {op: extract, with: {paths: ['${item.path}']}}
      chunks: {op: chunk, from: documents, with: {max_words: '${item.words}'}}
  all: {op: sample, from: chunks, with: {rows: 10}}
  of_users: {op: sample, from: chunks@users, with: {rows: 10}}
";

#[test]
fn copies_run_and_are_read_together_or_one_by_one() {
    let project = Project::new();
    project.write("shelves.yaml", SHELVES);
    project.ends(0, &["run", "shelves.yaml"]);
    let column = |node: &str, column: &str| {
        let (out, _) = project.ends(0, &["show", "shelves.yaml", node, "--columns", column, "--format", "csv"]);
        out.lines().skip(1).map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(column("all", "path"), ["docs/a.md", "docs/b.md"]);
    assert_eq!(column("of_users", "path"), ["docs/b.md"]);
    // All copies in one table, each with its item.
    assert_eq!(column("chunks", "item,path"), ["printing,docs/a.md", "users,docs/b.md"]);
    assert_eq!(column("documents.files", "item"), ["printing", "users"]);
}

#[test]
fn an_edit_of_one_item_runs_its_copies_only() {
    let project = Project::new();
    project.write("shelves.yaml", SHELVES);
    project.ends(0, &["run", "shelves.yaml", "all"]);
    project.write("shelves.yaml", &SHELVES.replace("words: 80", "words: 90"));
    let (out, _) = project.ends(0, &["plan", "shelves.yaml", "chunks", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&out).unwrap();
    let verdicts = plan["nodes"].as_array().unwrap().iter().map(|node| format!("{} {}", node["node"], node["verdict"]));
    let expected = ["documents@printing fresh", "documents@users fresh", "chunks@printing fresh", "chunks@users stale"];
    assert_eq!(verdicts.map(|text| text.replace('"', "")).collect::<Vec<_>>(), expected);
}
