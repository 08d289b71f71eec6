//! An experiment as one file: it runs elsewhere with nothing computed again; and a stranger's can do no harm.

mod forge;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use retort_tests::Space;

use crate::lock::{PIPELINE, space};
use crate::model::model;
use crate::remote::objects;
use forge::{Forge, TEXT, manifest_of};

fn packed(options: &[&str]) -> Space {
    let space = space();
    space.run("words.yaml");
    let mut args = vec!["pack", "words.yaml", "-o", "words.retort"];
    args.extend_from_slice(options);
    space.ends(0, &args);
    space
}

/// Another machine, with the pack and nothing else.
fn elsewhere(from: &Space) -> Space {
    let there = Space::new(env!("CARGO_BIN_EXE_victim"));
    fs::copy(from.path().join("words.retort"), there.path().join("words.retort")).unwrap();
    there
}

fn names(folder: &Path) -> Vec<String> {
    objects(folder).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn another_machine_runs_it_with_nothing_computed_again() {
    let there = elsewhere(&packed(&["--tables", "--rows"]));
    there.ends(0, &["unpack", "words.retort", "copy"]);
    let project: Vec<_> =
        names(&there.path().join("copy")).into_iter().filter(|name| !name.starts_with(".retort/")).collect();
    let documents = (0..5).map(|n| format!("docs/{n}.md"));
    let expected: Vec<_> = documents.chain(["retort.toml", "words.lock", "words.yaml"].map(String::from)).collect();
    assert_eq!(project, expected);
    let story = there.run_with("copy/words.yaml", &["--locked"]);
    assert!(story.ran().is_empty(), "{:?}", story.ran());
    assert!(there.path().join("copy/.retort/version").exists(), "the store is the project's own");
    // The remembered rows are there, too: an edit costs what the edit costs.
    there.edit("copy/docs/3.md", "never shrinks", "does not shrink");
    let said = there.ends(3, &["run", "copy/words.yaml", "--locked"]).1;
    assert!(said.contains("file docs/3.md"), "{said}");
    assert_eq!(there.run("copy/words.yaml").recalled("documents"), Some((4, 5)));
}

#[test]
fn without_tables_it_is_computed_and_comes_out_the_same() {
    let there = elsewhere(&packed(&[]));
    there.ends(0, &["unpack", "words.retort"]);
    assert!(!there.path().join("words/.retort").exists());
    let story = there.run_with("words/words.yaml", &["--locked"]);
    assert_eq!(story.ran().len(), 3);
}

#[test]
fn the_same_content_gives_the_same_bytes() {
    let space = packed(&["--tables"]);
    let first = fs::read(space.path().join("words.retort")).unwrap();
    let file = fs::File::options().write(true).open(space.path().join("docs/1.md")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_hours(5)).unwrap();
    space.ends(0, &["pack", "words.yaml", "-o", "again.retort", "--tables"]);
    assert_eq!(fs::read(space.path().join("again.retort")).unwrap(), first);
    let other = packed(&["--tables"]);
    assert_eq!(fs::read(other.path().join("words.retort")).unwrap(), first, "nothing of the machine is in it");
}

#[test]
fn what_was_packed_and_unpacked_packs_to_the_same() {
    let space = packed(&["--tables"]);
    let there = elsewhere(&space);
    there.ends(0, &["unpack", "words.retort", "copy"]);
    there.ends(0, &["pack", "copy/words.yaml", "-o", "again.retort", "--tables"]);
    let read = |space: &Space, name: &str| fs::read(space.path().join(name)).unwrap();
    assert_eq!(read(&there, "again.retort"), read(&space, "words.retort"));
}

#[test]
fn params_that_were_set_travel_with_the_lock() {
    let space = space();
    space.run_with("words.yaml", &["--set", "max_words=20"]);
    space.ends(0, &["pack", "words.yaml", "--set", "max_words=20", "--tables"]);
    let there = elsewhere(&space);
    there.ends(0, &["unpack", "words.retort"]);
    assert!(there.run_with("words/words.yaml", &["--locked"]).ran().is_empty());
}

#[test]
fn what_lies_outside_or_is_not_fresh_is_not_packed() {
    let space = space();
    let said = space.ends(1, &["pack", "words.yaml"]).1;
    assert!(said.contains("not up to date: `documents`"), "{said}");
    space.write("sub/words.yaml", &PIPELINE.replace("docs/**/*.md", "../docs/*.md"));
    space.run("sub/words.yaml");
    let said = space.ends(2, &["pack", "sub/words.yaml"]).1;
    assert!(
        said.contains("the file `../docs/0.md` lies outside the pipeline's folder") && said.contains("hint: "),
        "{said}"
    );
    assert!(!space.path().join("words.retort").exists());
    space.write("docs/nul.md", "# A device on some machines\n");
    space.run("words.yaml");
    let said = space.ends(2, &["pack", "words.yaml"]).1;
    assert!(said.contains("`docs/nul.md` can't be packed"), "{said}");
}

#[test]
fn included_files_travel_and_keep_their_folders() {
    let space = space();
    let (head, nodes) = PIPELINE.split_once("  chunks:").unwrap();
    space.write("words.yaml", &format!("include: parts/chunks.yaml\n{head}"));
    space.write("parts/chunks.yaml", &format!("retort: 1\nnodes:\n  chunks:{nodes}"));
    space.run("words.yaml");
    space.ends(0, &["pack", "words.yaml", "--tables"]);
    let there = elsewhere(&space);
    there.ends(0, &["unpack", "words.retort"]);
    assert!(there.path().join("words/parts/chunks.yaml").exists());
    assert!(there.run_with("words/words.yaml", &["--locked"]).ran().is_empty());
}

#[test]
fn no_secret_is_packed() {
    let mut space = space();
    space.set_env("SERVER_KEY", "s3cret-of-mine");
    let server =
        "env: [SERVER_KEY]\nmodels:\n  far: {server: 'http://127.0.0.1:9/v1', name: m, api_key: '${env.SERVER_KEY}'}\n";
    space.write("words.yaml", &format!("{server}{PIPELINE}"));
    space.run("words.yaml");
    space.ends(0, &["pack", "words.yaml", "--tables", "--rows"]);
    space.ends(0, &["unpack", "words.retort", "copy"]);
    for (name, path) in objects(&space.path().join("copy")) {
        let bytes = fs::read(path).unwrap();
        assert!(!bytes.windows(14).any(|window| window == b"s3cret-of-mine"), "{name}");
    }
    space.edit("words.yaml", "${env.SERVER_KEY}", "s3cret-of-mine");
    let said = space.ends(2, &["pack", "words.yaml", "-o", "again.retort"]).1;
    assert!(said.contains("an `api_key` is written in `words.yaml`") && !said.contains("s3cret"), "{said}");
    assert!(!space.path().join("again.retort").exists());
}

#[test]
fn a_local_model_is_packed_or_pinned() {
    let space = space();
    fs::create_dir(space.path().join("models")).unwrap();
    let copied = fs::hard_link(model(), space.path().join("models/m.gguf"));
    copied.or_else(|_| fs::copy(model(), space.path().join("models/m.gguf")).map(drop)).unwrap();
    let models = "models:\n  local: {weights: 'file:models/m.gguf'}\n";
    let pipeline = PIPELINE.replace("{max_words: '${params.max_words}'}", "{model: local, max_tokens: 64}");
    space.write("words.yaml", &format!("{models}{pipeline}"));
    space.run("words.yaml");
    let said = space.ends(2, &["pack", "words.yaml", "--tables"]).1;
    assert!(said.contains("the model of `chunks` is neither packed nor pinned") && said.contains("--assets"), "{said}");
    space.ends(0, &["pack", "words.yaml", "--tables", "--assets"]);
    let there = elsewhere(&space);
    there.ends(0, &["unpack", "words.retort"]);
    assert_eq!(
        fs::metadata(there.path().join("words/models/m.gguf")).unwrap().len(),
        fs::metadata(model()).unwrap().len()
    );
    assert!(there.run_with("words/words.yaml", &["--locked"]).ran().is_empty());
    // A pinned one need not be there for what is fresh.
    let sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
    space.edit("words.yaml", "m.gguf'}", &format!("m.gguf', sha256: {sha256}}}"));
    space.run("words.yaml");
    space.ends(0, &["pack", "words.yaml", "--tables"]);
    let there = elsewhere(&space);
    there.ends(0, &["unpack", "words.retort"]);
    assert!(!there.path().join("words/models").exists());
    assert!(there.run_with("words/words.yaml", &["--locked"]).ran().is_empty());
}

/// Unpacks what was forged in a folder with a file beside it; gives what is said. Nothing may be left.
fn refused(bytes: &[u8]) -> String {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    space.write("p.retort", "");
    fs::write(space.path().join("p.retort"), bytes).unwrap();
    space.write("evil", "mine\n");
    let said = space.ends(2, &["unpack", "p.retort", "inner/p"]).1;
    assert_eq!(names(space.path()), ["evil", "p.retort"], "{said}");
    assert_eq!(fs::read_to_string(space.path().join("evil")).unwrap(), "mine\n");
    let left = fs::read_dir(space.path().join("inner")).into_iter().flatten().count();
    assert_eq!(left, 0, "{said}");
    said
}

fn says(forged: &Forge, text: &str) {
    let said = refused(&forged.compressed(0));
    assert!(said.contains(text), "expected {text:?}\n{said}");
}

#[test]
fn a_forged_pack_that_is_right_is_taken() {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    let paths = ["project/docs/a.md", "project/p.yaml"];
    let long = format!("project/{}/{}.md", "d".repeat(90), "n".repeat(90));
    let forge = Forge::with(&[paths[0], paths[1], &long]).files(&paths);
    let name = format!("{long}\0");
    let forge = forge.entry(b"././@LongLink", b'L', name.as_bytes(), name.len() as u64);
    let forge = forge.file(&long[..99], TEXT).end();
    fs::write(space.path().join("p.retort"), forge.compressed(0)).unwrap();
    space.ends(0, &["unpack", "p.retort"]);
    assert_eq!(names(&space.path().join("p")), [&long[8..], "docs/a.md", "p.yaml"]);
    assert_eq!(fs::read(space.path().join("p/docs/a.md")).unwrap(), TEXT);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for bad in [
        "/etc/evil",
        "../evil",
        "project/../../evil",
        "project//etc/evil",
        "project/./a",
        "project/a/",
        "project/C:evil",
        "project/c:/evil",
        "project/..\\evil",
        "project/a\\b",
        "project/a\0b",
        "project/a\x1b[2J",
        "project/.git/config",
        "project/docs/.GIT/hooks/post-checkout",
        "project/.retort/answers/00/x.json",
        "project/NUL",
        "project/com1.txt",
        "store/../evil",
        "store/tables/8c/x.parquet",
        "store/version",
        "other/evil",
        "project",
        "project/",
    ] {
        let shown = bad.escape_debug().to_string();
        says(&Forge::with(&[bad, "project/p.yaml"]).files(&["x", "project/p.yaml"]).end(), &format!("`{shown}`: "));
        // A name that only the archive has.
        if bad.len() < 100 && !bad.contains('\0') {
            let forge = Forge::with(&["project/p.yaml"]).files(&["project/p.yaml", bad]).end();
            says(&forge, "is not in the manifest");
        }
    }
    let forge = Forge::with(&["project/p.yaml"]).entry(b"project/\xff", b'0', TEXT, TEXT.len() as u64).end();
    says(&forge, "is no Unicode");
    // A long name that carries a NUL, or another name than the header.
    let forge = Forge::with(&["project/p.yaml"]).entry(b"././@LongLink", b'L', b"project/p.yaml\0/../evil\0", 24);
    says(&forge.file("project/p.yaml", TEXT).end(), "is not in the manifest");
    let forge = Forge::with(&["project/p.yaml"]).entry(b"././@LongLink", b'L', b"../evil\0", 8);
    says(&forge.file("project/p.yaml", TEXT).end(), "`../evil` is not in the manifest");
}

#[test]
fn what_is_no_plain_file_is_refused() {
    // Hard and symbolic links, devices, folders, pipes, contiguous and sparse files, long links, and extensions that rename.
    for kind in *b"1234567SKVMNDxgXA" {
        let forge = Forge::with(&["project/p.yaml"]).entry(b"project/p.yaml", kind, b"", 0).end();
        says(&forge, "`project/p.yaml` is no plain file");
        let path = b"25 path=project/../../evil\n";
        let forge = Forge::with(&["project/p.yaml"]).entry(b"pax", kind, path, path.len() as u64);
        says(&forge.files(&["project/p.yaml"]).end(), "`pax` is no plain file");
    }
    // A link, then a file through it.
    let forge = Forge::with(&["project/p.yaml", "project/docs/evil"]).files(&["project/p.yaml"]);
    says(&forge.entry(b"project/docs", b'2', b"", 0).files(&["project/docs/evil"]).end(), "is no plain file");
}

#[test]
fn two_of_a_name_are_refused_where_case_does_not_count() {
    let pair = |one: &str, other: &str| {
        let paths = ["project/p.yaml", one, other];
        Forge::with(&paths).files(&paths).end()
    };
    says(&pair("project/a", "project/a"), "it is there twice");
    says(&pair("project/a", "project/A"), "where case does not count");
    says(&pair("project/docs/a", "project/Docs/b"), "where case does not count");
    says(&pair("project/a", "project/a/b"), "it is there twice");
    says(
        &Forge::with(&["project/p.yaml"]).files(&["project/p.yaml", "project/p.yaml"]).end(),
        "is not in the manifest",
    );
    let forge = Forge::with(&["project/a", "project/p.yaml"]).files(&["project/p.yaml", "project/a"]).end();
    says(&forge, "`project/p.yaml` is not in its place");
}

#[test]
fn what_is_not_as_the_manifest_says_is_refused() {
    let one = Forge::with(&["project/p.yaml"]);
    says(&one.clone().file("project/p.yaml", b"retort: 2\n").end(), "`project/p.yaml` is not what the manifest says");
    says(&one.clone().file("project/p.yaml", b"retort: 1\n\n").end(), "has 11 bytes, the manifest says 10");
    says(&one.clone().end(), "`project/p.yaml` is missing");
    says(&one.clone().files(&["project/p.yaml", "project/more"]).end(), "`project/more` is not in the manifest");
    says(&Forge::with(&["project/other"]).files(&["project/other"]).end(), "its pipeline is not in it");
    says(&Forge::default().files(&["project/p.yaml"]).end(), "does not begin with `manifest.json`");
    says(&Forge::default().end(), "does not begin with `manifest.json`");
    says(&Forge::default().file("manifest.json", b"{\"version\": 7}").end(), "it has format 7");
    says(&Forge::default().file("manifest.json", b"[1, 2").end(), "its manifest can't be read");
    says(&one.clone().files(&["project/p.yaml"]).end().raw(b"hidden"), "something follows its last member");
    // Pieces of a store that are not what their names promise.
    let id = "ab".repeat(31);
    for piece in [
        format!("store/tables/ab/{id}.parquet"),
        format!("store/answers/ab/{id}.json"),
        format!("store/rows/ab{id}/ab{id}.rows"),
    ] {
        let paths = ["project/p.yaml", piece.as_str()];
        let forged = Forge::with(&paths).files(&["project/p.yaml"]);
        let forged = forged.entry(b"././@LongLink", b'L', piece.as_bytes(), piece.len() as u64);
        let forged = forged.file(&piece[..60], TEXT).end();
        let space = Space::new(env!("CARGO_BIN_EXE_victim"));
        fs::write(space.path().join("p.retort"), forged.compressed(0)).unwrap();
        let said = space.ends(1, &["unpack", "p.retort"]).1;
        assert!(said.contains(&format!("`{piece}` is not what its name promises")), "{said}");
        assert_eq!(names(space.path()), ["p.retort"]);
    }
}

#[test]
fn bombs_do_not_go_off() {
    let huge = 1 << 40;
    let declared = Forge::default().file("manifest.json", manifest_of(&[("project/p.yaml", huge)]).as_bytes());
    let said = refused(&declared.clone().entry(b"project/p.yaml", b'0', b"", huge).compressed(1 << 30));
    assert!(said.contains("it unpacks to 1.1 TB, more than 8.0 GB") && said.contains("--max-size"), "{said}");
    let many = manifest_of(&[("project/a", u64::MAX), ("project/b", u64::MAX), ("project/p.yaml", 10)]);
    says(&Forge::default().file("manifest.json", many.as_bytes()).end(), "more than 8.0 GB");
    // The archive has more than the manifest says.
    let one = Forge::with(&["project/p.yaml"]);
    let said = refused(&one.clone().entry(b"project/p.yaml", b'0', b"", huge).compressed(1 << 30));
    assert!(said.contains("the manifest says 10"), "{said}");
    let said = refused(&one.clone().entry(b"././@LongLink", b'L', b"", 1 << 30).compressed(1 << 30));
    assert!(said.contains("a name in it is too long"), "{said}");
    let said = refused(&Forge::default().entry(b"manifest.json", b'0', b"", 1 << 30).compressed(1 << 30));
    assert!(said.contains("its manifest is too long"), "{said}");
    let said = refused(&one.files(&["project/p.yaml"]).end().compressed(1 << 30));
    assert!(said.contains("something follows its last member"), "{said}");
}

#[test]
fn a_pack_that_was_cut_or_changed_is_refused() {
    let space = packed(&["--tables"]);
    let bytes = fs::read(space.path().join("words.retort")).unwrap();
    for length in [0, 1, 5, 100, bytes.len() / 2, bytes.len() - 300, bytes.len() - 4, bytes.len() - 1] {
        refused(&bytes[..length]);
    }
    for at in (6..bytes.len()).step_by(bytes.len() / 12) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x08;
        let there = Space::new(env!("CARGO_BIN_EXE_victim"));
        fs::write(there.path().join("p.retort"), changed).unwrap();
        let output = there.retort(&["unpack", "p.retort"]);
        assert!(!output.status.success(), "byte {at}");
        assert_eq!(names(there.path()), ["p.retort"], "byte {at}");
    }
    let mut longer = bytes;
    longer.extend_from_slice(b"more");
    refused(&longer);
}

#[test]
fn what_is_there_is_neither_replaced_nor_gone_through() {
    let there = elsewhere(&packed(&["--tables"]));
    there.write("copy/mine.txt", "mine\n");
    there.write("copy/words.yaml", "mine\n");
    let said = there.ends(2, &["unpack", "words.retort", "copy"]).1;
    assert!(said.contains("`copy` is there and not empty") && said.contains("--force"), "{said}");
    assert_eq!(fs::read_to_string(there.path().join("copy/words.yaml")).unwrap(), "mine\n");
    there.ends(0, &["unpack", "words.retort", "copy", "--force"]);
    assert_eq!(fs::read_to_string(there.path().join("copy/mine.txt")).unwrap(), "mine\n");
    assert!(there.run_with("copy/words.yaml", &["--locked"]).ran().is_empty());
    // An empty folder is as good as none.
    fs::create_dir(there.path().join("empty")).unwrap();
    there.ends(0, &["unpack", "words.retort", "empty"]);
    #[cfg(unix)]
    {
        there.write("other/mine.txt", "mine\n");
        there.write("linked/mine.txt", "mine\n");
        std::os::unix::fs::symlink("../other", there.path().join("linked/docs")).unwrap();
        let said = there.ends(2, &["unpack", "words.retort", "linked", "--force"]).1;
        assert!(said.contains("`linked/docs` is a link or no folder"), "{said}");
        assert_eq!(names(&there.path().join("other")), ["mine.txt"]);
        std::os::unix::fs::symlink("other", there.path().join("link")).unwrap();
        there.ends(2, &["unpack", "words.retort", "link", "--force"]);
        assert_eq!(names(&there.path().join("other")), ["mine.txt"]);
    }
}
