//! A training's log: what was measured at which step, by phase.

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

use super::plot::{Line, Plot};

/// Columns that say where a row stands, and measure nothing.
const PLACES: [&str; 3] = ["step", "epoch", "tokens"];

/// A log, read.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// What was measured, in the order of the columns.
    pub measures: Vec<Measure>,
    /// The phases by name, with the step at which each began.
    pub phases: Vec<(String, f64)>,
    /// What was noted, with the phase and the step.
    pub notes: Vec<(String, f64, String)>,
}

/// A value that was measured again and again in one phase.
#[derive(Clone, Debug)]
pub struct Measure {
    /// The column.
    pub name: String,
    /// The phase; empty where there are none.
    pub phase: String,
    /// Steps and values, in order.
    pub points: Vec<(f64, f64)>,
}

impl Log {
    /// The log that a table is; none where it has no steps, or nothing was measured.
    pub fn read(batch: &RecordBatch) -> Option<Self> {
        let steps = numbers(batch.column_by_name("step")?.as_ref())?;
        let texts = |name: &str| batch.column_by_name(name).and_then(|array| array.as_string_opt::<i32>());
        let (phases, notes) = (texts("phase"), texts("note"));
        let phase = |row: usize| phases.map_or("", |phases| phases.value(row));
        let mut log = Log::default();
        for row in 0..batch.num_rows() {
            if log.phases.last().is_none_or(|(name, _)| name != phase(row)) {
                log.phases.push((phase(row).to_owned(), steps.value(row)));
            }
            if let Some(notes) = notes.filter(|notes| notes.is_valid(row)) {
                log.notes.push((phase(row).to_owned(), steps.value(row), notes.value(row).to_owned()));
            }
        }
        for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
            let Some(values) = numbers(array.as_ref()).filter(|_| !PLACES.contains(&field.name().as_str())) else {
                continue;
            };
            for row in (0..batch.num_rows()).filter(|row| values.is_valid(*row) && values.value(*row).is_finite()) {
                log.add(field.name(), phase(row), (steps.value(row), values.value(row)));
            }
        }
        (!log.measures.is_empty()).then_some(log)
    }

    fn add(&mut self, name: &str, phase: &str, point: (f64, f64)) {
        let own = |measure: &&mut Measure| measure.name == name && measure.phase == phase;
        match self.measures.iter_mut().find(own) {
            Some(measure) => measure.points.push(point),
            None => self.measures.push(Measure { name: name.into(), phase: phase.into(), points: vec![point] }),
        }
    }

    /// The losses.
    pub fn losses(&self) -> impl Iterator<Item = &Measure> {
        self.measures.iter().filter(|measure| measure.name.contains("loss"))
    }

    /// All losses in one plot: a colour a column, a mark where a phase begins.
    pub fn loss_plot(&self) -> Option<Plot> {
        self.plot("loss", &|name| name.contains("loss"))
    }

    /// Every other measure in a plot of its own.
    pub fn other_plots(&self) -> Vec<Plot> {
        let mut seen = BTreeSet::new();
        let names = self.measures.iter().map(|measure| measure.name.as_str());
        let others = names.filter(|name| !name.contains("loss")).filter(|name| seen.insert(*name));
        others.filter_map(|other| self.plot(&other.replace('_', " "), &|name| name == other)).collect()
    }

    fn plot(&self, title: &str, wanted: &dyn Fn(&str) -> bool) -> Option<Plot> {
        let mut names: Vec<&str> = Vec::new();
        let mut lines = Vec::new();
        for measure in self.measures.iter().filter(|measure| wanted(&measure.name)) {
            let known = names.iter().position(|name| *name == measure.name);
            let color = known.unwrap_or_else(|| {
                names.push(&measure.name);
                names.len() - 1
            });
            // What is measured seldom, as on held-out questions, is dotted; a phase goes on in the colour of the one before.
            let name = known.is_none().then(|| measure.name.replace('_', " "));
            lines.push(Line { name, color, points: measure.points.clone(), dots: measure.points.len() <= FEW });
        }
        let marks = if self.phases.len() > 1 || self.phases.iter().any(|(name, _)| !name.is_empty()) {
            self.phases.clone()
        } else {
            Vec::new()
        };
        let plot = Plot { title: title.into(), lines, marks };
        (plot.points() > 1).then_some(plot)
    }
}

/// So few points are shown as points.
const FEW: usize = 40;

fn numbers(array: &dyn Array) -> Option<Float64Array> {
    if !array.data_type().is_numeric() {
        return None;
    }
    Some(cast(array, &DataType::Float64).ok()?.as_primitive::<Float64Type>().clone())
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    /// Two phases with a hole.
    pub(in super::super) fn log() -> RecordBatch {
        let columns: [(&str, ArrayRef); 5] = [
            ("phase", Arc::new(StringArray::from(vec!["text", "text", "pa<irs", "pa<irs"]))),
            ("step", Arc::new(Int64Array::from(vec![0, 10, 10, 20]))),
            ("loss", Arc::new(Float64Array::from(vec![None, Some(3.0), None, Some(f64::NAN)]))),
            ("eval_loss", Arc::new(Float64Array::from(vec![Some(4.0), Some(3.5), Some(3.5), Some(2.5)]))),
            ("note", Arc::new(StringArray::from(vec![None, None, None, Some("kept step 20")]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn a_log_is_read_by_phase_and_holes_are_left_out() {
        let log = Log::read(&log()).unwrap();
        let said: Vec<_> =
            log.measures.iter().map(|one| format!("{} {} {:?}", one.phase, one.name, one.points)).collect();
        assert_eq!(
            said,
            [
                "text loss [(10.0, 3.0)]",
                "text eval_loss [(0.0, 4.0), (10.0, 3.5)]",
                "pa<irs eval_loss [(10.0, 3.5), (20.0, 2.5)]"
            ]
        );
        assert_eq!(log.phases, [("text".into(), 0.0), ("pa<irs".into(), 10.0)]);
        assert_eq!(log.notes[0].2, "kept step 20");
        assert_eq!(log.loss_plot().unwrap().lines.iter().filter(|line| line.name.is_some()).count(), 2);
        let none = RecordBatch::try_from_iter([("step", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        assert!(Log::read(&none).is_none());
    }
}
