//! A program for `exec`'s tests: reads an Arrow stream, writes one, and misbehaves on demand. The first argument says what it does.

use std::io::{Write, stdin, stdout};
use std::process::exit;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rows = || {
        let reader = StreamReader::try_new(stdin().lock(), None).expect("a stream comes in");
        let schema = reader.schema();
        let batches: Vec<_> = reader.map(|batch| batch.expect("it is whole")).collect();
        concat_batches(&schema, &batches).expect("of one schema")
    };
    match args[0].as_str() {
        "shout" => say(&[("loud", texts(texts_of(&rows()).into_iter().map(|text| text.to_uppercase())))]),
        "words" => say(&words(&rows())),
        "count" => say(&[("n", Arc::new(Int64Array::from(vec![rows().num_rows() as i64])) as ArrayRef)]),
        "variable" => {
            let value = std::env::var(&args[1]).unwrap_or_else(|_| "none".into());
            say(&[("value", texts(texts_of(&rows()).iter().map(|_| value.clone())))]);
        }
        "fewer" => say(&[("loud", texts(texts_of(&rows()).into_iter().skip(1)))]),
        "number" => say(&[("loud", Arc::new(Int64Array::from_iter_values(0..rows().num_rows() as i64)) as ArrayRef)]),
        "backwards" => {
            let n = rows().num_rows() as i64;
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0..n).rev()));
            say(&[("_row", numbers), ("loud", texts((0..n).map(|n| n.to_string())))]);
        }
        "crash" => {
            let _ = writeln!(std::io::stderr(), "Traceback:\n  the swap file is full");
            exit(7);
        }
        "cut" => {
            let mut bytes = Vec::new();
            let rows = rows();
            let mut writer = StreamWriter::try_new(&mut bytes, &rows.schema()).expect("a schema");
            writer.write(&rows).expect("rows");
            drop(writer);
            stdout().write_all(&bytes[..bytes.len() - 10]).expect("somebody reads");
        }
        "chatter" => writeln!(stdout(), "Loading model…").expect("somebody reads"),
        "hang" => {
            std::fs::write(&args[1], std::process::id().to_string()).expect("a file to say that it runs");
            std::thread::sleep(Duration::from_mins(10));
        }
        other => panic!("unknown trick `{other}`"),
    }
}

fn texts(texts: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(texts))
}

fn texts_of(rows: &RecordBatch) -> Vec<String> {
    rows.column(0).as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_string()).collect()
}

/// Each word by itself; a text that ends with `!` is refused.
fn words(rows: &RecordBatch) -> Vec<(&'static str, ArrayRef)> {
    let numbers = rows.column_by_name("_row").expect("rows have numbers").as_primitive::<Int64Type>().clone();
    let (mut row, mut word, mut reason) = (Vec::new(), Vec::new(), Vec::new());
    for (at, text) in texts_of(rows).iter().enumerate() {
        if text.ends_with('!') {
            row.push(numbers.value(at));
            word.push(None);
            reason.push(Some("it shouts".to_string()));
            continue;
        }
        for piece in text.split_whitespace() {
            row.push(numbers.value(at));
            word.push(Some(piece.to_string()));
            reason.push(None);
        }
    }
    let columns: [ArrayRef; 3] =
        [Arc::new(Int64Array::from(row)), Arc::new(StringArray::from(word)), Arc::new(StringArray::from(reason))];
    ["_row", "word", "_reason"].into_iter().zip(columns).collect()
}

fn say(columns: &[(&str, ArrayRef)]) {
    let rows = RecordBatch::try_from_iter(columns.iter().map(|(name, column)| (*name, column.clone())));
    let rows = rows.expect("columns of one length");
    let mut writer = StreamWriter::try_new(stdout().lock(), &rows.schema()).expect("somebody reads");
    writer.write(&rows).expect("somebody reads");
    writer.finish().expect("somebody reads");
}
