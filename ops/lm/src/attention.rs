//! Causal attention: over caches when decoding, within segments when training, with the same bits. Where a block has a
//! window, a query sees its newest keys only.
//!
//! A query's scores are one chain each over the head's dimensions, its softmax runs over the keys that it may see, and its
//! output is one chain over those keys. Nothing in that depends on which other queries are computed beside it; keys
//! past a query's own position take part with weight zero, which changes no chain.

use rayon::prelude::*;

use crate::config::Config;
use crate::kernels::{Buffer, Left, Right, Start, dot, gemm, softmax};
use crate::kv::{Head, KvCache, PAGE_TOKENS};

/// Queries of a sequence that one task takes.
const QUERIES: usize = 48;

/// What attention needs to know of the model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    queries: usize,
    keys: usize,
    dim: usize,
    /// What scores are multiplied with.
    scale: f32,
    /// How many of the newest keys a query sees; none for all.
    window: Option<usize>,
}

impl Heads {
    pub(crate) fn of(config: &Config, layer: usize) -> Self {
        Self {
            queries: config.num_attention_heads,
            keys: config.num_key_value_heads,
            dim: config.head_dim,
            scale: config.attention_scale,
            window: config.windows[layer],
        }
    }

    fn group(self) -> usize {
        self.queries / self.keys
    }

    /// The weights of a query that stands behind `seen` keys: zero for those that it does not see.
    fn softmax(self, scores: &mut [f32], seen: usize) {
        let begin = seen - self.window.unwrap_or(seen).min(seen);
        scores[..begin].fill(0.0);
        softmax(&mut scores[begin..], seen - begin, self.scale);
    }

    fn width(self) -> usize {
        self.queries * self.dim
    }

    fn kv_width(self) -> usize {
        self.keys * self.dim
    }
}

/// Attention of `q` over what `caches` hold of `layer`, the newest tokens included, into `out`: both
/// `(rows, queries * dim)`. Each sequence has the next of `lengths` rows, which are its newest tokens.
pub(crate) fn over_caches(heads: Heads, layer: usize, sequences: &[(&KvCache, usize)], q: &[f32], out: &mut [f32]) {
    let mut tasks = Vec::new();
    let (mut q, mut out) = (q, out);
    for &(cache, length) in sequences {
        let mut done = 0;
        while done < length {
            let rows = QUERIES.min(length - done);
            let (q_rows, q_rest) = q.split_at(rows * heads.width());
            let (out_rows, out_rest) = std::mem::take(&mut out).split_at_mut(rows * heads.width());
            (q, out) = (q_rest, out_rest);
            let query = Queries { heads, cache, layer, first: cache.len() + done, rows };
            if rows == 1 {
                let width = heads.group() * heads.dim;
                let parts = q_rows.chunks_exact(width).zip(out_rows.chunks_exact_mut(width));
                tasks.extend(parts.enumerate().map(|(key, (q, out))| (query, key..key + 1, q, out)));
            } else {
                tasks.push((query, 0..heads.keys, q_rows, out_rows));
            }
            done += rows;
        }
    }
    // Sequences often share their prefix: what they see of a head lies in the cache while one after the other looks at it.
    tasks.sort_by_key(|(_, keys, ..)| keys.start);
    tasks.into_par_iter().for_each_init(Vec::new, |scores, (query, keys, q, out)| {
        for (at, key) in keys.enumerate() {
            query.attend(key, at, q, out, scores);
        }
    });
}

/// Neighbouring queries of one sequence.
#[derive(Clone, Copy)]
struct Queries<'a> {
    heads: Heads,
    cache: &'a KvCache,
    layer: usize,
    /// Position of the first.
    first: usize,
    rows: usize,
}

impl Queries<'_> {
    /// The query heads of key head `key`, which is number `at` of those in `q` and `out`.
    fn attend(self, key: usize, at: usize, q: &[f32], out: &mut [f32], scores: &mut Vec<f32>) {
        let Heads { dim, .. } = self.heads;
        let group = self.heads.group();
        if self.rows == 1 {
            // One token: its heads are the rows.
            self.attend_rows(key, group, |_| self.first + 1, q, out, dim, scores);
            return;
        }
        for head in at * group..(at + 1) * group {
            let (q, out) = (&q[head * dim..], &mut out[head * dim..]);
            self.attend_rows(key, self.rows, |row| self.first + row + 1, q, out, self.heads.width(), scores);
        }
    }

    /// `rows` rows of queries `stride` apart; row `i` sees the first `seen(i)` keys.
    #[expect(clippy::too_many_arguments, reason = "one loop, two ways to walk over rows")]
    fn attend_rows(
        self,
        key: usize,
        rows: usize,
        seen: impl Fn(usize) -> usize,
        q: &[f32],
        out: &mut [f32],
        stride: usize,
        scores: &mut Vec<f32>,
    ) {
        let dim = self.heads.dim;
        let pages = seen(rows - 1).div_ceil(PAGE_TOKENS);
        let width = pages * PAGE_TOKENS;
        scores.resize(rows * width, 0.0);
        for (page, head) in self.cache.pages(self.layer, key).take(pages).enumerate() {
            let (shape, left) = ((rows, PAGE_TOKENS, dim), Left { data: q, row: stride, step: 1 });
            let (step, out) = (PAGE_TOKENS, &mut scores[page * PAGE_TOKENS..]);
            match head {
                Head::Single(data, _) => gemm(shape, left, Right { data, step }, out, width, Start::Zero),
                Head::Half(data, _) => gemm(shape, left, Right { data, step }, out, width, Start::Zero),
            }
        }
        for (row, scores) in scores.chunks_exact_mut(width).take(rows).enumerate() {
            self.heads.softmax(scores, seen(row));
        }
        for (page, head) in self.cache.pages(self.layer, key).take(pages).enumerate() {
            let start = if page == 0 { Start::Zero } else { Start::Out };
            let left = Left { data: &scores[page * PAGE_TOKENS..], row: width, step: 1 };
            let (shape, step) = ((rows, dim, PAGE_TOKENS), dim);
            match head {
                Head::Single(_, data) => gemm(shape, left, Right { data, step }, out, stride, start),
                Head::Half(_, data) => gemm(shape, left, Right { data, step }, out, stride, start),
            }
        }
    }
}

/// Attention within segments of `lengths` rows: `q (rows, queries * dim)`, `k` and `v (rows, keys * dim)`.
pub(crate) fn over_segments(heads: Heads, lengths: &[usize], q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
    let turned = turn_all(heads, lengths, k);
    let mut tasks = Vec::new();
    let mut out = out;
    let mut begin = 0;
    for (segment, &length) in lengths.iter().enumerate() {
        for first in (0..length).step_by(QUERIES) {
            let rows = QUERIES.min(length - first);
            let (block, rest) = std::mem::take(&mut out).split_at_mut(rows * heads.width());
            out = rest;
            tasks.push((segment, Block { begin, length, first, rows }, block));
        }
        begin += length;
    }
    tasks.into_par_iter().for_each_init(Vec::new, |scores, (segment, block, out)| {
        for head in 0..heads.queries {
            let key = head / heads.group();
            block.weights(heads, q, head, &turned[segment * heads.keys + key], scores);
            let seen = block.first + block.rows;
            let left = Left { data: scores, row: seen, step: 1 };
            let right = Right { data: &v[block.begin * heads.kv_width() + key * heads.dim..], step: heads.kv_width() };
            let out = &mut out[head * heads.dim..];
            gemm((block.rows, heads.dim, seen), left, right, out, heads.width(), Start::Zero);
        }
    });
}

/// The gradients of [`over_segments`] by its inputs.
pub(crate) struct SegmentGrads {
    pub(crate) q: Buffer<f32>,
    pub(crate) k: Buffer<f32>,
    pub(crate) v: Buffer<f32>,
}

/// The backward pass of [`over_segments`]: `out` is what it gave, `d_out` the gradient of that.
pub(crate) fn over_segments_backward(
    heads: Heads,
    lengths: &[usize],
    [q, k, v]: [&[f32]; 3],
    out: &[f32],
    d_out: &[f32],
) -> SegmentGrads {
    let (keys, values) = (turn_all(heads, lengths, k), turn_all(heads, lengths, v));
    let begins: Vec<usize> =
        lengths.iter().scan(0, |sum, &length| Some(std::mem::replace(sum, *sum + length))).collect();
    let tasks: Vec<(usize, usize)> =
        (0..lengths.len()).flat_map(|segment| (0..heads.queries).map(move |head| (segment, head))).collect();
    let grads: Vec<[Buffer<f32>; 3]> = tasks
        .par_iter()
        .map(|&(segment, head)| {
            let at = segment * heads.keys + head / heads.group();
            let part = HeadBackward { heads, begin: begins[segment], length: lengths[segment], head, q, k, out, d_out };
            part.run(&keys[at], &values[at])
        })
        .collect();
    let mut sums = SegmentGrads { q: Buffer::zeroed(q.len()), k: Buffer::zeroed(k.len()), v: Buffer::zeroed(v.len()) };
    let mut blocks = Vec::new();
    blocks.extend(grad_blocks(heads, lengths, &mut sums.q, (0, 1)));
    blocks.extend(grad_blocks(heads, lengths, &mut sums.k, (1, heads.group())));
    blocks.extend(grad_blocks(heads, lengths, &mut sums.v, (2, heads.group())));
    blocks.into_par_iter().for_each(|block| block.add_heads(heads, &grads));
    sums
}

/// Neighbouring rows of one segment in a sum of heads' gradients.
struct GradBlock<'a> {
    segment: usize,
    /// The first row, in the segment.
    first: usize,
    /// Which of the gradients.
    part: usize,
    /// Query heads that share columns.
    group: usize,
    rows: &'a mut [f32],
}

/// Cuts `sums (rows, heads / group * dim)` into blocks.
fn grad_blocks<'a>(
    heads: Heads,
    lengths: &[usize],
    sums: &'a mut [f32],
    (part, group): (usize, usize),
) -> Vec<GradBlock<'a>> {
    let width = heads.queries / group * heads.dim;
    let mut blocks = Vec::new();
    let mut sums = sums;
    for (segment, &length) in lengths.iter().enumerate() {
        let (own, rest) = std::mem::take(&mut sums).split_at_mut(length * width);
        sums = rest;
        let cut = own.chunks_mut(QUERIES * width).enumerate();
        blocks.extend(cut.map(|(at, rows)| GradBlock { segment, first: at * QUERIES, part, group, rows }));
    }
    blocks
}

impl GradBlock<'_> {
    /// Adds what the segment's heads gave, `(length, dim)` each, in their order.
    fn add_heads(self, heads: Heads, grads: &[[Buffer<f32>; 3]]) {
        let width = heads.queries / self.group * heads.dim;
        for (head, grads) in grads[self.segment * heads.queries..][..heads.queries].iter().enumerate() {
            let column = head / self.group * heads.dim;
            let from = grads[self.part][self.first * heads.dim..].chunks_exact(heads.dim);
            for (row, from) in self.rows.chunks_exact_mut(width).zip(from) {
                crate::kernels::add_assign(&mut row[column..column + heads.dim], from);
            }
        }
    }
}

/// Neighbouring queries of one segment.
#[derive(Clone, Copy)]
struct Block {
    /// The segment's first row in the batch.
    begin: usize,
    /// The segment's rows.
    length: usize,
    /// The block's first row in the segment.
    first: usize,
    rows: usize,
}

impl Block {
    /// Attention weights of one head into `scores (rows, first + rows)`; `turned` are the keys, `(dim, length)`.
    fn weights(self, heads: Heads, q: &[f32], head: usize, turned: &[f32], scores: &mut Vec<f32>) {
        let seen = self.first + self.rows;
        scores.resize(self.rows * seen, 0.0);
        let left = self.rows_of(heads, q, head);
        gemm((self.rows, seen, heads.dim), left, Right { data: turned, step: self.length }, scores, seen, Start::Zero);
        for (row, scores) in scores.chunks_exact_mut(seen).take(self.rows).enumerate() {
            heads.softmax(scores, self.first + row + 1);
        }
    }

    /// The block's rows of a query head.
    fn rows_of(self, heads: Heads, data: &[f32], head: usize) -> Left<'_> {
        Left {
            data: &data[(self.begin + self.first) * heads.width() + head * heads.dim..],
            row: heads.width(),
            step: 1,
        }
    }
}

/// The backward pass of one query head in one segment.
struct HeadBackward<'a> {
    heads: Heads,
    begin: usize,
    length: usize,
    head: usize,
    q: &'a [f32],
    k: &'a [f32],
    out: &'a [f32],
    d_out: &'a [f32],
}

impl HeadBackward<'_> {
    /// Gradients `(length, dim)` of this head's queries, and its part of those of its keys and values.
    ///
    /// With weights `P`: `d_V = Pᵀ·d_O`, `d_P = d_O·Vᵀ`, `d_S = P ∘ (d_P − rowsum(d_O ∘ O)) · scale`, `d_Q = d_S·K`,
    /// `d_K = d_Sᵀ·Q`.
    fn run(&self, keys: &[f32], values: &[f32]) -> [Buffer<f32>; 3] {
        let Self { heads, begin, length, head, .. } = *self;
        let (dim, width, kv_width) = (heads.dim, heads.width(), heads.kv_width());
        let key = head / heads.group();
        let [mut d_q, mut d_k, mut d_v] = [(); 3].map(|()| Buffer::zeroed(length * dim));
        let (mut scores, mut d_scores) = (Vec::new(), Vec::new());
        for first in (0..length).step_by(QUERIES) {
            let block = Block { begin, length, first, rows: QUERIES.min(length - first) };
            let (rows, seen) = (block.rows, first + block.rows);
            block.weights(heads, self.q, head, keys, &mut scores);
            let d_out = block.rows_of(heads, self.d_out, head);
            d_scores.resize(rows * seen, 0.0);
            let right = Right { data: values, step: length };
            gemm((rows, seen, dim), d_out, right, &mut d_scores, seen, Start::Zero);

            let turned = Left { data: &scores, row: 1, step: seen };
            gemm((seen, dim, rows), turned, Right { data: d_out.data, step: width }, &mut d_v, dim, Start::Out);

            let out = block.rows_of(heads, self.out, head).data;
            for (row, (d_scores, scores)) in d_scores.chunks_exact_mut(seen).zip(scores.chunks_exact(seen)).enumerate()
            {
                let pull = dot(&out[row * width..][..dim], &d_out.data[row * width..][..dim]);
                for (d, &p) in d_scores.iter_mut().zip(scores) {
                    *d = p * (*d - pull) * heads.scale;
                }
            }
            let left = Left { data: &d_scores, row: seen, step: 1 };
            let right = Right { data: &self.k[begin * kv_width + key * dim..], step: kv_width };
            gemm((rows, dim, seen), left, right, &mut d_q[first * dim..], dim, Start::Zero);
            let turned = Left { data: &d_scores, row: 1, step: seen };
            let right = Right { data: block.rows_of(heads, self.q, head).data, step: width };
            gemm((seen, dim, rows), turned, right, &mut d_k, dim, Start::Out);
        }
        [d_q, d_k, d_v]
    }
}

/// Each segment's heads of `x (rows, keys * dim)`, transposed: `(dim, length)`, segment by segment, head by head.
fn turn_all(heads: Heads, lengths: &[usize], x: &[f32]) -> Vec<Buffer<f32>> {
    let mut tasks = Vec::new();
    let mut begin = 0;
    for &length in lengths {
        tasks.extend((0..heads.keys).map(|key| (begin, length, key)));
        begin += length;
    }
    let width = heads.kv_width();
    tasks
        .into_par_iter()
        .map(|(begin, length, key)| {
            let mut turned = Buffer::zeroed(heads.dim * length);
            for row in 0..length {
                for (d, &value) in x[(begin + row) * width + key * heads.dim..][..heads.dim].iter().enumerate() {
                    turned[d * length + row] = value;
                }
            }
            turned
        })
        .collect()
}
