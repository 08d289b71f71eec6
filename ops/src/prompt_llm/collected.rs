//! What a row's answer looks like, and answers on their way to it.

use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use retort_engine::{Answers, Failure};

use super::tally::Tally;

/// One answer of the model.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) output: String,
    pub(super) finish_reason: String,
    pub(super) n_prompt_tokens: Option<u64>,
    pub(super) n_output_tokens: Option<u64>,
    /// Tokens of the prompt that were computed for another answer.
    pub(super) shared: u64,
    /// What it cost, where the server's prices are known and it counts tokens.
    pub(super) cost: Option<f64>,
}

/// An answer, and why it is refused if it is.
type Taken = (Said, Option<String>);

/// Answers by row, handed on when a row has all of its own.
pub(super) struct Collected<'a> {
    rows: Mutex<Vec<Vec<Option<Taken>>>>,
    tally: Mutex<Tally>,
    out: &'a Answers<'a>,
    schema: SchemaRef,
}

impl<'a> Collected<'a> {
    pub(super) fn new(n_rows: usize, out: &'a Answers<'a>, n: usize) -> Self {
        let rows = Mutex::new(vec![vec![None; n]; n_rows]);
        Self { rows, tally: Mutex::default(), out, schema: answer_schema(n) }
    }

    /// Takes answer `index` of a row; with a reason it is refused.
    pub(super) fn put(&self, row: usize, index: usize, said: Said, refused: Option<String>) -> Result<(), Failure> {
        self.tally().count(&said);
        let whole: Option<Vec<Taken>> = {
            let mut rows = self.rows.lock().expect("no thread panics while it holds the answers");
            rows[row][index] = Some((said, refused));
            rows[row].iter().cloned().collect()
        };
        whole.map_or(Ok(()), |answers| self.hand_on(row, &answers))
    }

    /// Refuses a row before it is asked.
    pub(super) fn reject(&self, row: usize, reason: impl Into<String>) -> Result<(), Failure> {
        self.out.reject(row, reason)
    }

    pub(super) fn retried(&self, said: &Said) {
        self.tally().retried(said);
    }

    /// What all came to, in one line.
    pub(super) fn told(&self) -> Option<String> {
        self.tally().line()
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().expect("no thread panics while it counts")
    }

    fn hand_on(&self, row: usize, answers: &[Taken]) -> Result<(), Failure> {
        let of_several = answers.len() > 1;
        let reason = |(index, (_, refused)): (usize, &Taken)| {
            let reason = refused.as_ref()?;
            Some(if of_several { format!("answer {index}: {reason}") } else { reason.clone() })
        };
        let reasons: Vec<String> = answers.iter().enumerate().filter_map(reason).collect();
        let kept: Vec<(u64, &Said)> =
            (0..).zip(answers).filter(|(_, taken)| taken.1.is_none()).map(|(index, taken)| (index, &taken.0)).collect();
        match (kept.is_empty(), reasons.is_empty()) {
            (true, _) => self.out.reject(row, reasons.join("; ")),
            (false, true) => self.out.keep(row, self.batch(&kept)?),
            (false, false) => self.out.keep_some(row, self.batch(&kept)?, reasons.join("; ")),
        }
    }

    fn batch(&self, answers: &[(u64, &Said)]) -> Result<RecordBatch, Failure> {
        let text = |of: fn(&Said) -> &String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(answers.iter().map(|(_, said)| of(said))))
        };
        let count = |of: fn(&Said) -> Option<u64>| -> ArrayRef {
            Arc::new(answers.iter().map(|(_, said)| of(said)).collect::<UInt64Array>())
        };
        let mut columns = vec![
            text(|said| &said.output),
            text(|said| &said.finish_reason),
            count(|said| said.n_prompt_tokens),
            count(|said| said.n_output_tokens),
        ];
        if self.schema.fields().len() > columns.len() {
            columns.push(Arc::new(UInt64Array::from_iter_values(answers.iter().map(|(index, _)| *index))));
        }
        RecordBatch::try_new(self.schema.clone(), columns).map_err(Failure::op)
    }
}

/// The columns that `n` answers to a row add.
pub(super) fn answer_schema(n: usize) -> SchemaRef {
    let mut fields = vec![
        Field::new("output", DataType::Utf8, false),
        Field::new("finish_reason", DataType::Utf8, false),
        Field::new("n_prompt_tokens", DataType::UInt64, true),
        Field::new("n_output_tokens", DataType::UInt64, true),
    ];
    if n > 1 {
        fields.push(Field::new("sample_index", DataType::UInt64, false));
    }
    Arc::new(Schema::new(fields))
}
