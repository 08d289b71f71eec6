//! Keys and values of the tokens a sequence has seen.
//!
//! A cache is a list of pages of 32 tokens, each page shared until somebody writes to it. Forking a cache shares all its pages, so a
//! prompt prefix is computed and kept once for any number of sequences; a fork that goes on copies at
//! most the one page that was not full. Within a page, keys lie transposed, as the panel of a product.
//!
//! Models that compute in eight bits have them in half floats, to which a block rounds them; all others in single floats.

use std::sync::Arc;

use half::f16;

use crate::config::Config;
use crate::kernels::{Buffer, Float, PANEL};

/// Keys of a token that are narrowed at a time.
const NARROWED: usize = 64;

/// Tokens in a page.
pub const PAGE_TOKENS: usize = PANEL;

/// The keys and values of one sequence, for all blocks.
///
/// Invariant: `pages` has room for `len` tokens; what lies past `len` is finite.
#[derive(Clone, Debug)]
pub struct KvCache {
    shape: Shape,
    pages: Vec<Arc<Page>>,
    len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    layers: usize,
    heads: usize,
    head_dim: usize,
    half: bool,
}

#[derive(Clone, Debug)]
enum Page {
    Single(Sides<f32>),
    Half(Sides<f16>),
}

#[derive(Clone, Debug)]
struct Sides<T: Float> {
    /// `(layer, head, dim, token)`.
    keys: Buffer<T>,
    /// `(layer, head, token, dim)`.
    values: Buffer<T>,
}

/// Keys `(head_dim, 32)` and values `(32, head_dim)` of one head of a page.
#[derive(Clone, Copy)]
pub(crate) enum Head<'a> {
    Single(&'a [f32], &'a [f32]),
    Half(&'a [f16], &'a [f16]),
}

impl Shape {
    fn of(config: &Config, half: bool) -> Self {
        let (layers, heads) = (config.num_hidden_layers, config.num_key_value_heads);
        Self { layers, heads, head_dim: config.head_dim, half }
    }

    /// Values in one head of one layer of a page.
    fn head(self) -> usize {
        self.head_dim * PAGE_TOKENS
    }

    /// Values in either side of a page.
    fn side(self) -> usize {
        self.layers * self.heads * self.head()
    }

    fn page(self) -> Page {
        if self.half { Page::Half(self.sides()) } else { Page::Single(self.sides()) }
    }

    fn sides<T: Float>(self) -> Sides<T> {
        Sides { keys: Buffer::zeroed(self.side()), values: Buffer::zeroed(self.side()) }
    }
}

impl<T: Float> Sides<T> {
    fn write(&mut self, shape: Shape, layer: usize, token: usize, keys: &[f32], values: &[f32]) {
        let Shape { heads, head_dim, .. } = shape;
        for head in 0..heads {
            let start = (layer * heads + head) * shape.head();
            let own = head * head_dim..(head + 1) * head_dim;
            let columns = self.keys[start..][..shape.head()].chunks_mut(NARROWED * PAGE_TOKENS);
            for (columns, keys) in columns.zip(keys[own.clone()].chunks(NARROWED)) {
                let mut narrow = [T::default(); NARROWED];
                T::narrow(keys, &mut narrow[..keys.len()]);
                columns.chunks_mut(PAGE_TOKENS).zip(narrow).for_each(|(column, key)| column[token] = key);
            }
            T::narrow(&values[own], &mut self.values[start + token * head_dim..][..head_dim]);
        }
    }
}

impl KvCache {
    /// An empty cache for a model of this shape, of half floats if its blocks round to them.
    pub(crate) fn new(config: &Config, half: bool) -> Self {
        Self { shape: Shape::of(config, half), pages: Vec::new(), len: 0 }
    }

    /// Bytes that a cache of this kind with `tokens` tokens takes, if it shares none.
    pub fn bytes(&self, tokens: usize) -> usize {
        let value = if self.shape.half { size_of::<f16>() } else { size_of::<f32>() };
        tokens.div_ceil(PAGE_TOKENS) * self.shape.side() * 2 * value
    }

    /// Bytes that a fork of a cache of `shared` tokens takes of its own when it has grown to `tokens`.
    pub fn bytes_after(&self, shared: usize, tokens: usize) -> usize {
        self.bytes(tokens) - self.bytes(shared / PAGE_TOKENS * PAGE_TOKENS)
    }

    /// Tokens seen.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token was seen.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Another sequence with the same past. Costs a list of pointers: pages are shared, and copied when written to.
    #[must_use]
    pub fn fork(&self) -> Self {
        self.clone()
    }

    /// Forgets all tokens but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.pages.truncate(self.len.div_ceil(PAGE_TOKENS));
    }

    pub(crate) fn fits(&self, config: &Config, half: bool) -> bool {
        self.shape == Shape::of(config, half)
    }

    /// Makes room for `more` tokens, in pages of our own.
    pub(crate) fn reserve(&mut self, more: usize) {
        let wanted = (self.len + more).div_ceil(PAGE_TOKENS);
        let shape = self.shape;
        self.pages.resize_with(wanted.max(self.pages.len()), || Arc::new(shape.page()));
        for page in &mut self.pages[self.len / PAGE_TOKENS..wanted] {
            Arc::make_mut(page);
        }
    }

    /// Writes the keys and values of the token at `position` in one layer: `(heads, head_dim)` each. The room was reserved.
    pub(crate) fn write(&mut self, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let token = position % PAGE_TOKENS;
        match Arc::get_mut(&mut self.pages[position / PAGE_TOKENS]).expect("`reserve` made the page our own") {
            Page::Single(sides) => sides.write(self.shape, layer, token, keys, values),
            Page::Half(sides) => sides.write(self.shape, layer, token, keys, values),
        }
    }

    /// Counts `more` tokens as seen, after all layers wrote them.
    pub(crate) fn advance(&mut self, more: usize) {
        self.len += more;
        debug_assert!(self.len <= self.pages.len() * PAGE_TOKENS);
    }

    /// The pages of one head of one layer.
    pub(crate) fn pages(&self, layer: usize, head: usize) -> impl Iterator<Item = Head<'_>> {
        let size = self.shape.head();
        let start = (layer * self.shape.heads + head) * size;
        let own = start..start + size;
        self.pages.iter().map(move |page| match &**page {
            Page::Single(sides) => Head::Single(&sides.keys[own.clone()], &sides.values[own.clone()]),
            Page::Half(sides) => Head::Half(&sides.keys[own.clone()], &sides.values[own.clone()]),
        })
    }
}
