//! Tests of the laws: the same bits in any batch, any cutting, any sharing, on any number of threads.

use crate::config::Architecture;
use crate::gradient::LossSum;
use crate::kernels::Precision;
use crate::kv::{KvCache, PAGE_TOKENS};
use crate::lora::Adapter;
use crate::model::{Model, Span};
use crate::testing::{
    random_adapter, random_dora, random_model_in, segment, smollm2, tiny_adapter, tiny_config, tiny_config_of,
    tiny_model, tokens,
};

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// All hidden states of one sequence, alone, in one call.
fn alone(model: &Model, adapter: Option<&Adapter>, tokens: &[u32]) -> Vec<u32> {
    let mut cache = model.cache();
    bits(model.forward(adapter, &mut [Span { tokens, cache: &mut cache }]).unwrap().values())
}

/// The law of batches: `lengths` side by side, cut into `cuts`, each compared with itself alone.
fn check_any_company(model: &Model, adapter: Option<&Adapter>, lengths: &[usize], cuts: &[usize]) {
    let texts: Vec<Vec<u32>> = lengths.iter().zip(40..).map(|(&length, seed)| tokens(length, seed)).collect();
    let expected: Vec<Vec<u32>> = texts.iter().map(|text| alone(model, adapter, text)).collect();
    let width = model.config().hidden_size;
    for threads in [1, 2, 3] {
        let mut caches: Vec<KvCache> = texts.iter().map(|_| model.cache()).collect();
        let mut got = vec![Vec::new(); texts.len()];
        for step in 0.. {
            let cut = cuts[step % cuts.len()];
            let mut spans = Vec::new();
            let mut owners = Vec::new();
            for (owner, (text, cache)) in texts.iter().zip(&mut caches).enumerate() {
                let begin = cache.len();
                let end = text.len().min(begin + cut + owner % 2);
                if begin < end {
                    spans.push(Span { tokens: &text[begin..end], cache });
                    owners.extend(std::iter::repeat_n(owner, end - begin));
                }
            }
            if spans.is_empty() {
                break;
            }
            let hidden = pool(threads).install(|| model.forward(adapter, &mut spans)).unwrap();
            for (row, owner) in owners.into_iter().enumerate() {
                got[owner].extend(bits(hidden.row(row)));
            }
        }
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let row = got.iter().zip(expected).position(|(a, b)| a != b).map(|at| at / width);
            assert_eq!(row, None, "sequence {i} on {threads} threads differs at this token");
            assert_eq!(got.len(), expected.len());
        }
    }
}

#[test]
fn a_token_has_the_same_bits_in_any_company_and_cutting() {
    let (model, adapter) = (tiny_model(), tiny_adapter());
    let [int8, bf16] = [Precision::Int8, Precision::Bf16].map(|precision| random_model_in(precision, &tiny_config()));
    for cuts in [&[1][..], &[5], &[32], &[64, 1, 31], &[200]] {
        for model in [&model, &int8, &bf16] {
            check_any_company(model, None, &[1, 70, 33, 2, 64, 100], cuts);
            check_any_company(model, Some(&adapter), &[70, 7], cuts);
        }
    }
}

#[test]
fn a_token_of_every_family_has_the_same_bits_in_any_company_and_cutting() {
    for architecture in Architecture::ALL {
        let config = tiny_config_of(architecture);
        let adapter = random_adapter(&config);
        for precision in [Precision::F32, Precision::Int8, Precision::Bf16] {
            let model = random_model_in(precision, &config);
            check_any_company(&model, None, &[1, 70, 33], &[5]);
            check_any_company(&model, Some(&adapter), &[40, 70], &[64, 1, 31]);
        }
    }
}

#[test]
fn a_token_of_the_real_model_has_the_same_bits_in_any_company_and_cutting() {
    for precision in [Precision::F16, Precision::Int8, Precision::Bf16] {
        let model = Model::load_in(precision, &smollm2()).unwrap();
        check_any_company(&model, None, &[50, 3, 33], &[40, 1, 9]);
    }
}

#[test]
fn a_forked_prefix_gives_the_same_bits_and_is_not_written_to() {
    for model in [tiny_model(), random_model_in(Precision::Int8, &tiny_config())] {
        check_forks(&model, &tiny_adapter());
    }
}

fn check_forks(model: &Model, adapter: &Adapter) {
    for shared in [1, 31, 32, 33, 64, 80] {
        let text = tokens(shared + 40, 3);
        let expected = alone(model, Some(adapter), &text);
        let mut prefix = model.cache();
        model.forward(Some(adapter), &mut [Span { tokens: &text[..shared], cache: &mut prefix }]).unwrap();
        let (mut one, mut two) = (prefix.fork(), prefix.fork());
        let mut spans =
            [Span { tokens: &text[shared..], cache: &mut one }, Span { tokens: &[9, 9, 9, 9], cache: &mut two }];
        let hidden = model.forward(Some(adapter), &mut spans).unwrap();
        let own = bits(&hidden.values()[..40 * model.config().hidden_size]);
        assert_eq!(own, expected[shared * model.config().hidden_size..], "{shared}");
        // The prefix itself can go on as if nobody had.
        let hidden = model.forward(Some(adapter), &mut [Span { tokens: &text[shared..], cache: &mut prefix }]).unwrap();
        assert_eq!(bits(hidden.values()), own);
        // And back again.
        prefix.truncate(shared - 1);
        let hidden = model.forward(Some(adapter), &mut [Span { tokens: &text[shared - 1..], cache: &mut prefix }]);
        assert_eq!(bits(hidden.unwrap().values()), expected[(shared - 1) * model.config().hidden_size..]);
    }
}

#[test]
fn logits_of_a_row_are_its_own() {
    for model in [tiny_model(), random_model_in(Precision::Int8, &tiny_config())] {
        check_logits(&model);
    }
}

fn check_logits(model: &Model) {
    let hidden = crate::testing::random(37 * model.config().hidden_size, 8);
    let all = model.logits(&hidden);
    let (width, vocab) = (model.config().hidden_size, model.config().vocab_size);
    for row in [0, 11, 12, 36] {
        let one = model.logits(&hidden[row * width..(row + 1) * width]);
        assert_eq!(bits(&one), bits(&all[row * vocab..(row + 1) * vocab]));
    }
}

#[test]
fn a_cache_takes_what_it_says() {
    for (model, value) in [(tiny_model(), 4), (random_model_in(Precision::Int8, &tiny_config()), 2)] {
        let (config, cache) = (model.config(), model.cache());
        let page = cache.bytes(1);
        assert_eq!(page, PAGE_TOKENS * config.num_hidden_layers * config.key_value_width() * 2 * value);
        assert_eq!(cache.bytes(0), 0);
        assert_eq!(cache.bytes(PAGE_TOKENS + 1), 2 * page);
        assert_eq!(cache.bytes_after(PAGE_TOKENS + 1, PAGE_TOKENS + 2), page);
    }
}

#[test]
fn packed_segments_lose_what_each_loses_alone() {
    let (model, adapter) = (tiny_model(), tiny_adapter());
    let segments = [segment(70, 1), segment(1, 2), segment(48, 3), segment(97, 4)];
    let packed = model.loss(Some(&adapter), &segments).unwrap();
    let each: Vec<LossSum> =
        segments.iter().map(|one| model.loss(Some(&adapter), std::slice::from_ref(one)).unwrap()[0]).collect();
    assert_eq!(packed, each);
    assert!(packed.iter().map(|sum| sum.tokens).sum::<u64>() > 100);
    let (with_gradients, _) = model.gradients(&adapter, &segments, None).unwrap();
    assert_eq!(with_gradients, each);
}

#[test]
fn loss_is_what_the_logits_of_decoding_say() {
    for architecture in Architecture::ALL {
        let config = tiny_config_of(architecture);
        for precision in [Precision::F32, Precision::Int8, Precision::Bf16] {
            check_loss_beside_decoding(&random_model_in(precision, &config), &random_adapter(&config));
        }
    }
}

fn check_loss_beside_decoding(model: &Model, adapter: &Adapter) {
    let one = segment(60, 5);
    let mut cache = model.cache();
    let hidden = model.forward(Some(adapter), &mut [Span { tokens: &one.tokens, cache: &mut cache }]).unwrap();
    let mut nll = 0.0;
    for (row, target) in one.targets.iter().enumerate() {
        if let Some(target) = target {
            nll += crate::kernels::cross_entropy(&mut model.logits(hidden.row(row)), *target as usize);
        }
    }
    assert_eq!(model.loss(Some(adapter), &[one]).unwrap()[0].nll.to_bits(), nll.to_bits());
}

#[test]
fn gradients_have_the_same_bits_on_any_number_of_threads() {
    for model in [tiny_model(), random_model_in(Precision::Bf16, &tiny_config())] {
        check_gradients_on_threads(&model, &tiny_adapter());
    }
}

fn check_gradients_on_threads(model: &Model, adapter: &Adapter) {
    let segments = [segment(70, 1), segment(48, 3), segment(97, 4)];
    let run = |threads| pool(threads).install(|| model.gradients(adapter, &segments, Some(11)).unwrap());
    let (losses, grads) = run(1);
    for threads in [2, 3] {
        let (other_losses, other) = run(threads);
        assert_eq!(losses, other_losses);
        assert!(grads.tensors.iter().zip(&other.tensors).all(|(a, b)| bits(a) == bits(b)));
    }
    let (other_losses, _) = model.gradients(adapter, &segments, Some(12)).unwrap();
    assert_ne!(losses, other_losses, "dropout follows its seed");
}

#[test]
fn losses_and_gradients_in_bfloat16_come_near_those_in_single_floats() {
    for architecture in Architecture::ALL {
        let config = tiny_config_of(architecture);
        let [wide, narrow] = [Precision::F32, Precision::Bf16].map(|precision| random_model_in(precision, &config));
        for adapter in [random_adapter(&config), random_dora(&wide)] {
            let segments = [segment(70, 1), segment(48, 3), segment(97, 4)];
            let run = |model: &Model| model.gradients(&adapter, &segments, None).unwrap();
            let ((wide_losses, wide_grads), (losses, grads)) = (run(&wide), run(&narrow));
            for (loss, wide) in losses.iter().zip(&wide_losses) {
                assert!((loss.nll - wide.nll).abs() < 0.01 * wide.nll, "{architecture:?}: {loss:?} for {wide:?}");
            }
            let length = |values: &[f32]| values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let [wide, narrow] =
                [&wide_grads, &grads].map(|grads| grads.tensors.iter().flatten().copied().collect::<Vec<f32>>());
            let difference: Vec<f32> = narrow.iter().zip(&wide).map(|(a, b)| a - b).collect();
            let (longer, off) = (length(&narrow) / length(&wide) - 1.0, length(&difference) / length(&wide));
            // Rows of 36 values average little out: every rounding is seen.
            assert!(longer.abs() < 0.01, "{architecture:?}: longer by {longer:.4}");
            assert!(off < 0.06 && off > 0.0, "{architecture:?}: off by {off:.4} of their length");
        }
    }
}

#[test]
fn senseless_calls_are_refused() {
    let (model, adapter) = (tiny_model(), tiny_adapter());
    let mut cache = model.cache();
    let mut refused = |tokens: &[u32]| {
        let mut spans = [Span { tokens, cache: &mut cache }];
        model.forward(None, &mut spans).unwrap_err().to_string()
    };
    assert!(refused(&[]).contains("no tokens"));
    assert!(refused(&[3, 101]).contains("token 101"));
    assert!(refused(&tokens(257, 1)).contains("257 tokens exceeds the context of 256"));
    let mut bad = segment(5, 1);
    bad.targets.pop();
    assert!(model.loss(None, &[bad]).unwrap_err().to_string().contains("5 tokens and 4 targets"));
    let smaller = crate::config::Config { hidden_size: 30, ..crate::testing::tiny_config() };
    let other = Adapter::init(&smaller, adapter.config(), 1).unwrap();
    assert!(model.loss(Some(&other), &[segment(5, 1)]).unwrap_err().to_string().contains("another shape"));
}
