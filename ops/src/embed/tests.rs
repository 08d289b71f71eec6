//! What `embed` reads and refuses; its vectors are tested where the encoder is, its rows in `tests/suite/embed.rs`.

use std::path::Path;

use super::*;

fn built(with: serde_json::Value) -> Result<Operator, Problem> {
    let config: Embed = serde_json::from_value(with).unwrap();
    config.build(&Env { base: Path::new(".") })
}

#[test]
fn it_reads_a_column_of_text_and_adds_one_of_vectors() {
    let Ok(Operator::Rows(op)) = built(serde_json::json!({"encoder": {"weights": "file:a"}, "column": "answer"}))
    else {
        panic!("it is a row operator");
    };
    assert_eq!(op.reads(), ["answer"]);
    let schema = |kind: DataType| Schema::new(vec![Field::new("answer", kind, true)]);
    let added = op.adds(&schema(DataType::Utf8)).unwrap();
    assert_eq!((added.field(0).name().as_str(), added.field(0).data_type()), ("embedding", &DataType::List(item())));
    assert_eq!(op.adds(&schema(DataType::Int64)).unwrap_err().message, "column `answer` is Int64, not text");
}

#[test]
fn a_server_is_no_encoder() {
    let problem = built(serde_json::json!({"encoder": {"server": "http://a/v1", "name": "b"}})).err().unwrap();
    assert_eq!(problem.message, "a model behind a `server` cannot be used here: its `weights` are needed");
}
