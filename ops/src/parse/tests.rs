//! Outputs as models write them, small ones above all, and what is found in them.

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;

fn finds(output: &str, expected: &Expect) {
    expected.assert_eq(&shown(&pairs::find(output, false)));
}

fn shown(found: &pairs::Found) -> String {
    let pair = |(question, answer): &(String, String)| format!("Q {question}\nA {}\n", answer.replace('\n', "\n| "));
    found.pairs.iter().map(pair).collect()
}

#[test]
fn labels_numbers_and_emphasis() {
    finds(
        "Sure! Here are 3 pairs about printing:\n\n**Question 1:** Which command lists the jobs?\n**Answer:** `lpq` lists them.\n\n\
         2. Question: How is a job removed?\n   Answer: With `lprm` and its number.\n\n\
         ### Question 3\nWhat holds the queue?\n\n### Answer 3\nThe spool directory.\n\n---\nLet me know if you need more!",
        &expect![[r#"
            Q Which command lists the jobs?
            A `lpq` lists them.
            Q How is a job removed?
            A With `lprm` and its number.
            Q What holds the queue?
            A The spool directory.
        "#]],
    );
}

#[test]
fn glued_pairs_are_parted() {
    finds(
        "Q: Which command lists jobs? A: `lpq`. Q: Which one removes a job? A: Use lprm. Question: What stops a printer? Answer: `lpc stop` \
         Question 2: What starts it? Answer 2: lpc start",
        &expect![[r#"
            Q Which command lists jobs?
            A `lpq`.
            Q Which one removes a job?
            A Use lprm.
            Q What stops a printer?
            A `lpc stop`
            Q What starts it?
            A lpc start
        "#]],
    );
}

#[test]
fn answers_keep_their_lines() {
    finds(
        "Question: How do I add a user?\nAnswer: Follow these steps:\n\n1. Open UserManager.\n2. Choose **New User**.\n\n```sh\n# Question: not one\n\
         niutil -create . /users/me\nA: nor this\n```\n\nThen log in.\n\nQuestion: What is the prompt?\nAnswer:\n```\nlocalhost>\n```\n",
        &expect![[r#"
            Q How do I add a user?
            A Follow these steps:
            | 
            | 1. Open UserManager.
            | 2. Choose **New User**.
            | 
            | ```sh
            | # Question: not one
            | niutil -create . /users/me
            | A: nor this
            | ```
            | 
            | Then log in.
            Q What is the prompt?
            A ```
            | localhost>
            | ```
        "#]],
    );
}

#[test]
fn drives_and_quoted_labels_are_text() {
    finds(
        "Q: Which letter has the floppy?\nA: Copy the file to A: and then press the \"Answer:\" button, or type `Question: 3`.\nA:\\>dir lists it.",
        &expect![[r#"
            Q Which letter has the floppy?
            A Copy the file to A: and then press the "Answer:" button, or type `Question: 3`.
            | A:\>dir lists it.
        "#]],
    );
}

#[test]
fn questions_first_answers_later() {
    finds(
        "Question 1: What is NetInfo?\nQuestion 2: What is nibindd?\n\nAnswer 1: A database of the network.\nAnswer 2: It binds domains.",
        &expect![[r#"
            Q What is NetInfo?
            A A database of the network.
            Q What is nibindd?
            A It binds domains.
        "#]],
    );
    finds(
        "**Questions:**\n1. What is NetInfo?\n2. What is nibindd?\n\n**Answers:**\n1. A database.\n2. A daemon.\n",
        &expect![[r#"
            Q What is NetInfo?
            A A database.
            Q What is nibindd?
            A A daemon.
        "#]],
    );
}

#[test]
fn questions_without_labels() {
    finds(
        "1. What is swap?\nAnswer: Disk that serves as memory.\n\n2. Where is it?\nAnswer: In /private/vm.\n",
        &expect![[r#"
            Q What is swap?
            A Disk that serves as memory.
            Q Where is it?
            A In /private/vm.
        "#]],
    );
    finds(
        "1. **What is swap?**\nDisk that serves as memory.\n\n2. **Where is it?**\n   In /private/vm.\n",
        &expect![[r#"
            Q What is swap?
            A Disk that serves as memory.
            Q Where is it?
            A In /private/vm.
        "#]],
    );
    finds(
        "Q: What is swap?\nDisk that serves as memory.\n\nQ: Where is it?\nIn /private/vm.\n",
        &expect![[r#"
        Q What is swap?
        A Disk that serves as memory.
        Q Where is it?
        A In /private/vm.
    "#]],
    );
}

#[test]
fn the_noise_of_a_small_model() {
    finds(
        "Question: What is the purpose of the `lpq` command?\nAnswer: The purpose of the `lpq` command is to list jobs.\n\n\
         Question: What is the purpose of the `lpq` command?\nAnswer: The purpose of the `lpq` command is to list jobs.\n\n\
         Question: \nAnswer: \n\nAnswer: An answer to nothing.\n\nQuestion: What is\n\nQuestion: What does `lprm` do?\nAnswer: It removes a job.\nAnswer: It needs its number.\n\n\
         Question: What is the purpose of the",
        &expect![[r#"
            Q What is the purpose of the `lpq` command?
            A The purpose of the `lpq` command is to list jobs.
            Q What does `lprm` do?
            A It removes a job.
            | It needs its number.
        "#]],
    );
    finds(
        "```\nQuestion: What is it?\nAnswer: A fenced one.\n```",
        &expect![[r#"
        Q What is it?
        A A fenced one.
    "#]],
    );
    finds(
        "**Q&A Pair 1**\n**Q: What is it?**\n**A: Bold all over.**\n\n**Q&A Pair 2**\n*Q:* And this?\n*A:* Slanted.\n\n3.\n",
        &expect![[r#"
            Q What is it?
            A Bold all over.
            Q And this?
            A Slanted.
        "#]],
    );
    finds(
        "Question: What did it open?\nAnswer: A fence that never closes:\n```sh\nlpq\n\nQuestion: And then?\nAnswer: It goes on.",
        &expect![[r#"
            Q What did it open?
            A A fence that never closes:
            | ```sh
            | lpq
            Q And then?
            A It goes on.
        "#]],
    );
}

#[test]
fn a_cut_output_loses_its_last_answer_only() {
    let output = "Q: One?\nA: Whole.\n\nQ: Two?\nA: Half of an";
    assert_eq!(pairs::find(output, false).pairs.len(), 2);
    expect![[r#"
        Q One?
        A Whole.
    "#]]
    .assert_eq(&shown(&pairs::find(output, true)));
}

#[test]
fn every_prefix_of_an_output_parses() {
    let output = "**Question 1:** Was ist „ü“? `a` **Answer:** é. 2. Q: X? A: Y.\n```\ncode\n```\n### Question 3\nZ?\n### Answer 3\n- a\n- b\n";
    for end in (0..=output.len()).filter(|end| output.is_char_boundary(*end)) {
        let found = pairs::find(&output[..end], true);
        assert!(found.pairs.len() <= found.n_questions && found.n_questions <= 3, "{end}: {found:?}");
    }
}

#[test]
fn nothing_found_says_why() {
    let reason = |text| read_pairs(text, false).unwrap_err();
    assert_eq!(reason("The printer is a device."), "no question found");
    assert_eq!(reason("Question: What is it?"), "1 question but no answer");
    assert_eq!(reason("Q: What is it?\nQ: Why?\nQ: How?"), "3 questions but no answer");
    assert_eq!(reason("Answer: nothing was asked"), "no question found");
    assert_eq!(read_pairs("Q: Why?\nA: Beca", true).unwrap_err(), "the output was cut off in its first answer");
}

#[test]
fn what_is_left_out_is_told() {
    let left_out = |text, cut| read_pairs(text, cut).unwrap().1;
    assert_eq!(left_out("Q: One?\nA: 1\nQ: Two?\nA: 2", false), None);
    assert_eq!(left_out("Q: One?\nA: 1\nQ: One?\nA: 1", false), None, "equal pairs are one");
    expect!["left out: `Two?`, which has no answer; `Three?`, which has no answer"]
        .assert_eq(&left_out("Q: One?\nA: 1\nQ: Two?\nQ: Three?", false).unwrap());
    expect!["left out: the cut-off answer to `Two?`"]
        .assert_eq(&left_out("Q: One?\nA: 1\nQ: Two?\nA: Half of", true).unwrap());
    expect!["left out: an answer without a question"]
        .assert_eq(&left_out("Answer: to nothing\n\nQ: One?\nA: 1", false).unwrap());
    expect!["left out: `What happens when a very long question is asked that goes on…`, which has no answer"]
        .assert_eq(
            &left_out("Q: One?\nA: 1\nQ: What happens when a very long question is asked that goes on and on?", false)
                .unwrap(),
        );
}

fn problem(with: serde_json::Value) -> String {
    let env = Env { base: std::path::Path::new(".") };
    let made = (retort_engine::OpInfo::of::<Parse>().make)(with, &env);
    let problem = made.err().unwrap();
    format!("{}: {}", problem.at.field, problem.message)
}

#[test]
fn configs_that_make_no_sense_are_problems() {
    expect!["with.pattern: not a regular expression: unclosed capture group name"]
        .assert_eq(&problem(json!({"format": "regex", "pattern": "(?<a"})));
    expect!["with.pattern: the pattern has no named groups, so there is no column to fill"]
        .assert_eq(&problem(json!({"format": "regex", "pattern": "a+"})));
    expect!["with: `format: regex` needs a `pattern`"].assert_eq(&problem(json!({"format": "regex"})));
    expect!["with.pattern: `question-answer` takes no pattern"]
        .assert_eq(&problem(json!({"format": "question-answer", "pattern": "a"})));
    expect![
        "with.columns: invalid type: sequence, expected a map of new column names to columns, as in `{input: question}`"
    ]
    .assert_eq(&problem(json!({"format": "question-answer", "columns": ["a"]})));
    expect!["with.format: unknown variant `qa`, expected `question-answer` or `regex`"]
        .assert_eq(&problem(json!({"format": "qa"})));
}

#[test]
fn the_order_of_columns_is_a_fact() {
    let facts = |with: serde_json::Value| {
        let made = (retort_engine::OpInfo::of::<Parse>().make)(with, &Env { base: std::path::Path::new(".") });
        let facts = made.ok().unwrap().facts;
        facts.iter().map(|fact| format!("{} = {}\n", fact.name, fact.value)).collect::<Vec<_>>().concat()
    };
    let written = facts(json!({"columns": {"output": "answer", "input": "question"}, "format": "question-answer"}));
    assert_ne!(
        written,
        facts(json!({"columns": {"input": "question", "output": "answer"}, "format": "question-answer"}))
    );
    expect![[r#"
        op.name = parse
        op.version = 3
        with.column = output
        with.columns[0] = output: answer
        with.columns[1] = input: question
        with.format = question-answer
    "#]]
    .assert_eq(&written);
}

#[test]
fn the_answers_columns_are_those_of_the_mapping() {
    let columns = Columns(vec![("input".into(), "question".into()), ("file".into(), "path".into())]);
    let parser = Parser { column: "output".into(), reader: Reader::Pairs, columns: Some(columns) };
    assert_eq!(parser.reads(), ["output", "path"]);
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["", ""]));
    let paths: ArrayRef = Arc::new(StringArray::from(vec!["a.md", "b.md"]));
    let batch = RecordBatch::try_from_iter([("output", texts), ("path", paths)]).unwrap();
    let schema = parser.adds(&batch.schema()).unwrap();
    let (rows, _) = read_pairs("Q: One?\nA: 1\nQ: Two?\nA: 2", false).unwrap();
    let answer = parser.answer(rows, &batch, 1, &schema).unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&[answer]).unwrap();
    expect![[r#"
        +-------+------+
        | input | file |
        +-------+------+
        | One?  | b.md |
        | Two?  | b.md |
        +-------+------+
    "#]]
    .assert_eq(&format!("{shown}\n"));
}

#[test]
fn every_match_of_a_pattern_is_a_row() {
    let reader = Reader::pattern(r"(?m)^FACT(?: (?<n>\d+))?: (?<fact>.*)$").ok().unwrap();
    let rows = reader.read("FACT 1: it boots\nnoise\nFACT: it halts\n", false).unwrap();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(rows, (vec![vec![text("1"), text("it boots")], vec![None, text("it halts")]], None));
    assert_eq!(reader.read("noise", false).unwrap_err(), "the pattern matches nothing");
}

/// How many pairs a text has, and how many things that are none.
pub(crate) fn pairs_of(output: &str) -> (usize, usize) {
    let found = pairs::find(output, false);
    (found.pairs.len(), found.left_out.len())
}
