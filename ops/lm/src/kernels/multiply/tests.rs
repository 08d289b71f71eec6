//! Tests of products on all threads.

use super::super::levels::Bits;
use super::super::levels::tests::on_levels;
use super::*;

pub(in super::super) fn values(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| (((i + seed) * 2_654_435_761) % 1009) as f32 / 504.5 - 1.0).collect()
}

pub(in super::super) const SHAPES: [(usize, usize, usize); 7] =
    [(1, 5, 7), (1, 96, 300), (16, 64, 576), (13, 33, 800), (280, 70, 64), (5, 16, 1), (50, 33, 1100)];

#[test]
fn products_are_the_chain_bit_for_bit_on_any_threads_and_machine() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    let three = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
    for (rows, n, k) in SHAPES {
        for precision in [Precision::F16, Precision::F32] {
            let (x, was) = (values(rows * k, 3), values(rows * n, 9));
            let packed = Packed::from_rows(&values(n * k, 1), n, k, precision);
            let weight = packed.unpack();
            for start in [Start::Zero, Start::Out] {
                let expected: Vec<f32> = (0..rows * n)
                    .map(|at| {
                        let begin = if start == Start::Out { was[at] } else { 0.0 };
                        let (i, j) = (at / n, at % n);
                        (0..k).fold(begin, |sum, s| x[i * k + s].mul_add(weight[j * k + s], sum))
                    })
                    .collect();
                for isa in Isa::available() {
                    for pool in [&one, &three] {
                        let (mut out, mut twin) = (was.clone(), was.clone());
                        pool.install(|| {
                            let first = Product { x: &Rows::new(&x), weight: &packed, out: &mut out, start };
                            let second = Product { x: &Rows::new(&x), weight: &packed, out: &mut twin, start };
                            multiply_with((isa, Way::Plain(isa)), rows, &mut [first, second]);
                        });
                        assert_eq!(out, expected, "{isa:?} {rows}x{n}x{k}");
                        assert_eq!(twin, expected);
                    }
                }
            }
        }
    }
}

/// The law in eight bits, plainly: `x` and `weight` are one row each; the weight's bytes are found again from its values.
fn blocks(x: &[f32], weight: &[f32], scales: &[f32], begin: f32) -> f32 {
    let block = |(x, (weight, &scale)): (&[f32], (&[f32], &f32))| {
        let most = x.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let (x_scale, inverse) = if most > 0.0 { (most / 127.0, 127.0 / most) } else { (0.0, 0.0) };
        let sum: i32 = x
            .iter()
            .zip(weight)
            .map(|(x, w)| {
                let w = if scale > 0.0 { (w / scale).round() } else { 0.0 };
                (x * inverse).round_ties_even() as i32 * w as i32
            })
            .sum();
        (sum as f32, x_scale * scale)
    };
    let chunks = x.chunks(int8::BLOCK).zip(weight.chunks(int8::BLOCK).zip(scales));
    chunks.map(block).fold(begin, |sum, (dot, scale)| dot.mul_add(scale, sum))
}

#[test]
fn products_in_eight_bits_are_the_chain_of_blocks_bit_for_bit_on_any_threads_and_machine() {
    let pools = [1, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("a pool"));
    for (rows, n, k) in [(6, 32, 64), (1, 64, 1600), (7, 40, 831)].into_iter().chain(SHAPES) {
        let (x, was) = (values(rows * k, 3), values(rows * n, 9));
        let packed = Packed::from_rows(&values(n * k, 1), n, k, Precision::Int8);
        let weight = packed.unpack();
        for start in [Start::Zero, Start::Out] {
            let expected: Vec<f32> = (0..rows * n)
                .map(|at| {
                    let begin = if start == Start::Out { was[at] } else { 0.0 };
                    let (i, j) = (at / n, at % n);
                    blocks(&x[i * k..(i + 1) * k], &weight[j * k..(j + 1) * k], &packed.scales(j), begin)
                })
                .collect();
            for isa in Isa::available() {
                for pool in &pools {
                    let (mut out, mut twin) = (was.clone(), was.clone());
                    pool.install(|| {
                        let first = Product { x: &Rows::new(&x), weight: &packed, out: &mut out, start };
                        let second = Product { x: &Rows::new(&x), weight: &packed, out: &mut twin, start };
                        multiply_with((isa, Way::Plain(isa)), rows, &mut [first, second]);
                    });
                    assert_eq!(out, expected, "{isa:?} {rows}x{n}x{k}");
                    assert_eq!(twin, expected);
                }
            }
        }
    }
}

#[test]
fn the_greatest_bytes_do_not_overflow() {
    for sign in [1.0, -1.0] {
        // A weight that half floats have a scale for.
        let (x, weight) = (vec![sign; 2 * 64], vec![-127.0 / 128.0; 32 * 64]);
        let packed = Packed::from_rows(&weight, 32, 64, Precision::Int8);
        for isa in Isa::available() {
            let mut out = vec![0.0; 64];
            let product = Product { x: &Rows::new(&x), weight: &packed, out: &mut out, start: Start::Zero };
            multiply_with((isa, Way::Plain(isa)), 2, &mut [product]);
            assert!(out.iter().all(|v| (v + sign * 63.5).abs() < 1e-3), "{isa:?}: {out:?}");
        }
    }
}

#[test]
#[should_panic(expected = "the same rows")]
fn a_left_operand_has_one_shape() {
    let values = values(2 * 64, 1);
    let x = Rows::new(&values);
    for (rows, k) in [(2, 64), (4, 32)] {
        let weight = Packed::from_rows(&vec![0.5; 32 * k], 32, k, Precision::Int8);
        let mut out = vec![0.0; rows * 32];
        multiply(rows, &mut [Product { x: &x, weight: &weight, out: &mut out, start: Start::Zero }]);
    }
}

#[test]
fn a_sum_is_its_products_one_after_the_other() {
    let (rows, n, depths) = (37, 70, [40, 3, 100]);
    let xs: Vec<Vec<f32>> = depths.iter().map(|k| values(rows * k, *k)).collect();
    let precisions = [Precision::Bf16, Precision::F32, Precision::F16];
    let weights: Vec<Packed> = depths
        .iter()
        .zip(precisions)
        .map(|(&k, precision)| Packed::from_rows(&values(n * k, k), n, k, precision))
        .collect();
    for start in [Start::Zero, Start::Out] {
        let was = values(rows * n, 9);
        let (mut expected, mut twice, mut out) = (was.clone(), was.clone(), was);
        for (at, (x, weight)) in xs.iter().zip(&weights).enumerate() {
            let start = if at == 0 { start } else { Start::Out };
            multiply(rows, &mut [Product { x: &Rows::new(x), weight, out: &mut expected, start }]);
        }
        let xs: Vec<Rows<'_>> = xs.iter().map(|x| Rows::new(x)).collect();
        let terms: Vec<_> = xs.iter().zip(&weights).collect();
        let second = Sum { terms: terms.clone(), out: &mut twice, start };
        multiply_sums(rows, &mut [Sum { terms, out: &mut out, start }, second]);
        assert_eq!(out, expected);
        assert_eq!(twice, expected);
    }
}

/// The law of levels, plainly, with the inputs rounded as in eight bits: what a block's least value adds, then what its levels do, counted from the middle one
/// if there is no least value.
fn levels(x: &[f32], weight: &[f32], [scales, leasts]: [&[f32]; 2], begin: f32) -> f32 {
    let grids = scales.iter().zip(leasts.iter().map(Some).chain(std::iter::repeat(None)));
    let blocks = x.chunks(int8::BLOCK).zip(weight.chunks(int8::BLOCK)).zip(grids);
    blocks.fold(begin, |out, ((x, weight), (&scale, least))| {
        let most = x.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        let (x_scale, inverse) = if most > 0.0 { (most / 127.0, 127.0 / most) } else { (0.0, 0.0) };
        let x: Vec<i32> = x.iter().map(|x| (x * inverse).round_ties_even() as i32).collect();
        let from = least.unwrap_or(&0.0);
        let level = |w: &f32| if scale == 0.0 { 0 } else { ((w - from) / scale).round() as i32 };
        let dot: i32 = x.iter().zip(weight).map(|(x, w)| x * level(w)).sum();
        let sum = x.iter().sum::<i32>() as f32 * x_scale;
        let out = if least.is_some() { sum.mul_add(*from, out) } else { out };
        (dot as f32).mul_add(x_scale * scale, out)
    })
}

#[test]
fn products_with_levels_are_their_chains_bit_for_bit_on_any_threads_and_machine() {
    let pools = [1, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("a pool"));
    let forms = [Bits::Four, Bits::Five].into_iter().flat_map(|bits| [false, true].map(|least| Form { bits, least }));
    for (form, (rows, n, k)) in forms.flat_map(|form| {
        [(6, 32, 64), (1, 64, 1600), (7, 40, 831), (25, 33, 96), (50, 40, 1100), (270, 40, 96)]
            .map(|shape| (form, shape))
    }) {
        let (x, was) = (values(rows * k, 3), values(rows * n, 9));
        let weight = on_levels(form, n, k);
        let part = |rows: Range<usize>| Ok::<_, ()>(weight[rows.start * k..rows.end * k].to_vec());
        let packed = Packed::from_levels((n, k), form, PANEL, part).unwrap().expect("on levels");
        let weight = packed.unpack();
        for start in [Start::Zero, Start::Out] {
            let expected: Vec<f32> = (0..rows * n)
                .map(|at| {
                    let begin = if start == Start::Out { was[at] } else { 0.0 };
                    let (i, j) = (at / n, at % n);
                    let (scales, leasts) = packed.grid(j);
                    levels(&x[i * k..(i + 1) * k], &weight[j * k..(j + 1) * k], [&scales, &leasts], begin)
                })
                .collect();
            for isa in Isa::available() {
                for pool in &pools {
                    let mut out = was.clone();
                    pool.install(|| {
                        let product = Product { x: &Rows::new(&x), weight: &packed, out: &mut out, start };
                        multiply_with((isa, Way::Plain(isa)), rows, &mut [product]);
                    });
                    assert_eq!(out, expected, "{isa:?} {form:?} {rows}x{n}x{k}");
                }
            }
        }
    }
}
