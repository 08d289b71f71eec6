//! `extract` with the real Ghostscript, antiword and LibreOffice: what they make readable, and what is said where they are missing, forbidden,
//! or fail. Where one is not installed, its test looks at nothing.

use std::fs;

use retort_tests::Space;

/// Two fonts, so that one line stands over the others.
const POSTSCRIPT: &str = "%!PS-Adobe-2.0
/Helvetica-Bold findfont 18 scalefont setfont 72 720 moveto (Naming a printer) show
/Helvetica findfont 11 scalefont setfont 72 690 moveto (Its name may have at most fourteen letters.) show
72 670 moveto (It is asked for when PrintManager makes it.) show
showpage
";
const ALLOW: &[&str] = &["--allow-exec", "documents"];

/// A pipeline that may use these tools on a text, a PostScript file, a Word file, and a PostScript file in an archive.
fn space(tools: &str) -> Space {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    let node = format!("op: extract\n    with: {{paths: ['docs/*'], tools: [{tools}]}}");
    space.write("old.yaml", &format!("retort: 1\nname: old\nnodes:\n  documents:\n    {node}\n"));
    space.write("docs/a.txt", "A text beside them.\n");
    space.write("docs/b.ps", POSTSCRIPT);
    let word = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/testdata/manual.doc");
    fs::copy(word, space.path().join("docs/c.doc")).unwrap();
    space
}

fn installed(program: &str) -> bool {
    let found = std::process::Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    found.is_ok_and(|output| output.status.success())
}

fn text(space: &Space, path: &str) -> String {
    let rows = space.rows("old.yaml", "documents");
    let row = rows.iter().find(|row| row["path"] == path);
    row.unwrap_or_else(|| panic!("no `{path}` in {rows:?}"))["text"].as_str().unwrap().to_owned()
}

/// The paths that were refused, and why.
fn refused(space: &Space) -> Vec<(String, String)> {
    let said = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    space.rows("old.yaml", "documents.rejects").iter().map(|row| (said(&row["path"]), said(&row["reason"]))).collect()
}

#[test]
fn without_a_tool_they_are_rejects_that_name_it() {
    let space = space("");
    assert_eq!(space.run("old.yaml").ran(), ["documents: 3"]);
    let refused = refused(&space);
    assert_eq!(refused.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["docs/b.ps", "docs/c.doc"]);
    assert!(
        refused[0].1.contains("`tools: [ghostscript]`") && refused[1].1.contains("`tools: [antiword]`"),
        "{refused:?}"
    );
}

#[test]
fn no_tool_runs_that_was_not_allowed_or_is_not_there() {
    let mut space = space("ghostscript, antiword");
    for args in [&["check", "old.yaml"][..], &["plan", "old.yaml"]] {
        space.ends(0, args);
    }
    let (_, err) = space.ends(1, &["run", "old.yaml"]);
    assert!(err.contains("which you have not allowed: say `--allow-exec documents`"), "{err}");
    space.set_env("PATH", "/nowhere");
    let (_, err) = space.ends(1, &[&["run", "old.yaml"], ALLOW].concat());
    assert!(err.contains("`docs/b.ps`: `gs` is not installed") || err.contains("`antiword` is not installed"), "{err}");
    // What needs no tool asks for no leave.
    fs::remove_file(space.path().join("docs/b.ps")).unwrap();
    fs::remove_file(space.path().join("docs/c.doc")).unwrap();
    space.run("old.yaml");
    assert_eq!(text(&space, "docs/a.txt"), "A text beside them.");
}

#[test]
fn postscript_is_read_and_remembered() {
    if !installed("gs") {
        return;
    }
    let space = space("ghostscript");
    space.write("docs/d.ps", "%!PS-Adobe-2.0\n72 720 moveto (cut sho");
    let packed = std::process::Command::new("tar")
        .args(["-cf", "e.tar", "b.ps"])
        .current_dir(space.path().join("docs"))
        .status();
    assert!(packed.unwrap().success());
    space.run_with("old.yaml", ALLOW);
    let expected =
        "Naming a printer\n\nIts name may have at most fourteen letters. It is asked for when PrintManager makes it.";
    assert_eq!(text(&space, "docs/b.ps"), expected);
    assert_eq!(text(&space, "docs/e.tar/b.ps"), expected);
    let refused = refused(&space);
    assert_eq!(refused.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["docs/c.doc", "docs/d.ps"]);
    assert!(refused[0].1.contains("`tools: [antiword]`"), "{refused:?}");
    // Another file is added: those that are known are not asked again, and need no leave.
    space.write("docs/f.txt", "Another.\n");
    assert_eq!(space.run("old.yaml").recalled("documents"), Some((5, 6)));
}

#[test]
fn word_files_keep_headings_lists_and_tables() {
    let expected = [
        "Installing printers",
        "Naming the printer",
        "1. Log in as root.\n2. Choose the port.\n3. Press OK.",
        "| ttya | 9600 |",
        "Die Größe eines Auftrags",
    ];
    for (tool, program) in [("antiword", "antiword"), ("libreoffice", "soffice")] {
        if !installed(program) {
            continue;
        }
        let space = space(tool);
        space.run_with("old.yaml", ALLOW);
        let text = text(&space, "docs/c.doc");
        assert!(expected.iter().all(|part| text.contains(part)), "{tool}: {text}");
        let rows = space.rows("old.yaml", "documents");
        let blocks = rows.iter().find(|row| row["path"] == "docs/c.doc").unwrap()["blocks"].as_array().unwrap().clone();
        let headings = blocks.iter().filter(|block| block["kind"] == "heading").count();
        assert_eq!(headings, 3, "{tool}: {blocks:?}");
    }
}
