//! An exam: scores with intervals, and questions with what each model said.

use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

/// Scores of which less is better.
const LESS_IS_BETTER: [&str; 3] = ["loss", "perplexity", "general_perplexity"];

/// The summary of an exam.
#[derive(Clone, Debug)]
pub struct Exam {
    /// The models, the base first.
    pub models: Vec<String>,
    /// Questions that each was asked.
    pub questions: Vec<u64>,
    /// A score a row.
    pub scores: Vec<Score>,
}

/// A score of all models.
#[derive(Clone, Debug)]
pub struct Score {
    /// Its column.
    pub name: String,
    /// A value a model.
    pub values: Vec<Option<Value>>,
    /// How much more it is than the base's, a value a model.
    pub changes: Vec<Option<Value>>,
}

/// A number and, where it is known, between what it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// The number.
    pub value: f64,
    /// From and to.
    pub interval: Option<(f64, f64)>,
}

/// What a difference is, as far as its interval tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// Better than the base.
    Better,
    /// Worse than the base.
    Worse,
    /// It may be chance.
    Nothing,
}

/// A question with the answers of all models.
#[derive(Clone, Debug)]
pub struct Example {
    /// The question.
    pub question: String,
    /// The answer wanted.
    pub answer: String,
    /// Model, what it said, and its token F1.
    pub said: Vec<(String, String, f64)>,
}

impl Exam {
    /// The exam that a table of the port `summary` is; none where it is another.
    pub fn read(batch: &RecordBatch) -> Option<Self> {
        let models = batch.column_by_name("model")?.as_string_opt::<i32>()?;
        let models: Vec<String> = models.iter().map(|name| name.unwrap_or_default().to_owned()).collect();
        let questions = numbers(batch, "questions")?;
        let schema = batch.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let derived = |name: &str| {
            let ends = ["_low", "_high", "_change"].iter().filter_map(|end| name.strip_suffix(end));
            ends.into_iter().any(|own| names.contains(&own))
        };
        let of = |name: &str| -> Vec<Option<Value>> { values(batch, name) };
        let scores = names
            .iter()
            .filter(|name| !["model", "questions"].contains(name) && !derived(name))
            .map(|name| Score { name: (*name).to_owned(), values: of(name), changes: of(&format!("{name}_change")) });
        let questions = (0..models.len()).map(|row| questions.value(row) as u64).collect();
        Some(Self { questions, scores: scores.filter(|score| !score.values.is_empty()).collect(), models })
    }

    /// A line a score as texts: its name, and of each model the value, and of each but the base the change.
    pub fn lines(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let mut head = vec!["score".to_owned()];
        for (at, model) in self.models.iter().enumerate() {
            head.push(model.clone());
            if at > 0 {
                let of = if self.models.len() > 2 { format!("{model} ") } else { String::new() };
                head.push(format!("{of}against {}", self.models[0]));
            }
        }
        let line = |score: &Score| {
            let mut cells = vec![score.name.clone()];
            for at in 0..self.models.len() {
                cells.push(told(score.values[at], false, ""));
                if at > 0 {
                    cells.push(told(score.changes.get(at).copied().flatten(), true, score.unit()));
                }
            }
            cells
        };
        (head, self.scores.iter().map(line).collect())
    }
}

impl Score {
    /// What its change is counted in: that of the perplexity of general texts is a share.
    pub fn unit(&self) -> &'static str {
        if self.name == "general_perplexity" { " %" } else { "" }
    }

    /// What the change of a model tells.
    pub fn tells(&self, model: usize) -> Tells {
        let Some(Value { interval: Some((low, high)), .. }) = self.changes.get(model).copied().flatten() else {
            return Tells::Nothing;
        };
        let more = match (low > 0.0, high < 0.0) {
            (true, _) => true,
            (_, true) => false,
            _ => return Tells::Nothing,
        };
        if more == LESS_IS_BETTER.contains(&self.name.as_str()) { Tells::Worse } else { Tells::Better }
    }
}

/// `0.412 (0.321 to 0.501)`; empty where there is none.
fn told(value: Option<Value>, signed: bool, unit: &str) -> String {
    let Some(Value { value, interval }) = value else { return String::new() };
    let number = |value: f64| if signed { format!("{}{}", sign(value), brief(value)) } else { brief(value) };
    match interval {
        Some((low, high)) => format!("{}{unit} ({} to {})", number(value), number(low), number(high)),
        None => format!("{}{unit}", number(value)),
    }
}

fn sign(value: f64) -> &'static str {
    if value > 0.0 { "+" } else { "" }
}

/// A number with as many digits as can mean something.
pub fn brief(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Questions that show what changed most, first those that gained, then those that lost, each by how much token F1 of the last model and the
/// first differ; none where the table is not that of an exam.
pub fn examples(batch: &RecordBatch, gained: usize, lost: usize) -> Vec<Example> {
    let text = |name: &str| batch.column_by_name(name).and_then(|array| array.as_string_opt::<i32>());
    let (Some(questions), Some(answers)) = (text("question"), text("answer")) else { return Vec::new() };
    let schema = batch.schema();
    let models: Vec<&str> = schema.fields().iter().filter_map(|field| field.name().strip_suffix("_output")).collect();
    let columns: Option<Vec<_>> = models
        .iter()
        .map(|model| Some((*model, text(&format!("{model}_output"))?, numbers(batch, &format!("{model}_f1"))?)))
        .collect();
    let Some(columns) = columns.filter(|columns| columns.len() > 1) else { return Vec::new() };
    let asked = |row: &usize| columns.iter().all(|(_, said, f1)| said.is_valid(*row) && f1.is_valid(*row));
    let gain = |row: &usize| columns[columns.len() - 1].2.value(*row) - columns[0].2.value(*row);
    let mut rows: Vec<usize> = (0..batch.num_rows()).filter(asked).collect();
    rows.sort_by(|one, other| gain(other).total_cmp(&gain(one)));
    let n_lost = rows.iter().filter(|row| gain(row) < 0.0).count().min(lost);
    let (first, last) = rows.split_at(rows.len() - n_lost);
    first
        .iter()
        .take(gained)
        .chain(last.iter().rev())
        .map(|row| Example {
            question: questions.value(*row).to_owned(),
            answer: answers.value(*row).to_owned(),
            said: columns
                .iter()
                .map(|(model, said, f1)| ((*model).to_owned(), said.value(*row).to_owned(), f1.value(*row)))
                .collect(),
        })
        .collect()
}

fn values(batch: &RecordBatch, name: &str) -> Vec<Option<Value>> {
    let Some(own) = numbers(batch, name) else { return Vec::new() };
    let ends = numbers(batch, &format!("{name}_low")).zip(numbers(batch, &format!("{name}_high")));
    let interval = |row: usize| {
        let (low, high) = ends.as_ref()?;
        (low.is_valid(row) && high.is_valid(row)).then(|| (low.value(row), high.value(row)))
    };
    let value = |row: usize| own.is_valid(row).then(|| Value { value: own.value(row), interval: interval(row) });
    (0..batch.num_rows()).map(value).collect()
}

fn numbers(batch: &RecordBatch, name: &str) -> Option<Float64Array> {
    let array = batch.column_by_name(name).filter(|array| array.data_type().is_numeric())?;
    Some(cast(array, &DataType::Float64).ok()?.as_primitive::<Float64Type>().clone())
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn floats(values: &[Option<f64>]) -> ArrayRef {
        Arc::new(Float64Array::from(values.to_vec()))
    }

    pub(in super::super) fn summary() -> RecordBatch {
        let columns: [(&str, ArrayRef); 10] = [
            ("model", Arc::new(StringArray::from(vec!["base", "tu<ned"]))),
            ("questions", Arc::new(Int64Array::from(vec![13, 13]))),
            ("loss", floats(&[Some(3.0), Some(2.0)])),
            ("token_f1", floats(&[Some(0.125), Some(0.5)])),
            ("token_f1_low", floats(&[Some(0.1), Some(0.4)])),
            ("token_f1_high", floats(&[Some(0.2), Some(0.6)])),
            ("token_f1_change", floats(&[None, Some(0.375)])),
            ("token_f1_change_low", floats(&[None, Some(0.2)])),
            ("token_f1_change_high", floats(&[None, Some(0.5)])),
            ("loss_change", floats(&[None, Some(-1.0)])),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    pub(in super::super) fn rows() -> RecordBatch {
        let texts = |values: [&str; 3]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
        let columns: [(&str, ArrayRef); 6] = [
            ("question", texts(["q0", "q1 <i>", "q2"])),
            ("answer", texts(["a0", "a1", "a2"])),
            ("base_output", texts(["b0", "b1", "b2"])),
            ("tuned_output", texts(["t0", "t1 <script>", "t2"])),
            ("base_f1", floats(&[Some(0.5), Some(0.0), None])),
            ("tuned_f1", floats(&[Some(0.25), Some(1.0), None])),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn a_summary_is_told_with_intervals_and_changes() {
        let exam = Exam::read(&summary()).unwrap();
        let (head, lines) = exam.lines();
        assert_eq!(head, ["score", "base", "tu<ned", "against base"]);
        assert_eq!(lines[0], ["loss", "3.000", "2.000", "-1.000"]);
        assert_eq!(
            lines[1],
            ["token_f1", "0.125 (0.100 to 0.200)", "0.500 (0.400 to 0.600)", "+0.375 (+0.200 to +0.500)"]
        );
        let general = Score { name: "general_perplexity".into(), ..exam.scores[1].clone() };
        let general = Exam { scores: vec![general], ..exam.clone() };
        assert_eq!(general.lines().1[0][3], "+0.375 % (+0.200 to +0.500)");
        assert_eq!(general.scores[0].tells(1), Tells::Worse, "more of it was forgotten");
        assert_eq!((exam.scores[1].tells(1), exam.scores[0].tells(1)), (Tells::Better, Tells::Nothing));
        assert!(Exam::read(&rows()).is_none());
    }

    #[test]
    fn examples_show_the_largest_gains_and_losses() {
        let found = examples(&rows(), 5, 5);
        assert_eq!(found.iter().map(|one| one.question.as_str()).collect::<Vec<_>>(), ["q1 <i>", "q0"]);
        assert_eq!(found[0].said[1], ("tuned".into(), "t1 <script>".into(), 1.0));
        assert_eq!(examples(&rows(), 1, 0).len(), 1);
        assert!(examples(&summary(), 5, 5).is_empty());
    }
}
