//! How a file is laid out: small ones in full, and laws over all pipelines that ship and the whole gallery.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use expect_test::{Expect, expect};

use super::*;

fn laid_out(text: &str) -> Result<String, String> {
    fmt(Path::new("p.yaml"), text.as_bytes().to_vec()).map_err(|mistakes| mistakes.render(false))
}

fn becomes(text: &str, expected: &Expect) {
    let new = laid_out(text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    expected.assert_eq(&new);
    assert_eq!(laid_out(&new).unwrap(), new, "once is enough");
}

#[test]
fn nodes_are_laid_out() {
    becomes(
        "# yaml-language-server: $schema=./pipeline.schema.json\n\n\n\nretort:   1   # the version\nparams: {size:   384,name: \"a: b\" }\nnodes:\n\n    documents:\n        # Which files.\n        with:\n            paths:\n            - 'docs/**/*'   # all of them\n            - more   \n        op: extract # reads\n\n\n    # Then they are cut.\n    chunks: {with: {max_words: 250}, from: documents, op: chunk}\n\n    # What comes last.\n",
        &expect![[r#"
            # yaml-language-server: $schema=./pipeline.schema.json

            retort: 1   # the version
            params: {size: 384, name: "a: b"}
            nodes:
              documents:
                op: extract # reads
                # Which files.
                with:
                  paths:
                    - 'docs/**/*'   # all of them
                    - more

              # Then they are cut.
              chunks: {op: chunk, from: documents, with: {max_words: 250}}

              # What comes last.
        "#]],
    );
}

#[test]
fn texts_stay_as_they_are() {
    becomes(
        "nodes:\n   a:\n      with:\n         messages:\n           - user: |   # asked\n\n                Write:\n                  - one\n                   \n                # no comment\n\n           - system: >2-\n                 kept\n               two\n         plain: one\n            two\n         quoted: \"one \\\n            two\n\n            three\"\n      op: prompt-llm\n# end\n",
        &expect![[r#"
            nodes:
              a:
                op: prompt-llm
                with:
                  messages:
                    - user: |   # asked

                        Write:
                          - one
                           
                        # no comment

                    - system: >2-
                          kept
                        two
                  plain: one
                    two
                  quoted: "one \
                    two

                    three"
            # end
        "#]],
    );
}

#[test]
fn anchors_and_comments_stay_where_they_belong() {
    becomes(
        "base: &base   # shared\n    x: 1\n    # more of base\n  # still\n# of b\nb:\n- <<: *base\n  y: !!str 5\n-\n  # of z\n  z: &z [1,\n   2] # after\n- - &q deep\n  - *q\n-\n",
        &expect![[r"
            base: &base   # shared
              x: 1
              # more of base
              # still
            # of b
            b:
              - <<: *base
                y: !!str 5
              # of z
              - z: &z [1, 2] # after
              - - &q deep
                - *q
              -
        "]],
    );
}

#[test]
fn an_anchor_stays_before_its_alias() {
    becomes(
        "nodes:\n  a:\n    with: {x: &x [b]}\n    op: o\n    from: *x\n",
        &expect![[r"
            nodes:
              a:
                with: {x: &x [b]}
                op: o
                from: *x
        "]],
    );
}

#[test]
fn what_does_not_fit_or_has_comments_is_parted() {
    let long = format!("a: {{one: [{}], two: {{}}}}\n", vec!["word"; 24].join(", "));
    let new = laid_out(&long).unwrap();
    assert!(new.starts_with("a:\n  one:\n    - word\n    - word\n") && new.ends_with("  two: {}\n"), "{new}");
    becomes(
        "a: [one, # first\n  # second\n  {two: 2, three}, [x: 1],\n ]\nb: [ # none\n ]\n",
        &expect![[r"
            a:
              - one # first
              # second
              - {two: 2, three}
              - [{x: 1}]
            b: [] # none
        "]],
    );
}

#[test]
fn line_ends_and_marks_are_normal() {
    becomes(
        "\u{feff}# a\r\n---\r\nretort: 1\r\nb: |\r\n  x\r\n...\r\n# c\r\n",
        &expect![[r"
        # a
        ---
        retort: 1
        b: |
          x
        # c
    "]],
    );
    becomes(
        "\n\n# nothing   \n\n",
        &expect![[r"
        # nothing

    "]],
    );
    becomes(
        "{a: 1, b: [2]}\n# end\n",
        &expect![[r"
        {a: 1, b: [2]}
        # end
    "]],
    );
}

#[test]
fn what_is_no_yaml_is_told_with_its_place() {
    let told = laid_out("a: 1\nb: [\n").unwrap_err();
    assert!(told.contains("--> p.yaml:2:5"), "{told}");
    assert!(laid_out("a: 1\na: 2\n").unwrap_err().contains("the key `a` is given twice"));
    let told = fmt(Path::new("p.yaml"), b"a: \xff\n".to_vec()).unwrap_err().render(false);
    assert!(told.contains("the file is not UTF-8 text"), "{told}");
}

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [".", "src/cli/new", "tests/gallery", "tests/gallery/included"];
    let files = |folder: &str| fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = folders.into_iter().flat_map(files).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn counted(text: &str) -> BTreeMap<String, usize> {
    // Found in another way than by `fmt`: a line's end from ` #` on, where that is in no text of the gallery or a pipeline.
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let comment = line.trim_start().strip_prefix('#').or_else(|| line.split_once(" #").map(|(_, rest)| rest));
        if let Some(comment) = comment {
            *counts.entry(comment.trim_end().to_string()).or_default() += 1;
        }
    }
    counts
}

#[test]
fn every_file_is_laid_out_once_and_keeps_its_comments() {
    let (mut n_laid_out, mut n_comments) = (0, 0);
    for path in files() {
        let bytes = fs::read(&path).unwrap();
        let name = path.display();
        let mut problems = Vec::new();
        let (text, wrong) = decode(bytes.clone(), 0);
        yaml::parse(&text, 0, &mut problems);
        if wrong.is_some() || !problems.is_empty() {
            assert!(fmt(&path, bytes).is_err(), "{name} is no YAML");
            continue;
        }
        let new = fmt(&path, bytes).unwrap_or_else(|mistakes| panic!("{}", mistakes.render(false)));
        let again =
            fmt(&path, new.clone().into_bytes()).unwrap_or_else(|mistakes| panic!("{}", mistakes.render(false)));
        assert_eq!(new, again, "{name}");
        assert_eq!(counted(&text), counted(&new), "{name}");
        n_comments += counted(&new).len();
        n_laid_out += 1;
    }
    assert!(n_laid_out >= 80 && n_comments >= 40, "{n_laid_out} files, {n_comments} comments");
}

#[test]
fn the_pipelines_that_ship_are_laid_out() {
    for path in files().into_iter().filter(|path| !path.to_string_lossy().contains("gallery")) {
        let bytes = fs::read(&path).unwrap();
        let new = fmt(&path, bytes.clone()).unwrap_or_else(|mistakes| panic!("{}", mistakes.render(false)));
        assert!(new.as_bytes() == bytes, "`retort fmt {}` changes it", path.display());
    }
}
