//! Training by several processes that `mpirun` started: each holds the base and takes passes of every step.
//!
//! Rank 0 runs the pipeline and is the only one that learns: it hands out passes and the adapter, and sums what comes back in the order of the
//! passes, so the adapter is the one that it would have made alone, to the bit. The others know nothing from one step to the next. Of
//! the model they read the file; between processes go only the adapter and its gradients.
//!
//! Nobody waits in MPI itself: its waiting takes a whole core, and rank 0 has to see that it is to stop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use mpi::datatype::Equivalence;
use mpi::point_to_point::{Destination, MatchedReceiveVec, Source};
use mpi::topology::{Communicator, Process, SimpleCommunicator};
use mpi::{Rank, Tag, Threading};
use retort_engine::Cx;
use retort_lm::LmError;
use retort_lm::gradient::{LossSum, Segment};
use retort_lm::kernels::Buffer;
use retort_lm::lora::{Adapter, Grads, LoraConfig, Place};
use retort_lm::model::{Keep, Model};
use retort_lm::train::{Pass, Passed, Replicas};
use serde::{Deserialize, Serialize};

use crate::models::{self, LoadedModel};

/// A message to a rank: there are passes to take. Its answer: that it listens, since who sends much to a dead process waits for ever. Then the
/// work, and the adapter's values.
const WORK: Tag = 1;
/// A message to a rank: there is no more to do. Its answer: that it goes.
const END: Tag = 2;
/// A message to rank 0: what came of a pass.
const DONE: Tag = 3;
/// What a message says of which the tag is enough.
const NOTHING: &[u8] = &[0];
/// How long a process sleeps before it looks again whether a message is there: a pass takes thousands of times as long.
const NAP: Duration = Duration::from_micros(200);

/// Naps until a rank that does not go is left behind, some ten seconds.
const PATIENCE: u32 = 50_000;

/// How many processes there are, where there are several.
static SIZE: OnceLock<Rank> = OnceLock::new();
/// Who speaks to them.
static TAKEN: Mutex<()> = Mutex::new(());

/// What a rank is to do; the adapter's values follow.
#[derive(Serialize, Deserialize)]
struct Work {
    base: PathBuf,
    keep: Keep,
    lora: LoraConfig,
    places: Vec<Place>,
    learns: bool,
    passes: Vec<(Vec<Segment>, Option<u64>)>,
}

/// What came of a pass, the bits of a segment's loss and its targets; its gradients follow where they were asked for.
type Answer = Result<Vec<(u64, u64)>, String>;

/// Runs `work` on rank 0 and has the other ranks serve it; gives what it gave, or none on another rank.
///
/// # Errors
///
/// Why MPI cannot be used.
pub fn across<T>(work: impl FnOnce() -> T) -> Result<Option<T>, String> {
    // Finalised when it goes.
    let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Multiple) else {
        return Err("MPI was begun before".into());
    };
    if threading < Threading::Serialized {
        return Err("this MPI does not let a thread other than the first speak".into());
    }
    let world = SimpleCommunicator::world();
    if world.rank() != 0 {
        serve(&world);
        return Ok(None);
    }
    let _ = SIZE.set(world.size());
    let done = work();
    if !dismiss(&world) {
        // To finalise is to wait for all.
        std::mem::forget(universe);
    }
    Ok(Some(done))
}

/// The base of a training in this process and in all others, if there are others.
pub(super) struct Ranks<'a> {
    own: &'a Model,
    base: &'a Path,
    keep: Keep,
    cx: Cx<'a>,
}

impl<'a> Ranks<'a> {
    /// The ranks that have `own`, of the file `base`; none in a process that is alone.
    pub(super) fn of(own: &'a Model, base: &'a Path, keep: Keep, cx: Cx<'a>) -> Option<Self> {
        let size = SIZE.get()?;
        cx.note(format!("trains with {size} processes"));
        Some(Self { own, base, keep, cx })
    }

    /// Hands out the passes of the other ranks.
    fn hand_out(
        &self,
        world: &SimpleCommunicator,
        adapter: &Adapter,
        passes: &[Pass<'_>],
        learns: bool,
    ) -> Result<(), LmError> {
        let values: Vec<f32> = adapter.tensors().iter().flat_map(|tensor| &tensor.values).copied().collect();
        let ranks = 1..world.size().min(passes.len() as Rank);
        ranks.clone().for_each(|rank| world.process_at_rank(rank).send_with_tag(NOTHING, WORK));
        for rank in ranks {
            let own = passes.iter().enumerate().filter(|(at, _)| owner(*at, world.size()) == rank);
            let work = Work {
                base: self.base.to_owned(),
                keep: self.keep,
                lora: adapter.config().clone(),
                places: adapter.places().to_vec(),
                learns,
                passes: own.map(|(_, pass)| (pass.segments.to_vec(), pass.dropout)).collect(),
            };
            let process = world.process_at_rank(rank);
            receive::<u8>(process, WORK, || self.cx.cancelled()).ok_or(LmError::Cancelled)?;
            process.send_with_tag(&serde_json::to_vec(&work).expect("plain data"), WORK);
            process.send_with_tag(&values, WORK);
        }
        Ok(())
    }

    fn answer(&self, process: Process<'_>, adapter: &Adapter, learns: bool) -> Result<Passed, LmError> {
        let until = || self.cx.cancelled();
        let answer = receive::<u8>(process, DONE, until).ok_or(LmError::Cancelled)?;
        let answer: Answer = serde_json::from_slice(&answer).map_err(|error| broken(process.rank(), &error))?;
        let losses = answer.map_err(|error| broken(process.rank(), error))?;
        let losses = losses.into_iter().map(|(nll, tokens)| LossSum { nll: f64::from_bits(nll), tokens }).collect();
        if !learns {
            return Ok(Passed { losses, grads: None });
        }
        let values = receive::<f32>(process, DONE, until).ok_or(LmError::Cancelled)?;
        let mut rest = &values[..];
        let mut tensors = Vec::new();
        for tensor in adapter.tensors() {
            let (own, after) = rest
                .split_at_checked(tensor.values.len())
                .ok_or_else(|| broken(process.rank(), "its gradients are too few"))?;
            tensors.push(Buffer::from_slice(own));
            rest = after;
        }
        Ok(Passed { losses, grads: Some(Grads { tensors }) })
    }
}

impl Replicas for Ranks<'_> {
    fn take(
        &self,
        adapter: &Adapter,
        passes: &[Pass<'_>],
        learns: bool,
        each: &mut dyn FnMut(Passed),
    ) -> Result<(), LmError> {
        let _one_at_a_time = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let world = SimpleCommunicator::world();
        self.hand_out(&world, adapter, passes, learns)?;
        let mut failed = None;
        for (at, &pass) in passes.iter().enumerate() {
            let passed = match owner(at, world.size()) {
                // What others were asked for comes, wanted or not.
                0 if failed.is_some() => continue,
                0 => self.own.pass(adapter, pass, learns),
                rank => self.answer(world.process_at_rank(rank), adapter, learns),
            };
            match passed {
                Ok(passed) if failed.is_none() => each(passed),
                Ok(_) => {}
                Err(LmError::Cancelled) => return Err(LmError::Cancelled),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Which rank takes pass number `at`.
fn owner(at: usize, size: Rank) -> Rank {
    (at % size as usize) as Rank
}

fn broken(rank: Rank, why: impl std::fmt::Display) -> LmError {
    LmError::Replica { rank, reason: why.to_string() }
}

/// What a rank other than 0 does: takes the passes that it is handed, until there are no more.
fn serve(world: &SimpleCommunicator) {
    let (master, mut base) = (world.process_at_rank(0), BTreeMap::new());
    let dismissed = || master.immediate_probe_with_tag(END).is_some();
    while receive::<u8>(master, WORK, dismissed).is_some() {
        master.send_with_tag(NOTHING, WORK);
        let Some(work) = receive::<u8>(master, WORK, dismissed) else { break };
        let values = master.receive_vec_with_tag::<f32>(WORK).0;
        let work: Work = serde_json::from_slice(&work).expect("the same program wrote it");
        let ready = prepare(&mut base, &work, &values);
        for (segments, dropout) in &work.passes {
            if dismissed() {
                break;
            }
            let passed = ready.as_ref().map_err(LmError::to_string).and_then(|(base, adapter)| {
                base.model
                    .pass(adapter, Pass { segments, dropout: *dropout }, work.learns)
                    .map_err(|error| error.to_string())
            });
            let (answer, grads): (Answer, _) = match passed {
                Ok(Passed { losses, grads }) => {
                    (Ok(losses.iter().map(|loss| (loss.nll.to_bits(), loss.tokens)).collect()), grads)
                }
                Err(error) => (Err(error), None),
            };
            master.send_with_tag(&serde_json::to_vec(&answer).expect("plain data"), DONE);
            if let Some(grads) = grads {
                let all: Vec<f32> = grads.tensors.iter().flatten().copied().collect();
                master.send_with_tag(&all, DONE);
            }
        }
    }
    master.receive_vec_with_tag::<u8>(END);
    master.send_with_tag(NOTHING, END);
}

/// The base, read once, and the adapter that was sent.
fn prepare(
    bases: &mut BTreeMap<(PathBuf, Keep), Arc<LoadedModel>>,
    work: &Work,
    values: &[f32],
) -> Result<(Arc<LoadedModel>, Adapter), LmError> {
    let key = (work.base.clone(), work.keep);
    let base = match bases.get(&key) {
        Some(base) => base.clone(),
        None => {
            // One at a time: the memory of another is better spent.
            bases.clear();
            let base = models::load_file(&work.base, work.keep)?;
            bases.entry(key).or_insert(base).clone()
        }
    };
    let mut adapter = Adapter::zeros(base.model.config(), work.lora.clone(), work.places.clone());
    let mut rest = values;
    for own in adapter.values_mut() {
        let (sent, after) = rest
            .split_at_checked(own.len())
            .ok_or_else(|| LmError::Argument("the adapter is of another model".into()))?;
        own.copy_from_slice(sent);
        rest = after;
    }
    Ok((base, adapter))
}

/// Ends the other ranks, and takes what they still say: who sends has to be heard. Gives whether all went: one may be dead.
fn dismiss(world: &SimpleCommunicator) -> bool {
    for rank in 1..world.size() {
        world.process_at_rank(rank).send_with_tag(NOTHING, END);
    }
    let (mut gone, mut naps) = (1, 0);
    while gone < world.size() && naps < PATIENCE {
        match world.any_process().immediate_matched_probe() {
            Some((message, status)) => {
                gone += Rank::from(status.tag() == END);
                (message, status).matched_receive_vec::<u8>();
            }
            None => {
                naps += 1;
                thread::sleep(NAP);
            }
        }
    }
    gone == world.size()
}

/// The next message of a process; none once `until` says so.
fn receive<T: Equivalence>(from: Process<'_>, tag: Tag, until: impl Fn() -> bool) -> Option<Vec<T>> {
    loop {
        if let Some(message) = from.immediate_matched_probe_with_tag(tag) {
            return Some(message.matched_receive_vec().0);
        }
        if until() {
            return None;
        }
        thread::sleep(NAP);
    }
}
