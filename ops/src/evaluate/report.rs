//! The exam as tables: a row a question with both answers side by side, and a row a model with the totals.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use retort_engine::Failure;
use retort_lm::data::Pair;
use retort_lm::gradient::LossSum;

use crate::score::{exact_match, rouge_l, token_f1};

/// What one model made of one question.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// What it said.
    pub(super) output: String,
    /// Of the answer wanted.
    pub(super) loss: LossSum,
}

/// Both models' results, a place a question; none where it could not be asked.
pub(super) struct Exam<'a> {
    pub(super) asked: &'a [Pair],
    pub(super) base: &'a [Option<Mark>],
    pub(super) tuned: &'a [Option<Mark>],
}

/// `question`, `answer`, then for `base` and `tuned` each `output`, `loss`, `f1`, `rouge_l`, `exact_match`; scores are
/// null where the question could not be asked.
pub(super) fn rows_schema() -> SchemaRef {
    let mut fields = vec![Field::new("question", DataType::Utf8, false), Field::new("answer", DataType::Utf8, false)];
    let scores = [
        ("output", DataType::Utf8),
        ("loss", DataType::Float64),
        ("f1", DataType::Float64),
        ("rouge_l", DataType::Float64),
        ("exact_match", DataType::Boolean),
    ];
    for (name, kind) in scores {
        for model in ["base", "tuned"] {
            fields.push(Field::new(format!("{model}_{name}"), kind.clone(), true));
        }
    }
    Arc::new(Schema::new(fields))
}

/// `model` (`base`, `tuned`), `questions`, and the mean of each score; null where no question could be asked.
pub(super) fn summary_schema() -> SchemaRef {
    let mut fields = vec![Field::new("model", DataType::Utf8, false), Field::new("questions", DataType::Int64, false)];
    let means = ["loss", "perplexity", "token_f1", "rouge_l", "exact_match"];
    fields.extend(means.map(|name| Field::new(name, DataType::Float64, true)));
    Arc::new(Schema::new(fields))
}

impl Exam<'_> {
    pub(super) fn rows(&self) -> Result<RecordBatch, Failure> {
        let texts = |text: fn(&Pair) -> &str| StringArray::from_iter_values(self.asked.iter().map(text));
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(texts(|pair| &pair.question)), Arc::new(texts(|pair| &pair.answer))];
        let sides = [self.base, self.tuned];
        for side in sides {
            columns
                .push(Arc::new(side.iter().map(|own| own.as_ref().map(|own| &*own.output)).collect::<StringArray>()));
        }
        for side in sides {
            columns.push(Arc::new(side.iter().map(|own| own.as_ref()?.loss.mean()).collect::<Float64Array>()));
        }
        for score in [token_f1, rouge_l] {
            for side in sides {
                columns.push(Arc::new(self.scores(side, score).into_iter().collect::<Float64Array>()));
            }
        }
        for side in sides {
            columns.push(Arc::new(self.scores(side, exact_match).into_iter().collect::<BooleanArray>()));
        }
        RecordBatch::try_new(rows_schema(), columns).map_err(Failure::op)
    }

    pub(super) fn summary(&self) -> Result<RecordBatch, Failure> {
        let sides = [self.base, self.tuned];
        let counts = sides.map(|side| side.iter().flatten().count() as i64);
        let losses = sides.map(|side| {
            let mut sum = LossSum::default();
            side.iter().flatten().for_each(|own| sum.add(own.loss));
            sum.mean()
        });
        let mean = |score: &dyn Fn(&str, &str) -> f64| -> ArrayRef {
            let means = sides.map(|side| {
                let all: Vec<f64> = self.scores(side, score).into_iter().flatten().collect();
                (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
            });
            Arc::new(Float64Array::from(means.to_vec()))
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["base", "tuned"])),
            Arc::new(Int64Array::from(counts.to_vec())),
            Arc::new(Float64Array::from(losses.to_vec())),
            Arc::new(Float64Array::from(losses.map(|loss| loss.map(f64::exp)).to_vec())),
            mean(&token_f1),
            mean(&rouge_l),
            mean(&|answer, wanted| f64::from(u8::from(exact_match(answer, wanted)))),
        ];
        RecordBatch::try_new(summary_schema(), columns).map_err(Failure::op)
    }

    /// A score of each answer against the one wanted.
    fn scores<T>(&self, side: &[Option<Mark>], score: impl Fn(&str, &str) -> T) -> Vec<Option<T>> {
        let pairs = self.asked.iter().zip(side);
        pairs.map(|(pair, own)| own.as_ref().map(|own| score(&own.output, &pair.answer))).collect()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray as _;
    use arrow::datatypes::Float64Type;

    use super::*;

    #[test]
    fn totals_weigh_losses_by_tokens_and_scores_by_questions() {
        let pair = |answer: &str| Pair { question: "q".into(), answer: answer.into() };
        let mark = |output: &str, nll, tokens| Some(Mark { output: output.into(), loss: LossSum { nll, tokens } });
        let asked = [pair("one two"), pair("three"), pair("long")];
        let base = [mark("one", 6.0, 3), mark("none", 2.0, 1), None];
        let tuned = [mark("one two", 2.0, 3), mark("Three.", 0.0, 1), None];
        let exam = Exam { asked: &asked, base: &base, tuned: &tuned };
        let summary = exam.summary().unwrap();
        let column = |name: &str| summary[name].as_primitive::<Float64Type>().values().to_vec();
        assert_eq!(column("loss"), [2.0, 0.5]);
        assert_eq!(column("perplexity"), [2f64.exp(), 0.5f64.exp()]);
        assert!((column("token_f1")[0] - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(column("rouge_l")[1], 1.0);
        assert_eq!(column("exact_match"), [0.0, 1.0]);
        let rows = exam.rows().unwrap();
        assert_eq!(rows.num_rows(), 3);
        assert_eq!(rows["base_loss"].as_primitive::<Float64Type>().value(0), 2.0);
        assert!(rows["tuned_output"].is_null(2) && rows["tuned_exact_match"].is_null(2));
    }
}
