//! Tests of the law in bfloat16.

use super::super::multiply::tests::{SHAPES, values};
use super::super::multiply::{multiply_with, sums_with};
use super::super::{Packed, Precision, Product, Rows, Start, Sum};
use super::*;

/// The law, plainly: `x` and `weight` are a row each.
fn chains(x: &[f32], weight: &[f32], begin: f32) -> f32 {
    let block = |(x, weight): (&[f32], &[f32])| {
        let chain = |first: usize| {
            let links = x.iter().zip(weight).skip(first).step_by(2);
            links.fold(0.0, |sum, (x, w)| half::bf16::from_f32(*x).to_f32().mul_add(*w, sum))
        };
        chain(0) + chain(1)
    };
    begin + x.chunks(BLOCK).zip(weight.chunks(BLOCK)).map(block).fold(0.0, |sum, block| sum + block)
}

#[test]
fn products_are_the_chains_bit_for_bit_on_any_threads_and_machine() {
    let pools = [1, 3].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("a pool"));
    for (rows, n, k) in [(16, 32, 32), (32, 64, 96), (33, 40, 831), (48, 7, 70)].into_iter().chain(SHAPES) {
        let (x, was) = (values(rows * k, 3), values(rows * n, 9));
        let packed = Packed::from_rows(&values(n * k, 1), n, k, Precision::Bf16);
        let weight = packed.unpack();
        for start in [Start::Zero, Start::Out] {
            let expected: Vec<f32> = (0..rows * n)
                .map(|at| {
                    let begin = if start == Start::Out { was[at] } else { 0.0 };
                    let (i, j) = (at / n, at % n);
                    chains(&x[i * k..(i + 1) * k], &weight[j * k..(j + 1) * k], begin)
                })
                .collect();
            for way in Way::available() {
                for pool in &pools {
                    let (mut out, mut twin) = (was.clone(), was.clone());
                    pool.install(|| {
                        let first = Product { x: &Rows::new(&x), weight: &packed, out: &mut out, start };
                        let second = Product { x: &Rows::new(&x), weight: &packed, out: &mut twin, start };
                        multiply_with((Isa::best(), way), rows, &mut [first, second]);
                    });
                    assert_eq!(out, expected, "{way:?} {rows}x{n}x{k}");
                    assert_eq!(twin, expected);
                }
            }
        }
    }
}

#[test]
fn a_sum_goes_on_from_block_to_block_over_its_products() {
    // 64 and 96 inputs side by side are 160, in the same blocks.
    for (rows, n) in [(16, 32), (32, 64), (37, 40), (5, 7)] {
        let (x, weight) = (values(rows * 160, 3), values(n * 160, 1));
        let part = |of: &[f32], columns: Range<usize>| -> Vec<f32> {
            of.chunks_exact(160).flat_map(|row| row[columns.clone()].to_vec()).collect()
        };
        let packed = |columns: Range<usize>| {
            Packed::from_rows(&part(&weight, columns.clone()), n, columns.len(), Precision::Bf16)
        };
        let (first, second) = (packed(0..64), packed(64..160));
        let (x_first, x_second) = (part(&x, 0..64), part(&x, 64..160));
        for way in Way::available() {
            let (mut expected, mut out) = (vec![7.0; rows * n], vec![7.0; rows * n]);
            let product =
                Product { x: &Rows::new(&x), weight: &packed(0..160), out: &mut expected, start: Start::Zero };
            multiply_with((Isa::best(), way), rows, &mut [product]);
            let (x_first, x_second) = (Rows::new(&x_first), Rows::new(&x_second));
            let terms = vec![(&x_first, &first), (&x_second, &second)];
            sums_with((Isa::best(), way), rows, &mut [Sum { terms, out: &mut out, start: Start::Zero }]);
            assert_eq!(out, expected, "{way:?} {rows}x{n}");
        }
    }
}

#[test]
fn what_is_tiny_infinite_or_no_number_comes_out_alike_on_any_machine() {
    let tiny = f32::from_bits(LEAST);
    let odd = [tiny, -tiny, tiny * 0.99, f32::MIN_POSITIVE, 1e-42, -1e-45, 0.0, -0.0, 1.0, -1.0, 3e38, 1e-20];
    let (rows, k) = (20, 64);
    let x: Vec<f32> = (0..rows * k).map(|i| odd[i * 7 % odd.len()]).collect();
    let weight: Vec<f32> = (0..PANEL * k).map(|i| odd[i * 5 % odd.len()]).collect();
    let packed = Packed::from_rows(&weight, PANEL, k, Precision::Bf16);
    let was = vec![1e-42; rows * PANEL];
    let product = |way, x: &[f32]| {
        let mut out = was.clone();
        let product = Product { x: &Rows::new(x), weight: &packed, out: &mut out, start: Start::Out };
        multiply_with((Isa::best(), way), rows, &mut [product]);
        out
    };
    let expected = product(Way::Plain(Isa::Portable), &x);
    let mut broken = x.clone();
    (broken[5], broken[k + 1]) = (f32::NAN, f32::INFINITY);
    for way in Way::available() {
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&product(way, &x)), bits(&expected), "{way:?}");
        let broken = product(way, &broken);
        assert!(broken[..PANEL].iter().all(|v| v.is_nan()) && broken[PANEL..2 * PANEL].iter().all(|v| !v.is_finite()));
        assert_eq!(bits(&broken[2 * PANEL..]), bits(&expected[2 * PANEL..]));
    }
}

#[test]
fn rounding_is_to_the_nearest_and_half_to_even() {
    for i in 0..2_000_000u32 {
        let value = f32::from_bits(i.wrapping_mul(2_654_435_761));
        let rounded = half::bf16::from_f32(value);
        if value.is_nan() {
            assert!(widen(round(value)).is_nan());
        } else if value.abs() >= f32::from_bits(LEAST) {
            assert_eq!(round(value), rounded.to_bits(), "{value:e}");
        } else {
            assert_eq!(round(value), 0, "{value:e}");
        }
    }
}

#[test]
fn the_probe_tells_chains_that_are_taken_otherwise() {
    let probe = Probe::new();
    let law = probe.product(Way::Plain(Isa::Portable));
    let k = Probe::BLOCKS * BLOCK;
    let product = |at: usize, s: usize| {
        let x = probe.x[at / PANEL * k + s];
        (half::bf16::from_f32(x).to_f32(), widen(probe.weight[Layout::Tiles.place(s, at % PANEL)]))
    };
    let all = 0..ROWS * PANEL;
    let one_chain = |at| (0..k).fold(0.5, |sum, s| product(at, s).0.mul_add(product(at, s).1, sum));
    let odd_first = |at| {
        let order = (0..k).map(|s| s ^ 1);
        order.fold(0.5, |sum, s| product(at, s).0.mul_add(product(at, s).1, sum))
    };
    assert_ne!(all.clone().map(one_chain).collect::<Vec<f32>>(), law);
    assert_ne!(all.clone().map(odd_first).collect::<Vec<f32>>(), law);
    let exact =
        |at: usize| (0..k).map(|s| f64::from(product(at, s).0) * f64::from(product(at, s).1)).sum::<f64>() + 0.5;
    assert_ne!(all.map(|at| exact(at) as f32).collect::<Vec<f32>>(), law);
}
