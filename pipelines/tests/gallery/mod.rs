//! A gallery of broken pipelines: each `NAME.yaml` beside this file is checked, and what `retort check` says is in `NAME.txt`.
//!
//! A first line such as `# --set words=many` holds further arguments. `GALLERY_UPDATE=1 cargo test --workspace --test command gallery`
//! writes the `.txt` files anew: read the difference before you commit it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gallery")
}

fn pipelines() -> Vec<String> {
    let names = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter_map(|name| name.strip_suffix(".yaml").map(String::from)).collect();
    names.sort();
    names
}

/// What the command says of a file in a folder, and its exit status.
fn check(folder: &Path, file: &str, more: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_retort"));
    command.arg("check").arg(file).args(more).current_dir(folder).env_remove("RETORT_STORE");
    let output = command.env("RETORT_GALLERY_KEY", "a secret").output().unwrap();
    assert!(output.stdout.is_empty(), "{file}: {}", String::from_utf8_lossy(&output.stdout));
    (String::from_utf8(output.stderr).unwrap(), output.status.code())
}

#[test]
fn the_gallery_of_broken_pipelines() {
    let names = pipelines();
    assert!(names.len() >= 60, "{}", names.len());
    let update = std::env::var_os("GALLERY_UPDATE").is_some();
    let mut wrong = Vec::new();
    for name in &names {
        let file = format!("{name}.yaml");
        let text = String::from_utf8_lossy(&fs::read(folder().join(&file)).unwrap()).into_owned();
        let first = text.lines().next().unwrap_or_default();
        let more: Vec<_> = first.strip_prefix("# --").map(|_| first[2..].split(' ').collect()).unwrap_or_default();
        let (said, status) = check(&folder(), &file, &more);
        assert_eq!(status, Some(2), "{name}: a broken pipeline ends with 2\n{said}");
        assert!(!said.contains("a secret"), "{name}: {said}");
        let path = folder().join(format!("{name}.txt"));
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if update {
            fs::write(&path, said).unwrap();
        } else if said != expected {
            wrong.push(format!("{name}:\n{said}\ninstead of\n{expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_text_of_the_gallery_has_its_pipeline() {
    let names = pipelines();
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".txt") {
            assert!(names.iter().any(|other| other == name), "`{name}.txt` is left over");
        }
    }
}

/// Files that would take long, or much memory, if anything in them were taken as it comes.
fn bad_files() -> Vec<(&'static str, Vec<u8>)> {
    let many = |line: &dyn Fn(usize) -> String, n: usize| (0..n).map(line).collect::<String>();
    let begin = "retort: 1\nnodes:\n  documents: {op: extract, with: {paths: [docs]}}\n";
    let nodes = |op: &str| {
        let node = |i| format!("  n{i}: {{op: {op}, from: documents, with: {{rows: 1}}}}\n");
        format!("{begin}{}", many(&node, 20_000)).into_bytes()
    };
    let bomb = many(&|i| format!("  a{}: &a{} [{}]\n", i + 1, i + 1, vec![format!("*a{i}"); 20].join(", ")), 20);
    let keys = many(&|i| format!("  k{i}: 1\n"), 90_000);
    let chain = many(&|i| format!("  p{}: \"${{p{i}}}\"\n", i + 1), 20_000);
    let references = many(&|i| format!("  p{}: \"${{p{i}}}${{p{i}}}\"\n", i + 1), 40);
    vec![
        ("a scalar of 4 MB", format!("{begin}name: {}\n", "x".repeat(4_000_000)).into_bytes()),
        ("a key of 1 MB", format!("{begin}{}: 1\n", "x".repeat(1_000_000)).into_bytes()),
        ("a file of 5 MB", "# \n".repeat(1_700_000).into_bytes()),
        ("brackets without end", "[".repeat(1_000_000).into_bytes()),
        ("braces without end", "{a: ".repeat(500_000).into_bytes()),
        ("dashes without end", "- ".repeat(1_000_000).into_bytes()),
        ("quotes without end", format!("retort: 1\nname: \"{}", "x\n".repeat(1_000_000)).into_bytes()),
        ("lines ever further in", many(&|i| format!("{}a:\n", " ".repeat(i)), 1000).into_bytes()),
        ("anchors that explode", format!("retort: 1\nparams:\n  a0: &a0 [x]\n{bomb}").into_bytes()),
        ("params that explode", format!("{begin}params:\n  p0: xx\n{references}").into_bytes()),
        ("a chain of params", format!("{begin}params:\n  p0: 1\n{chain}surplus: 1\n").into_bytes()),
        ("many keys", format!("{begin}params:\n{keys}surplus: 1\n").into_bytes()),
        ("more values than bytes allow", format!("{begin}params:\n  k: [{}]\n", "1,".repeat(300_000)).into_bytes()),
        ("many keys twice", format!("{begin}params:\n{}", "  k: 1\n".repeat(90_000)).into_bytes()),
        ("many unknown sections", format!("{begin}{}", keys.replace("  k", "k")).into_bytes()),
        ("many tags", format!("{begin}params:\n{}", many(&|i| format!("  k{i}: !t x\n"), 50_000)).into_bytes()),
        ("many nodes", nodes("sampel")),
        ("no text at all", (0..2_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()),
        ("nothing but zeros", vec![0; 3_000_000]),
    ]
}

#[test]
fn bad_yaml_of_every_kind_ends_soon() {
    let space = tempfile::tempdir().unwrap();
    for (name, bytes) in bad_files() {
        fs::write(space.path().join("bad.yaml"), &bytes).unwrap();
        let begun = Instant::now();
        let (said, status) = check(space.path(), "bad.yaml", &[]);
        let took = begun.elapsed();
        let start: String = said.chars().take(300).collect();
        assert_eq!(status, Some(2), "{name}: {start}");
        assert!(start.contains("bad.yaml:"), "{name} has no place: {start}");
        assert!(said.len() < 100_000, "{name}: {} bytes are said of it", said.len());
        assert!(took < Duration::from_secs(20), "{name}: {took:?}");
    }
}
