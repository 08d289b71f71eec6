//! A model's weights under the names that Hugging Face's checkpoints give them: a model made of them, and them of a model.

use crate::LmError;
use crate::block::Block;
use crate::config::{Config, Named};
use crate::kernels::{Packed, Precision};
use crate::linear::{Frozen, Linear};
use crate::lora::{Adapter, Target};
use crate::model::{Keep, Model};
use crate::norm::Norm;
use crate::weights::Weights;

/// A weight of the model under its Hugging Face name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Such as `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// `[outputs, inputs]` or `[size]`.
    pub shape: Vec<usize>,
    /// Row by row.
    pub values: Vec<f32>,
}

const EMBEDDING: &str = "model.embed_tokens";
const HEAD: &str = "lm_head";

impl Model {
    /// Makes a model of tensors that `tensor(name, shape)` gives by Hugging Face name.
    ///
    /// # Errors
    ///
    /// The first that `tensor` gives.
    pub fn build(
        config: &Config,
        precision: Precision,
        tensor: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, LmError>,
    ) -> Result<Self, LmError> {
        Self::assemble(config, precision, false, Whole(tensor))
    }

    /// Makes a model of an opened checkpoint, matrices a part at a time.
    pub(crate) fn read(weights: &Weights, keep: Keep) -> Result<Self, LmError> {
        Self::assemble(weights.config(), keep.precision, keep.as_stored, Opened(weights))
    }

    fn assemble(config: &Config, precision: Precision, lean: bool, tensors: impl Tensors) -> Result<Self, LmError> {
        let mut from = Checkpoint { config, precision, lean, tensors };
        let (facts, vocab, hidden) = (config.facts(), config.vocab_size, config.hidden_size);
        let embedding = from.embedding([vocab, hidden])?;
        let head = if config.tie_word_embeddings {
            None
        } else {
            Some(from.linear(HEAD, [vocab, hidden], facts.head_bias)?)
        };
        let blocks = (0..config.num_hidden_layers).map(|layer| from.block(layer)).collect::<Result<_, _>>()?;
        let norm = from.norm(&final_norm(config), hidden)?;
        Ok(Self { config: config.clone(), embedding, head, blocks, norm })
    }

    /// The weights under their Hugging Face names, one at a time; with an adapter, merged into them: `W + s·B·A`,
    /// and with DoRA each row of that times its factor.
    /// They are what the model computes with, so after rounding to half floats.
    pub fn tensors<'a>(&'a self, adapter: Option<&'a Adapter>) -> impl Iterator<Item = NamedTensor> + 'a {
        let embedding = std::iter::once_with(|| self.embedding.weight_tensor(EMBEDDING));
        let head = self
            .head
            .iter()
            .flat_map(|head| std::iter::once_with(|| head.weight_tensor(HEAD)).chain(head.bias_tensor(HEAD)));
        let norm = std::iter::once_with(|| self.norm.tensors(&final_norm(&self.config))).flatten();
        let blocks = self.blocks.iter().enumerate();
        let blocks = blocks.flat_map(move |(layer, block)| block.tensors(&self.config, layer, adapter));
        embedding.chain(blocks).chain(norm).chain(head)
    }
}

impl Model {
    /// The weights of a layer `(outputs, inputs)`, with an adapter merged into them if it has one there; none where blocks have no such layer.
    pub(crate) fn weight(&self, layer: usize, target: Target, adapter: Option<&Adapter>) -> Option<Vec<f32>> {
        let linear = self.blocks.get(layer)?.linears[target as usize].as_ref()?;
        let mut values = linear.weight().unpack();
        if let Some(adapter) = adapter {
            adapter.merge(layer, target, linear, &mut values);
        }
        Some(values)
    }
}

/// Who gives tensors by Hugging Face name.
trait Tensors {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LmError>;
    fn packed(&mut self, name: &str, shape: [usize; 2], precision: Precision) -> Result<Packed, LmError>;
    /// The weights of a layer within a block; if it is lean, as they take the least memory.
    fn frozen(&mut self, name: &str, shape: [usize; 2], precision: Precision, lean: bool) -> Result<Frozen, LmError>;
}

/// The tensors of a checkpoint.
struct Opened<'a>(&'a Weights);

impl Tensors for Opened<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LmError> {
        self.0.tensor(name, shape)
    }

    fn packed(&mut self, name: &str, shape: [usize; 2], precision: Precision) -> Result<Packed, LmError> {
        self.0.packed(name, shape, precision)
    }

    fn frozen(&mut self, name: &str, shape: [usize; 2], precision: Precision, lean: bool) -> Result<Frozen, LmError> {
        let kept = if lean { self.0.as_stored(name, shape, precision)? } else { None };
        match kept {
            Some(kept) => Ok(Frozen::AsStored(kept)),
            None => self.packed(name, shape, precision).map(Frozen::from),
        }
    }
}

/// Tensors that a function gives whole.
struct Whole<F>(F);

impl<F: FnMut(&str, &[usize]) -> Result<Vec<f32>, LmError>> Tensors for Whole<F> {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LmError> {
        self.0(name, shape)
    }

    fn packed(&mut self, name: &str, [n, k]: [usize; 2], precision: Precision) -> Result<Packed, LmError> {
        Ok(Packed::from_rows(&self.0(name, &[n, k])?, n, k, precision))
    }

    fn frozen(&mut self, name: &str, shape: [usize; 2], precision: Precision, _lean: bool) -> Result<Frozen, LmError> {
        self.packed(name, shape, precision).map(Frozen::from)
    }
}

/// Where a model's tensors come from.
struct Checkpoint<'a, T> {
    config: &'a Config,
    precision: Precision,
    /// Whether layers shall take the least memory.
    lean: bool,
    tensors: T,
}

impl<T: Tensors> Checkpoint<'_, T> {
    /// An embedding that is not the head is only looked into: there is nothing to be gained by rounding it.
    fn embedding(&mut self, shape: [usize; 2]) -> Result<Linear, LmError> {
        let precision = self.precision;
        if matches!(precision, Precision::Bf16 | Precision::Int8) && !self.config.tie_word_embeddings {
            self.precision = Precision::F16;
        }
        let embedding = self.linear(EMBEDDING, shape, false);
        self.precision = precision;
        embedding
    }

    fn linear(&mut self, name: &str, [outputs, inputs]: [usize; 2], bias: bool) -> Result<Linear, LmError> {
        let weight = self.tensors.packed(&format!("{name}.weight"), [outputs, inputs], self.precision)?;
        self.layer(weight, name, bias)
    }

    fn layer(&mut self, weight: impl Into<Frozen>, name: &str, bias: bool) -> Result<Linear, LmError> {
        let layer = Linear::new(weight, self.lean);
        if !bias {
            return Ok(layer);
        }
        let bias = self.tensors.tensor(&format!("{name}.bias"), &[layer.n()])?;
        Ok(layer.with_bias(bias))
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Norm, LmError> {
        let weight = self.tensors.tensor(&format!("{name}.weight"), &[width])?;
        let bias = self.config.facts().norm.has_bias();
        let bias = bias.then(|| self.tensors.tensor(&format!("{name}.bias"), &[width])).transpose()?;
        Ok(Norm::new(self.config, weight, bias.unwrap_or_default()))
    }

    fn block(&mut self, layer: usize) -> Result<Block, LmError> {
        let (facts, hidden, head_dim) = (self.config.facts(), self.config.hidden_size, self.config.head_dim);
        let mut linears = [const { None }; 7];
        for target in Target::ALL {
            if let Some(path) = target.path(self.config, layer) {
                let (outputs, inputs) = target.shape(self.config);
                let bias = self.config.biases.contains(&target);
                let name = format!("{path}.weight");
                let weight = self.tensors.frozen(&name, [outputs, inputs], self.precision, self.lean)?;
                linears[target as usize] = Some(self.layer(weight, &path, bias)?);
            }
        }
        let mut norm = |named: Named, width: usize| self.norm(&path(layer, named), width);
        let mut optional = |named: Option<Named>| named.map(|named| norm(named, hidden)).transpose();
        let post_attention_norm = optional(facts.post_attention_norm)?;
        let mlp_norm = optional(facts.mlp_norm)?;
        let post_mlp_norm = optional(facts.post_mlp_norm)?;
        let attention_norm = norm(facts.attention_norm, hidden)?;
        let head_norms = match facts.head_norms {
            Some([q, k]) => Some([norm(q, head_dim)?, norm(k, head_dim)?]),
            None => None,
        };
        Ok(Block { attention_norm, head_norms, post_attention_norm, mlp_norm, post_mlp_norm, linears })
    }
}

impl Block {
    fn tensors(&self, config: &Config, layer: usize, adapter: Option<&Adapter>) -> impl Iterator<Item = NamedTensor> {
        let facts = config.facts();
        let linears = Target::ALL.into_iter().filter_map(move |target| {
            let (linear, path) = (self.linears[target as usize].as_ref()?, target.path(config, layer)?);
            let mut weight = linear.weight_tensor(&path);
            if let Some(adapter) = adapter {
                adapter.merge(layer, target, linear, &mut weight.values);
            }
            Some(std::iter::once(weight).chain(linear.bias_tensor(&path)))
        });
        let [q_norm, k_norm] = self.head_norms.as_ref().map_or([None, None], |norms| norms.each_ref().map(Some));
        let [q_name, k_name] = facts.head_norms.map_or([None, None], |names| names.map(Some));
        let norms = [
            (Some(facts.attention_norm), Some(&self.attention_norm)),
            (q_name, q_norm),
            (k_name, k_norm),
            (facts.post_attention_norm, self.post_attention_norm.as_ref()),
            (facts.mlp_norm, self.mlp_norm.as_ref()),
            (facts.post_mlp_norm, self.post_mlp_norm.as_ref()),
        ];
        let norms = norms.into_iter().filter_map(move |(name, norm)| Some(norm?.tensors(&path(layer, name?))));
        linears.flatten().chain(norms.flatten())
    }
}

impl Linear {
    fn weight_tensor(&self, name: &str) -> NamedTensor {
        let weight = self.weight();
        NamedTensor { name: format!("{name}.weight"), shape: vec![weight.n(), weight.k()], values: weight.unpack() }
    }

    fn bias_tensor(&self, name: &str) -> Option<NamedTensor> {
        self.bias().map(|bias| vector(format!("{name}.bias"), bias.to_vec()))
    }
}

impl Norm {
    fn tensors(&self, name: &str) -> impl Iterator<Item = NamedTensor> + use<> {
        let (weight, bias) = self.checkpoint();
        let bias = (!bias.is_empty()).then(|| vector(format!("{name}.bias"), bias.to_vec()));
        std::iter::once(vector(format!("{name}.weight"), weight)).chain(bias)
    }
}

fn vector(name: String, values: Vec<f32>) -> NamedTensor {
    NamedTensor { name, shape: vec![values.len()], values }
}

fn path(layer: usize, named: Named) -> String {
    format!("model.layers.{layer}.{}", named.hf)
}

fn final_norm(config: &Config) -> String {
    format!("model.{}", config.facts().final_norm)
}
