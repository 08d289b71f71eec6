//! The families of decoders, as a table: a new one is a row here, and a primitive where it does what none did before.

use crate::kernels::Activation;
use crate::lora::Target;

/// A family of decoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// LLaMA 1 to 3, Orca-2, SmolLM2; in GGUF also Mistral.
    Llama,
    /// Mistral: llama's block; its first version sees through a window.
    Mistral,
    /// Qwen 2 and 2.5: llama's block with biases on queries, keys and values.
    Qwen2,
    /// Qwen 3: llama's block with norms on queries and keys.
    Qwen3,
    /// Gemma 3, its text part: norms before and after attention and MLP, windows with positions of their own.
    Gemma3,
    /// phi-1, phi-1.5 and phi-2: attention and MLP side by side, layer norms, biases everywhere.
    Phi,
}

/// How a family norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// By the root mean square, times a weight.
    Rms,
    /// By the root mean square, times one and a weight.
    RmsPlusOne,
    /// By mean and variance, times a weight, plus a bias.
    Layer,
}

impl NormKind {
    pub(crate) fn has_bias(self) -> bool {
        self == Self::Layer
    }
}

/// What a part of a block is called in Hugging Face's checkpoints (after `model.layers.N.`) and in GGUF (after `blk.N.`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) hf: &'static str,
    pub(crate) gguf: &'static str,
}

/// What is so in every decoder of a family. Where an optional part is none, the block does without it.
#[derive(Debug)]
pub(crate) struct Facts {
    /// `model_type` in `config.json`.
    pub(crate) model_type: &'static str,
    /// The class of `transformers`.
    pub(crate) class: &'static str,
    /// `general.architecture` in GGUF.
    pub(crate) gguf: &'static str,
    pub(crate) norm: NormKind,
    /// Before attention.
    pub(crate) attention_norm: Named,
    /// On each head of the queries, and of the keys.
    pub(crate) head_norms: Option<[Named; 2]>,
    /// On what attention gives.
    pub(crate) post_attention_norm: Option<Named>,
    /// Before the MLP; none where the MLP stands beside attention and reads what that reads.
    pub(crate) mlp_norm: Option<Named>,
    /// On what the MLP gives.
    pub(crate) post_mlp_norm: Option<Named>,
    /// The last norm's name in Hugging Face's checkpoints, after `model.`.
    pub(crate) final_norm: &'static str,
    /// In [`Target::ALL`]'s order. Without a gate the MLP is `down(activation(up))`.
    pub(crate) linears: [Option<Named>; 7],
    /// The layers that always have a bias.
    pub(crate) biases: &'static [Target],
    /// Whether the output head has a bias, and so is never the embedding.
    pub(crate) head_bias: bool,
    pub(crate) activation: Activation,
    /// Whether embeddings are multiplied with the root of their width.
    pub(crate) scales_embedding: bool,
    /// Whether GGUF files keep queries and keys in pairs for interleaved positions.
    pub(crate) gguf_pairs: bool,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3, Self::Gemma3, Self::Phi];

    pub(crate) fn facts(self) -> &'static Facts {
        match self {
            Self::Llama => &LLAMA,
            Self::Mistral => &MISTRAL,
            Self::Qwen2 => &QWEN2,
            Self::Qwen3 => &QWEN3,
            Self::Gemma3 => &GEMMA3,
            Self::Phi => &PHI,
        }
    }

    /// By `model_type` of a `config.json`.
    pub(crate) fn by_model_type(name: &str) -> Result<Self, String> {
        by_name(name, |facts| facts.model_type)
    }

    /// By `general.architecture` of a GGUF file.
    pub(crate) fn by_gguf(name: &str) -> Result<Self, String> {
        by_name(name, |facts| facts.gguf)
    }
}

fn by_name(name: &str, of: impl Fn(&Facts) -> &'static str) -> Result<Architecture, String> {
    let found = Architecture::ALL.into_iter().find(|architecture| of(architecture.facts()) == name);
    found.ok_or_else(|| {
        let mut names = Architecture::ALL.map(|architecture| format!("`{}`", of(architecture.facts()))).to_vec();
        names.dedup();
        format!("architecture `{name}` is not supported (supported are {})", names.join(", "))
    })
}

impl Facts {
    /// All parts of a block by name.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Named> {
        self.norms().chain(self.linears.into_iter().flatten())
    }

    /// The norms of a block.
    pub(crate) fn norms(&self) -> impl Iterator<Item = Named> {
        let optional = [self.post_attention_norm, self.mlp_norm, self.post_mlp_norm].into_iter().flatten();
        [self.attention_norm].into_iter().chain(optional).chain(self.head_norms.into_iter().flatten())
    }

    pub(crate) fn gated(&self) -> bool {
        self.linears[Target::GateProj as usize].is_some()
    }
}

const fn named(hf: &'static str, gguf: &'static str) -> Named {
    Named { hf, gguf }
}

const LLAMA: Facts = Facts {
    model_type: "llama",
    class: "LlamaForCausalLM",
    gguf: "llama",
    norm: NormKind::Rms,
    attention_norm: named("input_layernorm", "attn_norm"),
    head_norms: None,
    post_attention_norm: None,
    mlp_norm: Some(named("post_attention_layernorm", "ffn_norm")),
    post_mlp_norm: None,
    final_norm: "norm",
    linears: [
        Some(named("self_attn.q_proj", "attn_q")),
        Some(named("self_attn.k_proj", "attn_k")),
        Some(named("self_attn.v_proj", "attn_v")),
        Some(named("self_attn.o_proj", "attn_output")),
        Some(named("mlp.gate_proj", "ffn_gate")),
        Some(named("mlp.up_proj", "ffn_up")),
        Some(named("mlp.down_proj", "ffn_down")),
    ],
    biases: &[],
    head_bias: false,
    activation: Activation::Silu,
    scales_embedding: false,
    gguf_pairs: true,
};

const MISTRAL: Facts = Facts { model_type: "mistral", class: "MistralForCausalLM", ..LLAMA };

const QWEN2: Facts = Facts {
    model_type: "qwen2",
    class: "Qwen2ForCausalLM",
    gguf: "qwen2",
    biases: &[Target::QProj, Target::KProj, Target::VProj],
    gguf_pairs: false,
    ..LLAMA
};

const QWEN3: Facts = Facts {
    model_type: "qwen3",
    class: "Qwen3ForCausalLM",
    gguf: "qwen3",
    head_norms: Some([named("self_attn.q_norm", "attn_q_norm"), named("self_attn.k_norm", "attn_k_norm")]),
    gguf_pairs: false,
    ..LLAMA
};

const GEMMA3: Facts = Facts {
    model_type: "gemma3_text",
    class: "Gemma3ForCausalLM",
    gguf: "gemma3",
    norm: NormKind::RmsPlusOne,
    post_attention_norm: Some(named("post_attention_layernorm", "post_attention_norm")),
    mlp_norm: Some(named("pre_feedforward_layernorm", "ffn_norm")),
    post_mlp_norm: Some(named("post_feedforward_layernorm", "post_ffw_norm")),
    activation: Activation::GeluTanh,
    scales_embedding: true,
    ..QWEN3
};

const PHI: Facts = Facts {
    model_type: "phi",
    class: "PhiForCausalLM",
    gguf: "phi2",
    norm: NormKind::Layer,
    mlp_norm: None,
    final_norm: "final_layernorm",
    linears: [
        Some(named("self_attn.q_proj", "attn_q")),
        Some(named("self_attn.k_proj", "attn_k")),
        Some(named("self_attn.v_proj", "attn_v")),
        Some(named("self_attn.dense", "attn_output")),
        None,
        Some(named("mlp.fc1", "ffn_up")),
        Some(named("mlp.fc2", "ffn_down")),
    ],
    biases: &[Target::QProj, Target::KProj, Target::VProj, Target::OProj, Target::UpProj, Target::DownProj],
    head_bias: true,
    activation: Activation::GeluTanh,
    gguf_pairs: false,
    ..LLAMA
};
