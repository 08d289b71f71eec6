//! The condition of `filter`: what it reads, what is refused, and what is said of rows that it can't tell.

use std::path::Path;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::Field;

use super::*;

fn condition(text: &str) -> Result<Condition, Problem> {
    let context = context(MAX_BYTES).unwrap();
    let reads = columns(text, &context).map_err(|mistake| mistake.in_field("where"))?;
    Ok(Condition { text: text.into(), reads, context })
}

fn batch() -> RecordBatch {
    let kind: ArrayRef = Arc::new(StringArray::from(vec![Some("n"), Some("n"), Some("t"), None]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["7", "2", "many", "9"]));
    RecordBatch::try_from_iter([("kind", kind), ("Text", text)]).unwrap()
}

fn told(text: &str) -> Vec<String> {
    let condition = condition(text).unwrap();
    let batch = batch();
    let expr = condition.on(&batch.schema()).unwrap();
    let told = |verdict: &Verdict| match verdict {
        Verdict::True => "true".to_string(),
        other => condition.refusal(other),
    };
    verdicts(expr.as_ref(), &batch).iter().map(told).collect()
}

fn wrong(text: &str) -> String {
    let schema = Schema::new(vec![Field::new("kind", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]);
    let problem = condition(text).and_then(|condition| condition.adds(&schema).map(|_| ())).unwrap_err();
    assert_eq!(problem.at.field, "with.where");
    format!("{} | {}", problem.message, problem.hint.unwrap_or_default())
}

#[test]
fn a_condition_reads_what_it_names() {
    let reads = |text: &str| condition(text).unwrap().reads;
    assert_eq!(reads("length(answer) > 20 AND (question LIKE '%?' OR answer = 'x')"), ["answer", "question"]);
    assert_eq!(reads("\"chunk id\" IS NOT NULL AND Kind IN ('a', 'b')"), ["chunk id", "Kind"]);
    assert_eq!(reads("CASE WHEN n > 1 THEN true ELSE flag END"), ["n", "flag"]);
    assert_eq!(reads("array_length(heading_path) > 1 AND blocks[1]['kind'] = 'code'"), ["heading_path", "blocks"]);
}

#[test]
fn rows_that_are_false_null_or_wrong_are_told_apart() {
    assert_eq!(told("kind = 'n'"), ["true", "true", "false: kind = 'n'", "null: kind = 'n'"]);
    let cast = told("CAST(\"Text\" AS int) > 3");
    assert_eq!((&cast[0][..], &cast[3][..]), ("true", "true"));
    assert!(cast[1].starts_with("false: "), "{cast:?}");
    assert!(cast[2].starts_with("failed: ") && cast[2].contains("'many'"), "{cast:?}");
    // By itself the third row asks for no number, so its neighbours must not make it one that can't be told.
    assert_eq!(told("kind = 'n' AND CAST(Text AS int) > 3")[2], "false: kind = 'n' AND CAST(Text AS int) > 3");
}

#[test]
fn what_is_no_condition_is_refused() {
    let said = [
        wrong("n + 1"),
        wrong("n >"),
        wrong("now() > kind"),
        wrong("n IN (SELECT n FROM other)"),
        wrong("count(n) > 1"),
        wrong("row_number() OVER (ORDER BY n) = 1"),
        wrong("1 = 1"),
        wrong(" "),
        wrong("lenght(kind) = 1"),
        wrong("kind.x = 1"),
        wrong("n = 1; DROP TABLE x"),
    ];
    expect_test::expect![[r#"
        the condition is int64, neither true nor false | compare it with something: `… > 0`, `… = 'x'`, `… IS NOT NULL`
        expected: an expression, found: EOF | 
        `now` gives another value each time it is asked | an answer must not change by itself: write the value down, as `${params.NAME}`
        a condition looks at one row, so it has no `SELECT` | the operator `sql` joins tables
        a condition looks at one row, so it counts and compares no others | the operator `sql` groups rows
        a condition looks at one row, so it counts and compares no others | the operator `sql` groups rows
        the condition names no column | such as `n_tokens > 20`
        no condition | such as `n_tokens > 20`
        unknown function `lenght` | did you mean `length`?
        cannot access field at argument 1: type Utf8 is not Struct, Map, or Null | 
        expected: end of expression, found: ; | "#]].assert_eq(&said.join("\n"));
}

#[test]
fn many_rows_are_asked_together() {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
    let batch = RecordBatch::try_from_iter([("n", n)]).unwrap();
    let condition = condition("n % 3 = 0").unwrap();
    let expr = condition.on(&batch.schema()).unwrap();
    let kept = verdicts(expr.as_ref(), &batch).iter().filter(|verdict| matches!(verdict, Verdict::True)).count();
    assert_eq!(kept, 33_334);
    let made = Filter { r#where: "n > 1".into() }.build(&Env { base: Path::new(".") });
    assert!(matches!(made, Ok(Operator::Rows(_))));
}
