//! Tokens a second of the real model: prompt, decoding side by side, a training step.
//!
//! `cargo bench --workspace --bench decoder`; needs the test model (`.ci/fetch-model`), or another in `RETORT_BENCH_MODEL`. Two threads unless rayon is told otherwise.

use std::path::Path;
use std::sync::LazyLock;

use divan::Bencher;
use divan::counter::ItemsCount;
use retort_lm::gradient::Segment;
use retort_lm::kernels::Precision;
use retort_lm::kv::KvCache;
use retort_lm::lora::{Adapter, LoraConfig};
use retort_lm::model::{Model, Span};

static MODEL: LazyLock<Model> = LazyLock::new(|| load(Precision::F16));
static INT8: LazyLock<Model> = LazyLock::new(|| load(Precision::Int8));
static BF16: LazyLock<Model> = LazyLock::new(|| load(Precision::Bf16));

#[expect(clippy::disallowed_methods, reason = "a bench may be told which model to run")]
fn load(precision: Precision) -> Model {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("RETORT_BENCH_MODEL").unwrap_or_else(|| default.into());
    Model::load_in(precision, Path::new(&path)).expect("the test model is there: run `.ci/fetch-model`")
}

fn main() {
    divan::main();
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| 1000 + i * 37 % 40_000).collect()
}

/// One prompt, the logits of its last token included.
#[divan::bench(args = [64, 512, 2048], sample_count = 3, sample_size = 1)]
fn prompt(bencher: Bencher<'_, '_>, length: usize) {
    prompt_of(bencher, &MODEL, length);
}

/// The same in eight bits.
#[divan::bench(args = [64, 512, 2048], sample_count = 3, sample_size = 1)]
fn prompt_int8(bencher: Bencher<'_, '_>, length: usize) {
    prompt_of(bencher, &INT8, length);
}

/// The same in bfloat16.
#[divan::bench(args = [64, 512, 2048], sample_count = 3, sample_size = 1)]
fn prompt_bf16(bencher: Bencher<'_, '_>, length: usize) {
    prompt_of(bencher, &BF16, length);
}

fn prompt_of(bencher: Bencher<'_, '_>, model: &Model, length: usize) {
    let text = tokens(length);
    bencher.counter(ItemsCount::new(length)).bench_local(|| {
        let mut cache = model.cache();
        let hidden = model.forward(None, &mut [Span { tokens: &text, cache: &mut cache }]).expect("a good prompt");
        model.logits(hidden.row(length - 1))
    });
}

/// A step of so many rows after a shared prompt of 512 tokens.
#[divan::bench(args = [1, 4, 16, 32], sample_count = 10, sample_size = 2)]
fn decode(bencher: Bencher<'_, '_>, rows: usize) {
    decode_with(bencher, &MODEL, rows, None);
}

/// The same in eight bits.
#[divan::bench(args = [1, 4, 16, 32], sample_count = 10, sample_size = 2)]
fn decode_int8(bencher: Bencher<'_, '_>, rows: usize) {
    decode_with(bencher, &INT8, rows, None);
}

/// The same in bfloat16.
#[divan::bench(args = [1, 4, 16, 32], sample_count = 10, sample_size = 2)]
fn decode_bf16(bencher: Bencher<'_, '_>, rows: usize) {
    decode_with(bencher, &BF16, rows, None);
}

/// The same with an adapter of rank 16 on all layers.
#[divan::bench(args = [1, 16], sample_count = 10, sample_size = 2)]
fn decode_adapted(bencher: Bencher<'_, '_>, rows: usize) {
    decode_with(bencher, &MODEL, rows, Some(&adapter()));
}

fn decode_with(bencher: Bencher<'_, '_>, model: &Model, rows: usize, adapter: Option<&Adapter>) {
    let mut prefix = model.cache();
    model.forward(adapter, &mut [Span { tokens: &tokens(512), cache: &mut prefix }]).expect("a good prompt");
    let mut caches: Vec<KvCache> = (0..rows).map(|_| prefix.fork()).collect();
    bencher.counter(ItemsCount::new(rows)).bench_local(|| {
        let mut spans: Vec<_> = caches.iter_mut().map(|cache| Span { tokens: &[42], cache }).collect();
        let hidden = model.forward(adapter, &mut spans).expect("a good step");
        model.logits(hidden.values())
    });
}

/// A step's gradients: segments of 256 tokens, all layers, rank 16.
#[divan::bench(args = [1, 4, 8], sample_count = 2, sample_size = 1)]
fn train(bencher: Bencher<'_, '_>, segments: usize) {
    let text = tokens(257);
    let batch = vec![Segment::next_token(&text, &[true; 257]); segments];
    let adapter = adapter();
    bencher
        .counter(ItemsCount::new(segments * 256))
        .bench_local(|| MODEL.gradients(&adapter, &batch, None).expect("a good batch"));
}

fn adapter() -> Adapter {
    let config = LoraConfig { rank: 16, alpha: 16.0, ..LoraConfig::default() };
    Adapter::init(MODEL.config(), &config, 1).expect("a good config")
}
