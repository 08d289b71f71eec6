//! Tables of data (CSV, TSV, JSON Lines, Parquet) to documents: where a column holds texts, a document a row; else one table.

use std::collections::BTreeMap;

use retort_cache::parquet;
use serde_json::{Map, Value};

use super::format::{Format, extension};
use super::reader::Unreadable;
use super::{encoding, markdown, text, tidy};
use crate::document::{Document, Kind, Raw};

/// The columns that hold a row's text, in the order in which they are looked for.
const TEXTS: &[&str] = &["text", "content", "body", "markdown"];

/// Reads a file of records: documents, with the row's number from 1 where there is one a row.
pub(super) fn read(name: &str, bytes: &[u8]) -> Result<Vec<(Option<usize>, Document)>, Unreadable> {
    let table = match extension(name).as_str() {
        _ if bytes.starts_with(b"PAR1") => of_parquet(bytes)?,
        "csv" => of_separated(&encoding::decode(bytes, None), separator(bytes))?,
        "tsv" | "tab" => of_separated(&encoding::decode(bytes, None), '\t')?,
        _ => of_lines(&encoding::decode(bytes, None))?,
    };
    let column = |wanted: &[&str]| {
        wanted.iter().find_map(|name| table.columns.iter().position(|column| column.eq_ignore_ascii_case(name)))
    };
    let Some(texts) = column(TEXTS) else {
        let mut rows = vec![table.columns.clone()];
        rows.extend(table.rows);
        return Ok(vec![(None, Document::assemble(None, vec![Raw::new(Kind::Table, 0, tidy::table(&rows))]))]);
    };
    let titles = column(&["title", "name"]);
    let is_markdown = table.columns[texts].eq_ignore_ascii_case("markdown");
    let mut documents = Vec::new();
    for (number, row) in table.rows.iter().enumerate() {
        let cell = |column: usize| row.get(column).map_or("", String::as_str);
        let title = titles.map(|column| tidy::inline(cell(column), false)).filter(|title| !title.is_empty());
        let mut document = if is_markdown {
            markdown::read(cell(texts).as_bytes())?
        } else {
            Document::assemble(None, text::blocks(cell(texts)))
        };
        document.title = title.or(document.title);
        // A row without text is a row without document, as an empty line is no paragraph.
        if !document.blocks.is_empty() {
            documents.push((Some(number + 1), document));
        }
    }
    if documents.is_empty() { Err(Unreadable::NoText(Format::Records)) } else { Ok(documents) }
}

/// Rows of text.
struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// The separator that the first line has most of.
fn separator(bytes: &[u8]) -> char {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(b"");
    let count = |separator: char| line.split(|byte| *byte == separator as u8).count();
    [',', ';', '\t', '|'].into_iter().rev().max_by_key(|separator| count(*separator)).unwrap_or(',')
}

/// RFC 4180: fields in quotes may hold separators, line ends, and quotes said twice. The first row names the columns.
fn of_separated(text: &str, separator: char) -> Result<Table, Unreadable> {
    let mut rows: Vec<Vec<String>> = vec![Vec::new()];
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if quoted {
            match char {
                '"' if chars.next_if_eq(&'"').is_some() => field.push('"'),
                '"' => quoted = false,
                _ => field.push(char),
            }
        } else if char == '"' && field.is_empty() {
            quoted = true;
        } else if char == separator || char == '\n' {
            let row = rows.last_mut().expect("there is a row from the start");
            row.push(std::mem::take(&mut field).trim_end_matches('\r').to_owned());
            if char == '\n' {
                rows.push(Vec::new());
            }
        } else {
            field.push(char);
        }
    }
    if quoted {
        return Err(Unreadable::malformed(Format::Records, "it ends inside quotes: the file is cut short"));
    }
    rows.last_mut().expect("there is a row from the start").push(field);
    rows.retain(|row| row.iter().any(|field| !field.trim().is_empty()));
    let mut rows = rows.into_iter();
    let columns = rows.next().ok_or(Unreadable::Empty)?;
    Ok(Table { columns, rows: rows.collect() })
}

/// JSON Lines: an object a line; columns in the order in which they come.
fn of_lines(text: &str) -> Result<Table, Unreadable> {
    let mut columns: Vec<String> = Vec::new();
    let mut places = BTreeMap::<String, usize>::new();
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let object: Map<String, Value> = serde_json::from_str(line)
            .map_err(|error| Unreadable::malformed(Format::Records, format!("line {}: {error}", number + 1)))?;
        let mut row = vec![String::new(); columns.len()];
        for (key, value) in object {
            let column = *places.entry(key).or_insert_with_key(|key| {
                columns.push(key.clone());
                columns.len() - 1
            });
            row.resize(columns.len().max(row.len()), String::new());
            row[column] = match value {
                Value::String(text) => text,
                Value::Null => String::new(),
                other => other.to_string(),
            };
        }
        rows.push(row);
    }
    if columns.len() > 1000 {
        return Err(Unreadable::malformed(Format::Records, "it has more than 1000 columns"));
    }
    Ok(Table { columns, rows })
}

fn of_parquet(bytes: &[u8]) -> Result<Table, Unreadable> {
    let malformed = |error: String| Unreadable::malformed(Format::Records, error);
    let (schema, batches) = parquet::of_bytes(bytes.to_vec()).map_err(|error| malformed(error.to_string()))?;
    let columns = schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut table = Table { columns, rows: Vec::new() };
    let options = arrow::util::display::FormatOptions::default().with_null("");
    let mut size = 0_u64;
    for batch in batches {
        let batch = batch.map_err(|error| malformed(error.to_string()))?;
        let formatters =
            batch.columns().iter().map(|column| arrow::util::display::ArrayFormatter::try_new(column, &options));
        let formatters = formatters.collect::<Result<Vec<_>, _>>().map_err(|error| malformed(error.to_string()))?;
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = formatters.iter().map(|column| column.value(row).to_string()).collect();
            size += cells.iter().map(|cell| cell.len() as u64).sum::<u64>();
            if size > super::reader::MAX_BYTES {
                return Err(Unreadable::TooLarge("document"));
            }
            table.rows.push(cells);
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(name: &str, content: &str) -> Vec<(Option<usize>, Option<String>, String)> {
        let documents = read(name, content.as_bytes()).unwrap();
        documents.into_iter().map(|(number, document)| (number, document.title, document.text)).collect()
    }

    #[test]
    fn tables_stay_tables() {
        let table = "| key | value |\n| --- | --- |\n| a | b, \"c\" d |\n| e | |";
        assert_eq!(
            texts("a.csv", "key,value\r\na,\"b, \"\"c\"\"\nd\"\r\n\r\ne,\r\n"),
            [(None, None, table.to_owned())]
        );
        assert_eq!(texts("a.tsv", "key\tvalue\na\tb, \"c\" d\ne\t"), [(None, None, table.to_owned())]);
        let lines = "{\"key\": \"a\", \"value\": \"b, \\\"c\\\"\\nd\"}\n\n{\"key\":\"e\",\"value\":null}\n";
        assert_eq!(texts("a.jsonl", lines), [(None, None, table.to_owned())]);
    }

    #[test]
    fn texts_are_documents() {
        let lines =
            "{\"id\": 7, \"text\": \"One.\\n\\nTwo.\", \"title\": \"T\"}\n{\"text\": \"\"}\n{\"text\": \"Three.\"}\n";
        assert_eq!(
            texts("a.jsonl", lines),
            [(Some(1), Some("T".into()), "One.\n\nTwo.".into()), (Some(3), None, "Three.".into())]
        );
        assert_eq!(texts("a.csv", "Title;Content\nT;\"# not; a heading\"\n").len(), 1);
    }

    #[test]
    fn cut_files_are_refused() {
        let reason = |name: &str, content: &str| read(name, content.as_bytes()).unwrap_err().to_string();
        assert!(reason("a.csv", "a,b\n1,\"2").ends_with("it ends inside quotes: the file is cut short"));
        assert!(reason("a.jsonl", "{\"a\": 1}\n{\"a\": ").contains("line 2: EOF"));
    }
}
