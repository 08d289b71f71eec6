//! Matrix products with packed weights and the few fused loops, chosen at run time; the only `unsafe`.
//!
//! This is the single seam between the decoder and the machine: everything above it is safe code on `f32` slices and
//! [`Packed`] weights. A device that is not a CPU (CUDA, Metal, through candle) would be a second implementation of
//! the functions exported here and of nothing else; there is none today.
//!
//! # The law
//!
//! Every element of every product is one chain of fused multiply-adds over `k` in ascending order:
//! `fma(x[k], w[k], fma(x[k-1], w[k-1], …))`. Tiles, blocks of `k` (the chain goes on from the stored value, which is
//! exact), threads and the instruction set choose *which* elements are computed together, never the order within one.
//! So an element's bits do not depend on the number of rows, on the threads, or on the machine. Sums within a row
//! (norms, softmax) run over sixteen fixed lanes that are folded in a fixed order. With weights in eight bits a link of the chain is a block of 32 inputs:
//! their exact integer sum times both scales. In bfloat16 it is two short chains over such a block; `bf16` says which.
//!
//! | file | what |
//! |---|---|
//! | `buffer` | zeroed storage that starts on a cache line |
//! | `isa` | what this machine has, and calling a loop compiled for it |
//! | `tile` | what one tile of a product is: the contract of the three below |
//! | `avx512`, `avx2`, `portable` | up to twelve rows by 32 columns |
//! | `bf16` | products in bfloat16: how weights and inputs are rounded, and the tiles |
//! | `gemm` | strided products of small matrices, one thread |
//! | `int8` | products in eight bits: how weights and inputs are rounded, and the tiles |
//! | `levels` | weights for them that are kept in four or five bits |
//! | `packed` | weights in panels of 32 columns |
//! | `multiply` | products with them on all threads |
//! | `over_rows` | sums over rows on all threads |
//! | `rows` | RMS norms, softmax, losses: whatever runs along a row |
//! | `curves` | the MLP's activations, layer norms |

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bf16;
mod buffer;
mod curves;
mod gemm;
mod int8;
mod isa;
mod levels;
mod multiply;
mod over_rows;
mod packed;
mod portable;
mod rows;
mod tile;

pub(crate) use buffer::MorePages;
pub use buffer::{Buffer, Plain};
pub use curves::{Activation, layer_norm, layer_norm_backward};
pub use gemm::{Float, Left, Right, gemm};
pub use isa::Isa;
pub use levels::{Bits, Form};
pub use multiply::{Product, Rows, Sum, multiply, multiply_sums};
pub use over_rows::{OverRows, sum_over_rows};
pub use packed::{Packed, Precision};
pub use rows::{add_assign, cross_entropy, dot, rms_norm, rms_norm_backward, softmax};
pub use tile::{PANEL, Start};
