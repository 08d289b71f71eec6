//! Mistakes in files, models, profiles, matrices and includes.

use std::path::Path;

use expect_test::expect;

use super::super::{LoadOptions, load};
use super::{GOOD, OPS, broken, broken_files, load_files};

#[test]
fn models_that_make_no_sense() {
    let text = "\
retort: 1
env: [KEY]
models:
  unpinned:
    weights: hf://org/repo@main/a.gguf
  bare: {weights: models/a.gguf}
  both: {weights: 'file:a.gguf', server: 'http://127.0.0.1/v1', name: x}
  short: {weights: 'file:a.gguf', sha256: abc}
  none: {}
  secret: {server: 'http://127.0.0.1/v1', name: '${env.KEY}', api_key: '${env.OTHER}'}
  unset: {server: 127.0.0.1, api_key: '${env.KEY}'}
  text: abc
nodes:
  documents: {op: extract, with: {paths: ['${env.KEY}']}}
";
    broken(
        text,
        &expect![[r#"
        error: a model that is fetched must be pinned by its digest
         --> p.yaml:4:3
          |
        4 |   unpinned:
          |   ^^^^^^^^
          |
          = hint: add `sha256:` with what `sha256sum` prints for the file

        error: expected a source
         --> p.yaml:6:19
          |
        6 |   bare: {weights: models/a.gguf}
          |                   ^^^^^^^^^^^^^
          |
          = hint: a source is `file:`, `pypi://`, `hf://` or `https://`

        error: a model has `weights` or a `server`, not both
         --> p.yaml:7:34
          |
        7 |   both: {weights: 'file:a.gguf', server: 'http://127.0.0.1/v1', name: x}
          |                                  ^^^^^^

        error: expected a SHA-256, 64 hexadecimal digits, found the text `abc`
         --> p.yaml:8:43
          |
        8 |   short: {weights: 'file:a.gguf', sha256: abc}
          |                                           ^^^

        error: a model has `weights` or a `server`
         --> p.yaml:9:3
          |
        9 |   none: {}
          |   ^^^^
          |
          = hint: `weights: file:PATH`, or `server: URL` and `name: MODEL`

        error: an environment variable can be used as `api_key` only
          --> p.yaml:10:50
           |
        10 |   secret: {server: 'http://127.0.0.1/v1', name: '${env.KEY}', api_key: '${env.OTHER}'}
           |                                                  ^^^^^^^^^^
           |
           = hint: everything else is part of the recipe: use a param and `--set`

        error: `OTHER` is not declared under `env:`
          --> p.yaml:10:73
           |
        10 |   secret: {server: 'http://127.0.0.1/v1', name: '${env.KEY}', api_key: '${env.OTHER}'}
           |                                                                         ^^^^^^^^^^^^
           |
           = hint: add `env: [OTHER]`

        error: a server's model needs a `name`
          --> p.yaml:11:3
           |
        11 |   unset: {server: 127.0.0.1, api_key: '${env.KEY}'}
           |   ^^^^^
           |
           = hint: the name by which the server knows it

        error: expected the URL of a server, found the text `127.0.0.1`
          --> p.yaml:11:19
           |
        11 |   unset: {server: 127.0.0.1, api_key: '${env.KEY}'}
           |                   ^^^^^^^^^
           |
           = hint: such as `http://127.0.0.1:8080/v1`

        error: the environment variable `KEY` is not set
          --> p.yaml:11:40
           |
        11 |   unset: {server: 127.0.0.1, api_key: '${env.KEY}'}
           |                                        ^^^^^^^^^^

        error: expected a model to be a map, found the text `abc`
          --> p.yaml:12:9
           |
        12 |   text: abc
           |         ^^^

        error: an environment variable can be used as `api_key` only
          --> p.yaml:14:44
           |
        14 |   documents: {op: extract, with: {paths: ['${env.KEY}']}}
           |                                            ^^^^^^^^^^
           |
           = hint: everything else is part of the recipe: use a param and `--set`
    "#]],
    );
}

#[test]
fn profiles_that_override_nothing() {
    let text = format!(
        "{GOOD}profiles:\n  a: {{chunk_tokens: 5}}\n  b: {{params: {{chunk_token: 5}}, nodes: {{chunk: {{}}}}}}\n"
    );
    broken(
        &text,
        &expect![[r#"
        error: unknown key `chunk_tokens`
          --> p.yaml:21:7
           |
        21 |   a: {chunk_tokens: 5}
           |       ^^^^^^^^^^^^
           |
           = hint: a param stands under `params:`: `params: {chunk_tokens: …}`

        error: the pipeline has no param `chunk_token` to override
          --> p.yaml:22:16
           |
        22 |   b: {params: {chunk_token: 5}, nodes: {chunk: {}}}
           |                ^^^^^^^^^^^
           |
           = hint: did you mean `chunk_tokens`?

        error: the pipeline has no node `chunk` to override
          --> p.yaml:22:41
           |
        22 |   b: {params: {chunk_token: 5}, nodes: {chunk: {}}}
           |                                         ^^^^^
           |
           = hint: did you mean `chunks`?
    "#]],
    );
}

#[test]
fn files_that_are_no_pipelines() {
    let none = LoadOptions::default();
    broken(
        "",
        &expect![[r#"
        error: the file is empty
         --> p.yaml:1:1
          |
        1 |
          | ^
          |
          = hint: a pipeline begins with `retort: 1` and has `nodes:`
    "#]],
    );
    broken(
        "# nothing\n",
        &expect![[r#"
        error: the file is empty
         --> p.yaml:1:1
          |
        1 | # nothing
          | ^
          |
          = hint: a pipeline begins with `retort: 1` and has `nodes:`
    "#]],
    );
    broken(
        "- a\n- b\n",
        &expect![[r#"
            error: expected a pipeline, which is a map, found a list
             --> p.yaml:1:1
              |
            1 | - a
              | ^^^
              |
              = hint: a pipeline begins with `retort: 1` and has `nodes:`
        "#]],
    );
    broken(
        "retort: 2\nnodes: {}\n",
        &expect![[r#"
        error: expected the format version `1`, found the number `2`
         --> p.yaml:1:9
          |
        1 | retort: 2
          |         ^
          |
          = hint: the file begins with `retort: 1`, the version of its format
    "#]],
    );
    broken(
        "retort: 1\n",
        &expect![[r#"
        error: the pipeline has no nodes
         --> p.yaml:1:1
          |
        1 | retort: 1
          | ^^^^^^^^^
          |
          = hint: `nodes:` names them: `nodes: {documents: {op: extract, …}}`
    "#]],
    );
    broken(
        "retort: 1\nnodes:\n\tdocuments: {}\n",
        &expect![[r#"
        error: a tab can't indent a line of YAML
         --> p.yaml:3:1
          |
        3 |     documents: {}
          | ^
          |
          = hint: use spaces
    "#]],
    );
    broken(
        "retort: 1\nnodes: {a: {op: extract, with: {paths: [${params.x}]}}}\n",
        &expect![[r#"
        error: within `{…}` and `[…]` a `${…}` stands in quotes
         --> p.yaml:2:41
          |
        2 | nodes: {a: {op: extract, with: {paths: [${params.x}]}}}
          |                                         ^^^^^^^^^^^
          |
          = hint: write `"${params.x}"`
    "#]],
    );
    broken(
        "retort: 1\nretort: 1\nnodes:\n  a: {op: extract, with: {paths: [x]}}\n  a: !t 1\n",
        &expect![[r#"
            error: the key `retort` is given twice
             --> p.yaml:2:1
              |
            1 | retort: 1
              | ------ first here
            2 | retort: 1
              | ^^^^^^

            error: the key `a` is given twice
             --> p.yaml:5:3
              |
            4 |   a: {op: extract, with: {paths: [x]}}
              |   - first here
            5 |   a: !t 1
              |   ^

            error: the tag `!t` has no meaning here
             --> p.yaml:5:6
              |
            5 |   a: !t 1
              |      ^^^^
              |
              = hint: remove it: a pipeline is plain data
        "#]],
    );
    broken(
        "retort: 1\nnodes: {a: {op: extract\n",
        &expect![[r#"
            error: expected `,` or `}` here
             --> p.yaml:2:24
              |
            2 | nodes: {a: {op: extract
              |            -           ^
              |            |
              |            `{` opens here
        "#]],
    );
    broken_files(
        &[("p.yaml", b"retort: 1\nname: caf\xe9\n")],
        &none,
        &expect![[r#"
        error: the file is not UTF-8 text
         --> p.yaml:2:10
          |
        2 | name: caf�
          |          ^
          |
          = hint: save it as UTF-8
    "#]],
    );
    broken_files(
        &[("p.yaml", b"\xff\xfer\0e\0")],
        &none,
        &expect![[r#"
        error: the file is UTF-16
         --> p.yaml:1:1
          |
        1 |
          | ^
          |
          = hint: save it as UTF-8
    "#]],
    );
    assert!(
        load_files(&[("p.yaml", b"\xef\xbb\xbfretort: 1\nnodes: {a: {op: extract, with: {paths: [x]}}}\n")], &none)
            .is_ok()
    );
    let missing = load(Path::new("nowhere/p.yaml"), &none, OPS).err().unwrap();
    expect![[r#"
        error: failed to read `nowhere/p.yaml`: no such file or directory
    "#]]
    .assert_eq(&missing.render(false));
}

#[test]
fn a_matrix_that_makes_no_sense() {
    let text = "\
retort: 1
params: {a: '${matrix.size}', b: '${c}', c: '${b}'}
matrix: {size: [64, '64'], a: [1], none: 3, many: [{x: 1}]}
nodes:
  documents: {op: extract, with: {paths: [docs]}}
  chunks: {op: chunk, from: documents, with: {max_tokens: '${matrix.siz}', column: '${rank'}}
";
    broken(
        text,
        &expect![[r#"
        error: the matrix key `size` can be used in nodes only
         --> p.yaml:2:14
          |
        2 | params: {a: '${matrix.size}', b: '${c}', c: '${b}'}
          |              ^^^^^^^^^^^^^^

        error: params refer to each other in a circle: `b`, `c`
         --> p.yaml:2:34
          |
        2 | params: {a: '${matrix.size}', b: '${c}', c: '${b}'}
          |                                  ^^^^^^

        error: two values of `size` would be called `64`
         --> p.yaml:3:21
          |
        3 | matrix: {size: [64, '64'], a: [1], none: 3, many: [{x: 1}]}
          |                     ^^^^

        error: `a` is a param too: one of them needs another name
         --> p.yaml:3:28
          |
        2 | params: {a: '${matrix.size}', b: '${c}', c: '${b}'}
          |          - the param
        3 | matrix: {size: [64, '64'], a: [1], none: 3, many: [{x: 1}]}
          |                            ^

        error: expected a list of the values of `none`, found the number `3`
         --> p.yaml:3:42
          |
        3 | matrix: {size: [64, '64'], a: [1], none: 3, many: [{x: 1}]}
          |                                          ^

        error: expected text or a number, found a map
         --> p.yaml:3:52
          |
        3 | matrix: {size: [64, '64'], a: [1], none: 3, many: [{x: 1}]}
          |                                                    ^^^^^^

        error: unknown matrix key `siz`
         --> p.yaml:6:60
          |
        6 |   chunks: {op: chunk, from: documents, with: {max_tokens: '${matrix.siz}', column: '${rank'}}
          |                                                            ^^^^^^^^^^^^^
          |
          = hint: did you mean `size`?

        error: `${` is not closed by `}`
         --> p.yaml:6:85
          |
        6 |   chunks: {op: chunk, from: documents, with: {max_tokens: '${matrix.siz}', column: '${rank'}}
          |                                                                                     ^^^^^^
          |
          = hint: for the text `${` itself write `$${`
    "#]],
    );
}

#[test]
fn includes_that_make_no_sense() {
    let main = b"retort: 1\ninclude: [base.yaml, nowhere.yaml]\nnodes:\n  a: {op: extract, with: {paths: [docs]}}\n";
    let base = b"retort: 1\ninclude: p.yaml\nnodes:\n  a: {op: extract, with: {paths: [docs]}}\n  b: {op: chunck}\n";
    broken_files(
        &[("p.yaml", main), ("base.yaml", base)],
        &LoadOptions::default(),
        &expect![[r#"
        error: failed to read `nowhere.yaml`: no such file or directory
         --> p.yaml:2:22
          |
        2 | include: [base.yaml, nowhere.yaml]
          |                      ^^^^^^^^^^^^

        error: the node `a` is defined in two files
         --> p.yaml:4:3
          |
        4 |   a: {op: extract, with: {paths: [docs]}}
          |   ^
          |
         ::: base.yaml:4:3
          |
        4 |   a: {op: extract, with: {paths: [docs]}}
          |   - and here

        error: `p.yaml` includes itself
         --> base.yaml:2:10
          |
        2 | include: p.yaml
          |          ^^^^^^

        error: unknown operator `chunck`
         --> base.yaml:5:11
          |
        5 |   b: {op: chunck}
          |           ^^^^^^
          |
          = hint: did you mean `chunk`?
    "#]],
    );
}
