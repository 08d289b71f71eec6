//! Low-rank adapters: their tensors, their start, their names.
//!
//! An adapted layer gives `W·x + s · B·(A·x)` with `A [rank, inputs]`, `B [outputs, rank]` (Hu et al., arXiv
//! 2106.09685) and `s = alpha / rank`, or `alpha / √rank` with rsLoRA (Kalajdzievski, arXiv 2312.03732). With DoRA (Liu et al.,
//! arXiv 2402.09353) each output is then set to a length of its own; see `lora/packed.rs`. Which layers an adapter sits on, and
//! with which rank, is `lora/shape.rs`'s.
//! The master tensors are plain `f32` vectors in Hugging Face's layout; packed forms are made when first used.

mod packed;
mod shape;
#[cfg(test)]
mod tests;

use std::ops::DerefMut;
use std::sync::OnceLock;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::LmError;
use crate::config::{Architecture, Config};
use crate::kernels::{Buffer, Precision};
use crate::lazy::get_or_make;
use crate::linear::Linear;
use crate::model::Model;

pub(crate) use packed::{Factors, PackedPair, Pair};
pub use shape::{LoraConfig, Place};

/// A linear layer of a block that an adapter can sit on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Queries of attention.
    QProj,
    /// Keys of attention.
    KProj,
    /// Values of attention.
    VProj,
    /// Attention's way back into the residual stream: phi's `dense`.
    OProj,
    /// The gate of the MLP. Phi has none, and is adapted without.
    GateProj,
    /// What the gate lets through: phi's `fc1`.
    UpProj,
    /// The MLP's way back into the residual stream: phi's `fc2`.
    DownProj,
}

impl Target {
    /// All of them, in the order of a block.
    pub const ALL: [Self; 7] =
        [Self::QProj, Self::KProj, Self::VProj, Self::OProj, Self::GateProj, Self::UpProj, Self::DownProj];

    /// Its name in most checkpoints, such as `q_proj`; [`Target::path`] has the model's own.
    pub fn name(self) -> &'static str {
        match self {
            Self::QProj => "q_proj",
            Self::KProj => "k_proj",
            Self::VProj => "v_proj",
            Self::OProj => "o_proj",
            Self::GateProj => "gate_proj",
            Self::UpProj => "up_proj",
            Self::DownProj => "down_proj",
        }
    }

    /// By [`Target::name`], or by the name that any family of decoders gives it.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| {
            let own = |architecture: Architecture| architecture.facts().linears[*target as usize];
            let named = Architecture::ALL.into_iter().filter_map(own);
            target.name() == name || named.into_iter().any(|named| named.hf.rsplit('.').next() == Some(name))
        })
    }

    /// The layer's full name in block `layer` of a model, such as `model.layers.3.mlp.up_proj`; none where its blocks
    /// have no such layer.
    pub fn path(self, config: &Config, layer: usize) -> Option<String> {
        config.facts().linears[self as usize].map(|named| format!("model.layers.{layer}.{}", named.hf))
    }

    /// `(outputs, inputs)` of the layer.
    pub fn shape(self, config: &Config) -> (usize, usize) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        match self {
            Self::QProj => (config.query_width(), hidden),
            Self::KProj | Self::VProj => (config.key_value_width(), hidden),
            Self::OProj => (hidden, config.query_width()),
            Self::GateProj | Self::UpProj => (inner, hidden),
            Self::DownProj => (hidden, inner),
        }
    }
}

/// A tensor of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterTensor {
    /// Such as `model.layers.0.self_attn.q_proj.lora_A.weight` (PEFT puts `base_model.model.` before it).
    pub name: String,
    /// `[rank, inputs]`, `[outputs, rank]`, or of DoRA's lengths `[outputs, 1]`.
    pub shape: [usize; 2],
    /// Row by row.
    pub values: Vec<f32>,
}

impl AdapterTensor {
    /// Whether it is an `A`: what LoRA+ leaves at the lower learning rate.
    pub fn is_a(&self) -> bool {
        self.name.ends_with(".lora_A.weight")
    }
}

/// A low-rank adapter: for each of its [`Place`]s `A` and then `B`; with DoRA, after all of these the lengths, place by place.
#[derive(Debug)]
pub struct Adapter {
    config: LoraConfig,
    places: Vec<Place>,
    /// The model's blocks, adapted or not.
    blocks: usize,
    tensors: Vec<AdapterTensor>,
    /// For layers in single floats (or half floats, or eight bits), and for those in bfloat16.
    packed: [OnceLock<Vec<PackedPair>>; 2],
}

/// The gradients of an adapter's tensors, in the order of [`Adapter::tensors`].
#[derive(Clone, Debug, PartialEq)]
pub struct Grads {
    /// A vector a tensor, laid out as the tensor.
    pub tensors: Vec<Buffer<f32>>,
}

impl Model {
    /// A fresh adapter, which changes nothing yet: as [`Adapter::init`], with DoRA's lengths those of the weights' rows.
    ///
    /// # Errors
    ///
    /// As [`Adapter::init`].
    pub fn fresh_adapter(&self, config: &LoraConfig, seed: u64) -> Result<Adapter, LmError> {
        let mut adapter = Adapter::init(&self.config, config, seed)?;
        let lengths = 2 * adapter.places.len()..adapter.tensors.len();
        for (tensor, place) in adapter.tensors[lengths].iter_mut().zip(&adapter.places) {
            let linear = self.blocks[place.layer].linears[place.target as usize].as_ref().expect("a place is a layer");
            tensor.values = linear.row_squares().iter().map(|square| square.sqrt() as f32).collect();
        }
        Ok(adapter)
    }
}

impl Adapter {
    /// A fresh adapter for a model of this shape: `B` is zero and `A` uniform within `√(6 / ((1 + 5) · inputs))`, as
    /// PEFT starts it (Kaiming's bound with slope √5). Each tensor's numbers depend on the seed and its name only. DoRA's lengths
    /// are zero: they need weights, see [`Model::fresh_adapter`].
    ///
    /// # Errors
    ///
    /// As [`LoraConfig::places`].
    pub fn init(model: &Config, config: &LoraConfig, seed: u64) -> Result<Self, LmError> {
        let mut adapter = Self::zeros(model, config.clone(), config.places(model)?);
        for tensor in adapter.tensors.iter_mut().filter(|tensor| tensor.is_a()) {
            let bound = (1.0 / tensor.shape[1] as f32).sqrt();
            let mut rng = rng_by_name(seed, &tensor.name);
            for value in &mut tensor.values {
                let unit = (rng.next_u32() >> 8) as f32 / 16_777_216.0;
                *value = bound * (2.0 * unit - 1.0);
            }
        }
        Ok(adapter)
    }

    /// An adapter on these places from tensors in any order, by name. Of `config` the scale's kind, DoRA, dropout, and what is
    /// told of the whole count.
    ///
    /// # Errors
    ///
    /// If a tensor is missing, unknown or of another shape, or there are no places.
    pub fn from_tensors(
        model: &Config,
        config: &LoraConfig,
        mut places: Vec<Place>,
        tensors: impl IntoIterator<Item = AdapterTensor>,
    ) -> Result<Self, LmError> {
        let mistake = |message: String| Err(LmError::Argument(message));
        places.sort_by_key(|place| (place.layer, place.target));
        if places.is_empty() {
            return mistake("an adapter has at least one layer".to_owned());
        }
        if let Some(place) = places.iter().find(|place| place.layer >= model.num_hidden_layers) {
            return mistake(format!("the adapter has no layer `{}`: the model is smaller", place.path));
        }
        let mut adapter = Self::zeros(model, config.clone(), places);
        let mut seen = vec![false; adapter.tensors.len()];
        for tensor in tensors {
            let Some(at) = adapter.tensors.iter().position(|own| own.name == tensor.name) else {
                return mistake(format!("the adapter has no tensor `{}`", tensor.name));
            };
            let wanted = adapter.tensors[at].shape;
            if tensor.shape != wanted || tensor.values.len() != wanted[0] * wanted[1] {
                return mistake(format!("tensor `{}` has shape {:?}, not {wanted:?}", tensor.name, tensor.shape));
            }
            adapter.tensors[at] = tensor;
            seen[at] = true;
        }
        if let Some(at) = seen.iter().position(|seen| !seen) {
            return mistake(format!("tensor `{}` is missing", adapter.tensors[at].name));
        }
        Ok(adapter)
    }

    /// What it is made of.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// Where it sits, block by block.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Blocks of the model that it was made for.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// The tensors: place by place `A` then `B`, and with DoRA then the lengths.
    pub fn tensors(&self) -> &[AdapterTensor] {
        &self.tensors
    }

    /// The values of all tensors, in the order of [`Adapter::tensors`], to change. Packed forms are made anew after it.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.packed = Default::default();
        self.tensors.iter_mut().map(|tensor| tensor.values.as_mut_slice())
    }

    /// How many numbers are trained.
    pub fn parameters(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.values.len()).sum()
    }

    /// All gradients zero.
    pub fn zero_grads(&self) -> Grads {
        Grads { tensors: self.tensors.iter().map(|tensor| Buffer::zeroed(tensor.values.len())).collect() }
    }

    /// The packed pair of a target in a block, for products beside those of `linear`: in bfloat16 if its weights are, else in single floats.
    /// On a lean layer it is made for the caller, unless DoRA's factors are dear to find.
    pub(crate) fn pair(&self, layer: usize, target: Target, linear: &Linear) -> Option<Pair<'_>> {
        let at = self.index(layer, target)?;
        let (packed, precision) = match linear.precision() {
            Precision::Bf16 => (&self.packed[1], Precision::Bf16),
            Precision::F16 | Precision::F32 | Precision::Int8 => (&self.packed[0], Precision::F32),
        };
        if linear.is_lean() && !self.config.dora {
            return Some(Pair::Own(Box::new(PackedPair::new(&self.parts(at), precision))));
        }
        let packed = get_or_make(packed, || {
            let places = (0..self.places.len()).into_par_iter();
            places.map(|at| PackedPair::new(&self.parts(at), precision)).collect()
        });
        Some(Pair::Kept(&packed[at]))
    }

    /// The number of a target in a block among the places.
    pub(crate) fn index(&self, layer: usize, target: Target) -> Option<usize> {
        self.places.binary_search_by_key(&(layer, target), |place| (place.layer, place.target)).ok()
    }

    /// What there is at place number `at`.
    fn parts(&self, at: usize) -> packed::Parts<'_> {
        packed::Parts {
            a: &self.tensors[2 * at],
            b: &self.tensors[2 * at + 1],
            lengths: self.config.dora.then(|| &self.tensors[2 * self.places.len() + at]),
            scaling: self.places[at].scaling(self.config.rslora),
        }
    }

    /// Whether its tensors have the shapes that this model needs.
    pub(crate) fn fits(&self, model: &Config) -> bool {
        let fits = |(at, place): (usize, &Place)| {
            let ((outputs, inputs), parts) = (place.target.shape(model), self.parts(at));
            parts.a.shape[1] == inputs && parts.b.shape[0] == outputs
        };
        self.blocks == model.num_hidden_layers && self.places.iter().enumerate().all(fits)
    }

    /// An adapter on these places, all numbers zero: a shape to fill.
    pub fn zeros(model: &Config, config: LoraConfig, places: Vec<Place>) -> Self {
        let zeros =
            |name: String, shape: [usize; 2]| AdapterTensor { name, shape, values: vec![0.0; shape[0] * shape[1]] };
        let mut tensors = Vec::new();
        for place in &places {
            let (outputs, inputs) = place.target.shape(model);
            tensors.push(zeros(format!("{}.lora_A.weight", place.path), [place.rank, inputs]));
            tensors.push(zeros(format!("{}.lora_B.weight", place.path), [outputs, place.rank]));
        }
        if config.dora {
            let lengths = |place: &Place| {
                zeros(format!("{}.lora_magnitude_vector", place.path), [place.target.shape(model).0, 1])
            };
            tensors.extend(places.iter().map(lengths));
        }
        Self { config, places, blocks: model.num_hidden_layers, tensors, packed: Default::default() }
    }
}

impl Clone for Adapter {
    /// A copy of the tensors; packed forms are made anew.
    fn clone(&self) -> Self {
        Self {
            config: self.config.clone(),
            places: self.places.clone(),
            blocks: self.blocks,
            tensors: self.tensors.clone(),
            packed: Default::default(),
        }
    }
}

impl Grads {
    /// Adds `other`'s gradients, tensor by tensor.
    ///
    /// # Panics
    ///
    /// If they are of another adapter.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.tensors.len(), other.tensors.len(), "gradients of the same adapter");
        for (own, other) in self.tensors.iter_mut().zip(&other.tensors) {
            crate::kernels::add_assign(own, other);
        }
    }

    /// The slots of one block's layers, by target: `A`, `B` and lengths, empty where there are none.
    pub(crate) fn of_block<'a>(&'a mut self, adapter: &Adapter, layer: usize) -> Vec<(Target, [&'a mut [f32]; 3])> {
        let n = adapter.places.len();
        let (pairs, lengths) = self.tensors.split_at_mut(2 * n);
        let mut lengths = lengths.iter_mut();
        let of_place = |(place, [a, b]): (&Place, &'a mut [Buffer<f32>; 2])| {
            let lengths = lengths.next().map_or(Default::default(), DerefMut::deref_mut);
            (place.layer == layer).then_some((place.target, [&mut **a, &mut **b, lengths]))
        };
        adapter.places.iter().zip(pairs.as_chunks_mut::<2>().0).filter_map(of_place).collect()
    }
}

/// A generator keyed by the seed and a tensor's name (by its FNV-1a hash and length).
fn rng_by_name(seed: u64, name: &str) -> ChaCha8Rng {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    key[16..24].copy_from_slice(&(name.len() as u64).to_le_bytes());
    ChaCha8Rng::from_seed(key)
}
