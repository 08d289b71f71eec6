//! Keys and values of the tokens a sequence has seen.
//!
//! A cache is a list of pages of 32 tokens, each page shared until somebody writes to it. Forking a cache shares all its pages, so a
//! prompt prefix is computed and kept once for any number of sequences; a fork that goes on copies at
//! most the one page that was not full. Within a page, keys lie transposed, as the panel of a product.

use std::sync::Arc;

use crate::config::Config;
use crate::kernels::{Buffer, PANEL};

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
}

#[derive(Clone, Debug)]
struct Page {
    /// `(layer, head, dim, token)`.
    keys: Buffer<f32>,
    /// `(layer, head, token, dim)`.
    values: Buffer<f32>,
}

impl Shape {
    fn of(config: &Config) -> Self {
        Self { layers: config.num_hidden_layers, heads: config.num_key_value_heads, head_dim: config.head_dim }
    }

    /// Values in one head of one layer of a page.
    fn head(self) -> usize {
        self.head_dim * PAGE_TOKENS
    }

    fn page(self) -> usize {
        self.layers * self.heads * self.head()
    }
}

impl KvCache {
    /// An empty cache for a model of this shape.
    pub fn new(config: &Config) -> Self {
        Self { shape: Shape::of(config), pages: Vec::new(), len: 0 }
    }

    /// Bytes that a cache of `tokens` tokens takes, if it shares none.
    pub fn bytes(config: &Config, tokens: usize) -> usize {
        tokens.div_ceil(PAGE_TOKENS) * Shape::of(config).page() * 2 * size_of::<f32>()
    }

    /// Bytes that a fork of a cache of `shared` tokens takes of its own when it has grown to `tokens`.
    pub fn bytes_after(config: &Config, shared: usize, tokens: usize) -> usize {
        Self::bytes(config, tokens) - Self::bytes(config, shared / PAGE_TOKENS * PAGE_TOKENS)
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

    pub(crate) fn fits(&self, config: &Config) -> bool {
        self.shape == Shape::of(config)
    }

    /// Makes room for `more` tokens, in pages of our own.
    pub(crate) fn reserve(&mut self, more: usize) {
        let wanted = (self.len + more).div_ceil(PAGE_TOKENS);
        let size = self.shape.page();
        let fresh = || Arc::new(Page { keys: Buffer::zeroed(size), values: Buffer::zeroed(size) });
        self.pages.resize_with(wanted.max(self.pages.len()), fresh);
        for page in &mut self.pages[self.len / PAGE_TOKENS..wanted] {
            Arc::make_mut(page);
        }
    }

    /// Writes the keys and values of the token at `position` in one layer: `(heads, head_dim)` each. The room was reserved.
    pub(crate) fn write(&mut self, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let Shape { heads, head_dim, .. } = self.shape;
        let token = position % PAGE_TOKENS;
        let page = Arc::get_mut(&mut self.pages[position / PAGE_TOKENS]).expect("`reserve` made the page our own");
        for head in 0..heads {
            let start = (layer * heads + head) * self.shape.head();
            for d in 0..head_dim {
                page.keys[start + d * PAGE_TOKENS + token] = keys[head * head_dim + d];
            }
            page.values[start + token * head_dim..][..head_dim].copy_from_slice(&values[head * head_dim..][..head_dim]);
        }
    }

    /// Counts `more` tokens as seen, after all layers wrote them.
    pub(crate) fn advance(&mut self, more: usize) {
        self.len += more;
        debug_assert!(self.len <= self.pages.len() * PAGE_TOKENS);
    }

    /// The pages of one head of one layer: keys `(head_dim, 32)` and values `(32, head_dim)`.
    pub(crate) fn pages(&self, layer: usize, head: usize) -> impl Iterator<Item = (&[f32], &[f32])> {
        let size = self.shape.head();
        let start = (layer * self.shape.heads + head) * size;
        self.pages.iter().map(move |page| (&page.keys[start..start + size], &page.values[start..start + size]))
    }
}
