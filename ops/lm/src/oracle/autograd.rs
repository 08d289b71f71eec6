//! Gradients of every family against candle's autograd: the decoder again, in plain operations and double floats.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor, Var};

use crate::config::{Architecture, Config, NormKind, Rotary};
use crate::gradient::Segment;
use crate::kernels::Activation;
use crate::lora::{Adapter, Place, Target};
use crate::model::Model;
use crate::testing::{
    random_adapter, random_dora, random_model, segment, tiny_adapter, tiny_config, tiny_config_of, tiny_model,
};

#[test]
fn gradients_agree_with_candles_autograd_for_every_tensor() {
    let both = |config: &Config| {
        let model = random_model(config);
        check(config, &model, &random_adapter(config));
        check(config, &model, &random_dora(&model));
    };
    both(&tiny_config());
    for architecture in Architecture::ALL {
        both(&tiny_config_of(architecture));
    }
}

fn check(config: &Config, model: &Model, adapter: &Adapter) {
    let segments = [segment(60, 1), segment(13, 2)];
    let (losses, grads) = model.gradients(adapter, &segments, None).unwrap();
    let naive = Naive::new(model, adapter);
    let loss = (naive.loss(&segments[0]) + naive.loss(&segments[1])).unwrap();
    let expected = loss.to_scalar::<f64>().unwrap();
    let nll: f64 = losses.iter().map(|sum| sum.nll).sum();
    assert!((nll - expected).abs() < 1e-5 * expected, "{:?}: {nll} for {expected}", config.architecture);

    let store = loss.backward().unwrap();
    for (tensor, ours) in adapter.tensors().iter().zip(&grads.tensors) {
        let theirs = store.get(naive.vars[&tensor.name].as_tensor()).unwrap();
        let theirs: Vec<f64> = theirs.flatten_all().unwrap().to_vec1().unwrap();
        let size = theirs.iter().map(|v| v.abs()).fold(0.0, f64::max);
        assert!(size > 0.0, "{} has a gradient", tensor.name);
        for (at, (&ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            let error = (f64::from(ours) - theirs).abs();
            assert!(error < 2e-4 * size, "{:?}, {}[{at}]: {ours} for {theirs}", config.architecture, tensor.name);
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
    config: &'a Config,
    weights: HashMap<String, Tensor>,
    vars: HashMap<String, Var>,
    /// By layer.
    scalings: HashMap<String, f64>,
}

impl<'a> Naive<'a> {
    fn new(model: &'a Model, adapter: &Adapter) -> Self {
        let double = |values: &[f32], shape: &[usize]| {
            Tensor::from_slice(values, shape, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
        };
        let weights = model.tensors(None).map(|t| (t.name, double(&t.values, &t.shape))).collect();
        let tensors = adapter.tensors().iter();
        let vars = tensors.map(|t| (t.name.clone(), Var::from_tensor(&double(&t.values, &t.shape)).unwrap())).collect();
        let scaling = |place: &Place| (place.path.clone(), f64::from(place.scaling(adapter.config().rslora)));
        let scalings = adapter.places().iter().map(scaling).collect();
        Self { config: model.config(), weights, vars, scalings }
    }

    /// Summed loss of one segment.
    fn loss(&self, segment: &Segment) -> Tensor {
        let ids = Tensor::new(&segment.tokens[..], &Device::Cpu).unwrap();
        let embedding = &self.weights["model.embed_tokens.weight"];
        let mut x = embedding.index_select(&ids, 0).unwrap();
        if self.config.architecture == Architecture::Gemma3 {
            x = (x * (self.config.hidden_size as f64).sqrt()).unwrap();
        }
        for layer in 0..self.config.num_hidden_layers {
            x = self.block(layer, &x);
        }
        let last = format!("model.{}", self.config.facts().final_norm);
        let head = self.weights.get("lm_head.weight").unwrap_or(embedding);
        let logits = self.norm(&x, &last).matmul(&head.t().unwrap()).unwrap();
        let logits = match self.weights.get("lm_head.bias") {
            Some(bias) => logits.broadcast_add(bias).unwrap(),
            None => logits,
        };
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

    /// Written out by family, and not from the table of facts.
    fn block(&self, layer: usize, x: &Tensor) -> Tensor {
        let norm = |x: &Tensor, part: &str| self.norm(x, &format!("model.layers.{layer}.{part}"));
        let normed = norm(x, "input_layernorm");
        let attended = self.attention(layer, &normed);
        match self.config.architecture {
            Architecture::Phi => (((x + attended).unwrap()) + self.mlp(layer, &normed)).unwrap(),
            Architecture::Gemma3 => {
                let x = (x + norm(&attended, "post_attention_layernorm")).unwrap();
                let inner = self.mlp(layer, &norm(&x, "pre_feedforward_layernorm"));
                (x + norm(&inner, "post_feedforward_layernorm")).unwrap()
            }
            _ => {
                let x = (x + attended).unwrap();
                let inner = self.mlp(layer, &norm(&x, "post_attention_layernorm"));
                (x + inner).unwrap()
            }
        }
    }

    fn mlp(&self, layer: usize, x: &Tensor) -> Tensor {
        let linear = |x: &Tensor, target: Target| self.linear(x, &target.path(self.config, layer).unwrap());
        let up = linear(x, Target::UpProj);
        let inner = match self.config.architecture {
            Architecture::Phi => self.curve(&up),
            _ => (self.curve(&linear(x, Target::GateProj)) * up).unwrap(),
        };
        linear(&inner, Target::DownProj)
    }

    fn curve(&self, x: &Tensor) -> Tensor {
        let sigmoid = |x: &Tensor| (x.neg().unwrap().exp().unwrap() + 1.0).unwrap().recip().unwrap();
        match self.config.facts().activation {
            Activation::Silu => (x * sigmoid(x)).unwrap(),
            Activation::GeluTanh => {
                let cube = (x.sqr().unwrap() * x).unwrap();
                let u = ((x + (cube * 0.044_715).unwrap()).unwrap() * (2.0 / std::f64::consts::PI).sqrt()).unwrap();
                ((x * 0.5).unwrap() * (u.tanh().unwrap() + 1.0).unwrap()).unwrap()
            }
        }
    }

    fn norm(&self, x: &Tensor, path: &str) -> Tensor {
        let eps = f64::from(self.config.norm_eps);
        let weight = &self.weights[&format!("{path}.weight")];
        let root = |x: &Tensor| (x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap() + eps).unwrap().sqrt().unwrap();
        match self.config.facts().norm {
            NormKind::Rms => x.broadcast_div(&root(x)).unwrap().broadcast_mul(weight).unwrap(),
            NormKind::RmsPlusOne => x.broadcast_div(&root(x)).unwrap().broadcast_mul(&(weight + 1.0).unwrap()).unwrap(),
            NormKind::Layer => {
                let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1).unwrap()).unwrap();
                let normed = x.broadcast_div(&root(&x)).unwrap().broadcast_mul(weight).unwrap();
                normed.broadcast_add(&self.weights[&format!("{path}.bias")]).unwrap()
            }
        }
    }

    fn linear(&self, x: &Tensor, path: &str) -> Tensor {
        let times = |x: &Tensor, weight: &Tensor| x.matmul(&weight.t().unwrap()).unwrap();
        let weight = &self.weights[&format!("{path}.weight")];
        let (a, b) = (&self.vars[&format!("{path}.lora_A.weight")], &self.vars[&format!("{path}.lora_B.weight")]);
        let change = times(&times(x, a.as_tensor()), b.as_tensor());
        let mut out = (times(x, weight) + (change * self.scalings[path]).unwrap()).unwrap();
        if let Some(lengths) = self.vars.get(&format!("{path}.lora_magnitude_vector")) {
            // The norms of the adapted weights, which no gradient goes through.
            let update = (b.matmul(a).unwrap() * self.scalings[path]).unwrap();
            let norms = (weight + update).unwrap().sqr().unwrap().sum_keepdim(1).unwrap().sqrt().unwrap().detach();
            out = out.broadcast_mul(&(lengths.as_tensor() / norms).unwrap().flatten_all().unwrap()).unwrap();
        }
        match self.weights.get(&format!("{path}.bias")) {
            Some(bias) => out.broadcast_add(bias).unwrap(),
            None => out,
        }
    }

    fn attention(&self, layer: usize, x: &Tensor) -> Tensor {
        let config = self.config;
        let part = |target: Target| self.linear(x, &target.path(config, layer).unwrap());
        let (q, k, v) = (part(Target::QProj), part(Target::KProj), part(Target::VProj));
        let dim = config.head_dim;
        let head = |x: &Tensor, head: usize| x.narrow(1, head * dim, dim).unwrap();
        let window = config.windows[layer];
        let rotary = config.local_rotary.as_ref().filter(|_| window.is_some()).unwrap_or(&config.rotary);
        let turned = |x: &Tensor, name: &str| {
            let normed = config.facts().head_norms.is_some();
            let x = if normed { self.norm(x, &format!("model.layers.{layer}.self_attn.{name}")) } else { x.clone() };
            rotate(rotary, &x)
        };
        let length = x.dim(0).unwrap();
        let sees = |query: usize, key: usize| key <= query && window.is_none_or(|window| query - key < window);
        let hidden: Vec<f64> =
            (0..length * length).map(|i| if sees(i / length, i % length) { 0.0 } else { -1e30 }).collect();
        let mask = Tensor::from_vec(hidden, (length, length), &Device::Cpu).unwrap();
        let heads: Vec<Tensor> = (0..config.num_attention_heads)
            .map(|at| {
                let key = at / config.group();
                let (q, k) = (turned(&head(&q, at), "q_norm"), turned(&head(&k, key), "k_norm"));
                let scores = (q.matmul(&k.t().unwrap()).unwrap() * f64::from(config.attention_scale)).unwrap();
                let weights = (scores + &mask).unwrap().exp().unwrap();
                let weights = weights.broadcast_div(&weights.sum_keepdim(1).unwrap()).unwrap();
                weights.matmul(&head(&v, key).contiguous().unwrap()).unwrap()
            })
            .collect();
        self.linear(&Tensor::cat(&heads, 1).unwrap(), &Target::OProj.path(config, layer).unwrap())
    }
}

fn rotate(rotary: &Rotary, x: &Tensor) -> Tensor {
    let (length, half) = (x.dim(0).unwrap(), rotary.dim / 2);
    let angle = |i: usize| {
        let slowness = f64::from(rotary.theta).powf(2.0 * (i % half) as f64 / rotary.dim as f64);
        (i / half) as f64 / slowness
    };
    let table = |f: fn(f64) -> f64| {
        let values: Vec<f64> = (0..length * half).map(|i| f(angle(i))).collect();
        Tensor::from_vec(values, (length, half), &Device::Cpu).unwrap()
    };
    let (cos, sin) = (table(f64::cos), table(f64::sin));
    let (a, b) = (x.narrow(1, 0, half).unwrap(), x.narrow(1, half, half).unwrap());
    let rest = x.narrow(1, rotary.dim, x.dim(1).unwrap() - rotary.dim).unwrap();
    let first = ((&a * &cos).unwrap() - (&b * &sin).unwrap()).unwrap();
    let second = ((b * cos).unwrap() + (a * sin).unwrap()).unwrap();
    Tensor::cat(&[first, second, rest], 1).unwrap()
}
