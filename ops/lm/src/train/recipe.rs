//! What a saved state belongs to: digests of everything that decides how training goes, the base weights aside.

use crate::data::Examples;
use crate::gradient::Segment;
use crate::model::Model;
use crate::schedule::Decay;
use crate::train::{EvalSet, TrainConfig};

/// The digest of config, architecture and all segments, in hexadecimal.
pub(crate) fn whole(model: &Model, config: &TrainConfig, data: &[Examples], evals: &[EvalSet]) -> String {
    digest("retort-lm checkpoint 2", model, config, data, evals)
}

/// For each phase the digest, in hexadecimal, of all that decides how it goes, except for how long and what follows: trainings that share
/// it do the same steps. None for a last phase whose steps depend on how many they are, since nobody could go on from its end.
///
/// The base weights are for the caller to tell apart.
///
/// # Panics
///
/// If there are not as many `data` as phases.
pub fn kept_keys(model: &Model, config: &TrainConfig, data: &[Examples], evals: &[EvalSet]) -> Vec<Option<String>> {
    let last = config.phases.len().saturating_sub(1);
    let key = |at: usize| {
        let mut config = config.clone();
        config.phases.truncate(at + 1);
        let phase = &mut config.phases[at];
        let useful = at < last || phase.schedule.decay == Decay::Constant;
        (phase.epochs, phase.max_steps, phase.max_tokens) = (0, None, None);
        useful.then(|| digest("retort-lm kept 1", model, &config, &data[..=at], evals))
    };
    (0..config.phases.len()).map(key).collect()
}

fn digest(domain: &str, model: &Model, config: &TrainConfig, data: &[Examples], evals: &[EvalSet]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    let mut text = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    text(&serde_json::to_string(config).expect("plain data"));
    text(&model.config().to_json().to_string());
    for examples in data {
        text(&serde_json::to_string(&examples.parts).expect("plain data"));
    }
    evals.iter().for_each(|set| text(&set.name));
    let examples = data.iter().map(|examples| &examples.segments);
    for segments in examples.chain(evals.iter().map(|set| &set.segments)) {
        hasher.update(&(segments.len() as u64).to_le_bytes());
        for Segment { tokens, targets } in segments {
            hasher.update(&(tokens.len() as u64).to_le_bytes());
            for token in tokens {
                hasher.update(&token.to_le_bytes());
            }
            for target in targets {
                hasher.update(&target.map_or(-1, i64::from).to_le_bytes());
            }
        }
    }
    hasher.finalize().to_hex().to_string()
}
