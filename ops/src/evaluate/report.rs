//! The exam as tables: a row a question with all answers side by side, and a row a model with the totals.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use retort_engine::Failure;
use retort_lm::data::Pair;
use retort_lm::gradient::LossSum;

use super::interval::{Bootstrap, Estimate, Series, Statistic};
use crate::score::{exact_match, rouge_l, token_f1};

/// What one model made of one question.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// What it said.
    pub(super) output: String,
    /// Of the answer wanted.
    pub(super) loss: LossSum,
}

/// One model's results.
#[derive(Debug)]
pub(super) struct Side {
    /// A place a question; none where it could not be asked.
    pub(super) marks: Vec<Option<Mark>>,
    /// The judge's verdicts, where there is a judge: none where there is no verdict.
    pub(super) judged: Option<Vec<Option<bool>>>,
    /// Of each general text, where there are any.
    pub(super) general: Option<Vec<LossSum>>,
    /// Whether its losses can be compared with the base's: it has the base's vocabulary.
    pub(super) comparable: bool,
}

/// What decides the columns.
pub(super) struct Shape {
    /// All models, the base first.
    pub(super) models: Vec<String>,
    pub(super) judged: bool,
    pub(super) general: bool,
}

/// All results.
pub(super) struct Exam<'a> {
    pub(super) asked: &'a [Pair],
    /// The base first.
    pub(super) sides: &'a [Side],
    pub(super) shape: &'a Shape,
    pub(super) bootstrap: Bootstrap,
}

impl Shape {
    /// `question`, `answer`, then of each model `…_output`, `…_loss`, `…_f1`, `…_rouge_l`, `…_exact_match`, and with a judge `…_judge`; scores are
    /// null where the question could not be asked.
    pub(super) fn rows_schema(&self) -> SchemaRef {
        let mut fields =
            vec![Field::new("question", DataType::Utf8, false), Field::new("answer", DataType::Utf8, false)];
        let mut scores = vec![
            ("output", DataType::Utf8),
            ("loss", DataType::Float64),
            ("f1", DataType::Float64),
            ("rouge_l", DataType::Float64),
            ("exact_match", DataType::Boolean),
        ];
        if self.judged {
            scores.push(("judge", DataType::Boolean));
        }
        for (name, kind) in scores {
            fields.extend(self.models.iter().map(|model| Field::new(format!("{model}_{name}"), kind.clone(), true)));
        }
        Arc::new(Schema::new(fields))
    }

    /// `model`, `questions`, the mean of each score; then of each score the interval, how much more it is than the base's, and the interval of that. With
    /// general texts their perplexity, and how much more it is than the base's in percent. Null where there is nothing to tell.
    pub(super) fn summary_schema(&self) -> SchemaRef {
        let mut fields =
            vec![Field::new("model", DataType::Utf8, false), Field::new("questions", DataType::Int64, false)];
        let mut add = |name: String| fields.push(Field::new(name, DataType::Float64, true));
        let scores = self.scores();
        scores.iter().for_each(|name| add((*name).to_owned()));
        for name in &scores {
            ["low", "high"].iter().for_each(|end| add(format!("{name}_{end}")));
        }
        for name in scores.iter().filter(|name| **name != "perplexity") {
            ["change", "change_low", "change_high"].iter().for_each(|end| add(format!("{name}_{end}")));
        }
        if self.general {
            for end in ["", "_change", "_change_low", "_change_high"] {
                add(format!("general_perplexity{end}"));
            }
        }
        Arc::new(Schema::new(fields))
    }

    fn scores(&self) -> Vec<&'static str> {
        let mut scores = vec!["loss", "perplexity", "token_f1", "rouge_l", "exact_match"];
        if self.judged {
            scores.push("judge");
        }
        scores
    }
}

impl Exam<'_> {
    pub(super) fn rows(&self) -> Result<RecordBatch, Failure> {
        let texts = |text: fn(&Pair) -> &str| StringArray::from_iter_values(self.asked.iter().map(text));
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(texts(|pair| &pair.question)), Arc::new(texts(|pair| &pair.answer))];
        for side in self.sides {
            let outputs = side.marks.iter().map(|own| own.as_ref().map(|own| &*own.output));
            columns.push(Arc::new(outputs.collect::<StringArray>()));
        }
        for side in self.sides {
            let losses = side.marks.iter().map(|own| own.as_ref()?.loss.mean());
            columns.push(Arc::new(losses.collect::<Float64Array>()));
        }
        for score in [token_f1, rouge_l] {
            for side in self.sides {
                columns.push(Arc::new(self.scores(side, score).collect::<Float64Array>()));
            }
        }
        for side in self.sides {
            columns.push(Arc::new(self.scores(side, exact_match).collect::<BooleanArray>()));
        }
        columns.extend(self.sides.iter().filter_map(|side| {
            let judged = side.judged.as_ref()?.iter().copied();
            Some(Arc::new(judged.collect::<BooleanArray>()) as ArrayRef)
        }));
        RecordBatch::try_new(self.shape.rows_schema(), columns).map_err(Failure::op)
    }

    pub(super) fn summary(&self) -> Result<RecordBatch, Failure> {
        let counts = self.sides.iter().map(|side| side.marks.iter().flatten().count() as i64);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(&self.shape.models)),
            Arc::new(Int64Array::from_iter_values(counts)),
        ];
        let mut own = self.over_questions(false);
        own.insert(1, own[0].iter().map(|loss| loss.map(|loss| loss.map(f64::exp))).collect());
        let mut changes = self.over_questions(true);
        for change in &mut changes {
            // Of the base itself.
            change[0] = None;
        }
        for (loss, side) in changes[0].iter_mut().zip(self.sides) {
            *loss = loss.filter(|_| side.comparable);
        }
        columns.extend(own.iter().map(|score| column(score, |one| one.value)));
        for score in &own {
            columns.extend([column(score, |one| one.low), column(score, |one| one.high)]);
        }
        for change in &changes {
            columns.extend(three(change));
        }
        columns.extend(self.general());
        RecordBatch::try_new(self.shape.summary_schema(), columns).map_err(Failure::op)
    }

    /// Estimates a score (loss, token F1, ROUGE-L, exact match, the judge's) and a model: means, or how much more they are than the base's.
    fn over_questions(&self, changes: bool) -> Vec<Vec<Option<Estimate>>> {
        let series: Vec<Vec<Series>> = self.sides.iter().map(|side| self.series(side)).collect();
        let n_scores = series.first().map_or(0, Vec::len);
        let statistics: Vec<Statistic<'_>> = (0..n_scores)
            .flat_map(|score| series.iter().map(move |own| (own, score)))
            .map(|(own, score)| {
                if changes {
                    Statistic::Difference(&own[score], &series[0][score])
                } else {
                    Statistic::Mean(&own[score])
                }
            })
            .collect();
        let estimates = self.bootstrap.estimates(self.asked.len(), &statistics);
        estimates.chunks(self.sides.len()).map(<[_]>::to_vec).collect()
    }

    /// The columns of the general texts: perplexity, and its change in percent.
    fn general(&self) -> Vec<ArrayRef> {
        if !self.shape.general {
            return Vec::new();
        }
        let texts = |side: &Side| -> Series {
            let texts = side.general.iter().flatten();
            texts.map(|sum| (sum.tokens > 0).then_some((sum.nll, sum.tokens as f64))).collect()
        };
        let all: Vec<Series> = self.sides.iter().map(texts).collect();
        let n = all[0].len();
        let means: Vec<Statistic<'_>> = all.iter().map(Statistic::Mean).collect();
        let changes: Vec<Statistic<'_>> = all.iter().map(|own| Statistic::Difference(own, &all[0])).collect();
        let perplexity =
            self.bootstrap.estimates(n, &means).into_iter().map(|loss| loss.map(|loss| loss.map(f64::exp)));
        let percent = |more: f64| 100.0 * more.exp_m1();
        let changes = self.bootstrap.estimates(n, &changes).into_iter().zip(self.sides).enumerate();
        let changes: Vec<_> = changes
            .map(|(at, (change, side))| change.filter(|_| at > 0 && side.comparable).map(|change| change.map(percent)))
            .collect();
        let mut columns = vec![column(&perplexity.collect::<Vec<_>>(), |one| one.value)];
        columns.extend(three(&changes));
        columns
    }

    /// A series a score: loss, token F1, ROUGE-L, exact match, and with a judge its verdicts.
    fn series(&self, side: &Side) -> Vec<Series> {
        let one = |score: f64| (score, 1.0);
        let number = |yes: bool| f64::from(u8::from(yes));
        let loss = |mark: &Mark| (mark.loss.tokens > 0).then_some((mark.loss.nll, mark.loss.tokens as f64));
        let mut all = vec![
            side.marks.iter().map(|mark| mark.as_ref().and_then(loss)).collect(),
            self.scores(side, token_f1).map(|score| score.map(one)).collect(),
            self.scores(side, rouge_l).map(|score| score.map(one)).collect(),
            self.scores(side, exact_match).map(|score| score.map(|score| one(number(score)))).collect(),
        ];
        all.extend(side.judged.iter().map(|judged| judged.iter().map(|yes| yes.map(|yes| one(number(yes)))).collect()));
        all
    }

    /// A score of each answer against the one wanted.
    fn scores<T>(&self, side: &Side, score: impl Fn(&str, &str) -> T) -> impl Iterator<Item = Option<T>> {
        let pairs = self.asked.iter().zip(&side.marks);
        pairs.map(move |(pair, own)| own.as_ref().map(|own| score(&own.output, &pair.answer)))
    }
}

/// A value a model.
fn column(estimates: &[Option<Estimate>], of: impl Fn(&Estimate) -> f64) -> ArrayRef {
    Arc::new(estimates.iter().map(|one| one.as_ref().map(&of)).collect::<Float64Array>())
}

fn three(estimates: &[Option<Estimate>]) -> [ArrayRef; 3] {
    [column(estimates, |one| one.value), column(estimates, |one| one.low), column(estimates, |one| one.high)]
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array as _, AsArray as _};
    use arrow::datatypes::Float64Type;

    use super::*;

    fn mark(output: &str, nll: f64, tokens: u64) -> Option<Mark> {
        Some(Mark { output: output.into(), loss: LossSum { nll, tokens } })
    }

    fn side(marks: Vec<Option<Mark>>, judged: &[Option<bool>], general: &[(f64, u64)]) -> Side {
        let general = general.iter().map(|&(nll, tokens)| LossSum { nll, tokens }).collect();
        Side { marks, judged: Some(judged.to_vec()), general: Some(general), comparable: true }
    }

    #[test]
    fn totals_weigh_losses_by_tokens_and_scores_by_questions() {
        let pair = |answer: &str| Pair { question: "q".into(), answer: answer.into() };
        let asked = [pair("one two"), pair("three"), pair("long")];
        let base = vec![mark("one", 6.0, 3), mark("none", 2.0, 1), None];
        let tuned = vec![mark("one two", 2.0, 3), mark("Three.", 0.0, 1), None];
        let mut sides = vec![
            side(base, &[Some(false), Some(false), None], &[(10.0, 10), (0.0, 0)]),
            side(tuned.clone(), &[Some(true), None, None], &[(11.0, 10), (0.0, 0)]),
            side(tuned, &[None, None, None], &[(20.0, 10), (0.0, 0)]),
        ];
        sides[2].comparable = false;
        let shape = Shape { models: ["base", "tuned", "other"].map(String::from).into(), judged: true, general: true };
        let bootstrap = Bootstrap { resamples: 200, confidence: 0.95, seed: 1 };
        let exam = Exam { asked: &asked, sides: &sides, shape: &shape, bootstrap };
        let summary = exam.summary().unwrap();
        let column = |name: &str| summary[name].as_primitive::<Float64Type>().values().to_vec();
        assert_eq!(column("loss")[..2], [2.0, 0.5]);
        assert_eq!(column("perplexity")[..2], [2f64.exp(), 0.5f64.exp()]);
        assert!((column("token_f1")[0] - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(column("rouge_l")[1], 1.0);
        assert_eq!(column("exact_match")[..2], [0.0, 1.0]);
        assert_eq!((column("exact_match_low")[1], column("exact_match_high")[1]), (1.0, 1.0), "both are right");
        assert_eq!(column("exact_match_change")[1], 1.0);
        assert!(summary["loss_change"].is_null(0) && summary["loss_change"].is_null(2), "nothing to compare");
        assert_eq!(column("loss_change")[1], -1.5);
        assert_eq!(column("loss_change_low")[1], -2.0);
        assert!((column("loss_change_high")[1] + 4.0 / 3.0).abs() < 1e-9);
        assert_eq!((column("judge")[1], column("judge_change")[1]), (1.0, 1.0), "of the question that both have");
        assert!(summary["judge"].is_null(2));
        assert!((column("general_perplexity")[0] - 1f64.exp()).abs() < 1e-12);
        assert!((column("general_perplexity_change")[1] - 100.0 * (0.1f64.exp() - 1.0)).abs() < 1e-9);
        assert!(summary["general_perplexity_change"].is_null(2));
        let rows = exam.rows().unwrap();
        assert_eq!(rows.num_rows(), 3);
        assert_eq!(rows["base_loss"].as_primitive::<Float64Type>().value(0), 2.0);
        assert!(rows["tuned_output"].is_null(2) && rows["tuned_exact_match"].is_null(2));
        assert!(rows["tuned_judge"].as_boolean().value(0) && rows["other_judge"].is_null(0));
    }
}
