//! Runs a row operator over a table: projects, looks up, hands over what is left, writes rows down as they come, carries.
//!
//! | step | what holds after it |
//! |---|---|
//! | window | some thousand rows are in memory with their keys, remembered answers beside them |
//! | count | before the first row is asked, it is known how many of the input are remembered |
//! | apply | every row of the window has an answer; of a remembered kind it is durable soon (`log`), and surely when the run ends |
//! | write | the window's rows are on their way to the output in input order (`behind`), refused ones to `rejects` |
//!
//! Memory is bounded by the window, in rows and in bytes; of long answers so many are made at a time as have room (`Pace`), while those
//! before them are written. Rows with equal
//! keys are asked once: those that are asked together, and of a kind that is remembered all.

mod behind;
mod log;
mod pieces;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::compute::{concat_batches, take, take_record_batch};
use arrow::datatypes::SchemaRef;
use rayon::prelude::*;
use retort_cache::{KeptRows, Lengths, RowAnswer, RowKey, RowMemo, StoreError, TableWriter, row_keys};

use self::log::Log;
use self::pieces::Pieces;
use crate::check::{carried, project};
use crate::event::EventKind;
use crate::question::Question;
use crate::verify::rows_that_differ;
use crate::{Answers, Batching, Cx, Failure, Input, Memo, Node, RowBatch, RowOp, World};

/// What becomes of remembered rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remembered {
    /// They are taken, and new ones are added.
    Recall,
    /// Every row is asked, and its new answer remembered.
    Renew,
    /// Every row is asked, and what is remembered stays as it is.
    Leave,
}

/// Rows that are in memory at a time, at most.
const WINDOW: usize = 4096;
/// Bytes of their input, roughly: there are fewer rows where these are long.
const WINDOW_BYTES: usize = 16 << 20;
/// Bytes of the answers to a piece, roughly.
const ANSWER_BYTES: usize = 2 << 20;
/// Rows of a piece: what they have apart from bytes of answers is a kilobyte or two.
const PIECE: usize = 1024;
/// Pieces that are answered side by side, at most.
const PIECES: usize = 8;
/// Windows whose keys are kept from when they were counted until they are asked: 32 MB.
const WINDOWS_AHEAD: usize = 256;

/// How many rows the operator would be asked: those that are not remembered, equal ones once.
pub(crate) fn count_to_do(
    op: &dyn RowOp,
    question: &Question,
    input: &Input,
    world: World<'_>,
) -> Result<u64, Failure> {
    let job = Job::new(op, question, input)?;
    let memo = world.store.rows(job.op_id, job.adds.clone())?;
    let mut asked = HashSet::new();
    for window in windows(input) {
        let keys = job.keys_of(&window?)?;
        let known = memo.knows(&keys)?;
        asked.extend(keys.into_iter().zip(known).filter(|(_, known)| !known).map(|(key, _)| key));
    }
    Ok(asked.len() as u64)
}

/// The keys of the rows that have no answer.
fn unknown(keys: &[RowKey], known: &[Option<RowAnswer>]) -> impl Iterator<Item = RowKey> {
    keys.iter().zip(known).filter(|(_, known)| known.is_none()).map(|(key, _)| *key)
}

fn count(known: &[bool]) -> u64 {
    known.iter().filter(|known| **known).count() as u64
}

/// What a row operator was asked and refused.
pub(crate) struct Counts {
    pub asked: u64,
    pub rejects: u64,
    /// Rows that are remembered with another answer than the operator gave now.
    pub two_answers: u64,
}

/// Answers every row of the node's input into the writers `out` and `rejects`.
pub(crate) fn run(
    node: &Node,
    op: &dyn RowOp,
    question: &Question,
    out: &mut [Box<dyn TableWriter>],
    remembered: Remembered,
    cx: &Cx<'_>,
) -> Result<Counts, Failure> {
    let input = &question.inputs.0[0].1;
    let job = Job::new(op, question, input)?;
    let memo = match op.memo() {
        Memo::Remember => Some(cx.world.store.rows(job.op_id, job.adds.clone())?),
        Memo::Recompute => None,
    };
    let recall = memo.as_deref().filter(|_| remembered == Remembered::Recall);
    let compare = memo.as_deref().filter(|_| remembered != Remembered::Recall);
    let log = memo.as_deref().filter(|_| remembered != Remembered::Leave);
    let mut counts = Counts { asked: 0, rejects: 0, two_answers: 0 };
    let write = |piece: [RecordBatch; 2]| Ok(out.iter_mut().zip(&piece).try_for_each(|(out, rows)| out.write(rows))?);
    Log::beside(log, |log| {
        let pass = Pass { job: &job, recall, compare, log, done: AtomicU64::new(0), of: input.rows(), cx };
        behind::beside(write, |hand| {
            counts = pass.answer_all(node, input, hand)?;
            Ok(())
        })
    })?;
    Ok(counts)
}

/// What a row of the input came to.
pub(crate) enum Outcome {
    /// So many rows of the output, and perhaps one of `rejects`.
    Answered { kept: u64, rejected: bool },
    /// It was remembered once, and is not any more.
    Forgotten,
}

/// Says what each row of the input came to, in order, until `each` breaks off: from memory, or by asking once more what is cheap.
pub(crate) fn outcomes(
    op: &dyn RowOp,
    question: &Question,
    cx: &Cx<'_>,
    each: &mut dyn FnMut(u64, Outcome) -> ControlFlow<()>,
) -> Result<(), Failure> {
    let input = &question.inputs.0[0].1;
    let job = Job::new(op, question, input)?;
    let memo = match op.memo() {
        Memo::Remember => Some(cx.world.store.rows(job.op_id, job.adds.clone())?),
        Memo::Recompute => None,
    };
    let pass =
        Pass { job: &job, recall: None, compare: None, log: None, done: AtomicU64::new(0), of: input.rows(), cx };
    // The row that is looked for may be among the first: few are asked again at a time, many remembered ones looked up.
    let step = if memo.is_some() { WINDOW } else { op.batching().rows.saturating_mul(4).clamp(1, WINDOW) };
    let mut row = 0;
    for window in windows(input) {
        let window = window?;
        for begin in (0..window.num_rows()).step_by(step) {
            let window = window.slice(begin, step.min(window.num_rows() - begin));
            let keys = job.keys_of(&window)?;
            let answers = match &memo {
                Some(memo) => memo.recall(&keys)?,
                None => pass.answer(&window, &keys, vec![None; keys.len()])?.0.into_iter().map(Some).collect(),
            };
            for answer in answers {
                let outcome = answer.map_or(Outcome::Forgotten, |answer| Outcome::Answered {
                    kept: answer.kept().map_or(0, |rows| rows.num_rows() as u64),
                    rejected: answer.reason().is_some(),
                });
                if each(row, outcome).is_break() {
                    return Ok(());
                }
                row += 1;
            }
        }
    }
    Ok(())
}

/// A row operator on its input's columns.
struct Job<'a> {
    op: &'a dyn RowOp,
    op_id: retort_cache::RecipeId,
    reads: Vec<usize>,
    adds: SchemaRef,
    carried: Vec<usize>,
}

impl<'a> Job<'a> {
    fn new(op: &'a dyn RowOp, question: &Question, input: &Input) -> Result<Self, Failure> {
        let unchecked = |problem: crate::Problem| Failure::op(problem.message);
        let projected = project(op, &input.schema).map_err(unchecked)?;
        let adds = op.adds(&projected).map_err(unchecked)?;
        let reads = projected.fields().iter().map(|field| input.schema.index_of(field.name()));
        Ok(Job {
            op,
            op_id: question.recipe.op_id(),
            reads: reads.collect::<Result<_, _>>().expect("projected from it"),
            carried: carried(op, &input.schema, &adds),
            adds,
        })
    }

    fn keys_of(&self, batch: &RecordBatch) -> Result<Vec<RowKey>, Failure> {
        Ok(row_keys(self.op_id, &self.projected(batch)?)?)
    }

    fn projected(&self, batch: &RecordBatch) -> Result<RecordBatch, StoreError> {
        batch.project(&self.reads).map_err(StoreError::table("project", "input"))
    }
}

/// How many rows of a window are answered before they are written, and how many such pieces side by side: it goes by how long the
/// answers were so far.
struct Pace {
    rows: usize,
    pieces: usize,
    /// No fewer rows: what the operator likes to be handed at a time.
    least: usize,
    /// No more pieces.
    most: usize,
}

impl Pace {
    fn of(op: &dyn RowOp) -> Self {
        let Batching { rows, parallel } = op.batching();
        let least = rows.clamp(64, WINDOW);
        Pace { rows: least.max(256), pieces: 1, least, most: if parallel { PIECES } else { 1 } }
    }

    /// Sets what comes next by the bytes that so many answers took, and doubles the rows at most: the next may be longer.
    fn after(&mut self, answers: usize, bytes: usize) {
        let each = (bytes / answers.max(1)).max(1);
        self.rows = (ANSWER_BYTES / each).min(self.rows * 2).clamp(self.least, PIECE.max(self.least));
        self.pieces = (PIECES * ANSWER_BYTES / (each * self.rows)).clamp(1, self.most);
    }
}

/// The input in windows: `WINDOW` rows, whatever batches they come in, or fewer that are long.
fn windows(input: &Input) -> impl Iterator<Item = Result<RecordBatch, StoreError>> {
    let mut batches = Some(input.batches());
    let mut rest = RecordBatch::new_empty(input.schema.clone());
    let schema = input.schema.clone();
    std::iter::from_fn(move || {
        let mut stream = match batches.take()? {
            Ok(stream) => stream,
            Err(error) => return Some(Err(error)),
        };
        let (mut parts, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while rows < WINDOW && bytes < WINDOW_BYTES {
            if rest.num_rows() == 0 {
                match stream.next() {
                    Some(Ok(batch)) => rest = batch,
                    Some(Err(error)) => return Some(Err(error)),
                    None => break,
                }
            }
            let each = (Lengths::of(&rest).all() / rest.num_rows().max(1)).max(1);
            let room = ((WINDOW_BYTES - bytes) / each).max(1);
            let n = rest.num_rows().min(WINDOW - rows).min(room);
            parts.push(rest.slice(0, n));
            bytes += n * each;
            rest = rest.slice(n, rest.num_rows() - n);
            rows += n;
        }
        batches = Some(Ok(stream));
        (rows > 0).then(|| concat_batches(&schema, &parts).map_err(StoreError::table("join batches of", "input")))
    })
}

/// Batches of rows by what they take: who takes longest is not begun last, when the other cores have nothing left to do.
fn longest_first<'a>(
    op: &dyn RowOp,
    projected: &RecordBatch,
    batches: impl Iterator<Item = &'a [usize]>,
) -> Vec<&'a [usize]> {
    let lengths = Lengths::of(projected);
    let effort = |row: &usize| op.effort(projected, *row).unwrap_or_else(|| lengths.row(*row) as u64);
    let mut batches: Vec<_> = batches.collect();
    batches.sort_by_cached_key(|rows| Reverse(rows.iter().map(effort).sum::<u64>()));
    batches
}

/// One walk over an input: what is the same for all its windows.
struct Pass<'a> {
    job: &'a Job<'a>,
    /// Whose answers are taken, and whose are compared with the new ones.
    recall: Option<&'a dyn RowMemo>,
    compare: Option<&'a dyn RowMemo>,
    /// Where answers are made durable, if they are.
    log: Option<&'a Log>,
    /// Rows that have an answer.
    done: AtomicU64,
    of: u64,
    cx: &'a Cx<'a>,
}

/// Some rows with their answers.
struct Piece {
    rows: RecordBatch,
    /// The number of the first among all of the input.
    first: u64,
    answers: Vec<RowAnswer>,
    /// What was remembered of them, where that is compared.
    before: Option<Vec<Option<RowAnswer>>>,
    /// How many the operator was asked.
    asked: u64,
}

impl Pass<'_> {
    /// Answers all rows and hands over, in order, what comes of them.
    fn answer_all(
        &self,
        node: &Node,
        input: &Input,
        hand: &mut dyn FnMut([RecordBatch; 2]) -> Result<(), Failure>,
    ) -> Result<Counts, Failure> {
        let mut counts = Counts { asked: 0, rejects: 0, two_answers: 0 };
        let mut pace = Pace::of(self.job.op);
        let mut take = |piece: Result<Piece, Failure>, pace: &mut Pace| {
            let Piece { rows, first, answers, before, asked } = piece?;
            counts.asked += asked;
            if let Some(before) = before {
                counts.two_answers += rows_that_differ(&before, &answers, first, counts.two_answers > 0, self.cx);
            }
            let [kept, rejects] = output(self.job, node, &rows, &answers)?;
            counts.rejects += rejects.num_rows() as u64;
            pace.after(answers.len(), Lengths::of(&kept).all());
            drop(answers);
            hand([kept, rejects])
        };
        std::thread::scope(|scope| {
            let mut pieces = Pieces::new(scope, self.log);
            let mut keys_ahead = VecDeque::new();
            // While all rows are remembered they are looked up once; how many are is said before the first is asked.
            let mut is_told = self.recall.is_none();
            let mut first = 0;
            for (n, window) in windows(input).enumerate() {
                let window = window?;
                let window_keys = keys_ahead.pop_front().map_or_else(|| self.job.keys_of(&window), Ok)?;
                let mut at = 0;
                while at < window_keys.len() {
                    self.cx.check()?;
                    while pieces.len() >= pace.pieces {
                        take(pieces.pop().expect("there is a piece"), &mut pace)?;
                    }
                    let rows = window.slice(at, pace.rows.min(window_keys.len() - at));
                    let (keys, rest) = window_keys[at..].split_at(rows.num_rows());
                    let mut known = self.recall(keys)?;
                    if self.recall.is_some() && pieces.ask_any(unknown(keys, &known)) {
                        while let Some(piece) = pieces.pop() {
                            take(piece, &mut pace)?;
                        }
                        pieces.settle();
                        known = self.recall(keys)?;
                    }
                    if let (Some(memo), false) = (self.recall, is_told) {
                        is_told =
                            self.tell(memo, &known, rest, || self.look_ahead(memo, input, n + 1, &mut keys_ahead))?;
                    }
                    let before = self.compare.map(|memo| memo.recall(keys)).transpose()?;
                    let asks: Vec<RowKey> = unknown(keys, &known).collect();
                    let (keys, of) = (keys.to_vec(), first);
                    (first, at) = (first + keys.len() as u64, at + keys.len());
                    pieces.push(pace.pieces == 1, asks.into_iter(), move || {
                        let (answers, asked) = self.answer(&rows, &keys, known)?;
                        Ok(Piece { rows, first: of, answers, before, asked })
                    });
                }
            }
            while let Some(piece) = pieces.pop() {
                take(piece, &mut pace)?;
            }
            if !is_told {
                self.cx.emit(EventKind::Recalled { rows: 0, of: self.of });
            }
            Ok::<_, Failure>(())
        })?;
        Ok(counts)
    }

    fn recall(&self, keys: &[RowKey]) -> Result<Vec<Option<RowAnswer>>, StoreError> {
        self.recall.map_or_else(|| Ok(vec![None; keys.len()]), |memo| memo.recall(keys))
    }

    /// Tells how many rows are remembered, and that no more are if one of these is not: then those of the `rest` of its window, and `ahead`
    /// of it, are counted. Whether all is told.
    fn tell(
        &self,
        memo: &dyn RowMemo,
        known: &[Option<RowAnswer>],
        rest: &[RowKey],
        ahead: impl FnOnce() -> Result<u64, Failure>,
    ) -> Result<bool, Failure> {
        let here = known.iter().flatten().count() as u64;
        let mut remembered = here + self.done.fetch_add(here, Ordering::Relaxed);
        let is_last = here < known.len() as u64;
        if is_last {
            let ahead = count(&memo.knows(rest)?) + ahead()?;
            remembered = ahead + self.done.fetch_add(ahead, Ordering::Relaxed);
        }
        let is_told = is_last || remembered == self.of;
        let kind = EventKind::Recalled { rows: remembered, of: self.of };
        self.cx.emit(if is_told { kind } else { EventKind::Progress { done: remembered, of: self.of } });
        Ok(is_told)
    }

    /// How many rows from the window number `from` on are remembered. Their keys are kept, as far as memory is bounded.
    fn look_ahead(
        &self,
        memo: &dyn RowMemo,
        input: &Input,
        from: usize,
        keys_ahead: &mut VecDeque<Vec<RowKey>>,
    ) -> Result<u64, Failure> {
        let mut known = 0;
        for window in windows(input).skip(from) {
            self.cx.check()?;
            let keys = self.job.keys_of(&window?)?;
            known += count(&memo.knows(&keys)?);
            if keys_ahead.len() < WINDOWS_AHEAD {
                keys_ahead.push_back(keys);
            }
        }
        Ok(known)
    }

    /// The answer to every row of a window, and how many the operator was asked.
    fn answer(
        &self,
        window: &RecordBatch,
        keys: &[RowKey],
        mut answers: Vec<Option<RowAnswer>>,
    ) -> Result<(Vec<RowAnswer>, u64), Failure> {
        if answers.iter().all(Option::is_some) {
            return Ok((answers.into_iter().flatten().collect(), 0));
        }
        // A row that asks the same as an earlier one takes its answer.
        let mut first: HashMap<RowKey, usize> = HashMap::new();
        let mut ask = Vec::new();
        for (row, key) in keys.iter().enumerate() {
            if answers[row].is_none() && !first.contains_key(key) {
                first.insert(*key, row);
                ask.push(row);
            }
        }
        let batching = self.job.op.batching();
        let size = batching.rows.clamp(1, WINDOW);
        let projected = self.job.projected(window)?;
        let found: Mutex<Vec<(usize, RowAnswer)>> = Mutex::new(Vec::new());
        let apply = |rows: &[usize]| -> Result<(), Failure> {
            let answers = self.apply(&projected, keys, rows)?;
            found.lock().expect("no thread panics while it holds the answers").extend(answers);
            Ok(())
        };
        if batching.parallel {
            longest_first(self.job.op, &projected, ask.chunks(size))
                .into_par_iter()
                .with_max_len(1)
                .try_for_each(apply)?;
        } else {
            ask.chunks(size).try_for_each(apply)?;
        }
        for (row, answer) in found.into_inner().expect("no thread panicked") {
            answers[row] = Some(answer);
        }
        for row in 0..keys.len() {
            if answers[row].is_none() {
                let same = answers[first[&keys[row]]].clone();
                answers[row] = same;
                self.done.fetch_add(1, Ordering::Relaxed);
            }
        }
        let answers = answers.into_iter().map(|answer| answer.expect("every row was asked or known")).collect();
        Ok((answers, ask.len() as u64))
    }

    /// Hands some rows to the operator and collects their answers.
    fn apply(
        &self,
        projected: &RecordBatch,
        keys: &[RowKey],
        rows: &[usize],
    ) -> Result<Vec<(usize, RowAnswer)>, Failure> {
        self.cx.check()?;
        let indices = UInt64Array::from_iter_values(rows.iter().map(|row| *row as u64));
        let batch = take_record_batch(projected, &indices).map_err(|error| Failure::op(error.to_string()))?;
        let batch = RowBatch { batch, keys: rows.iter().map(|row| keys[*row]).collect() };
        let on_answer = |row: usize, answer: &RowAnswer| -> Result<(), Failure> {
            if let Some(log) = self.log {
                log.add(batch.keys[row], answer.clone())?;
            }
            let done = 1 + self.done.fetch_add(1, Ordering::Relaxed);
            self.cx.emit(EventKind::Progress { done, of: self.of });
            Ok(())
        };
        let slots = Mutex::new(vec![None; rows.len()]);
        let answers = Answers { schema: self.job.adds.clone(), slots, taken: &on_answer };
        self.job.op.apply(&batch, &answers, self.cx)?;
        let slots = answers.slots.into_inner().expect("no thread panicked");
        let mut found = Vec::with_capacity(rows.len());
        for (row, slot) in rows.iter().zip(slots) {
            let answer = slot.ok_or_else(|| Failure::op(format!("the operator left row {row} without an answer")))?;
            found.push((*row, answer));
        }
        Ok(found)
    }
}

/// The rows that a window gives, in input order, and those that are refused.
fn output(
    job: &Job<'_>,
    node: &Node,
    window: &RecordBatch,
    answers: &[RowAnswer],
) -> Result<[RecordBatch; 2], Failure> {
    let broken = |error: arrow::error::ArrowError| Failure::op(error.to_string());
    let (mut parents, mut added, mut refused, mut reasons) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (row, answer) in answers.iter().enumerate() {
        if let Some(rows) = answer.kept() {
            parents.extend(std::iter::repeat_n(row as u64, rows.num_rows()));
            added.push(rows);
        }
        if let Some(reason) = answer.reason() {
            refused.push(row as u64);
            reasons.push(reason);
        }
    }
    let added = KeptRows::join(&job.adds, added).map_err(broken)?;
    let parents = UInt64Array::from(parents);
    let carried = job.carried.iter().map(|column| take(window.column(*column), &parents, None));
    let mut columns = carried.collect::<Result<Vec<ArrayRef>, _>>().map_err(broken)?;
    columns.extend(added.columns().iter().cloned());
    let kept = RecordBatch::try_new(node.ports[0].1.clone(), columns).map_err(broken)?;

    let rejects = &node.ports[1].1;
    let refused = UInt64Array::from(refused);
    let mut columns = Vec::new();
    for field in &rejects.fields()[..rejects.fields().len() - 1] {
        let column = window.column_by_name(field.name()).expect("rejects have the input's columns");
        columns.push(take(column, &refused, None).map_err(broken)?);
    }
    columns.push(std::sync::Arc::new(StringArray::from(reasons)));
    Ok([kept, RecordBatch::try_new(rejects.clone(), columns).map_err(broken)?])
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;

    use super::*;
    use crate::Problem;

    #[test]
    fn few_rows_at_a_time_where_answers_are_long() {
        let mut pace = Pace { rows: 256, pieces: 1, least: 64, most: 8 };
        pace.after(256, 256 * 10);
        assert_eq!((pace.rows, pace.pieces), (512, 8), "no more than twice as many");
        (0..9).for_each(|_| pace.after(100, 100 * 10));
        assert_eq!((pace.rows, pace.pieces), (PIECE, 8));
        pace.after(100, 100 * 10_000);
        assert!((180..230).contains(&pace.rows) && pace.pieces == 8, "{} of {}", pace.pieces, pace.rows);
        pace.after(2, 2 * 300_000);
        assert_eq!((pace.rows, pace.pieces), (64, 1), "what the operator likes to have, and no more beside it");
        pace.after(64, 64 * 100_000);
        assert_eq!((pace.rows, pace.pieces), (64, 2));
    }

    /// Knows what its rows take, or leaves it to their texts.
    struct Knows(bool);

    impl RowOp for Knows {
        fn reads(&self) -> Vec<String> {
            Vec::new()
        }

        fn adds(&self, _reads: &Schema) -> Result<SchemaRef, Problem> {
            Ok(SchemaRef::new(Schema::empty()))
        }

        fn effort(&self, _rows: &RecordBatch, row: usize) -> Option<u64> {
            self.0.then_some(row as u64)
        }

        fn apply(&self, _rows: &RowBatch, _out: &Answers<'_>, _cx: &Cx<'_>) -> Result<(), Failure> {
            Ok(())
        }
    }

    #[test]
    fn batches_that_take_longest_come_first() {
        let lengths = [1_usize, 2, 0, 90, 40, 40, 7];
        let texts: ArrayRef = std::sync::Arc::new(StringArray::from_iter_values(lengths.map(|n| "x".repeat(n))));
        let numbers: ArrayRef = std::sync::Arc::new(UInt64Array::from_iter_values(0..7));
        let batch = RecordBatch::try_from_iter([("n", numbers), ("text", texts)]).unwrap();
        let rows: Vec<usize> = (0..7).collect();
        let order = |op: &dyn RowOp| longest_first(op, &batch, rows.chunks(2));
        assert_eq!(order(&Knows(false)), [&[2, 3][..], &[4, 5], &[0, 1], &[6]]);
        assert_eq!(order(&Knows(true)), [&[4, 5][..], &[6], &[2, 3], &[0, 1]]);
    }
}
