//! Low-rank adapters: their shape, their start, their names.
//!
//! An adapted layer gives `W·x + s · B·(A·x)` with `A [rank, inputs]`, `B [outputs, rank]` (Hu et al., arXiv
//! 2106.09685) and `s = alpha / rank`, or `alpha / √rank` with rsLoRA (Kalajdzievski, arXiv 2312.03732).
//! The master tensors are plain `f32` vectors in Hugging Face's layout; packed forms are made when first used.

use std::sync::OnceLock;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::LmError;
use crate::config::{Architecture, Config};
use crate::kernels::{Packed, Precision};
use crate::lazy::get_or_make;

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

/// What an adapter is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank of the update.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f32,
    /// Share of the inputs to `A` that training drops, 0 to 1.
    pub dropout: f32,
    /// Scale by `alpha / √rank` instead of `alpha / rank`.
    pub rslora: bool,
    /// The layers, in any order, each once.
    pub targets: Vec<Target>,
}

impl LoraConfig {
    /// What the update is multiplied with.
    pub fn scaling(&self) -> f32 {
        let rank = self.rank as f32;
        if self.rslora { self.alpha / rank.sqrt() } else { self.alpha / rank }
    }
}

/// A tensor of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterTensor {
    /// Such as `model.layers.0.self_attn.q_proj.lora_A.weight` (PEFT puts `base_model.model.` before it).
    pub name: String,
    /// `[rank, inputs]` or `[outputs, rank]`.
    pub shape: [usize; 2],
    /// Row by row.
    pub values: Vec<f32>,
}

/// A low-rank adapter: for each block, for each target in [`Target::ALL`]'s order, `A` and then `B`.
#[derive(Debug)]
pub struct Adapter {
    config: LoraConfig,
    tensors: Vec<AdapterTensor>,
    packed: OnceLock<Vec<PackedPair>>,
}

/// The gradients of an adapter's tensors, in the order of [`Adapter::tensors`].
#[derive(Clone, Debug, PartialEq)]
pub struct Grads {
    /// A vector a tensor, laid out as the tensor.
    pub tensors: Vec<Vec<f32>>,
}

impl Adapter {
    /// A fresh adapter, which changes nothing yet: `B` is zero and `A` uniform within `√(6 / ((1 + 5) · inputs))`, as
    /// PEFT starts it (Kaiming's bound with slope √5). Each tensor's numbers depend on the seed and its name only.
    ///
    /// # Errors
    ///
    /// If the rank is zero, the dropout is not in `[0, 1)`, or there are no targets or a target comes twice.
    pub fn init(model: &Config, config: &LoraConfig, seed: u64) -> Result<Self, LmError> {
        let mut adapter = Self::zeros(model, config)?;
        for tensor in adapter.tensors.iter_mut().step_by(2) {
            let bound = (1.0 / tensor.shape[1] as f32).sqrt();
            let mut rng = rng_by_name(seed, &tensor.name);
            for value in &mut tensor.values {
                let unit = (rng.next_u32() >> 8) as f32 / 16_777_216.0;
                *value = bound * (2.0 * unit - 1.0);
            }
        }
        Ok(adapter)
    }

    /// An adapter from tensors in any order, by name.
    ///
    /// # Errors
    ///
    /// If one is missing, unknown or of another shape, or as [`Adapter::init`].
    pub fn from_tensors(
        model: &Config,
        config: &LoraConfig,
        tensors: impl IntoIterator<Item = AdapterTensor>,
    ) -> Result<Self, LmError> {
        let mut adapter = Self::zeros(model, config)?;
        let mut seen = vec![false; adapter.tensors.len()];
        for tensor in tensors {
            let Some(at) = adapter.tensors.iter().position(|own| own.name == tensor.name) else {
                return Err(LmError::Argument(format!("the adapter has no tensor `{}`", tensor.name)));
            };
            let wanted = adapter.tensors[at].shape;
            if tensor.shape != wanted || tensor.values.len() != wanted[0] * wanted[1] {
                let message = format!("tensor `{}` has shape {:?}, not {wanted:?}", tensor.name, tensor.shape);
                return Err(LmError::Argument(message));
            }
            adapter.tensors[at] = tensor;
            seen[at] = true;
        }
        if let Some(at) = seen.iter().position(|seen| !seen) {
            return Err(LmError::Argument(format!("tensor `{}` is missing", adapter.tensors[at].name)));
        }
        Ok(adapter)
    }

    /// What it is made of; targets in [`Target::ALL`]'s order.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The tensors: block by block, target by target, `A` then `B`.
    pub fn tensors(&self) -> &[AdapterTensor] {
        &self.tensors
    }

    /// The values of all tensors, in the order of [`Adapter::tensors`], to change. Packed forms are made anew after it.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.packed = OnceLock::new();
        self.tensors.iter_mut().map(|tensor| tensor.values.as_mut_slice())
    }

    /// How many numbers are trained.
    pub fn parameters(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.values.len()).sum()
    }

    /// All gradients zero.
    pub fn zero_grads(&self) -> Grads {
        Grads { tensors: self.tensors.iter().map(|tensor| vec![0.0; tensor.values.len()]).collect() }
    }

    /// Where the tensors of a target in a block begin: `A` here, `B` next.
    pub(crate) fn index(&self, layer: usize, target: Target) -> Option<usize> {
        let at = self.config.targets.iter().position(|&own| own == target)?;
        Some(2 * (layer * self.config.targets.len() + at))
    }

    /// The packed pair of a target in a block.
    pub(crate) fn pair(&self, layer: usize, target: Target) -> Option<&PackedPair> {
        let packed = get_or_make(&self.packed, || {
            let pairs = self.tensors.as_chunks::<2>().0;
            pairs.iter().map(|[a, b]| PackedPair::new(a, b)).collect()
        });
        Some(&packed[self.index(layer, target)? / 2])
    }

    /// Whether its tensors have the shapes that this model needs.
    pub(crate) fn fits(&self, model: &Config) -> bool {
        let pairs = self.tensors.as_chunks::<2>().0;
        pairs.len() == model.num_hidden_layers * self.config.targets.len()
            && pairs.iter().zip(self.config.targets.iter().cycle()).all(|([a, b], target)| {
                let (outputs, inputs) = target.shape(model);
                a.shape[1] == inputs && b.shape[0] == outputs
            })
    }

    fn zeros(model: &Config, config: &LoraConfig) -> Result<Self, LmError> {
        let mut config = config.clone();
        config.targets.sort_unstable();
        check(&config)?;
        config.targets.retain(|&target| target.path(model, 0).is_some());
        if config.targets.is_empty() {
            return Err(LmError::Argument("the model has none of the layers that an adapter is asked for".to_owned()));
        }
        let mut tensors = Vec::new();
        for layer in 0..model.num_hidden_layers {
            for target in &config.targets {
                let Some(path) = target.path(model, layer) else { continue };
                let (outputs, inputs) = target.shape(model);
                for (part, shape) in [("lora_A", [config.rank, inputs]), ("lora_B", [outputs, config.rank])] {
                    let name = format!("{path}.{part}.weight");
                    tensors.push(AdapterTensor { name, shape, values: vec![0.0; shape[0] * shape[1]] });
                }
            }
        }
        Ok(Self { config, tensors, packed: OnceLock::new() })
    }
}

impl Clone for Adapter {
    /// A copy of the tensors; packed forms are made anew.
    fn clone(&self) -> Self {
        Self { config: self.config.clone(), tensors: self.tensors.clone(), packed: OnceLock::new() }
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
}

/// One layer's `A` and `B`, packed for products in both directions.
#[derive(Debug)]
pub(crate) struct PackedPair {
    /// `x · Aᵀ`.
    pub(crate) down: Packed,
    /// `u · Bᵀ`.
    pub(crate) up: Packed,
    /// `d_u · A` and `d_y · B`.
    back: OnceLock<(Packed, Packed)>,
}

impl PackedPair {
    fn new(a: &AdapterTensor, b: &AdapterTensor) -> Self {
        Self {
            down: Packed::from_rows(&a.values, a.shape[0], a.shape[1], Precision::F32),
            up: Packed::from_rows(&b.values, b.shape[0], b.shape[1], Precision::F32),
            back: OnceLock::new(),
        }
    }

    pub(crate) fn rank(&self) -> usize {
        self.down.n()
    }

    /// Carries gradients from the low rank back to the inputs.
    pub(crate) fn down_back(&self) -> &Packed {
        &get_or_make(&self.back, || (self.down.transposed(), self.up.transposed())).0
    }

    /// Carries gradients from the outputs back to the low rank.
    pub(crate) fn up_back(&self) -> &Packed {
        &get_or_make(&self.back, || (self.down.transposed(), self.up.transposed())).1
    }
}

fn check(config: &LoraConfig) -> Result<(), LmError> {
    let reason = if config.rank == 0 {
        "an adapter's rank is at least 1".to_owned()
    } else if !(0.0..1.0).contains(&config.dropout) {
        format!("an adapter's dropout is from 0 to below 1, not {}", config.dropout)
    } else if config.targets.is_empty() {
        "an adapter has at least one target".to_owned()
    } else if let Some(twice) = config.targets.windows(2).find(|pair| pair[0] == pair[1]) {
        format!("target `{}` is given twice", twice[0].name())
    } else {
        return Ok(());
    };
    Err(LmError::Argument(reason))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_config;

    fn config() -> LoraConfig {
        let targets = vec![Target::DownProj, Target::QProj];
        LoraConfig { rank: 4, alpha: 8.0, dropout: 0.0, rslora: false, targets }
    }

    #[test]
    fn a_fresh_adapter_has_pefts_names_shapes_and_bounds() {
        let model = tiny_config();
        let adapter = Adapter::init(&model, &config(), 1).unwrap();
        assert_eq!(adapter.tensors().len(), 2 * 2 * model.num_hidden_layers);
        let [a, b, down, ..] = adapter.tensors() else { panic!("too few") };
        assert_eq!(a.name, "model.layers.0.self_attn.q_proj.lora_A.weight");
        assert_eq!((a.shape, b.shape), ([4, model.hidden_size], [model.query_width(), 4]));
        assert_eq!(down.name, "model.layers.0.mlp.down_proj.lora_A.weight");
        let bound = (1.0 / model.hidden_size as f32).sqrt();
        assert!(a.values.iter().all(|v| v.abs() <= bound));
        assert!(a.values.iter().any(|v| v.abs() > bound * 0.9));
        assert!(b.values.iter().all(|&v| v == 0.0));
        assert!(adapter.fits(&model));
    }

    #[test]
    fn numbers_depend_on_seed_and_name_only() {
        let model = tiny_config();
        let one = Adapter::init(&model, &config(), 1).unwrap();
        let only_q = LoraConfig { targets: vec![Target::QProj], ..config() };
        let q = Adapter::init(&model, &only_q, 1).unwrap();
        assert_eq!(one.tensors()[0], q.tensors()[0]);
        assert_ne!(one.tensors()[0], Adapter::init(&model, &config(), 2).unwrap().tensors()[0]);
        assert_ne!(one.tensors()[0].values[..8], one.tensors()[4].values[..8]);
    }

    #[test]
    fn tensors_come_back_in_any_order_and_mistakes_are_named() {
        let model = tiny_config();
        let adapter = Adapter::init(&model, &config(), 1).unwrap();
        let back = adapter.tensors().iter().rev().cloned();
        assert_eq!(Adapter::from_tensors(&model, &config(), back).unwrap().tensors(), adapter.tensors());
        let short = Adapter::from_tensors(&model, &config(), adapter.tensors()[1..].to_vec()).unwrap_err();
        assert!(short.to_string().contains("q_proj.lora_A.weight` is missing"), "{short}");
        let twice = LoraConfig { targets: vec![Target::QProj, Target::QProj], ..config() };
        assert!(Adapter::init(&model, &twice, 1).unwrap_err().to_string().contains("`q_proj` is given twice"));
        assert!(Adapter::init(&model, &LoraConfig { rank: 0, ..config() }, 1).is_err());
    }

    #[test]
    fn rslora_scales_by_the_root() {
        assert_eq!(config().scaling(), 2.0);
        assert_eq!(LoraConfig { rslora: true, ..config() }.scaling(), 4.0);
    }
}
