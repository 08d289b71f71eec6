//! The guide: its manual pages are those of `retort ops`, its pipelines check, and run where they need no model.
//!
//! `GUIDE_UPDATE=1 cargo test --workspace --test command guide` writes the manual pages anew.

use std::fs;
use std::path::Path;

use super::Project;

const BEGIN: &str = "`retort ops --markdown`; a test holds them together. -->\n";
const END: &str = "<!-- End of the manual pages. -->";

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(name)).unwrap()
}

#[test]
fn the_guide_has_the_operators_own_pages() {
    let guide = page("GUIDE.md");
    let (before, rest) = guide.split_once(BEGIN).unwrap();
    let (pages, after) = rest.split_once(END).unwrap();
    let (said, _) = Project::new().ends(0, &["ops", "--markdown"]);
    let said = format!("\n{said}\n");
    if std::env::var_os("GUIDE_UPDATE").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("GUIDE.md");
        fs::write(path, format!("{before}{BEGIN}{said}{END}{after}")).unwrap();
    } else {
        assert!(pages == said, "the manual pages of the guide are old: see the top of this file");
    }
}

#[test]
fn every_pipeline_in_the_guide_and_the_readme_checks() {
    let project = Project::new();
    let (mut n_checked, mut n_run) = (0, 0);
    for name in ["GUIDE.md", "README.md", "ARCHITECTURE.md"] {
        let text = page(name);
        for (i, block) in text.split("```yaml\n").skip(1).enumerate() {
            let block = block.split("```").next().unwrap();
            if !block.lines().any(|line| line.starts_with("retort:")) {
                // A part of one: those of the manual pages are checked with what they need around them (`tests/suite/help.rs`).
                assert!(text.split_once(BEGIN).is_some_and(|(_, pages)| pages.contains(block)), "{name}: {block}");
                continue;
            }
            project.write("guide.yaml", block);
            let (out, _) = project.ends(0, &["check", "guide.yaml"]);
            assert!(out.contains("no mistakes"), "{name}, example {}: {out}", i + 1);
            project.ends(0, &["fmt", "guide.yaml"]);
            project.ends(0, &["fmt", "--check", "guide.yaml"]);
            project.ends(0, &["check", "guide.yaml"]);
            if ["op: sql", "op: exec"].iter().any(|op| block.contains(op)) {
                let allowed = if block.contains("op: exec") { 6 } else { 2 };
                let (_, said) = project
                    .ends(0, &["run", "guide.yaml", "--allow-exec", "documents", "--allow-exec", "copied"][..allowed]);
                assert!(said.contains(" ran"), "{name}, example {}: {said}", i + 1);
                n_run += 1;
            }
            n_checked += 1;
        }
    }
    assert!(n_checked >= 3 && n_run >= 2);
}

#[test]
fn the_example_of_foreach_does_what_the_guide_says() {
    let project = Project::new();
    let guide = page("GUIDE.md");
    let example = guide
        .split("```yaml\n")
        .map(|block| block.split("```").next().unwrap())
        .find(|block| block.contains("foreach:"));
    project.write("shelves.yaml", example.unwrap());
    for (shelf, text) in
        [("manuals", "The spooler keeps one queue per printer."), ("letters", "Dear reader, the queue is empty.")]
    {
        fs::create_dir(project.path().join("docs").join(shelf)).unwrap();
        project.write(&format!("docs/{shelf}/a.md"), text);
    }
    project.ends(0, &["run", "shelves.yaml", "chunks"]);
    let (out, _) = project.ends(0, &["show", "shelves.yaml", "chunks", "--columns", "item,text", "--format", "csv"]);
    let expected = ["manuals,The spooler keeps one queue per printer.", "letters,\"Dear reader, the queue is empty.\""];
    assert_eq!(out.lines().skip(1).collect::<Vec<_>>(), expected);
    project.ends(0, &["run", "shelves.yaml"]);
    let rows = |node: &str| project.ends(0, &["show", "shelves.yaml", node, "--format", "csv"]).0.lines().count() - 1;
    assert_eq!((rows("some"), rows("letters"), rows("chunks@letters")), (2, 1, 1));
}
