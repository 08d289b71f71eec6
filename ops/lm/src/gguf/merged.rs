//! The base model's GGUF file with an adapter merged in.
//!
//! What the adapter does not touch stays as it is in the base, bit for bit: keys and values, tokenizer, chat template, and every other tensor in its own
//! type. Adapted weights are merged in floats and rounded once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};

use super::{Planned, Writer};
use crate::LmError;
use crate::lora::{Adapter, Target};
use crate::model::Model;
use crate::weights::{InGguf, Weights};

/// How merged weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergedType {
    /// Half floats.
    F16,
    /// Eight bits in blocks of 32, with a scale each; half floats where rows are no multiple of that.
    Q8_0,
}

/// Writes the base file at `base`, of which `model` is loaded, with `adapter` merged in.
///
/// # Errors
///
/// If the base is no GGUF file, or a file cannot be read or written.
pub fn write_merged(
    base: &Path,
    model: &Model,
    adapter: &Adapter,
    stored: MergedType,
    path: &Path,
) -> Result<(), LmError> {
    let weights = Weights::open(base)?;
    let Some(content) = weights.gguf() else {
        let message = format!("`{}` is no GGUF file, so there is none to merge into", base.display());
        return Err(LmError::Argument(message));
    };
    let adapted = adapted(adapter, &weights);
    let mut kept: Vec<_> = content.tensor_infos.iter().filter(|(name, _)| !adapted.contains_key(*name)).collect();
    kept.sort_by_key(|(_, info)| info.offset);
    let plan = |name: &String, dtype: GgmlDType| Planned {
        name: name.clone(),
        shape: content.tensor_infos[name].shape.dims().to_vec(),
        dtype,
    };
    let mut planned: Vec<Planned> = kept.iter().map(|(name, info)| plan(name, info.ggml_dtype)).collect();
    planned.extend(adapted.keys().map(|name| {
        let columns = content.tensor_infos[name].shape.dims().last().copied().unwrap_or(1);
        plan(name, stored.of(columns))
    }));
    let (n_kept, sizes) = (kept.len(), planned.clone());
    let mut writer = Writer::create(path, &metadata(content, stored), planned)?;
    let failed = |verb: &'static str| move |source| LmError::Io { verb, path: base.display().to_string(), source };
    let mut file = File::open(base).map_err(failed("open"))?;
    for ((name, info), size) in kept.into_iter().zip(&sizes[..n_kept]) {
        let mut bytes = vec![0; size.bytes() as usize];
        file.seek(SeekFrom::Start(content.tensor_data_offset + info.offset)).map_err(failed("read"))?;
        file.read_exact(&mut bytes).map_err(failed("read"))?;
        writer.raw(name, &bytes)?;
    }
    for (name, parts) in adapted {
        writer.values(&name, merged(model, adapter, &parts))?;
    }
    writer.finish()
}

impl MergedType {
    /// For rows of so many numbers.
    pub(super) fn of(self, columns: usize) -> GgmlDType {
        match self {
            Self::Q8_0 if columns.is_multiple_of(GgmlDType::Q8_0.block_size()) => GgmlDType::Q8_0,
            _ => GgmlDType::F16,
        }
    }

    /// The number by which `general.file_type` says what most weights are.
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q8_0 => 7,
        }
    }
}

/// A layer of the model that lies in a tensor of the file.
type Part = (usize, Target, InGguf);

/// The tensors of the file that change, each with the layers in it.
fn adapted(adapter: &Adapter, base: &Weights) -> BTreeMap<String, Vec<Part>> {
    let config = base.config();
    let stored = |layer, target: Target| {
        let path = target.path(config, layer)?;
        Some(base.stored(&format!("{path}.weight"), target.shape(config).0))
    };
    let mut found: BTreeMap<String, Vec<Part>> = BTreeMap::new();
    for place in adapter.places() {
        let Some(own) = stored(place.layer, place.target) else { continue };
        // Where several layers lie in one tensor, those without an adapter are in it too.
        let beside =
            Target::ALL.into_iter().filter_map(|target| Some((place.layer, target, stored(place.layer, target)?)));
        let parts = beside.filter(|(_, _, stored)| stored.name == own.name).collect();
        found.insert(own.name, parts);
    }
    found
}

/// The values of a tensor of the file, from all layers in it.
fn merged(model: &Model, adapter: &Adapter, parts: &[Part]) -> Vec<f32> {
    let mut parts: Vec<&Part> = parts.iter().collect();
    parts.sort_by_key(|(_, _, stored)| stored.rows.start);
    let rows = parts.into_iter().flat_map(|(layer, target, stored)| {
        let values = model.weight(*layer, *target, Some(adapter)).expect("a layer of the model");
        stored.order(&values, values.len() / stored.rows.len())
    });
    rows.collect()
}

/// The base's keys and values, those of a kind in order, with what is so no more changed.
fn metadata(content: &Content, stored: MergedType) -> Vec<(String, Value)> {
    let mut all: Vec<_> = content.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let kind = |key: &str| (key != ARCHITECTURE, !key.starts_with("general."), key.starts_with("tokenizer."));
    all.sort_by(|(a, _), (b, _)| (kind(a), a).cmp(&(kind(b), b)));
    for (key, value) in &mut all {
        if key == "general.file_type" {
            *value = Value::U32(stored.file_type());
        }
    }
    all
}

/// Readers want it first.
const ARCHITECTURE: &str = "general.architecture";
