//! Rows that were refused, by reason: reasons that differ in numbers and names only are one.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};

/// Rows that were refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason as one of them has it.
    pub reason: String,
    /// How many.
    pub rows: usize,
}

/// The reasons of a table of rejects, the most frequent first.
pub fn refused(batch: &RecordBatch) -> Vec<Refused> {
    let Some(reasons) = batch.column_by_name("reason").and_then(|array| array.as_string_opt::<i32>()) else {
        return Vec::new();
    };
    let mut found: BTreeMap<String, Refused> = BTreeMap::new();
    for reason in (0..batch.num_rows()).filter(|row| reasons.is_valid(*row)).map(|row| reasons.value(row)) {
        let one = found.entry(kind(reason)).or_insert_with(|| Refused { reason: reason.into(), rows: 0 });
        one.rows += 1;
    }
    let mut all: Vec<_> = found.into_values().collect();
    all.sort_by(|one, other| other.rows.cmp(&one.rows).then_with(|| one.reason.cmp(&other.reason)));
    all
}

/// A reason without its numbers, and without what stands in quotes or backticks.
fn kind(reason: &str) -> String {
    let mut kind = String::new();
    let mut quoted = None;
    for character in reason.chars() {
        match (quoted, character) {
            (Some(quote), _) if quote == character => quoted = None,
            (Some(_), _) => {}
            (None, '`' | '"' | '“') => {
                quoted = Some(if character == '“' { '”' } else { character });
                kind.push('…');
            }
            (None, digit) if digit.is_numeric() => {
                if !kind.ends_with('#') {
                    kind.push('#');
                }
            }
            (None, other) => kind.push(other),
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    #[test]
    fn reasons_that_differ_in_numbers_and_names_are_one() {
        let reasons = [
            "the prompt has 812 tokens, more than 512",
            "`a.pdf` is encrypted",
            "the prompt has 1044 tokens, more than 512",
            "`b.pdf` is encrypted",
            "the prompt has 7 tokens, more than 512",
            "empty",
        ];
        let column: ArrayRef = Arc::new(StringArray::from(reasons.to_vec()));
        let batch = RecordBatch::try_from_iter([("reason", column)]).unwrap();
        let said: Vec<_> = refused(&batch).into_iter().map(|one| (one.rows, one.reason)).collect();
        assert_eq!(said, [(3, reasons[0].into()), (2, reasons[1].into()), (1, "empty".into())]);
    }
}
