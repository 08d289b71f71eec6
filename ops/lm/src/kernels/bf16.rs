//! Products in bfloat16: weights and inputs rounded to eight significant bits, sums in single floats.
//!
//! # The law
//!
//! Inputs are taken in blocks of 32. A block is two chains of fused multiply-adds from zero, one of its inputs with even numbers and one
//! of those with odd, added to each other. Blocks are added up in ascending order, over all of a sum's products that are in bfloat16 ([`Sums`]), and the
//! sum at last to what the output held before, if it goes on from that. That is what AMX's tile instruction computes. AVX-512's dot product of pairs gives the same chains
//! where every other input lies side by side; without either, plain multiply-adds do ([`Way`]).
//!
//! Both instructions take denormal numbers as zeros, and give them as zeros. So that nothing depends on it, values below 2⁻⁵⁵ are rounded to
//! zero: all others are multiples of 2⁻⁶², hence products and all sums of 2⁻¹²⁴, and no denormal number is one.
//!
//! Whether this machine's instructions keep the law is looked at before they are used for the first time.

#![expect(clippy::inline_always, reason = "bodies must be compiled anew for each instruction set that calls them")]

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod plain;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::Isa;
use super::buffer::Buffer;
use super::tile::{HALF_PANEL, PANEL};

/// Inputs of a block.
pub(super) const BLOCK: usize = 32;
/// Rows of inputs that lie together.
pub(super) const GROUP: usize = 16;
/// Inputs that a panel's weights are packed by.
pub(super) const QUAD: usize = 4;
/// Most rows in a tile.
pub(super) const ROWS: usize = 2 * GROUP;
/// Values of a block of a panel.
pub(super) const BLOCK_VALUES: usize = BLOCK * PANEL;
/// Inputs that are worth a task of their own when they are rounded.
const TASK_VALUES: usize = 1 << 15;
/// Below this a value is zero: 2⁻⁵⁵.
const LEAST: u32 = (127 - 55) << 23;

/// Where the sums of a tile begin, and where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sums {
    /// From zero; the output is overwritten.
    New,
    /// From the output, which holds sums in bfloat16: blocks are added to it.
    GoOn,
    /// From zero; what comes out is added to the output, which may hold any numbers.
    AddTo,
}

impl Sums {
    /// Where the next product of a sum goes on.
    pub(super) fn after(self) -> Self {
        match self {
            Self::New | Self::GoOn => Self::GoOn,
            Self::AddTo => Self::AddTo,
        }
    }
}

/// How this machine multiplies in bfloat16. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// AMX's tiles.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Tiles,
    /// AVX-512's dot products of pairs.
    #[cfg(target_arch = "x86_64")]
    Pairs,
    /// Multiply-adds of single floats: right, and slower than not to round at all.
    Plain(Isa),
}

impl Way {
    /// The best for a machine that has `isa`.
    pub(super) fn best(isa: Isa) -> Self {
        static BEST: OnceLock<Way> = OnceLock::new();
        if isa == Isa::best() {
            *BEST.get_or_init(|| Self::available().into_iter().next().expect("there is a plain way"))
        } else {
            Self::Plain(isa)
        }
    }

    /// All that this machine has and that keep the law, best first.
    pub(super) fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if amx::allowed() {
            found.push(Self::Tiles);
        }
        #[cfg(target_arch = "x86_64")]
        if Isa::best() == Isa::Avx512 && is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw")
        {
            found.push(Self::Pairs);
        }
        found.retain(|way| way.keeps_the_law());
        found.extend(Isa::available().into_iter().map(Self::Plain));
        found
    }

    fn keeps_the_law(self) -> bool {
        let probe = Probe::new();
        probe.product(self) == probe.product(Self::Plain(Isa::Portable))
    }

    /// How it wants weights and inputs to lie.
    pub(super) fn layout(self) -> Layout {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Pairs => Layout::Chains,
            _ => Layout::Tiles,
        }
    }
}

/// How the values of a block lie, of weights and of inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// As AMX has them: weights `[2][16][16][2]`, a half of the columns after the other, two neighbouring inputs of a column side by side; inputs in
    /// their order.
    Tiles,
    /// As AVX-512 has them, which takes the upper half of a pair first: weights `[8][2][2][16][2]`, of four inputs in a row the pairs of the even
    /// chain, then of the odd, the later input first; inputs 2, 0, 6, 4, … 3, 1, 7, 5, ….
    Chains,
}

impl Layout {
    /// That of packed weights on this machine.
    pub(super) fn of_weights() -> Self {
        Way::best(Isa::best()).layout()
    }

    /// Where input `s` of column `column` lies in a packed panel.
    #[inline(always)]
    pub(super) fn place(self, s: usize, column: usize) -> usize {
        let (block, s) = (s / BLOCK * BLOCK_VALUES, s % BLOCK);
        let (half, column) = (column / HALF_PANEL, column % HALF_PANEL);
        block
            + match self {
                Self::Tiles => half * (BLOCK_VALUES / 2) + s / 2 * 32 + column * 2 + s % 2,
                Self::Chains => s / QUAD * 128 + s % 2 * 64 + half * 32 + column * 2 + (s / 2 + 1) % 2,
            }
    }
}

/// A product of many magnitudes, in which the order of sums shows.
struct Probe {
    x: Vec<f32>,
    weight: Vec<u16>,
}

impl Probe {
    const BLOCKS: usize = 3;

    fn new() -> Self {
        let value = |i: usize| {
            let bits = (i as u32).wrapping_mul(2_654_435_761);
            f32::from_bits((bits & 0x807f_ffff) | ((113 + (bits >> 8) % 28) << 23))
        };
        let weight = (0..Self::BLOCKS * BLOCK_VALUES).map(|i| round(value(i + 77_777))).collect();
        Self { x: (0..ROWS * Self::BLOCKS * BLOCK).map(value).collect(), weight }
    }

    fn product(&self, way: Way) -> Vec<f32> {
        let inputs = Inputs::round(way, &self.x, ROWS, Self::BLOCKS * BLOCK);
        let mut space = Vec::new();
        let weight = Weight::new((way, Layout::Tiles), &self.weight, &mut space);
        let mut out = vec![0.5; ROWS * PANEL];
        let tile = Tile16::of(&inputs, 0..ROWS, (weight, PANEL), (out.as_mut_ptr(), PANEL), Sums::AddTo);
        #[expect(unsafe_code, reason = "inputs, weight and output have their shapes")]
        unsafe {
            tile.run(&Ready::make(way));
        }
        out
    }
}

/// The nearest bfloat16, half to even; what is tiny becomes zero.
#[inline(always)]
fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    let size = bits & !(1 << 31);
    let nearest = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    let nearest = if size < LEAST { 0 } else { nearest };
    // What is no number must stay none.
    if size > 0x7f80_0000 { (bits >> 16) as u16 | 0x40 } else { nearest }
}

/// The same number as a single float.
#[inline(always)]
pub(super) fn widen(value: u16) -> f32 {
    f32::from_bits(u32::from(value) << 16)
}

/// Writes a panel's rounded weights; `wide` is `[k][32]`.
pub(super) fn pack_panel(isa: Isa, wide: &[f32], panel: &mut [u16]) {
    let layout = Layout::of_weights();
    isa.run(
        #[inline(always)]
        || {
            for (at, rows) in wide.chunks(QUAD * PANEL).enumerate() {
                let mut quad = [&[0.0; PANEL]; QUAD];
                for (quad, row) in quad.iter_mut().zip(rows.as_chunks().0) {
                    *quad = row;
                }
                pack_quad(layout, quad, &mut panel[at * QUAD / BLOCK * BLOCK_VALUES..], at % (BLOCK / QUAD));
            }
        },
    );
}

/// Writes the weights of four inputs in a row, which are number `at` of those of the block that `to` begins with.
#[inline(always)]
pub(super) fn pack_quad(layout: Layout, quad: [&[f32; PANEL]; QUAD], to: &mut [u16], at: usize) {
    // Which inputs lie side by side, where, and how far apart the halves of the columns are.
    let (pairs, apart) = match layout {
        Layout::Tiles => ([(0, 1, 0), (2, 3, 32)], BLOCK_VALUES / 2),
        Layout::Chains => ([(2, 0, 0), (3, 1, 64)], 32),
    };
    let first = layout.place(at * QUAD, 0) / 32 * 32;
    for (one, other, begin) in pairs {
        for half in 0..2 {
            let to: &mut [u16; 32] = to[first + begin + half * apart..].first_chunk_mut().expect("half a row of pairs");
            for column in 0..HALF_PANEL {
                to[2 * column] = round(quad[one][half * HALF_PANEL + column]);
                to[2 * column + 1] = round(quad[other][half * HALF_PANEL + column]);
            }
        }
    }
}

/// Rounded inputs of some rows: `[rows / 16][blocks][16][32]`, filled up with zeros.
pub(super) struct Inputs {
    k: usize,
    blocks: usize,
    values: Buffer<u16>,
}

impl Inputs {
    /// Rounds `x (rows, k)`.
    pub(super) fn round(way: Way, x: &[f32], rows: usize, k: usize) -> Self {
        let blocks = k.div_ceil(BLOCK);
        let size = blocks * GROUP * BLOCK;
        let length = rows.div_ceil(GROUP) * size;
        let whole = rows.is_multiple_of(GROUP);
        let mut values = if whole { Buffer::any(length) } else { Buffer::zeroed(length) };
        if size > 0 {
            let groups = values.par_chunks_exact_mut(size).with_min_len(TASK_VALUES.div_ceil(size));
            groups.zip(x.par_chunks(GROUP * k)).for_each(|(group, x)| {
                Isa::best().run(
                    #[inline(always)]
                    || round_group(way.layout(), x, k, group),
                );
            });
        }
        Self { k, blocks, values }
    }
}

/// Block by block, so that what is written lies in a row.
#[inline(always)]
fn round_group(layout: Layout, x: &[f32], k: usize, group: &mut [u16]) {
    for (block, to) in group.as_chunks_mut::<{ GROUP * BLOCK }>().0.iter_mut().enumerate() {
        let (rows, first) = (x.chunks_exact(k), block * BLOCK);
        for (row, to) in rows.zip(to.as_chunks_mut::<BLOCK>().0) {
            let mut last = [0.0; BLOCK];
            let values = row[first..].first_chunk().unwrap_or_else(|| {
                last[..k - first].copy_from_slice(&row[first..]);
                &last
            });
            // Loops, not closures: those stay calls, a value at a time.
            match layout {
                Layout::Tiles => {
                    for (to, &value) in to.iter_mut().zip(values) {
                        *to = round(value);
                    }
                }
                Layout::Chains => {
                    let mut wide = [0; BLOCK];
                    for (wide, &value) in wide.iter_mut().zip(values) {
                        *wide = u32::from(round(value)) << 16;
                    }
                    in_chains(&wide, to);
                }
            }
        }
    }
}

/// Lays inputs, which are in the upper halves, as [`Layout::Chains`] says.
#[inline(always)]
fn in_chains(wide: &[u32; BLOCK], to: &mut [u16; BLOCK]) {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "only a machine that has AVX-512 wants chains")]
    unsafe {
        avx512::in_chains(wide, to);
    }
    #[cfg(not(target_arch = "x86_64"))]
    for (at, to) in to.iter_mut().enumerate() {
        *to = (wide[2 * ((at % 16) ^ 1) + at / 16] >> 16) as u16;
    }
}

/// A thread that is ready to run tiles.
pub(super) struct Ready {
    way: Way,
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    _registers: Option<amx::Registers>,
}

impl Ready {
    /// What it makes ready is given back when it is dropped.
    pub(super) fn make(way: Way) -> Self {
        Self {
            way,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            _registers: (way == Way::Tiles).then(amx::Registers::set_up),
        }
    }
}

/// A panel's weights as a way of multiplying takes them.
#[derive(Clone, Copy)]
pub(super) struct Weight<'a>(&'a [u16]);

impl<'a> Weight<'a> {
    /// Of a panel that lies as its way of multiplying wants it.
    pub(super) fn of(panel: &'a [u16]) -> Self {
        Self(panel)
    }

    /// Of a panel that is packed in a layout. Where `way` wants another, which only tests do, `space` is for the panel laid out anew.
    pub(super) fn new((way, layout): (Way, Layout), panel: &'a [u16], space: &'a mut Vec<u16>) -> Self {
        if way.layout() == layout {
            return Self::of(panel);
        }
        space.resize(panel.len(), 0);
        for s in 0..panel.len() / PANEL {
            for column in 0..PANEL {
                space[way.layout().place(s, column)] = panel[layout.place(s, column)];
            }
        }
        Self::of(space)
    }
}

/// Up to [`ROWS`] rows by [`PANEL`] columns, over all blocks.
#[derive(Clone, Copy)]
pub(super) struct Tile16<'a> {
    rows: usize,
    /// Inputs; past them there are zeros up to a whole block.
    k: usize,
    blocks: usize,
    /// The groups of the rows, the first row at the beginning of a group.
    x: &'a [u16],
    weight: &'a [u16],
    /// Only the first [`HALF_PANEL`] columns need be right; the others get any numbers.
    narrow: bool,
    /// Row `i` begins at `i * out_row`.
    out: *mut f32,
    out_row: usize,
    sums: Sums,
}

impl<'a> Tile16<'a> {
    /// Of `rows`, the first of which begins a group, and a panel's first `columns`.
    pub(super) fn of(
        inputs: &'a Inputs,
        rows: Range<usize>,
        (weight, columns): (Weight<'a>, usize),
        (out, out_row): (*mut f32, usize),
        sums: Sums,
    ) -> Self {
        let Inputs { k, blocks, .. } = *inputs;
        let x = &inputs.values[rows.start / GROUP * blocks * GROUP * BLOCK..];
        Self { rows: rows.len(), k, blocks, x, weight: weight.0, narrow: columns <= HALF_PANEL, out, out_row, sums }
    }

    /// Computes the tile.
    ///
    /// # Safety
    ///
    /// `out[i * out_row..][..PANEL]` for all `i` below `rows` lie in a live allocation and are not accessed by others meanwhile; inputs and weight
    /// are laid out for the way that `ready` was made for, on this thread.
    #[expect(unsafe_code, reason = "tiles write through raw pointers")]
    #[inline]
    pub(super) unsafe fn run(&self, ready: &Ready) {
        assert!((1..=ROWS).contains(&self.rows));
        assert!(self.x.len() >= self.rows.div_ceil(GROUP) * self.blocks * GROUP * BLOCK, "inputs are too short");
        assert!(self.weight.len() >= self.blocks * BLOCK_VALUES, "the weight is too short");
        match ready.way {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Way::Tiles => unsafe { amx::tile(self) },
            #[cfg(target_arch = "x86_64")]
            Way::Pairs => unsafe { avx512::tile(self) },
            Way::Plain(Isa::Portable) => unsafe { plain::tile::<false>(self) },
            #[cfg(target_arch = "x86_64")]
            Way::Plain(isa) => isa.run(
                #[inline(always)]
                || unsafe { plain::tile::<true>(self) },
            ),
        }
    }

    /// A row of the inputs' block.
    #[inline(always)]
    fn x(&self, row: usize, block: usize) -> &'a [u16; BLOCK] {
        let at = ((row / GROUP * self.blocks + block) * GROUP + row % GROUP) * BLOCK;
        self.x[at..].first_chunk().expect("asserted before")
    }

    /// A block of the weights.
    #[inline(always)]
    fn weight(&self, block: usize) -> &'a [u16; BLOCK_VALUES] {
        self.weight[block * BLOCK_VALUES..].first_chunk().expect("asserted before")
    }

    /// What a row's sums begin from.
    ///
    /// # Safety
    ///
    /// As [`Tile16::run`].
    #[expect(unsafe_code, reason = "raw pointers")]
    #[inline(always)]
    unsafe fn begin(&self, row: usize) -> [f32; PANEL] {
        match self.sums {
            Sums::New | Sums::AddTo => [0.0; PANEL],
            Sums::GoOn => unsafe { *self.out.add(row * self.out_row).cast() },
        }
    }

    /// Writes the sums of a row, or adds them to what is there.
    ///
    /// # Safety
    ///
    /// As [`Tile16::run`].
    #[expect(unsafe_code, reason = "raw pointers")]
    #[inline(always)]
    unsafe fn write(&self, row: usize, sums: &[f32; PANEL]) {
        let out: &mut [f32; PANEL] = unsafe { &mut *self.out.add(row * self.out_row).cast() };
        match self.sums {
            Sums::New | Sums::GoOn => *out = *sums,
            Sums::AddTo => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
        }
    }
}
