//! Queries: what they give, in which order, what is refused, and that batches, memory and repetition change nothing.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use expect_test::expect;
use retort_cache::{Memory, Store};
use retort_engine::{Failure, Input};

use super::{Mistake, Select};

fn rows(n: i64) -> RecordBatch {
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
    let kind: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..n).map(|i| ["heading", "text", "code"][(i * 7 % 3) as usize])));
    // Sums of these depend on the order in which they are taken.
    let score: ArrayRef =
        Arc::new(Float64Array::from_iter_values((0..n).map(|i| 0.1 * i as f64 + 1e9 / (1.0 + i as f64))));
    RecordBatch::try_from_iter([("id", id), ("kind", kind), ("score", score)]).unwrap()
}

fn kinds() -> RecordBatch {
    let kind: ArrayRef = Arc::new(StringArray::from(vec!["text", "heading", "table"]));
    let weight: ArrayRef = Arc::new(Int64Array::from(vec![1, 5, 9]));
    RecordBatch::try_from_iter([("kind", kind), ("weight", weight)]).unwrap()
}

/// A table that was written in batches of `size` rows.
fn input(batch: &RecordBatch, size: usize) -> Input {
    let store = Memory::default();
    let mut writer = store.writer(batch.schema()).unwrap();
    for at in (0..batch.num_rows()).step_by(size) {
        writer.write(&batch.slice(at, size.min(batch.num_rows() - at))).unwrap();
    }
    let table = writer.finish().unwrap();
    Input { schema: batch.schema(), tables: vec![table] }
}

fn ask_with(query: &str, n: i64, size: usize, max_bytes: usize) -> Result<Vec<RecordBatch>, Failure> {
    let tables = vec![("rows".to_string(), input(&rows(n), size)), ("kinds".to_string(), input(&kinds(), size))];
    let schemas: Vec<_> = tables.iter().map(|(name, input)| (name.clone(), input.schema.clone())).collect();
    let select = Select::parse(query).unwrap();
    let columns = select.columns(&schemas, true).unwrap();
    let mut batches = Vec::new();
    select.run(&tables, max_bytes, &|| Ok(()), &mut |batch| {
        assert_eq!(batch.schema(), columns, "the columns are those that were said before");
        batches.push(batch.clone());
        Ok(())
    })?;
    Ok(batches)
}

fn ask(query: &str, n: i64, size: usize) -> String {
    pretty_format_batches(&ask_with(query, n, size, 1 << 28).unwrap()).unwrap().to_string()
}

fn wrong(query: &str) -> Mistake {
    let schemas = [("rows".to_string(), rows(1).schema()), ("kinds".to_string(), kinds().schema())];
    Select::parse(query).and_then(|select| select.columns(&schemas, true)).unwrap_err()
}

fn told(query: &str) -> String {
    let Mistake { message, hint, at } = wrong(query);
    format!("{message} | {} | {at:?}", hint.unwrap_or_default())
}

#[test]
fn joins_groups_and_orders_are_answered() {
    let query = "SELECT kind, count(*) AS n, sum(weight) AS weight FROM rows JOIN kinds USING (kind) GROUP BY kind";
    expect![[r#"
        +---------+---+--------+
        | kind    | n | weight |
        +---------+---+--------+
        | text    | 3 | 3      |
        | heading | 4 | 20     |
        +---------+---+--------+"#]]
    .assert_eq(&ask(query, 10, 1000));
    expect![[r#"
        +----+--------+
        | id | weight |
        +----+--------+
        | 1  | 1      |
        | 0  | 5      |
        | 3  | 5      |
        | 2  |        |
        +----+--------+"#]]
    .assert_eq(&ask("SELECT id, weight FROM rows LEFT JOIN kinds ON rows.kind = kinds.kind", 4, 1000));
    expect![[r#"
        +---------+
        | kind    |
        +---------+
        | heading |
        | text    |
        | heading |
        | text    |
        | heading |
        | table   |
        +---------+"#]]
    .assert_eq(&ask("SELECT kind FROM rows WHERE kind <> 'code' UNION ALL SELECT kind FROM kinds", 4, 1000));
}

/// Queries whose rows would come in another order, or with other sums, if batches or threads had a say.
const DELICATE: &[&str] = &[
    "SELECT * FROM rows WHERE id % 3 = 1",
    "SELECT kind, sum(score) AS s, avg(score) AS a, stddev(score) AS d FROM rows GROUP BY kind",
    "SELECT id % 97 AS g, sum(score) AS s FROM rows GROUP BY id % 97",
    "SELECT rows.id, kinds.weight FROM rows LEFT JOIN kinds ON rows.kind = kinds.kind",
    "SELECT a.id, b.id AS other FROM rows a JOIN rows b ON a.id % 50 = b.id % 60 WHERE a.id < 200 AND b.id < 200",
    "SELECT a.id, b.weight FROM rows a, kinds b WHERE a.id % 10 < b.weight",
    "SELECT id FROM rows ORDER BY kind",
    "SELECT id FROM rows ORDER BY kind LIMIT 17",
    "SELECT id FROM rows LIMIT 11 OFFSET 5",
    "SELECT DISTINCT id % 13 AS r FROM rows",
    "SELECT id, sum(score) OVER (PARTITION BY kind ORDER BY id) AS s FROM rows",
    "SELECT id FROM rows UNION ALL SELECT weight FROM kinds",
    "SELECT g, count(*) AS n FROM (SELECT id % 7 AS g FROM rows UNION ALL SELECT weight FROM kinds) GROUP BY g",
    "SELECT id FROM rows WHERE kind IN (SELECT kind FROM kinds)",
    "SELECT id FROM rows INTERSECT SELECT weight FROM kinds",
    "SELECT kind, array_agg(id) AS ids FROM rows WHERE id < 40 GROUP BY kind",
    "SELECT kind, array_agg(DISTINCT id % 5 ORDER BY id % 5) AS ids FROM rows GROUP BY kind",
];

#[test]
fn batches_and_repetition_change_nothing() {
    for query in DELICATE {
        let whole = ask(query, 20_000, 20_000);
        assert!(whole.lines().count() > 4, "{query} gives too little to tell\n{whole}");
        for size in [1, 7, 1000, 8192] {
            assert!(ask(query, 20_000, size) == whole, "{query}: batches of {size}");
        }
        let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(move || ask(query, 20_000, 1000))).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == whole), "{query}: side by side");
    }
}

#[test]
fn rows_that_are_added_at_the_end_move_no_group() {
    let query = "SELECT id % 97 AS g, min(id) AS first FROM rows GROUP BY id % 97";
    assert_eq!(ask(query, 500, 100), ask(query, 5000, 100));
}

#[test]
fn types_are_those_that_tables_have() {
    let query = "SELECT upper(kind) AS a, arrow_cast(kind, 'Utf8View') AS b, arrow_cast(kind, 'Dictionary(Int32, Utf8)') AS c, \
                 arrow_cast([id], 'LargeList(Int64)') AS d, id AS e, 1.5 AS f, id > 1 AS g FROM rows";
    let batch = ask_with(query, 2, 2, 1 << 28).unwrap().remove(0);
    let kinds: Vec<_> = batch.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(kinds, ["Utf8", "Utf8", "Utf8", "List(Int64)", "Int64", "Float64", "Boolean"]);
}

#[test]
fn mistakes_have_a_place_and_a_way_out() {
    expect!["no column `knid` | did you mean `kind`? | Some((1, 12))"].assert_eq(&told("SELECT id, knid FROM rows"));
    expect!["no column `id` | did you mean `kind`? | Some((1, 8))"].assert_eq(&told("SELECT id,\n  zzz\nFROM kinds"));
    expect!["`r` has no column `knid` | did you mean `kind`? | Some((1, 8))"]
        .assert_eq(&told("SELECT r.knid FROM rows r"));
    expect!["several tables have a column `kind` | say of which: `TABLE.kind` | Some((1, 8))"]
        .assert_eq(&told("SELECT kind FROM rows JOIN kinds ON true"));
    expect!["no table `rowz` | did you mean `rows`? | Some((2, 2))"].assert_eq(&told("SELECT id FROM\n rowz"));
    expect!["no table `elsewhere` | there are `rows`, `kinds` | Some((1, 16))"]
        .assert_eq(&told("SELECT id FROM elsewhere"));
    expect!["expected: end of statement, found: rows |  | Some((1, 16))"].assert_eq(&told("SELECT id FORM rows"));
    expect!["expected: an expression, found: EOF |  | None"].assert_eq(&told("SELECT id FROM rows WHERE"));
    expect!["unknown function `lenght` | did you mean `length`? | Some((1, 8))"]
        .assert_eq(&told("SELECT lenght(kind) AS n FROM rows"));
    expect!["two columns are called `id` | name one anew: `… AS NAME` | None"]
        .assert_eq(&told("SELECT id, id FROM rows"));
    expect!["two columns are called `kind` | name one anew: `… AS NAME` | None"]
        .assert_eq(&told("SELECT rows.kind, kinds.kind FROM rows, kinds"));
    expect!["column `d` would be date32: tables have no such values | `CAST(… AS text)`, `double` or `bigint` gives what they have | None"].assert_eq(&told("SELECT CAST(id AS date) AS d FROM rows"));
    expect!["column `nothing` would be null: tables have no such values | `CAST(… AS text)`, `double` or `bigint` gives what they have | None"].assert_eq(&told("SELECT NULL AS nothing FROM rows"));
    expect!["cannot create filter with non-boolean predicate 'rows.kind' returning Utf8 |  | None"]
        .assert_eq(&told("SELECT id + kind AS n FROM rows WHERE kind"));
    expect!["column in SELECT must be in GROUP BY or an aggregate function |  | Some((1, 22))"]
        .assert_eq(&told("SELECT sum(id) AS s, kind FROM rows"));
    expect!["no query | `SELECT … FROM …` | None"].assert_eq(&told("  "));
}

#[test]
fn what_changes_by_itself_is_refused() {
    for call in ["now()", "current_date", "current_time", "random()", "uuid()"] {
        let name = call.trim_end_matches("()");
        let mistake =
            wrong(&format!("SELECT id FROM rows WHERE id IN (SELECT weight FROM kinds WHERE {call} IS NOT NULL)"));
        assert!(mistake.message.starts_with(&format!("`{name}` gives another value")), "{call}: {mistake}");
    }
    let asked_by_hand = Select::parse("SELECT now() AS t").unwrap();
    assert!(asked_by_hand.columns(&[], false).is_err_and(|mistake| mistake.message.contains("timestamp")));
    for call in ["array_agg(DISTINCT kind)", "string_agg(DISTINCT kind, ',')", "sum(DISTINCT score)"] {
        let mistake = wrong(&format!("SELECT {call} AS x FROM rows"));
        assert!(mistake.message.ends_with("takes its values in no order"), "{call}: {mistake}");
    }
    assert_eq!(ask("SELECT count(DISTINCT kind) AS n FROM rows", 9, 9).lines().nth(3), Some("| 3 |"));
}

#[test]
fn only_a_select_is_answered() {
    for statement in [
        "DROP TABLE rows",
        "CREATE TABLE x AS SELECT 1",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "INSERT INTO rows VALUES (1)",
        "COPY rows TO '/tmp/x.csv'",
        "SET datafusion.execution.batch_size = 1",
        "EXPLAIN SELECT 1",
        "SHOW TABLES",
        "DESCRIBE rows",
    ] {
        let mistake = Select::parse(statement).unwrap_err();
        assert!(mistake.message.ends_with("is no query"), "{statement}: {mistake}");
    }
    assert_eq!(Select::parse("SELECT 1; DROP TABLE rows").unwrap_err().message, "several statements");
    for table in ["'/etc/passwd'", "\"/etc/passwd\"", "information_schema.tables", "datafusion.public.rows"] {
        let mistake = wrong(&format!("SELECT * FROM {table}"));
        assert!(mistake.message.starts_with("no table"), "{table}: {mistake}");
    }
}

#[test]
fn memory_is_bounded_and_the_bound_is_said() {
    let query = "SELECT a.id, b.id AS other FROM rows a JOIN rows b ON a.id = b.id ORDER BY a.score, b.score";
    let Err(Failure::Op(error)) = ask_with(query, 400_000, 8192, 1 << 21) else { panic!("2 MiB are too little") };
    assert!(error.to_string().starts_with("the query needs more than 2 MiB"), "{error}");
    assert_eq!(
        ask_with("SELECT id FROM rows WHERE id < 5", 400_000, 8192, 1 << 21).unwrap().len(),
        1,
        "a stream needs none"
    );
}

#[test]
fn whoever_stops_a_query_stops_it() {
    let tables = [("rows".to_string(), input(&rows(100_000), 1000))];
    let asked = std::cell::Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        if asked.get() > 2 { Err(Failure::Cancelled) } else { Ok(()) }
    };
    let select = Select::parse("SELECT id + 1 AS n FROM rows").unwrap();
    let mut n_rows = 0;
    let ended = select.run(&tables, 1 << 28, &stop, &mut |batch| {
        n_rows += batch.num_rows();
        Ok(())
    });
    assert!(matches!(ended, Err(Failure::Cancelled)));
    assert!(n_rows < 50_000, "{n_rows}");
}
