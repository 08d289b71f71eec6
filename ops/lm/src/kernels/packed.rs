//! Weights in panels of 32 columns.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::bf16::Layout;
use super::buffer::Buffer;
use super::levels::{self, Form, Levels};
use super::tile::PANEL;
use super::{Isa, bf16, int8};

/// Values of a row that are put into a panel's columns at a time.
const TURNED: usize = 32;

/// How packed weights are stored, and what products with them are computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Precision {
    /// Half floats (eleven significant bits), widened exactly when used; products in single floats.
    F16,
    /// Single floats.
    F32,
    /// Bfloat16 (eight significant bits); products in pairs of them, with inputs that are rounded in the same way, and sums in single floats.
    Bf16,
    /// Signed bytes with a scale, a half float, for each 32 inputs of an output; products in integers, with inputs that are rounded in the same way.
    Int8,
}

impl Precision {
    /// Bytes of so many weights, without those that fill up.
    pub(crate) fn bytes(self, values: usize) -> usize {
        match self {
            Self::F32 => 4 * values,
            Self::F16 | Self::Bf16 => 2 * values,
            Self::Int8 => values + values / int8::BLOCK * 2,
        }
    }
}

/// A weight matrix of `n` outputs and `k` inputs, in panels: `[n / 32][k][32]`, zeros past `n`. In eight bits and
/// in bfloat16 `k` is filled up to whole blocks.
#[derive(Clone, Debug)]
pub struct Packed {
    n: usize,
    k: usize,
    panels: Panels,
}

#[derive(Clone, Debug)]
enum Panels {
    F16(Buffer<u16>),
    F32(Buffer<f32>),
    /// As [`bf16::Layout::of_weights`] says.
    Bf16(Buffer<u16>),
    Int8 {
        bytes: Buffer<u8>,
        scales: Buffer<f16>,
    },
    /// For products in eight bits too.
    Levels(Levels),
}

/// Where a panel's weights from some input on lie.
pub(super) enum PanelAt<'a> {
    Floats { right: *const u8, half: bool },
    Int8 { bytes: *const u8, scales: *const f16 },
    Levels(levels::Panel<'a>),
}

impl Packed {
    /// Packs a matrix as checkpoints have it: `weight (n, k)`, a row an output.
    ///
    /// # Panics
    ///
    /// If `weight` does not have `n * k` values.
    pub fn from_rows(weight: &[f32], n: usize, k: usize, precision: Precision) -> Self {
        assert_eq!(weight.len(), n * k, "a weight of {n} rows and {k} columns");
        Self::pack(n, k, precision, |panel, first| fill_from_rows(weight, k, panel, first))
    }

    /// As [`Packed::from_rows`], of rows that `part` gives `step` at a time, and the rest at last, on any threads.
    ///
    /// # Errors
    ///
    /// One that `part` gives.
    ///
    /// # Panics
    ///
    /// If `step` is not whole panels, or a part not as many rows as were asked for.
    pub fn from_parts<E: Send>(
        n: usize,
        k: usize,
        precision: Precision,
        step: usize,
        part: impl Fn(Range<usize>) -> Result<Vec<f32>, E> + Sync,
    ) -> Result<Self, E> {
        assert!(step > 0 && step.is_multiple_of(PANEL), "{step} rows are no whole panels");
        let rows = |first: usize| {
            let range = first..(first + step).min(n);
            let rows = part(range.clone())?;
            assert_eq!(rows.len(), range.len() * k, "a part of {} rows and {k} columns", range.len());
            Ok((first, rows))
        };
        Self::pack_parts(n, k, precision, step / PANEL, rows, |(begin, rows), panel, first| {
            fill_from_rows(rows, k, panel, first - begin);
        })
    }

    /// As [`Packed::from_parts`] for products in eight bits, where all blocks of 32 inputs of an output have no more levels, a step apart, than `form` can
    /// tell apart; none if one has.
    ///
    /// # Errors
    ///
    /// One that `part` gives.
    ///
    /// # Panics
    ///
    /// As [`Packed::from_parts`].
    pub fn from_levels<E: Send>(
        (n, k): (usize, usize),
        form: Form,
        step: usize,
        part: impl Fn(Range<usize>) -> Result<Vec<f32>, E> + Sync,
    ) -> Result<Option<Self>, E> {
        assert!(step > 0 && step.is_multiple_of(PANEL), "{step} rows are no whole panels");
        let (panels, blocks) = (n.div_ceil(PANEL), k.div_ceil(int8::BLOCK));
        let (bytes_each, grids_each) = (blocks * form.bits.block_bytes(), blocks * form.grid_values());
        let (mut bytes, mut grids) = (Buffer::zeroed(panels * bytes_each), Buffer::zeroed(panels * grids_each));
        let fits = AtomicBool::new(true);
        let some = bytes.par_chunks_mut((step / PANEL * bytes_each).max(1));
        let some = some.zip(grids.par_chunks_mut((step / PANEL * grids_each).max(1))).enumerate();
        some.try_for_each_init(
            || vec![0.0f32; k * PANEL],
            |panel, (at, (bytes, grids))| {
                if !fits.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let range = at * step..((at + 1) * step).min(n);
                let rows = part(range.clone())?;
                assert_eq!(rows.len(), range.len() * k, "a part of {} rows and {k} columns", range.len());
                let each = bytes.chunks_exact_mut(bytes_each).zip(grids.chunks_exact_mut(grids_each));
                for (at, (bytes, grids)) in each.enumerate() {
                    panel.fill(0.0);
                    fill_from_rows(&rows, k, panel, at * PANEL);
                    if !levels::pack_panel(Isa::best(), form, panel, bytes, grids) {
                        fits.store(false, Ordering::Relaxed);
                        break;
                    }
                }
                Ok(())
            },
        )?;
        let panels = Panels::Levels(Levels { form, bytes, grids });
        Ok(fits.into_inner().then_some(Self { n, k, panels }))
    }

    /// Packs a matrix that is already transposed: `weight (k, n)`, a column an output.
    ///
    /// # Panics
    ///
    /// If `weight` does not have `n * k` values.
    pub fn from_columns(weight: &[f32], n: usize, k: usize, precision: Precision) -> Self {
        assert_eq!(weight.len(), n * k, "a weight of {n} columns and {k} rows");
        Self::pack(n, k, precision, |panel, first| {
            let width = PANEL.min(n - first);
            for s in 0..k {
                panel[s * PANEL..s * PANEL + width].copy_from_slice(&weight[s * n + first..][..width]);
            }
        })
    }

    /// The same matrix with inputs and outputs exchanged: what carries gradients back. What is in eight bits comes in single floats.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let precision = match self.panels {
            Panels::Bf16(_) => return self.transposed_16(),
            Panels::F16(_) => Precision::F16,
            Panels::F32(_) | Panels::Int8 { .. } | Panels::Levels(_) => Precision::F32,
        };
        Self::pack(self.k, self.n, precision, |panel, first| {
            let width = PANEL.min(self.k - first);
            for from in 0..self.n.div_ceil(PANEL) {
                for j in 0..width {
                    let values = self.panel_row(from, first + j);
                    for (s, value) in values.iter().take(self.n - from * PANEL).enumerate() {
                        panel[(from * PANEL + s) * PANEL + j] = *value;
                    }
                }
            }
        })
    }

    /// The same in bfloat16, where a block of a panel becomes a block: inputs and columns are as many.
    fn transposed_16(&self) -> Self {
        const { assert!(PANEL == bf16::BLOCK, "blocks are square") };
        let layout = Layout::of_weights();
        let mut from = [0; bf16::BLOCK_VALUES];
        for s in 0..bf16::BLOCK {
            for column in 0..PANEL {
                from[layout.place(column, s)] = layout.place(s, column);
            }
        }
        let blocks = self.n.div_ceil(PANEL);
        let mut all = Buffer::any(self.k.div_ceil(PANEL) * blocks * bf16::BLOCK_VALUES);
        all.par_chunks_exact_mut((blocks * bf16::BLOCK_VALUES).max(1)).enumerate().for_each(|(at, panel)| {
            for (block, into) in panel.as_chunks_mut::<{ bf16::BLOCK_VALUES }>().0.iter_mut().enumerate() {
                let own = &self.panel_16(block).as_chunks::<{ bf16::BLOCK_VALUES }>().0[at];
                for (into, &from) in into.iter_mut().zip(&from) {
                    *into = own[from];
                }
            }
        });
        Self { n: self.k, k: self.n, panels: Panels::Bf16(all) }
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes of storage.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F16(halves) | Panels::Bf16(halves) => halves.len() * 2,
            Panels::F32(values) => values.len() * 4,
            Panels::Int8 { bytes, scales } => bytes.len() + scales.len() * 2,
            Panels::Levels(levels) => levels.bytes.len() + levels.grids.len() * 2,
        }
    }

    /// How it is stored.
    pub fn precision(&self) -> Precision {
        match &self.panels {
            Panels::F16(_) => Precision::F16,
            Panels::F32(_) => Precision::F32,
            Panels::Bf16(_) => Precision::Bf16,
            Panels::Int8 { .. } | Panels::Levels(_) => Precision::Int8,
        }
    }

    /// Row `output` of the matrix `(n, k)`, as stored: what an embedding looks up.
    pub fn row(&self, output: usize, into: &mut [f32]) {
        assert!(output < self.n, "row {output} of {}", self.n);
        let (panel, column) = (output / PANEL, output % PANEL);
        let start = panel * PANEL * self.k + column;
        match &self.panels {
            Panels::F16(halves) => {
                for (s, value) in into[..self.k].iter_mut().enumerate() {
                    *value = f16::from_bits(halves[start + s * PANEL]).to_f32();
                }
            }
            Panels::F32(values) => {
                for (s, value) in into[..self.k].iter_mut().enumerate() {
                    *value = values[start + s * PANEL];
                }
            }
            Panels::Bf16(_) => {
                let (panel, layout) = (self.panel_16(panel), Layout::of_weights());
                for (s, value) in into[..self.k].iter_mut().enumerate() {
                    *value = bf16::widen(panel[layout.place(s, column)]);
                }
            }
            Panels::Int8 { bytes, scales } => {
                let panel = int8::Panel::of(bytes, scales, panel, self.k);
                for (s, value) in into[..self.k].iter_mut().enumerate() {
                    *value = panel.value(s, column);
                }
            }
            Panels::Levels(levels) => {
                let panel = levels.panel(panel * self.k.div_ceil(int8::BLOCK));
                for (s, value) in into[..self.k].iter_mut().enumerate() {
                    *value = panel.value(s, column);
                }
            }
        }
    }

    /// The whole matrix `(n, k)`, as stored (so after rounding to half floats, if it was).
    pub fn unpack(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.n * self.k];
        if self.k > 0 {
            all.par_chunks_exact_mut(self.k).enumerate().for_each(|(output, row)| self.row(output, row));
        }
        all
    }

    fn pack(n: usize, k: usize, precision: Precision, fill: impl Fn(&mut [f32], usize) + Sync) -> Self {
        let packed =
            Self::pack_parts(n, k, precision, 1, |_| Ok::<(), Infallible>(()), |(), panel, first| fill(panel, first));
        packed.unwrap_or_else(|never| match never {})
    }

    /// Packs `step` panels at a time: `part` gives what they are filled from, by their first row, and `fill` fills one.
    fn pack_parts<P, E: Send>(
        n: usize,
        k: usize,
        precision: Precision,
        step: usize,
        part: impl Fn(usize) -> Result<P, E> + Sync,
        fill: impl Fn(&P, &mut [f32], usize) + Sync,
    ) -> Result<Self, E> {
        let size = k * PANEL;
        // The panels of a part, one after the other, each with the number of its first row.
        let panels = |at: usize| (at * step..).map(|panel| panel * PANEL);
        let total = n.div_ceil(PANEL) * size;
        let panels = match precision {
            Precision::F32 => {
                let mut all = Buffer::zeroed(total);
                all.par_chunks_mut((step * size).max(1)).enumerate().try_for_each(|(at, some)| {
                    let from = part(at * step * PANEL)?;
                    some.chunks_exact_mut(size).zip(panels(at)).for_each(|(panel, first)| fill(&from, panel, first));
                    Ok(())
                })?;
                Panels::F32(all)
            }
            Precision::F16 => {
                let mut all = Buffer::zeroed(total);
                all.par_chunks_mut((step * size).max(1)).enumerate().try_for_each_init(
                    || (vec![0.0f32; size], vec![f16::ZERO; size]),
                    |(wide, narrow), (at, some)| {
                        let from = part(at * step * PANEL)?;
                        for (panel, first) in some.chunks_exact_mut(size).zip(panels(at)) {
                            wide.fill(0.0);
                            fill(&from, wide, first);
                            narrow.convert_from_f32_slice(wide);
                            for (bits, value) in panel.iter_mut().zip(narrow.iter()) {
                                *bits = value.to_bits();
                            }
                        }
                        Ok(())
                    },
                )?;
                Panels::F16(all)
            }
            Precision::Bf16 => {
                let each = k.div_ceil(bf16::BLOCK) * bf16::BLOCK_VALUES;
                let mut all = Buffer::zeroed(n.div_ceil(PANEL) * each);
                all.par_chunks_mut((step * each).max(1)).enumerate().try_for_each_init(
                    || vec![0.0f32; size],
                    |wide, (at, some)| {
                        let from = part(at * step * PANEL)?;
                        for (panel, first) in some.chunks_exact_mut(each).zip(panels(at)) {
                            wide.fill(0.0);
                            fill(&from, wide, first);
                            bf16::pack_panel(Isa::best(), wide, panel);
                        }
                        Ok(())
                    },
                )?;
                Panels::Bf16(all)
            }
            Precision::Int8 => {
                let blocks = k.div_ceil(int8::BLOCK);
                let (bytes_each, scales_each) = (blocks * int8::BLOCK_BYTES, blocks * PANEL);
                let mut bytes = Buffer::zeroed(n.div_ceil(PANEL) * bytes_each);
                let mut scales = Buffer::zeroed(n.div_ceil(PANEL) * scales_each);
                let some = bytes.par_chunks_mut((step * bytes_each).max(1));
                let some = some.zip(scales.par_chunks_mut((step * scales_each).max(1)));
                some.enumerate().try_for_each_init(
                    || vec![0.0f32; size],
                    |wide, (at, (bytes, scales))| {
                        let from = part(at * step * PANEL)?;
                        let into = bytes.chunks_exact_mut(bytes_each).zip(scales.chunks_exact_mut(scales_each));
                        for ((bytes, scales), first) in into.zip(panels(at)) {
                            wide.fill(0.0);
                            fill(&from, wide, first);
                            int8::pack_panel(Isa::best(), wide, bytes, scales);
                        }
                        Ok(())
                    },
                )?;
                Panels::Int8 { bytes, scales }
            }
        };
        Ok(Self { n, k, panels })
    }

    /// The scale of each block of row `output`, in eight bits.
    #[cfg(test)]
    pub(super) fn scales(&self, output: usize) -> Vec<f32> {
        self.grid(output).0
    }

    /// The scale of each block of row `output`, in eight bits, and its least value if it has one.
    #[cfg(test)]
    pub(super) fn grid(&self, output: usize) -> (Vec<f32>, Vec<f32>) {
        let (halves, size) = match &self.panels {
            Panels::Int8 { scales, .. } => (scales, PANEL),
            Panels::Levels(levels) => (&levels.grids, levels.form.grid_values()),
            _ => return Default::default(),
        };
        let blocks = self.k.div_ceil(int8::BLOCK);
        let all = halves.chunks_exact(size).skip(output / PANEL * blocks).take(blocks);
        let column = output % PANEL;
        let leasts = all.clone().filter_map(|grid| grid.get(PANEL + column)).map(|least| least.to_f32());
        (all.map(|grid| grid[column].to_f32()).collect(), leasts.collect())
    }

    /// The 32 values of input `s` in panel `panel`.
    fn panel_row(&self, panel: usize, s: usize) -> [f32; PANEL] {
        let start = (panel * self.k + s) * PANEL;
        let mut values = [0.0; PANEL];
        match &self.panels {
            Panels::F16(halves) => {
                for (value, &bits) in values.iter_mut().zip(&halves[start..start + PANEL]) {
                    *value = f16::from_bits(bits).to_f32();
                }
            }
            Panels::F32(all) => values.copy_from_slice(&all[start..start + PANEL]),
            Panels::Bf16(_) => {
                let (panel, layout) = (self.panel_16(panel), Layout::of_weights());
                for (column, value) in values.iter_mut().enumerate() {
                    *value = bf16::widen(panel[layout.place(s, column)]);
                }
            }
            Panels::Int8 { bytes, scales } => {
                let panel = int8::Panel::of(bytes, scales, panel, self.k);
                for (column, value) in values.iter_mut().enumerate() {
                    *value = panel.value(s, column);
                }
            }
            Panels::Levels(levels) => {
                let panel = levels.panel(panel * self.k.div_ceil(int8::BLOCK));
                for (column, value) in values.iter_mut().enumerate() {
                    *value = panel.value(s, column);
                }
            }
        }
        values
    }
}

/// Fills a panel from rows of `k` values, the first of which is row `first`.
fn fill_from_rows(rows: &[f32], k: usize, panel: &mut [f32], first: usize) {
    // A few values of all rows, then the next few: what is written lies in the first cache.
    for (at, some) in panel.chunks_mut(TURNED * PANEL).enumerate() {
        for (j, row) in rows.chunks_exact(k.max(1)).skip(first).take(PANEL).enumerate() {
            for (into, &value) in some.as_chunks_mut::<PANEL>().0.iter_mut().zip(&row[at * TURNED..]) {
                into[j] = value;
            }
        }
    }
}

impl Packed {
    /// A panel in bfloat16.
    ///
    /// # Panics
    ///
    /// If the weight is in another precision.
    pub(super) fn panel_16(&self, panel: usize) -> &[u16] {
        let Panels::Bf16(all) = &self.panels else { unreachable!("only weights in bfloat16 have such panels") };
        let size = self.k.div_ceil(bf16::BLOCK) * bf16::BLOCK_VALUES;
        &all[panel * size..(panel + 1) * size]
    }

    /// Where input `s` of panel `panel` lies; in eight bits `s` is the first of a block. In bfloat16 there is [`Packed::panel_16`].
    pub(super) fn panel_at(&self, panel: usize, s: usize) -> PanelAt<'_> {
        let at = (panel * self.k + s) * PANEL;
        match &self.panels {
            Panels::F16(halves) => PanelAt::Floats { right: halves.as_ptr().wrapping_add(at).cast(), half: true },
            Panels::F32(values) => PanelAt::Floats { right: values.as_ptr().wrapping_add(at).cast(), half: false },
            Panels::Bf16(_) => unreachable!("products in bfloat16 take whole panels"),
            Panels::Int8 { bytes, scales } => {
                let block = panel * self.k.div_ceil(int8::BLOCK) + s / int8::BLOCK;
                PanelAt::Int8 {
                    bytes: bytes.as_ptr().wrapping_add(block * int8::BLOCK_BYTES),
                    scales: scales.as_ptr().wrapping_add(block * PANEL),
                }
            }
            Panels::Levels(levels) => {
                let block = panel * self.k.div_ceil(int8::BLOCK) + s / int8::BLOCK;
                PanelAt::Levels(levels.panel(block))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::multiply::tests::{SHAPES, values};
    use super::*;

    #[test]
    fn packing_keeps_every_value_and_transposes() {
        for (_, n, k) in SHAPES {
            let weight = values(n * k, 5);
            let packed = Packed::from_rows(&weight, n, k, Precision::F32);
            assert_eq!(packed.unpack(), weight);
            let turned = packed.transposed();
            assert_eq!((turned.n(), turned.k()), (k, n));
            assert_eq!(Packed::from_columns(&weight, k, n, Precision::F32).unpack(), turned.unpack());
            assert_eq!(turned.transposed().unpack(), weight);
            for precision in [Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8] {
                let part = |rows: Range<usize>| Ok::<_, Infallible>(weight[rows.start * k..rows.end * k].to_vec());
                let parts = Packed::from_parts(n, k, precision, PANEL, part).unwrap();
                assert_eq!(parts.unpack(), Packed::from_rows(&weight, n, k, precision).unpack(), "{precision:?}");
            }
            assert_eq!(Packed::from_parts(n, k, Precision::F16, 2 * PANEL, |_| Err("cut")).unwrap_err(), "cut");
            let half = Packed::from_rows(&weight, n, k, Precision::F16);
            let rounded: Vec<f32> = weight.iter().map(|&v| f16::from_f32(v).to_f32()).collect();
            assert_eq!(half.unpack(), rounded);
            assert_eq!(half.transposed().transposed().unpack(), rounded);
            let brain = Packed::from_rows(&weight, n, k, Precision::Bf16);
            let rounded: Vec<f32> = weight.iter().map(|&v| half::bf16::from_f32(v).to_f32()).collect();
            assert_eq!(brain.unpack(), rounded);
            let turned = brain.transposed();
            assert_eq!((turned.precision(), turned.transposed().unpack()), (Precision::Bf16, rounded));
        }
    }

    #[test]
    fn eight_bits_keep_what_was_in_them_and_come_near_everything_else() {
        for (_, n, k) in SHAPES {
            let weight = values(n * k, 5);
            let packed = Packed::from_rows(&weight, n, k, Precision::Int8);
            let rounded = packed.unpack();
            for (row, rounded) in weight.chunks_exact(k).zip(rounded.chunks_exact(k)) {
                for (block, rounded) in row.chunks(int8::BLOCK).zip(rounded.chunks(int8::BLOCK)) {
                    let step = block.iter().fold(0.0f32, |most, v| most.max(v.abs())) / 127.0;
                    assert!(block.iter().zip(rounded).all(|(a, b)| (a - b).abs() <= 0.501 * step), "{n}x{k}");
                }
            }
            let turned = packed.transposed();
            assert_eq!((turned.precision(), turned.transposed().unpack()), (Precision::F32, rounded.clone()));
            let again = Packed::from_rows(&rounded, n, k, Precision::Int8).unpack();
            assert!(again.iter().zip(&rounded).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()), "{n}x{k}");
        }
        // GGUF's types by whole multiples: Q8_0, Q4_0, Q5_0.
        for most in [127, 8, 16] {
            let scale = 0.001_983_642_6;
            let weight: Vec<f32> = (0..96).map(|i| (i * 37 % (2 * most) - most) as f32 * scale).collect();
            let mut weight = weight;
            weight[0] = -most as f32 * scale;
            weight[33] = -most as f32 * scale;
            weight[70] = -most as f32 * scale;
            let kept = Packed::from_rows(&weight, 1, 96, Precision::Int8).unpack();
            assert!(kept.iter().zip(&weight).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()), "{most}");
        }
        assert_eq!(Packed::from_rows(&[0.0; 64], 2, 32, Precision::Int8).unpack(), [0.0; 64]);
    }
}
