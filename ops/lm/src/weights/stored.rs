//! A tensor as it lies in a file, and its rows widened to `f32`: a part at a time, so that no file and no large tensor is in memory whole.
//! `as_stored` keeps one as it lies there.

mod as_stored;

pub(crate) use as_stored::AsStored;

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Content;
use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use candle_core::{DType, Device};
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

use super::{io, unusable};
use crate::LmError;
use crate::kernels::{Bits, Form};

/// The longest header of a safetensors file: the format's own limit.
const LONGEST_HEADER: u64 = 100_000_000;

/// Where a tensor lies, and what it is.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    file: PathBuf,
    name: String,
    at: u64,
    pub(super) shape: Vec<usize>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Values of these types, one after the other.
    Plain(Dtype),
    /// Blocks of a GGUF file.
    Blocks(GgmlDType),
}

impl Kind {
    /// Values that can't be read apart.
    fn block(self) -> usize {
        match self {
            Self::Plain(_) => 1,
            Self::Blocks(dtype) => dtype.block_size(),
        }
    }

    /// The bytes of so many values, which are whole blocks.
    fn size_of(self, values: usize) -> usize {
        match self {
            Self::Plain(dtype) => values * (dtype.bitsize() / 8),
            Self::Blocks(dtype) => values / dtype.block_size() * dtype.type_size(),
        }
    }

    /// The `n` values that `data` is; or why not.
    fn widen(self, data: &[u8], n: usize) -> Result<Vec<f32>, String> {
        match self {
            Self::Plain(dtype) => {
                widen(dtype, data).ok_or_else(|| format!("type {dtype:?} is not read (F32, F16 and BF16 are)"))
            }
            Self::Blocks(dtype) => {
                let widened = || -> candle_core::Result<Vec<f32>> {
                    let tensor = qtensor_from_ggml(dtype, data, vec![n], &Device::Cpu)?.dequantize(&Device::Cpu)?;
                    tensor.to_dtype(DType::F32)?.to_vec1()
                };
                widened().map_err(|e| e.to_string())
            }
        }
    }
}

impl Stored {
    /// How its blocks are kept, if those have few levels a step apart.
    pub(super) fn levels(&self) -> Option<Form> {
        let Kind::Blocks(kind) = self.kind else { return None };
        let bits = match kind {
            GgmlDType::Q4_0 | GgmlDType::Q4_1 | GgmlDType::Q4K => Bits::Four,
            GgmlDType::Q5_0 | GgmlDType::Q5_1 | GgmlDType::Q5K => Bits::Five,
            _ => return None,
        };
        Some(Form { bits, least: !matches!(kind, GgmlDType::Q4_0 | GgmlDType::Q5_0) })
    }

    /// A tensor of a GGUF file.
    pub(super) fn in_gguf(file: &Path, content: &Content, name: &str) -> Result<Self, LmError> {
        let info = content.tensor_infos.get(name);
        let info = info.ok_or_else(|| unusable(file, format!("tensor `{name}` is missing")))?;
        Ok(Self {
            file: file.to_owned(),
            name: name.to_owned(),
            at: content.tensor_data_offset.saturating_add(info.offset),
            shape: info.shape.dims().to_vec(),
            kind: Kind::Blocks(info.ggml_dtype),
        })
    }

    /// The tensors of a safetensors file by name, from its header alone.
    pub(super) fn in_safetensors(file: &Path) -> Result<Vec<(String, Self)>, LmError> {
        let broken = |why: &dyn std::fmt::Display| unusable(file, format!("it is not a safetensors file: {why}"));
        let mut reader = File::open(file).map_err(|e| io("open", file, e))?;
        let mut length = [0; 8];
        reader.read_exact(&mut length).map_err(|e| io("read", file, e))?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_HEADER {
            return Err(broken(&format!("its header has {length} bytes")));
        }
        let mut header = Vec::new();
        reader.take(length).read_to_end(&mut header).map_err(|e| io("read", file, e))?;
        let header: std::collections::BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&header).map_err(|e| broken(&e))?;
        let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
        let stored = tensors.map(|(name, info)| {
            let info: TensorInfo =
                serde_json::from_value(info).map_err(|e| broken(&format!("tensor `{name}`: {e}")))?;
            let (file, at) = (file.to_owned(), 8 + length + info.data_offsets.0 as u64);
            Ok((name.clone(), Self { file, name, at, shape: info.shape, kind: Kind::Plain(info.dtype) }))
        });
        stored.collect()
    }

    /// Some rows, one after the other; what has one dimension has rows of one value.
    ///
    /// # Errors
    ///
    /// If they can't be read, or are of a type that we do not read.
    pub(super) fn rows(&self, rows: Range<usize>) -> Result<Vec<f32>, LmError> {
        let width = self.shape.iter().skip(1).product::<usize>();
        let (from, to) = (rows.start * width, rows.end * width);
        let block = self.kind.block();
        if from.is_multiple_of(block) && to.is_multiple_of(block) {
            return self.values(from..to);
        }
        // Rows that part in the middle of a block: seldom, and of small tensors.
        let all = self.values(0..self.shape.iter().product())?;
        Ok(all.get(from..to).map(<[f32]>::to_vec).unwrap_or_default())
    }

    /// Values by their place, whole blocks of them.
    fn values(&self, range: Range<usize>) -> Result<Vec<f32>, LmError> {
        let data = self.bytes(self.kind.size_of(range.start), self.kind.size_of(range.len()))?;
        self.kind.widen(&data, range.len()).map_err(|why| self.unusable(&why))
    }

    fn bytes(&self, from: usize, length: usize) -> Result<Vec<u8>, LmError> {
        let mut file = File::open(&self.file).map_err(|e| io("open", &self.file, e))?;
        let at = self.at.saturating_add(from as u64);
        let end = file.metadata().map_err(|e| io("inspect", &self.file, e))?.len();
        if end.saturating_sub(at) < length as u64 {
            let left = end.saturating_sub(at);
            return Err(self.unusable(&format!("{length} bytes from byte {at} on are wanted, and the file has {left}")));
        }
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| io("read", &self.file, e))?;
        Ok(bytes)
    }

    fn unusable(&self, reason: &str) -> LmError {
        unusable(&self.file, format!("tensor `{}`: {reason}", self.name))
    }
}

/// Values of a safetensors file as single floats; none of a type that is not read.
pub(crate) fn widen(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    match dtype {
        Dtype::F32 => Some(data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
        Dtype::F16 => Some(data.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect()),
        Dtype::BF16 => Some(data.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect()),
        _ => None,
    }
}
