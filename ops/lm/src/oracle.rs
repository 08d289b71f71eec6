//! Tests against others: `candle-transformers`' decoders for logits, candle's autograd for gradients.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Content;
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, quantized_llama};

use crate::gradient::Segment;
use crate::kv::KvCache;
use crate::lora::Adapter;
use crate::model::{Model, Span};
use crate::testing::{segment, smollm2, tiny_adapter, tiny_model};

/// "The capital of France is Paris. The capital of Italy is" and some tokens more, as numbers.
const PROMPT: [u32; 24] = [
    504, 3575, 282, 4649, 314, 7042, 30, 378, 3575, 282, 8165, 314, 9413, 30, 1, 4093, 198, 19556, 2, 198, 1, 520,
    9531, 198,
];

fn last_logits(model: &Model, prompt: &[u32]) -> Vec<f32> {
    let mut cache = KvCache::new(model.config());
    let hidden = model.forward(None, &mut [Span { tokens: prompt, cache: &mut cache }]).unwrap();
    model.logits(hidden.row(prompt.len() - 1))
}

fn top(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// candle's float decoder is fed our (half-float) weights, so only the order of sums differs: logits of magnitude ten
/// to thirty after thirty blocks of single floats agree to a thousandth.
#[test]
fn logits_agree_with_candles_llama_on_the_same_weights() {
    let model = Model::load(&smollm2()).unwrap();
    let config = model.config();
    let tensors: HashMap<String, Tensor> =
        model.tensors(None).map(|t| (t.name, Tensor::from_vec(t.values, t.shape, &Device::Cpu).unwrap())).collect();
    let theirs = llama::Config {
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        vocab_size: config.vocab_size,
        num_hidden_layers: config.num_hidden_layers,
        num_attention_heads: config.num_attention_heads,
        num_key_value_heads: config.num_key_value_heads,
        use_flash_attn: false,
        rms_norm_eps: f64::from(config.rms_norm_eps),
        rope_theta: config.rope_theta,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: 512,
        tie_word_embeddings: true,
    };
    let decoder = llama::Llama::load(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu), &theirs).unwrap();
    for length in [1, 7, 24] {
        let mut cache = llama::Cache::new(false, DType::F32, &theirs, &Device::Cpu).unwrap();
        let input = Tensor::new(&PROMPT[..length], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let expected: Vec<f32> =
            decoder.forward(&input, 0, &mut cache).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let logits = last_logits(&model, &PROMPT[..length]);
        let worst = logits.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "{length} tokens: logits differ by {worst}");
        assert_eq!(top(&logits), top(&expected));
    }
}

/// candle's quantised decoder rounds activations to eight bits before each product, so agreement is loose.
#[test]
fn logits_resemble_candles_quantised_llama_on_the_same_file() {
    let path = smollm2();
    let model = Model::load(&path).unwrap();
    let mut file = std::fs::File::open(&path).unwrap();
    let content = Content::read(&mut file).unwrap();
    let mut theirs = quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
    let input = Tensor::new(&PROMPT[..], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let expected: Vec<f32> = theirs.forward(&input, 0).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let logits = last_logits(&model, &PROMPT);
    assert_eq!(top(&logits), top(&expected));
    let likeness = cosine(&logits, &expected);
    assert!(likeness > 0.999, "cosine {likeness}");
}

#[test]
fn gradients_agree_with_candles_autograd_for_every_tensor() {
    let (model, adapter) = (tiny_model(), tiny_adapter());
    let segments = [segment(60, 1), segment(13, 2)];
    let (losses, grads) = model.gradients(&adapter, &segments, None).unwrap();
    let naive = Naive::new(&model, &adapter);
    let loss = (naive.loss(&segments[0]) + naive.loss(&segments[1])).unwrap();
    let expected = loss.to_scalar::<f64>().unwrap();
    let nll: f64 = losses.iter().map(|sum| sum.nll).sum();
    assert!((nll - expected).abs() < 1e-4 * expected, "{nll} for {expected}");

    let store = loss.backward().unwrap();
    for (tensor, ours) in adapter.tensors().iter().zip(&grads.tensors) {
        let theirs = store.get(naive.vars[&tensor.name].as_tensor()).unwrap();
        let theirs: Vec<f64> = theirs.flatten_all().unwrap().to_vec1().unwrap();
        let size = theirs.iter().map(|v| v.abs()).fold(0.0, f64::max);
        assert!(size > 0.0, "{} has a gradient", tensor.name);
        for (at, (&ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            let error = (f64::from(ours) - theirs).abs();
            assert!(error < 2e-4 * size, "{}[{at}]: {ours} for {theirs}", tensor.name);
        }
    }
}

#[test]
fn gradients_under_dropout_are_those_of_the_loss_under_dropout() {
    let (model, adapter) = (tiny_model(), tiny_adapter());
    let segments = [segment(20, 3), segment(9, 4)];
    let nll = |adapter: &Adapter| -> f64 {
        let (losses, _) = model.gradients(adapter, &segments, Some(77)).unwrap();
        losses.iter().map(|sum| sum.nll).sum()
    };
    let (_, grads) = model.gradients(&adapter, &segments, Some(77)).unwrap();
    for (at, gradient) in grads.tensors.iter().enumerate() {
        // Along the gradient itself, where the change is largest against the rounding of the loss.
        let length: f64 = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let step = 1e-3 / length.max(1e-3);
        let shifted = |sign: f64| {
            let mut other = adapter.clone();
            let values = other.values_mut().nth(at).unwrap();
            values.iter_mut().zip(gradient).for_each(|(v, &g)| *v += (sign * step * f64::from(g)) as f32);
            nll(&other)
        };
        let slope = (shifted(1.0) - shifted(-1.0)) / (2.0 * step * length);
        let name = &adapter.tensors()[at].name;
        assert!((slope - length).abs() < 0.02 * length + 0.02, "{name}: slope {slope} for {length}");
    }
}

/// The decoder in plain candle operations and double floats, which all have gradients.
struct Naive<'a> {
    model: &'a Model,
    weights: HashMap<String, Tensor>,
    vars: HashMap<String, Var>,
    scaling: f64,
}

impl<'a> Naive<'a> {
    fn new(model: &'a Model, adapter: &Adapter) -> Self {
        let double = |values: &[f32], shape: &[usize]| {
            Tensor::from_slice(values, shape, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
        };
        let weights = model.tensors(None).map(|t| (t.name, double(&t.values, &t.shape))).collect();
        let tensors = adapter.tensors().iter();
        let vars = tensors.map(|t| (t.name.clone(), Var::from_tensor(&double(&t.values, &t.shape)).unwrap())).collect();
        Self { model, weights, vars, scaling: f64::from(adapter.config().scaling()) }
    }

    /// Summed loss of one segment.
    fn loss(&self, segment: &Segment) -> Tensor {
        let config = self.model.config();
        let ids = Tensor::new(&segment.tokens[..], &Device::Cpu).unwrap();
        let embedding = &self.weights["model.embed_tokens.weight"];
        let mut x = embedding.index_select(&ids, 0).unwrap();
        for layer in 0..config.num_hidden_layers {
            let at = |part: &str| format!("model.layers.{layer}.{part}");
            let normed = self.norm(&x, &at("input_layernorm.weight"));
            let mixed = self.attention(layer, &normed);
            x = (x + self.linear(&mixed, &at("self_attn.o_proj"))).unwrap();
            let normed = self.norm(&x, &at("post_attention_layernorm.weight"));
            let gate = self.linear(&normed, &at("mlp.gate_proj"));
            let gate = (&gate / (gate.neg().unwrap().exp().unwrap() + 1.0).unwrap()).unwrap();
            let inner = (gate * self.linear(&normed, &at("mlp.up_proj"))).unwrap();
            x = (x + self.linear(&inner, &at("mlp.down_proj"))).unwrap();
        }
        let logits = self.norm(&x, "model.norm.weight").matmul(&embedding.t().unwrap()).unwrap();
        let norms = logits.exp().unwrap().sum(D::Minus1).unwrap().log().unwrap();
        let mut total = Tensor::new(0f64, &Device::Cpu).unwrap();
        for (row, target) in segment.targets.iter().enumerate() {
            if let Some(target) = target {
                let logit = logits.get(row).unwrap().get(*target as usize).unwrap();
                total = (total + (norms.get(row).unwrap() - logit).unwrap()).unwrap();
            }
        }
        total
    }

    fn norm(&self, x: &Tensor, weight: &str) -> Tensor {
        let mean = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
        let eps = f64::from(self.model.config().rms_norm_eps);
        let root = (mean + eps).unwrap().sqrt().unwrap();
        x.broadcast_div(&root).unwrap().broadcast_mul(&self.weights[weight]).unwrap()
    }

    fn linear(&self, x: &Tensor, path: &str) -> Tensor {
        let times = |x: &Tensor, weight: &Tensor| x.matmul(&weight.t().unwrap()).unwrap();
        let base = times(x, &self.weights[&format!("{path}.weight")]);
        let low = times(x, self.vars[&format!("{path}.lora_A.weight")].as_tensor());
        let change = times(&low, self.vars[&format!("{path}.lora_B.weight")].as_tensor());
        (base + (change * self.scaling).unwrap()).unwrap()
    }

    fn attention(&self, layer: usize, x: &Tensor) -> Tensor {
        let config = self.model.config();
        let part = |name: &str| self.linear(x, &format!("model.layers.{layer}.self_attn.{name}"));
        let (q, k, v) = (part("q_proj"), part("k_proj"), part("v_proj"));
        let dim = config.head_dim;
        let head = |x: &Tensor, head: usize| x.narrow(1, head * dim, dim).unwrap();
        let length = x.dim(0).unwrap();
        let hidden: Vec<f64> =
            (0..length * length).map(|i| if i % length > i / length { -1e30 } else { 0.0 }).collect();
        let mask = Tensor::from_vec(hidden, (length, length), &Device::Cpu).unwrap();
        let heads: Vec<Tensor> = (0..config.num_attention_heads)
            .map(|at| {
                let key = at / config.group();
                let (q, k) = (self.rotate(&head(&q, at)), self.rotate(&head(&k, key)));
                let scores = (q.matmul(&k.t().unwrap()).unwrap() / (dim as f64).sqrt()).unwrap();
                let weights = (scores + &mask).unwrap().exp().unwrap();
                let weights = weights.broadcast_div(&weights.sum_keepdim(1).unwrap()).unwrap();
                weights.matmul(&head(&v, key).contiguous().unwrap()).unwrap()
            })
            .collect();
        Tensor::cat(&heads, 1).unwrap()
    }

    fn rotate(&self, x: &Tensor) -> Tensor {
        let config = self.model.config();
        let (length, half) = (x.dim(0).unwrap(), config.head_dim / 2);
        let angle = |i: usize| {
            let slowness = f64::from(config.rope_theta).powf(2.0 * (i % half) as f64 / config.head_dim as f64);
            (i / half) as f64 / slowness
        };
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f64> = (0..length * half).map(|i| f(angle(i))).collect();
            Tensor::from_vec(values, (length, half), &Device::Cpu).unwrap()
        };
        let (cos, sin) = (table(f64::cos), table(f64::sin));
        let (a, b) = (x.narrow(1, 0, half).unwrap(), x.narrow(1, half, half).unwrap());
        let first = ((&a * &cos).unwrap() - (&b * &sin).unwrap()).unwrap();
        let second = ((b * cos).unwrap() + (a * sin).unwrap()).unwrap();
        Tensor::cat(&[first, second], 1).unwrap()
    }
}
