//! Tests against others: `candle-transformers`' and `transformers`' decoders for logits, candle's autograd for gradients.

mod autograd;
mod transformers;

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, quantized_llama};

use crate::model::{Model, Span};
use crate::testing::smollm2;

/// "The capital of France is Paris. The capital of Italy is" and some tokens more, as numbers.
const PROMPT: [u32; 24] = [
    504, 3575, 282, 4649, 314, 7042, 30, 378, 3575, 282, 8165, 314, 9413, 30, 1, 4093, 198, 19556, 2, 198, 1, 520,
    9531, 198,
];

fn last_logits(model: &Model, prompt: &[u32]) -> Vec<f32> {
    let mut cache = model.cache();
    let hidden = model.forward(None, &mut [Span { tokens: prompt, cache: &mut cache }]).unwrap();
    model.logits(hidden.row(prompt.len() - 1)).to_vec()
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
        rms_norm_eps: f64::from(config.norm_eps),
        rope_theta: config.rotary.theta,
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
