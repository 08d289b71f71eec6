//! Retort's side of `tests/peers/training.py` and `phi2.py`: trains on sequences of token ids and says how long each step took.
//!
//! `training MODEL FOLDER BATCH STEPS f32|bf16|qlora-f32|qlora-bf16 [RANK]` reads `FOLDER/tokens.json`, writes the adapter that it begins with to `FOLDER/adapter` (as PEFT has
//! it) and the order of the sequences to `FOLDER/order-BATCH.json`, and prints one line of JSON.

#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a measuring program reads the clock and prints")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use retort_lm::data::{Batch, Examples, steps};
use retort_lm::gradient::Segment;
use retort_lm::kernels::Precision;
use retort_lm::lora::{Adapter, LoraConfig};
use retort_lm::model::{Keep, Model};
use retort_lm::peft::{Card, write};
use retort_lm::schedule::{Decay, Schedule, Warmup};
use retort_lm::train::{Phase, Source, TrainConfig, train};
use serde_json::json;

const SEED: u64 = 1;
/// Enough for any number of steps.
const EPOCHS: u64 = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (words, rank) = arguments.split_at(arguments.len().min(5));
    let (&[model, folder, batch, count, precision], [] | [_]) = (&words.iter().collect::<Vec<_>>()[..], rank) else {
        return Err("MODEL FOLDER BATCH STEPS f32|bf16|qlora-f32|qlora-bf16 [RANK]".into());
    };
    let rank = rank.first().map_or(Ok(16), |rank| rank.parse())?;
    let (folder, batch, count) = (Path::new(folder), Batch::Sequences(batch.parse()?), count.parse()?);
    // In f32 the frozen weights are half floats, as `lora-train` has them.
    let as_stored = precision.starts_with("qlora-");
    let precision = if precision.ends_with("bf16") { Precision::Bf16 } else { Precision::F16 };
    let model = Model::load_in(Keep { precision, as_stored }, Path::new(model))?;
    let sequences: Vec<Vec<u32>> = serde_json::from_slice(&std::fs::read(folder.join("tokens.json"))?)?;
    let segments: Vec<Segment> = sequences.iter().map(|ids| Segment::next_token(ids, &vec![true; ids.len()])).collect();
    let lengths: Vec<usize> = segments.iter().map(|segment| segment.tokens.len()).collect();

    let config = config(batch, count, rank, lengths.iter().copied().max().unwrap_or_default());
    let order: Vec<Vec<usize>> = steps(&lengths, &[], batch, EPOCHS, SEED).map(|step| step.segments).collect();
    std::fs::write(folder.join(format!("order-{}.json", arguments[2])), serde_json::to_string(&order)?)?;
    let card = Card { title: "start".into(), base_model: "base".into(), ..Card::default() };
    write(&Adapter::init(model.config(), &config.lora, SEED)?, &card, &folder.join("adapter"))?;

    let (mut losses, mut walls, mut cpus) = (Vec::new(), Vec::new(), Vec::new());
    let mut before = (Instant::now(), cpu_seconds()?);
    train(&model, &config, &[Examples { segments, ..Examples::default() }], &[], None, &mut |progress| {
        let now = (Instant::now(), cpu_seconds().unwrap_or(f64::NAN));
        if let Some(loss) = progress.metric.loss {
            losses.push(loss);
            walls.push((now.0 - before.0).as_secs_f64());
            cpus.push(now.1 - before.1);
        }
        before = now;
        Ok(())
    })?;
    println!("{}", json!({"losses": losses, "walls": walls, "cpus": cpus, "peak_kib": peak_kib()?}));
    Ok(())
}

fn config(batch: Batch, steps: u64, rank: usize, max_length: usize) -> TrainConfig {
    let schedule = Schedule { peak: 2e-4, warmup: Warmup::Steps(0), decay: Decay::Constant, min_ratio: 0.0 };
    let phase = Phase {
        name: "text".into(),
        data: Source::Text,
        epochs: EPOCHS,
        max_steps: Some(steps),
        schedule,
        batch,
        max_length,
        patience: 0,
        ..Phase::default()
    };
    TrainConfig {
        lora: LoraConfig { rank, alpha: 2.0 * rank as f32, ..LoraConfig::default() },
        phases: vec![phase],
        lora_plus: 1.0,
        weight_decay: 0.0,
        max_grad_norm: 1.0,
        seed: SEED,
        max_tokens_per_pass: 512,
    }
}

/// Seconds of CPU that all threads have taken.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.get(11).zip(fields.get(12)).ok_or("an unknown /proc/self/stat")?;
    Ok((ticks.0.parse::<f64>()? + ticks.1.parse::<f64>()?) / 100.0)
}

/// The peak of resident memory.
fn peak_kib() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}
