//! Norms, softmax, activations: whatever runs along a row, on the calling thread.
//!
//! The bodies are plain Rust that the compiler vectorises once for each instruction set ([`Isa::run`]). Sums run over
//! sixteen lanes, element `i` in lane `i % 16`, which are then folded in halves, so their bits are the same everywhere.

#![expect(clippy::inline_always, reason = "bodies must be compiled anew for each instruction set that calls them")]

use super::Isa;

/// Lanes of a sum.
pub(super) const LANES: usize = 16;

/// `Σ a[i] · b[i]`.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    Isa::best().run(
        #[inline(always)]
        || lanes_dot(a, b),
    )
}

/// `to[i] += from[i]`.
pub fn add_assign(to: &mut [f32], from: &[f32]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

/// Root mean square norm of one row: `out = x / sqrt(mean(x²) + eps) · weight` (Zhang and Sennrich, arXiv 1910.07467).
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    Isa::best().run(
        #[inline(always)]
        || {
            let scale = rms_scale(x, eps);
            for ((out, &x), &w) in out.iter_mut().zip(x).zip(weight) {
                *out = x * scale * w;
            }
        },
    );
}

/// Adds to `d_x` the gradient that [`rms_norm`] hands back for `d_out`:
/// `s·w·d_out − x · s³/n · Σ w·d_out·x`, where `s = 1 / sqrt(mean(x²) + eps)`.
pub fn rms_norm_backward(x: &[f32], weight: &[f32], eps: f32, d_out: &[f32], d_x: &mut [f32]) {
    Isa::best().run(
        #[inline(always)]
        || {
            let scale = rms_scale(x, eps);
            let mut lanes = [0.0; LANES];
            for ((x, w), d) in x.chunks(LANES).zip(weight.chunks(LANES)).zip(d_out.chunks(LANES)) {
                for (((lane, &x), &w), &d) in lanes.iter_mut().zip(x).zip(w).zip(d) {
                    *lane = (w * d).mul_add(x, *lane);
                }
            }
            let pull = fold(lanes) * scale * scale * scale / x.len() as f32;
            for (((d_x, &x), &w), &d) in d_x.iter_mut().zip(x).zip(weight).zip(d_out) {
                *d_x += (scale * w * d) - x * pull;
            }
        },
    );
}

/// `gate · sigmoid(gate) · up`, the gated activation of llama's MLP (Shazeer, arXiv 2002.05202).
pub(super) fn silu_multiply(gate: &[f32], up: &[f32], out: &mut [f32]) {
    Isa::best().run(
        #[inline(always)]
        || {
            for ((out, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                *out = g * sigmoid(g) * u;
            }
        },
    );
}

/// The gradients of [`silu_multiply`], in place: `gate` and `up` become theirs.
pub(super) fn silu_backward(d_out: &[f32], gate: &mut [f32], up: &mut [f32]) {
    Isa::best().run(
        #[inline(always)]
        || {
            for ((&d, gate), up) in d_out.iter().zip(gate).zip(up) {
                let (g, u, s) = (*gate, *up, sigmoid(*gate));
                *gate = d * u * s * (1.0 + g * (1.0 - s));
                *up = d * g * s;
            }
        },
    );
}

/// `scores[..seen]` become `softmax(scores · scale)`, the rest zero.
pub fn softmax(scores: &mut [f32], seen: usize, scale: f32) {
    let (scores, rest) = scores.split_at_mut(seen);
    rest.fill(0.0);
    Isa::best().run(
        #[inline(always)]
        || {
            let highest = lanes_max(scores) * scale;
            let inverse = 1.0 / lanes_exp(scores, scale, highest);
            for score in scores.iter_mut() {
                *score *= inverse;
            }
        },
    );
}

/// The loss of one row of logits, `−ln softmax(logits)[target]`; the logits become its gradient, `softmax − onehot`.
pub fn cross_entropy(logits: &mut [f32], target: usize) -> f64 {
    let wanted = f64::from(logits[target]);
    let (highest, sum) = Isa::best().run(
        #[inline(always)]
        || {
            let highest = lanes_max(logits);
            let sum = lanes_exp(logits, 1.0, highest);
            let inverse = 1.0 / sum;
            for logit in logits.iter_mut() {
                *logit *= inverse;
            }
            (highest, sum)
        },
    );
    logits[target] -= 1.0;
    f64::from(sum).ln() + f64::from(highest) - wanted
}

#[inline(always)]
fn rms_scale(x: &[f32], eps: f32) -> f32 {
    1.0 / (lanes_dot(x, x) / x.len() as f32 + eps).sqrt()
}

#[inline(always)]
fn lanes_dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] = a[i].mul_add(b[i], lanes[i]);
        }
    }
    for (i, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] = a.mul_add(b, lanes[i]);
    }
    fold(lanes)
}

#[inline(always)]
fn lanes_max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = lane.max(value);
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// `values = exp(values · scale − highest)`; gives their sum.
#[inline(always)]
fn lanes_exp(values: &mut [f32], scale: f32, highest: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            chunk[i] = exp(chunk[i] * scale - highest);
            lanes[i] += chunk[i];
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *value = exp(*value * scale - highest);
        *lane += *value;
    }
    fold(lanes)
}

/// The sum of the lanes, in halves.
#[inline(always)]
pub(super) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `e^x` to about one unit in the last place: `2^n · e^r` with `|r| ≤ ln 2 / 2`, and `e^r` by its Taylor polynomial of
/// degree seven (error below 2⁻²⁷). Clamped where the result would be subnormal or infinite. The system's `expf` would not vectorise,
/// nor give the same bits everywhere.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding 1.5 · 2²³ leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts; the first has few enough bits that `n` times it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_HIGH, x);
    let r = n.mul_add(-LN2_LOW, r);
    let p = 1.0f32 / 5040.0;
    let p = p.mul_add(r, 1.0 / 720.0);
    let p = p.mul_add(r, 1.0 / 120.0);
    let p = p.mul_add(r, 1.0 / 24.0);
    let p = p.mul_add(r, 1.0 / 6.0);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r, 1.0);
    let p = p.mul_add(r, 1.0);
    let power = f32::from_bits(shifted.to_bits().wrapping_shl(23).wrapping_add(0x3f80_0000));
    p * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| (((i + seed) * 2_654_435_761) % 1009) as f32 / 252.25 - 2.0).collect()
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in -870_000..880_000 {
            let x = i as f32 / 10_000.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.4e-7, "exp({x}): relative error {error:e}");
        }
        assert!(exp(-1000.0) < 1.7e-38);
        assert!(exp(f32::NEG_INFINITY) < 1.7e-38);
    }

    #[test]
    fn loops_give_the_same_bits_on_every_instruction_set() {
        for n in [1, 15, 16, 17, 576, 1000] {
            let (a, b) = (values(n, 1), values(n, 7));
            let runs: Vec<_> = Isa::available()
                .into_iter()
                .map(|isa| {
                    let mut row = a.clone();
                    let sum = isa.run(
                        #[inline(always)]
                        || lanes_exp(&mut row, 0.5, 1.0),
                    );
                    (
                        isa.run(
                            #[inline(always)]
                            || lanes_dot(&a, &b),
                        )
                        .to_bits(),
                        sum.to_bits(),
                        row,
                    )
                })
                .collect();
            assert!(runs.iter().all(|run| *run == runs[0]), "{n}");
        }
    }

    #[test]
    fn norms_and_softmax_match_their_formulas() {
        let (x, w) = (values(37, 1), values(37, 2));
        let mut out = vec![0.0; 37];
        rms_norm(&x, &w, 1e-5, &mut out);
        let mean = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 37.0;
        for i in 0..37 {
            let expected = f64::from(x[i]) / (mean + 1e-5).sqrt() * f64::from(w[i]);
            assert!((f64::from(out[i]) - expected).abs() < 1e-5);
        }
        let mut scores = x.clone();
        softmax(&mut scores, 30, 0.125);
        let sum: f64 = x[..30].iter().map(|&v| (f64::from(v) * 0.125).exp()).sum();
        for i in 0..30 {
            assert!((f64::from(scores[i]) - (f64::from(x[i]) * 0.125).exp() / sum).abs() < 1e-6);
        }
        assert!(scores[30..].iter().all(|&s| s == 0.0));
    }

    #[test]
    fn gradients_match_finite_differences() {
        let (x, w, d) = (values(20, 1), values(20, 2), values(20, 3));
        let value = |x: &[f32]| {
            let mut out = vec![0.0; 20];
            rms_norm(x, &w, 1e-5, &mut out);
            out.iter().zip(&d).map(|(&o, &d)| f64::from(o) * f64::from(d)).sum::<f64>()
        };
        let mut d_x = vec![0.0; 20];
        rms_norm_backward(&x, &w, 1e-5, &d, &mut d_x);
        check(&x, &d_x, value);

        let (mut gate, mut up) = (x.clone(), w.clone());
        silu_backward(&d, &mut gate, &mut up);
        let value = |x: &[f32], w: &[f32]| {
            let mut out = vec![0.0; 20];
            silu_multiply(x, w, &mut out);
            out.iter().zip(&d).map(|(&o, &d)| f64::from(o) * f64::from(d)).sum::<f64>()
        };
        check(&x, &gate, |x| value(x, &w));
        check(&w, &up, |w| value(&x, w));

        let mut logits = x.clone();
        cross_entropy(&mut logits, 3);
        check(&x, &logits, |x| cross_entropy(&mut x.to_vec(), 3));
    }

    fn check(x: &[f32], gradient: &[f32], value: impl Fn(&[f32]) -> f64) {
        for i in 0..x.len() {
            let (mut more, mut less) = (x.to_vec(), x.to_vec());
            more[i] += 0.01;
            less[i] -= 0.01;
            let expected = (value(&more) - value(&less)) / f64::from(more[i] - less[i]);
            assert!((f64::from(gradient[i]) - expected).abs() < 2e-3, "{i}: {} for {expected}", gradient[i]);
        }
    }
}
