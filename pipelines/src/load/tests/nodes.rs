//! Mistakes in nodes.

use expect_test::expect;

use super::{GOOD, broken, broken_with, options};

#[test]
fn five_mistakes_at_once() {
    let text = "\
retort: 1
nodes:
  documents:
    op: extract
    with: {paths: [docs]}
  chunks:
    op: chunck
    from: documents
    with: {max_tokens: 384}
  other:
    op: chunk
    from: documents
    with: {max_token: 384}
  answers:
    op: chunk
    with: {max_tokens: 384}
  ring:
    op: chunk
    from: rang
    with: {max_tokens: 384}
  rang:
    op: chunk
    from: ring
    with: {max_tokens: many}
";
    broken(
        text,
        &expect![[r#"
            error: unknown operator `chunck`
             --> p.yaml:7:9
              |
            7 |     op: chunck
              |         ^^^^^^
              |
              = hint: did you mean `chunk`?

            error: unknown key `max_token`
              --> p.yaml:13:12
               |
            13 |     with: {max_token: 384}
               |            ^^^^^^^^^
               |
               = hint: did you mean `max_tokens`?

            error: `chunk` needs an input
              --> p.yaml:14:3
               |
            14 |   answers:
               |   ^^^^^^^
               |
               = hint: say which node feeds it: `from: NODE`

            error: the nodes feed each other in a circle: `ring` -> `rang` -> `ring`
              --> p.yaml:19:11
               |
            19 |     from: rang
               |           ^^^^

            error: expected a whole number, found the text `many`
              --> p.yaml:24:24
               |
            24 |     with: {max_tokens: many}
               |                        ^^^^
        "#]],
    );
}

#[test]
fn names_that_are_nearly_right() {
    let text = "\
retort: 1
parms: {}
params: {chunk_tokens: 384}
models:
  tiny: {weights: 'file:tiny.gguf', sha: abc}
nodes:
  documents: {op: extract, wiht: {paths: [docs]}}
  chunks:
    op: chunk
    from: document
    with: {model: tiney, max_tokens: '${params.chunk_token}', column: txt, by: sentence}
  more:
    op: chunk
    from: documents.outt
    with: {max_tokens: 9}
  others:
    op: chunk
    from: documents
    with: {max_tokens: 9, column: txt}
  sets:
    op: split-eval
    from: others
    with: {eval: 0.1, seed: 1}
  adapter:
    op: lora-train
    from: {trian: sets.train, eval: sets.test}
    with: {model: {weights: 'file:a.gguf'}, rank: 8}
";
    broken(
        text,
        &expect![[r#"
            error: unknown key `parms`
             --> p.yaml:2:1
              |
            2 | parms: {}
              | ^^^^^
              |
              = hint: did you mean `params`?

            error: unknown key `sha`
             --> p.yaml:5:37
              |
            5 |   tiny: {weights: 'file:tiny.gguf', sha: abc}
              |                                     ^^^
              |
              = hint: it takes `weights`, `sha256`, `server`, `name`, `api_key`, `parallel`, `timeout`, `stream`, `requests_per_minute`, `tokens_per_minute`, `price`, `max_cost`, `max_tokens_total`

            error: unknown key `wiht`
             --> p.yaml:7:28
              |
            7 |   documents: {op: extract, wiht: {paths: [docs]}}
              |                            ^^^^
              |
              = hint: did you mean `with`?

            error: unknown node `document`
              --> p.yaml:10:11
               |
            10 |     from: document
               |           ^^^^^^^^
               |
               = hint: did you mean `documents`?

            error: unknown model `tiney`
              --> p.yaml:11:19
               |
            11 |     with: {model: tiney, max_tokens: '${params.chunk_token}', column: txt, by: sentence}
               |                   ^^^^^
               |
               = hint: did you mean `tiny`?

            error: unknown param `chunk_token`
              --> p.yaml:11:39
               |
            11 |     with: {model: tiney, max_tokens: '${params.chunk_token}', column: txt, by: sentence}
               |                                       ^^^^^^^^^^^^^^^^^^^^^
               |
               = hint: did you mean `chunk_tokens`?

            error: expected `headings` or `sentences`, found the text `sentence`
              --> p.yaml:11:80
               |
            11 |     with: {model: tiney, max_tokens: '${params.chunk_token}', column: txt, by: sentence}
               |                                                                                ^^^^^^^^
               |
               = hint: did you mean `sentences`?

            error: `documents` has no output `outt`
              --> p.yaml:14:11
               |
            14 |     from: documents.outt
               |           ^^^^^^^^^^^^^^
               |
               = hint: did you mean `out`?

            error: the input has no column `txt`
              --> p.yaml:19:35
               |
            19 |     with: {max_tokens: 9, column: txt}
               |                                   ^^^
               |
               = hint: did you mean `text`? It has `path`, `digest`, `text`

            error: `lora-train` has no input `trian`
              --> p.yaml:26:12
               |
            26 |     from: {trian: sets.train, eval: sets.test}
               |            ^^^^^
               |
               = hint: did you mean `train`?
        "#]],
    );
}

#[test]
fn values_of_a_wrong_type() {
    let text = "\
retort: 1
params: {tokens: many, list: [1]}
models: {tiny: {weights: 'file:tiny.gguf'}}
nodes:
  documents: {op: extract, with: {paths: docs}}
  chunks:
    op: chunk
    from: documents
    with:
      max_tokens: -3
      by: {headings: 1}
      overlap: yes
      column: 5
  again:
    op: chunk
    from: documents
    with: {max_tokens: '${tokens}', column: 'x${list}'}
  answers:
    op: prompt-llm
    from: again
    with:
      model: tiny
      messages:
        - system: 5
        - usr: Hello
        - Hello
      sample: {temperature: hot, top_p: 2, max_tokens: 1.5, stop: '###'}
  sets:
    op: split-eval
    from: {a: {b: c}}
    with: [1]
";
    broken(
        text,
        &expect![[r#"
            error: expected a list, found the text `docs`
             --> p.yaml:5:42
              |
            5 |   documents: {op: extract, with: {paths: docs}}
              |                                          ^^^^
              |
              = hint: a list of one is `[docs]`

            error: expected a whole number, found the number `-3`
              --> p.yaml:10:19
               |
            10 |       max_tokens: -3
               |                   ^^

            error: expected `headings` or `sentences`, found a map
              --> p.yaml:11:11
               |
            11 |       by: {headings: 1}
               |           ^^^^^^^^^^^^^

            error: expected a number, found the text `yes`
              --> p.yaml:12:16
               |
            12 |       overlap: yes
               |                ^^^

            error: expected text, found the number `5`
              --> p.yaml:13:15
               |
            13 |       column: 5
               |               ^
               |
               = hint: text is written in quotes: `"5"`

            error: expected a whole number, found the text `many`
              --> p.yaml:17:25
               |
             2 | params: {tokens: many, list: [1]}
               |                  ---- given by the param `tokens`
            ...
            17 |     with: {max_tokens: '${tokens}', column: 'x${list}'}
               |                         ^^^^^^^^^

            error: `list` is a list: it can't be written into a text
              --> p.yaml:17:47
               |
            17 |     with: {max_tokens: '${tokens}', column: 'x${list}'}
               |                                               ^^^^^^^

            error: expected text, found the number `5`
              --> p.yaml:24:19
               |
            24 |         - system: 5
               |                   ^
               |
               = hint: text is written in quotes: `"5"`

            error: unknown key `usr`
              --> p.yaml:25:11
               |
            25 |         - usr: Hello
               |           ^^^
               |
               = hint: did you mean `user`?

            error: expected `system: …` or `user: …`, found the text `Hello`
              --> p.yaml:26:11
               |
            26 |         - Hello
               |           ^^^^^

            error: expected a number, found the text `hot`
              --> p.yaml:27:29
               |
            27 |       sample: {temperature: hot, top_p: 2, max_tokens: 1.5, stop: '###'}
               |                             ^^^

            error: expected a number from 0 to 1, found the number `2`
              --> p.yaml:27:41
               |
            27 |       sample: {temperature: hot, top_p: 2, max_tokens: 1.5, stop: '###'}
               |                                         ^

            error: expected a whole number, found the number `1.5`
              --> p.yaml:27:56
               |
            27 |       sample: {temperature: hot, top_p: 2, max_tokens: 1.5, stop: '###'}
               |                                                        ^^^

            error: expected a list, found the text `###`
              --> p.yaml:27:67
               |
            27 |       sample: {temperature: hot, top_p: 2, max_tokens: 1.5, stop: '###'}
               |                                                                   ^^^^^
               |
               = hint: a list of one is `['###']`

            error: expected the name of a node, found a map
              --> p.yaml:30:15
               |
            30 |     from: {a: {b: c}}
               |               ^^^^^^
               |
               = hint: `from` is `NODE`, `NODE.OUTPUT`, a list of them, or a map of inputs to them

            error: expected a map of the operator's keys, found a list
              --> p.yaml:31:11
               |
            31 |     with: [1]
               |           ^^^
        "#]],
    );
}

#[test]
fn a_value_of_the_command_line() {
    broken_with(
        GOOD,
        &options(&[("chunk_tokens", "many"), ("chunk_token", "5")], Some("quik")),
        &expect![[r#"
        error: unknown profile `quik`
         |
         = hint: the pipeline has no `profiles:`

        error: `--set chunk_token=…` names no param of the pipeline
         |
         = hint: did you mean `chunk_tokens`?

        error: expected a whole number, found the text `many`
          --> p.yaml:11:55
           |
        11 |     with: {model: '${params.generator}', max_tokens: '${chunk_tokens}', by: headings}
           |                                                       ^^^^^^^^^^^^^^^
           |
           = hint: it is given by `--set chunk_tokens=…`
    "#]],
    );
}

#[test]
fn what_an_operator_refuses() {
    let text = "\
retort: 1
nodes:
  documents: {op: extract, with: {paths: [docs]}}
  chunks:
    op: chunk
    from: [documents, documents]
    with:
      # A comment.
      max_tokens: 3
  twice:
    op: chunk
    from: {form: documents}
    with:
";
    broken(
        text,
        &expect![[r#"
        error: 3 tokens hold no sentence
         --> p.yaml:9:19
          |
        9 |       max_tokens: 3
          |                   ^

        error: the key `max_tokens` is missing
          --> p.yaml:13:9
           |
        13 |     with:
           |         ^
           |
           = hint: `max_tokens` is a whole number
    "#]],
    );
}
