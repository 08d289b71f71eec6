//! `exec`, driven from outside with real programs: `cat`, and one of this package that answers and misbehaves.

use std::fs;
use std::time::Duration;

use expect_test::expect;
use retort_tests::Space;

/// Texts stand in the documents; `TRICK` and `COLUMNS` are filled in.
const PIPELINE: &str = "\
retort: 1
name: said
nodes:
  documents:
    op: extract
    with: {paths: ['docs/*']}
  said:
    op: exec
    from: documents
    with:
      kind: rows
      command: [./speaker, TRICK]
      reads: [text]
      columns: {COLUMNS}
";

fn space(trick: &str, columns: &str) -> Space {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    for (name, text) in [("a", "the spooler"), ("b", "the swap file"), ("c", "stop it!"), ("d", "a page table")] {
        space.write(&format!("docs/{name}.txt"), text);
    }
    fs::copy(env!("CARGO_BIN_EXE_speaker"), space.path().join("speaker")).unwrap();
    space.write("said.yaml", &PIPELINE.replace("TRICK", trick).replace("COLUMNS", columns));
    space
}

const ALLOW: &[&str] = &["--allow-exec", "said"];

/// What a failing program makes of a run: the error, as it is said at the end.
fn fails(trick: &str, columns: &str) -> String {
    let space = space(trick, columns);
    let (_, err) = space.ends(1, &[&["run", "said.yaml"], ALLOW].concat());
    let (_, error) = err.rsplit_once("\nerror: ").unwrap();
    error.to_string()
}

#[test]
fn a_row_for_a_row_is_remembered() {
    let space = space("shout", "loud: text");
    assert_eq!(space.run_with("said.yaml", ALLOW).ran(), ["documents: 4", "said: 4"]);
    let rows = space.rows("said.yaml", "said");
    assert_eq!((&rows[1]["loud"], &rows[1]["path"]), (&"THE SWAP FILE".into(), &"docs/b.txt".into()));
    assert!(space.run("said.yaml").ran().is_empty(), "what is known needs no leave");
    space.write("docs/b.txt", "the heap");
    let plan = space.plan("said.yaml");
    let expected = |node: usize| plan["nodes"][node]["expected"]["rows"].as_u64();
    assert_eq!((&plan["nodes"][1]["verdict"], expected(0), expected(1)), (&"waiting".into(), Some(1), Some(1)));
    let story = space.run_with("said.yaml", ALLOW);
    assert_eq!((story.ran(), story.recalled("said")), (vec!["documents: 1".into(), "said: 1".into()], Some((3, 4))));
    space.edit("said.yaml", "      kind: rows", "      kind: rows\n      rows_at_a_time: 1\n      parallel: true");
    assert!(space.run("said.yaml").ran().is_empty(), "how many at a time changes no answer");
    let verified = space.run_with("said.yaml", &[&["--verify"], ALLOW].concat());
    assert!(verified.events.iter().any(|event| event["event"] == "verified" && event["node"] == "said"));
    let (out, _) = space.ends(0, &["trace", "said.yaml", "said", "1"]);
    assert!(out.contains("path: docs/b.txt"), "{out}");
}

#[test]
fn a_row_may_have_several_answers_or_a_reason() {
    let space = space("words", "word: text");
    space.run_with("said.yaml", ALLOW);
    let words = |space: &Space| -> Vec<String> {
        space.rows("said.yaml", "said").iter().map(|row| row["word"].as_str().unwrap().to_string()).collect()
    };
    let whole = words(&space);
    assert_eq!(whole, ["the", "spooler", "the", "swap", "file", "a", "page", "table"]);
    let rejects = space.rows("said.yaml", "said.rejects");
    assert_eq!(
        (rejects.len(), &rejects[0]["reason"], &rejects[0]["text"]),
        (1, &"it shouts".into(), &"stop it!".into())
    );
    for at_a_time in [1, 3] {
        let other = self::space("words", "word: text");
        other.edit("said.yaml", "kind: rows", &format!("kind: rows\n      rows_at_a_time: {at_a_time}"));
        other.run_with("said.yaml", ALLOW);
        assert_eq!(words(&other), whole, "{at_a_time} at a time");
    }
}

#[test]
fn cat_gives_everything_back() {
    let space = space("shout", "text: text");
    space.edit("said.yaml", "[./speaker, shout]", "[cat]");
    space.run_with("said.yaml", ALLOW);
    assert_eq!(space.rows("said.yaml", "said")[0]["text"], "the spooler");
}

#[test]
fn a_whole_table_is_answered_at_once() {
    let space = space("count", "n: int32");
    space.edit("said.yaml", "kind: rows", "kind: table");
    space.run_with("said.yaml", ALLOW);
    assert_eq!(space.rows("said.yaml", "said"), [serde_json::json!({"n": 4})]);
    space.edit("said.yaml", "[./speaker, count]", "[cat]");
    space.edit("said.yaml", "n: int32", "text: text");
    space.run_with("said.yaml", ALLOW);
    assert_eq!(space.rows("said.yaml", "said")[3]["text"], "a page table");
}

#[test]
fn nothing_runs_that_was_not_allowed() {
    let space = space("shout", "loud: text");
    for args in [&["check", "said.yaml"][..], &["plan", "said.yaml"]] {
        space.ends(0, args);
    }
    let refused = |more: &[&str]| space.ends(1, &[&["run", "said.yaml"], more].concat()).1;
    for more in [&[][..], &["--allow-exec", "documents"]] {
        let err = refused(more);
        assert!(err.contains("it would run `./speaker shout`, which you have not allowed"), "{err}");
        assert!(err.contains("`--allow-exec said`"), "{err}");
    }
    let (_, err) = space.ends(2, &["run", "said.yaml", "--allow-exec", "sayd"]);
    assert_eq!(err, "error: unknown node `sayd`\nhint: did you mean `said`?\n");
}

#[test]
fn files_are_part_of_the_question() {
    let space = space("shout", "loud: text");
    space.write("words.txt", "one");
    space.edit("said.yaml", "[./speaker, shout]", "[./speaker, shout, words.txt]");
    let (_, err) = space.ends(2, &["check", "said.yaml"]);
    assert!(err.contains("`words.txt` is a file, and `files` does not name it"), "{err}");
    space.edit("said.yaml", "reads: [text]", "reads: [text]\n      files: [words.txt]");
    space.run_with("said.yaml", ALLOW);
    space.write("words.txt", "two");
    assert_eq!(space.run_with("said.yaml", ALLOW).why("said"), ["asset.words.txt"]);
    let (out, _) = space.ends(0, &["plan", "said.yaml", "--json"]);
    assert!(out.contains("\"fresh\"") && !out.contains("\"stale\""), "{out}");
}

#[test]
fn the_environment_is_what_was_declared() {
    let mut space = space("variable", "value: text");
    space.set_env("SECRET", "do not tell");
    space.edit("said.yaml", "[./speaker, variable]", "[./speaker, variable, SECRET]");
    space.run_with("said.yaml", ALLOW);
    assert_eq!(space.rows("said.yaml", "said")[0]["value"], "none");
    space.edit("said.yaml", "reads: [text]", "reads: [text]\n      env: {SECRET: told}");
    space.run_with("said.yaml", ALLOW);
    assert_eq!(space.rows("said.yaml", "said")[0]["value"], "told");
}

#[test]
fn programs_that_fail_are_told_with_what_they_said() {
    expect![[r#"
        `said` failed: `./speaker crash` ended with exit status: 7; the end of what it said:
          Traceback:
            the swap file is full
    "#]]
    .assert_eq(&fails("crash", "loud: text"));
    expect![[r#"
        `said` failed: `./speaker chatter` wrote no Arrow stream: it begins with `Loading model…\n`; print what is for people to standard error; it said nothing on standard error
    "#]].assert_eq(&fails("chatter", "loud: text"));
    expect![[r#"
        `said` failed: the program gave 3 rows for 4: where it is not one for each, it gives the column `_row` back
    "#]]
    .assert_eq(&fails("fewer", "loud: text"));
    expect![[r#"
        `said` failed: the program gave `loud` as int64, `columns` says text: change one of them
    "#]]
    .assert_eq(&fails("number", "loud: text"));
    expect![[r#"
        `said` failed: the program gave a column `loud` (text), which `columns` does not name: add it there, or leave it out
    "#]]
    .assert_eq(&fails("shout", "quiet: text"));
    expect![[r#"
        `said` failed: the program gave `_row` 2 after 3: rows come back in the order in which they went
    "#]]
    .assert_eq(&fails("backwards", "loud: text"));
    let cut = fails("cut", "text: text");
    assert!(cut.contains("wrote no Arrow stream: "), "{cut}");
    let space = space("shout", "loud: text");
    space.edit("said.yaml", "[./speaker, shout]", "[no-such-program]");
    let (_, err) = space.ends(1, &[&["run", "said.yaml"], ALLOW].concat());
    assert!(err.contains("failed to start `no-such-program`"), "{err}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_program() {
    let space = space("hang", "loud: text");
    space.edit("said.yaml", "[./speaker, hang]", "[./speaker, hang, started]");
    let program = interrupted(&space);
    assert!(!kill("-0", &program), "the program is still there");
}

#[cfg(target_os = "linux")]
#[test]
fn an_interrupt_ends_what_the_program_started() {
    let space = space("hang", "loud: text");
    space.edit("said.yaml", "[./speaker, hang]", "[sh, -c, './speaker hang started; true']");
    let program = interrupted(&space);
    // Whoever inherits it may let it lie there for a while, but it does nothing any more.
    let stat = fs::read_to_string(format!("/proc/{program}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "what the program started is still there: {stat}");
}

/// Interrupts a run once its program has written its own number to `started`; that number.
#[cfg(unix)]
fn interrupted(space: &Space) -> String {
    let mut running = space.start(&[&["run", "said.yaml"], ALLOW].concat());
    let started = space.path().join("started");
    while !started.exists() || fs::read_to_string(&started).unwrap().is_empty() {
        assert!(running.try_wait().unwrap().is_none(), "it ended before the program began");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill("-INT", &running.id().to_string());
    assert_eq!(running.wait().unwrap().code(), Some(130));
    fs::read_to_string(&started).unwrap()
}

#[cfg(unix)]
fn kill(signal: &str, process: &str) -> bool {
    std::process::Command::new("kill").args([signal, process]).output().unwrap().status.success()
}
