//! An adapter as a GGUF file: `lora_a` and `lora_b` beside the name of each tensor of the base that is adapted.
//!
//! llama.cpp multiplies with one `alpha` over the rank of each pair, so what scales otherwise (rsLoRA, other alphas) goes into `lora_b`. Where
//! the base keeps queries, keys and values in one tensor, so are the pairs: their `lora_a` one below the other, their `lora_b` side by side on
//! the rows of each. Queries' and keys' rows of a llama stand in pairs, as the base's do.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Value;

use super::{Planned, Writer};
use crate::LmError;
use crate::lora::{Adapter, Place};
use crate::weights::{InGguf, Weights};

/// Writes the adapter for a base that llama.cpp runs: tensors are called as the GGUF file `base` calls them, or as llama.cpp's converter would
/// where the base is a folder.
///
/// # Errors
///
/// If the adapter is one with DoRA, which llama.cpp does not know, or the file cannot be written.
pub fn write_lora(adapter: &Adapter, base: &Weights, name: &str, path: &Path) -> Result<(), LmError> {
    if adapter.config().dora {
        let message = "llama.cpp runs no adapters with DoRA: export the merged model instead";
        return Err(LmError::Argument(message.to_owned()));
    }
    let facts = base.config().facts();
    let alpha = adapter.places().first().map_or(1.0, |place| alpha(place, adapter.config().rslora));
    let pairs = pairs(adapter, base, alpha);
    let text = |text: &str| Value::String(text.to_owned());
    let metadata = [
        ("general.architecture", text(facts.gguf)),
        ("general.type", text("adapter")),
        ("general.name", text(name)),
        ("adapter.type", text("lora")),
        ("adapter.lora.alpha", Value::F32(alpha)),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
    let planned = |name: String, shape: [usize; 2]| Planned { name, shape: shape.into(), dtype: GgmlDType::F32 };
    let both = pairs.iter().flat_map(|(name, pair)| {
        [
            planned(format!("{name}.lora_a"), [pair.rank, pair.inputs]),
            planned(format!("{name}.lora_b"), [pair.outputs, pair.rank]),
        ]
    });
    let mut writer = Writer::create(path, &metadata, both.collect())?;
    for (name, pair) in pairs {
        writer.values(&format!("{name}.lora_a"), pair.a)?;
        writer.values(&format!("{name}.lora_b"), pair.b)?;
    }
    writer.finish()
}

/// What belongs beside one tensor of the base.
struct Pair {
    rank: usize,
    inputs: usize,
    outputs: usize,
    a: Vec<f32>,
    b: Vec<f32>,
}

/// The alpha with which llama.cpp scales as the adapter does.
fn alpha(place: &Place, rslora: bool) -> f32 {
    place.scaling(rslora) * place.rank as f32
}

/// The pairs by the tensor of the base that they belong to, for a file with this alpha.
fn pairs(adapter: &Adapter, base: &Weights, whole: f32) -> BTreeMap<String, Pair> {
    let mut parts: BTreeMap<String, Vec<(usize, InGguf)>> = BTreeMap::new();
    for (at, place) in adapter.places().iter().enumerate() {
        let stored = base.stored(&format!("{}.weight", place.path), adapter.tensors()[2 * at + 1].shape[0]);
        parts.entry(stored.name.clone()).or_default().push((at, stored));
    }
    parts.into_iter().map(|(name, parts)| (name, pair(adapter, &parts, whole))).collect()
}

/// One pair, of one place of the adapter, or several whose weights lie in one tensor.
fn pair(adapter: &Adapter, parts: &[(usize, InGguf)], whole: f32) -> Pair {
    let places = adapter.places();
    let rank: usize = parts.iter().map(|(at, _)| places[*at].rank).sum();
    let (inputs, outputs) = (adapter.tensors()[2 * parts[0].0].shape[1], parts[0].1.all);
    let mut pair = Pair { rank, inputs, outputs, a: Vec::new(), b: vec![0.0; outputs * rank] };
    let mut before = 0;
    for (at, stored) in parts {
        let (place, [a, b]) = (&places[*at], [0, 1].map(|side| &adapter.tensors()[2 * at + side]));
        pair.a.extend_from_slice(&a.values);
        // llama.cpp divides by the rank of the whole pair.
        let factor = alpha(place, adapter.config().rslora) / whole * (rank as f32 / place.rank as f32);
        let rows = stored.order(&b.values, place.rank);
        for (row, values) in stored.rows.clone().zip(rows.chunks_exact(place.rank)) {
            let out = &mut pair.b[row * rank + before..][..place.rank];
            out.iter_mut().zip(values).for_each(|(out, value)| *out = value * factor);
        }
        before += place.rank;
    }
    pair
}
