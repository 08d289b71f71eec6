//! Curves of the MLP, and layer norms: along a row, on the calling thread, compiled as `rows` says.

#![expect(clippy::inline_always, reason = "bodies must be compiled anew for each instruction set that calls them")]

use super::Isa;
use super::rows::{LANES, fold, sigmoid, silu_backward, silu_multiply};

/// The curve of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)` (Elfwing et al., arXiv 1702.03118).
    Silu,
    /// GELU, approximated with `tanh` (Hendrycks and Gimpel, arXiv 1606.08415).
    GeluTanh,
}

impl Activation {
    /// `out = f(gate) · up`, the gated MLP (Shazeer, arXiv 2002.05202).
    pub fn gate(self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        match self {
            Self::Silu => silu_multiply(gate, up, out),
            Self::GeluTanh => Isa::best().run(
                #[inline(always)]
                || {
                    for ((out, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                        *out = gelu(g).0 * u;
                    }
                },
            ),
        }
    }

    /// The gradients of [`Activation::gate`], in place: `gate` and `up` become theirs.
    pub fn gate_backward(self, d_out: &[f32], gate: &mut [f32], up: &mut [f32]) {
        match self {
            Self::Silu => silu_backward(d_out, gate, up),
            Self::GeluTanh => Isa::best().run(
                #[inline(always)]
                || {
                    for ((&d, gate), up) in d_out.iter().zip(gate).zip(up) {
                        let ((value, slope), u) = (gelu(*gate), *up);
                        *gate = d * u * slope;
                        *up = d * value;
                    }
                },
            ),
        }
    }

    /// `out = f(x)`.
    pub fn apply(self, x: &[f32], out: &mut [f32]) {
        Isa::best().run(
            #[inline(always)]
            || match self {
                Self::Silu => x.iter().zip(out).for_each(|(&x, out)| *out = silu(x).0),
                Self::GeluTanh => x.iter().zip(out).for_each(|(&x, out)| *out = gelu(x).0),
            },
        );
    }

    /// The gradient of [`Activation::apply`], in place: `x` becomes it.
    pub fn apply_backward(self, d_out: &[f32], x: &mut [f32]) {
        Isa::best().run(
            #[inline(always)]
            || match self {
                Self::Silu => d_out.iter().zip(x).for_each(|(&d, x)| *x = d * silu(*x).1),
                Self::GeluTanh => d_out.iter().zip(x).for_each(|(&d, x)| *x = d * gelu(*x).1),
            },
        );
    }
}

/// Norm of one row by mean and variance: `out = (x − mean) / sqrt(var + eps) · weight + bias` (Ba et al., arXiv 1607.06450).
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    Isa::best().run(
        #[inline(always)]
        || {
            let (mean, scale) = moments(x, eps);
            for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                *out = ((x - mean) * scale).mul_add(w, b);
            }
        },
    );
}

/// Adds to `d_x` the gradient that [`layer_norm`] hands back for `d_out`: with `y = (x − mean)·s` and `g = w·d_out`,
/// `s · (g − mean(g) − y · mean(g·y))`.
pub fn layer_norm_backward(x: &[f32], weight: &[f32], eps: f32, d_out: &[f32], d_x: &mut [f32]) {
    Isa::best().run(
        #[inline(always)]
        || {
            let (mean, scale) = moments(x, eps);
            let (mut plain, mut pull) = ([0.0; LANES], [0.0; LANES]);
            for ((x, w), d) in x.chunks(LANES).zip(weight.chunks(LANES)).zip(d_out.chunks(LANES)) {
                for (i, ((&x, &w), &d)) in x.iter().zip(w).zip(d).enumerate() {
                    plain[i] += w * d;
                    pull[i] = (w * d).mul_add((x - mean) * scale, pull[i]);
                }
            }
            let n = x.len() as f32;
            let (plain, pull) = (fold(plain) / n, fold(pull) / n);
            for (((d_x, &x), &w), &d) in d_x.iter_mut().zip(x).zip(weight).zip(d_out) {
                *d_x += scale * (w * d - plain - (x - mean) * scale * pull);
            }
        },
    );
}

/// The mean of a row, and one over the root of its variance and `eps`.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mut lanes = [0.0; LANES];
    for chunk in x.chunks(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    let mean = fold(lanes) / n;
    let mut lanes = [0.0f32; LANES];
    for chunk in x.chunks(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = (x - mean).mul_add(x - mean, *lane);
        }
    }
    (mean, 1.0 / (fold(lanes) / n + eps).sqrt())
}

/// SiLU and its slope.
#[inline(always)]
fn silu(x: f32) -> (f32, f32) {
    let s = sigmoid(x);
    (x * s, s * (1.0 + x * (1.0 - s)))
}

/// GELU and its slope: `x · (1 + tanh u) / 2`, which is `x · sigmoid(2u)`, with `u = √(2/π) · (x + 0.044_715 x³)`.
#[inline(always)]
fn gelu(x: f32) -> (f32, f32) {
    /// 2·√(2/π).
    const TWICE: f32 = 1.595_769;
    const CUBE: f32 = 0.044_715;
    let square = x * x;
    let s = sigmoid(TWICE * x * (CUBE * square + 1.0));
    (x * s, s + x * s * (1.0 - s) * TWICE * (3.0 * CUBE * square + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| (((i + seed) * 2_654_435_761) % 1009) as f32 / 252.25 - 2.0).collect()
    }

    #[test]
    fn curves_and_norms_match_their_formulas() {
        let (x, w, b) = (values(37, 1), values(37, 2), values(37, 3));
        let mut out = vec![0.0; 37];
        layer_norm(&x, &w, &b, 1e-5, &mut out);
        let double: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let mean = double.iter().sum::<f64>() / 37.0;
        let variance = double.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 37.0;
        for i in 0..37 {
            let expected = (double[i] - mean) / (variance + 1e-5).sqrt() * f64::from(w[i]) + f64::from(b[i]);
            assert!((f64::from(out[i]) - expected).abs() < 1e-5);
        }
        Activation::GeluTanh.apply(&x, &mut out);
        let gelu = |x: f64| {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
            0.5 * x * (1.0 + u.tanh())
        };
        assert!(out.iter().zip(&double).all(|(&out, &x)| (f64::from(out) - gelu(x)).abs() < 1e-6));
        Activation::GeluTanh.gate(&x, &w, &mut out);
        let gated = double.iter().zip(&w).map(|(&x, &w)| gelu(x) * f64::from(w));
        assert!(out.iter().zip(gated).all(|(&out, expected)| (f64::from(out) - expected).abs() < 1e-6));
        Activation::Silu.apply(&x, &mut out);
        let silu = |x: f64| x / (1.0 + (-x).exp());
        assert!(out.iter().zip(&double).all(|(&out, &x)| (f64::from(out) - silu(x)).abs() < 1e-6));
    }

    #[test]
    fn gradients_match_finite_differences() {
        let (x, w, d) = (values(20, 1), values(20, 2), values(20, 3));
        let mut d_x = vec![0.0; 20];
        layer_norm_backward(&x, &w, 1e-5, &d, &mut d_x);
        check(&x, &d_x, &d, |x, out| layer_norm(x, &w, &w, 1e-5, out));
        for curve in [Activation::Silu, Activation::GeluTanh] {
            let mut d_x = x.clone();
            curve.apply_backward(&d, &mut d_x);
            check(&x, &d_x, &d, |x, out| curve.apply(x, out));
            let (mut gate, mut up) = (x.clone(), w.clone());
            curve.gate_backward(&d, &mut gate, &mut up);
            check(&x, &gate, &d, |x, out| curve.gate(x, &w, out));
            check(&w, &up, &d, |w, out| curve.gate(&x, w, out));
        }
    }

    #[test]
    fn loops_give_the_same_bits_on_every_instruction_set() {
        let (x, d) = (values(100, 1), values(100, 3));
        let runs: Vec<_> = Isa::available()
            .into_iter()
            .map(|isa| {
                isa.run(
                    #[inline(always)]
                    || {
                        let curves: Vec<_> = x.iter().zip(&d).map(|(&x, &d)| (gelu(x), silu(d))).collect();
                        (moments(&x, 1e-5), curves)
                    },
                )
            })
            .collect();
        assert!(runs.iter().all(|run| *run == runs[0]));
    }

    /// Against `Σ d · f(x)`.
    fn check(x: &[f32], gradient: &[f32], d: &[f32], f: impl Fn(&[f32], &mut [f32])) {
        let value = |x: &[f32]| {
            let mut out = vec![0.0; x.len()];
            f(x, &mut out);
            out.iter().zip(d).map(|(&o, &d)| f64::from(o) * f64::from(d)).sum::<f64>()
        };
        for i in 0..x.len() {
            let (mut more, mut less) = (x.to_vec(), x.to_vec());
            more[i] += 0.01;
            less[i] -= 0.01;
            let expected = (value(&more) - value(&less)) / f64::from(more[i] - less[i]);
            assert!((f64::from(gradient[i]) - expected).abs() < 2e-3, "{i}: {} for {expected}", gradient[i]);
        }
    }
}
