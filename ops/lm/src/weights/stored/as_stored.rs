//! A matrix that stays in memory as its file has it, quantised or not, and is widened and packed each time it is used.

use std::convert::Infallible;
use std::ops::Range;

use rayon::prelude::*;

use super::super::Found;
use super::Kind;
use crate::LmError;
use crate::kernels::{PANEL, Packed, Precision};

/// Values that are widened at a time, about.
const PART: usize = 1 << 16;

/// A matrix `(n, k)` as its file has it.
#[derive(Debug)]
pub(crate) struct AsStored {
    n: usize,
    k: usize,
    bytes: Vec<u8>,
    kind: Kind,
    /// Rows of a head, where they lie in pairs; else 0.
    head: usize,
    /// What it is packed in.
    precision: Precision,
}

impl AsStored {
    /// Reads it; none where a row is no whole blocks, or where it takes no less memory than packed.
    pub(in crate::weights) fn read(
        found: &Found,
        [n, k]: [usize; 2],
        precision: Precision,
    ) -> Result<Option<Self>, LmError> {
        let (stored, kind) = (&found.stored, found.stored.kind);
        let smaller = kind.size_of(n * k) < precision.bytes(n * k);
        if !k.is_multiple_of(kind.block()) || !smaller {
            return Ok(None);
        }
        // A type that can't be read is found here, not where there is nobody to tell.
        stored.rows(found.first..found.first + 1)?;
        let bytes = stored.bytes(kind.size_of(found.first * k), kind.size_of(n * k))?;
        Ok(Some(Self { n, k, bytes, kind, head: found.head, precision }))
    }

    pub(crate) fn n(&self) -> usize {
        self.n
    }

    pub(crate) fn k(&self) -> usize {
        self.k
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Packed, as it would have been when the model was loaded: the same bits.
    pub(crate) fn packed(&self) -> Packed {
        let part = |rows: Range<usize>| Ok::<_, Infallible>(self.rows(rows));
        Packed::from_parts(self.n, self.k, self.precision, self.step(), part).unwrap_or_else(|never| match never {})
    }

    /// Packed with inputs and outputs exchanged: the same bits as what [`AsStored::packed`] gives has, transposed.
    pub(crate) fn transposed(&self) -> Packed {
        let step = self.step();
        let mut all = vec![0.0; self.n * self.k];
        all.par_chunks_mut(step * self.k).enumerate().for_each(|(at, part)| {
            let first = at * step;
            part.copy_from_slice(&self.rows(first..first + part.len() / self.k));
        });
        Packed::from_columns(&all, self.k, self.n, self.precision)
    }

    /// Rows that are widened at a time: whole panels, and whole heads, in which rows change places.
    fn step(&self) -> usize {
        let least = PANEL * self.head.max(1);
        least * (PART / (least * self.k)).max(1)
    }

    fn rows(&self, rows: Range<usize>) -> Vec<f32> {
        let (from, to) = (self.kind.size_of(rows.start * self.k), self.kind.size_of(rows.end * self.k));
        let values = self.kind.widen(&self.bytes[from..to], rows.len() * self.k).expect("a row was widened before");
        if self.head > 0 { super::super::unpair(&values, self.head, self.k) } else { values }
    }
}
