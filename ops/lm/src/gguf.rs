//! GGUF files that llama.cpp loads: an adapter by itself (`gguf/lora.rs`), and the base model with it merged in (`gguf/merged.rs`);
//! what they say of themselves is read in `gguf/header.rs`.
//!
//! Here: how a file is laid out. After the head come keys and values, then what each tensor is and where it lies, then the
//! tensors, each on a multiple of 32 bytes. <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

pub(crate) mod header;
mod lora;
mod merged;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use candle_core::quantized::gguf_file::{Value, ValueType};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use crate::LmError;

pub use lora::write_lora;
pub use merged::{MergedType, write_merged};

/// Where tensors begin, and values of those that we write.
const ALIGNMENT: u64 = 32;
/// The key that says so; files without it have 32.
const ALIGNMENT_KEY: &str = "general.alignment";

/// A tensor of a file that is to be written.
#[derive(Clone, Debug)]
struct Planned {
    name: String,
    /// `[outputs, inputs]` or `[size]`.
    shape: Vec<usize>,
    dtype: GgmlDType,
}

impl Planned {
    fn bytes(&self) -> u64 {
        let elements: usize = self.shape.iter().product();
        (elements / self.dtype.block_size() * self.dtype.type_size()) as u64
    }
}

/// A file whose head is written: the tensors follow, in the order in which they were planned.
struct Writer {
    out: BufWriter<File>,
    path: String,
    left: std::vec::IntoIter<Planned>,
}

impl Writer {
    /// Writes the head.
    fn create(path: &Path, metadata: &[(String, Value)], tensors: Vec<Planned>) -> Result<Self, LmError> {
        let mut head = Vec::new();
        head.extend_from_slice(b"GGUF");
        head.extend_from_slice(&3_u32.to_le_bytes());
        let metadata: Vec<_> = metadata.iter().filter(|(key, _)| key != ALIGNMENT_KEY).collect();
        for count in [tensors.len(), metadata.len()] {
            head.extend_from_slice(&(count as u64).to_le_bytes());
        }
        for (key, value) in metadata {
            put_text(&mut head, key);
            head.extend_from_slice(&type_number(value.value_type()).to_le_bytes());
            put(&mut head, value);
        }
        let mut offset = 0_u64;
        for tensor in &tensors {
            put_text(&mut head, &tensor.name);
            head.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            // The innermost first.
            tensor.shape.iter().rev().for_each(|size| head.extend_from_slice(&(*size as u64).to_le_bytes()));
            head.extend_from_slice(&dtype_number(tensor.dtype).to_le_bytes());
            head.extend_from_slice(&offset.to_le_bytes());
            offset += tensor.bytes().next_multiple_of(ALIGNMENT);
        }
        head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
        let name = path.display().to_string();
        let out = File::create(path).map_err(|e| LmError::Io { verb: "create", path: name.clone(), source: e })?;
        let mut writer = Self { out: BufWriter::new(out), path: name, left: tensors.into_iter() };
        writer.put(&head)?;
        Ok(writer)
    }

    /// Writes the next tensor, from its bytes as they are stored.
    fn raw(&mut self, name: &str, bytes: &[u8]) -> Result<(), LmError> {
        let planned = self.left.next().expect("more tensors than were planned");
        assert_eq!(
            (planned.name.as_str(), planned.bytes()),
            (name, bytes.len() as u64),
            "tensors in the order planned"
        );
        self.put(bytes)?;
        let padding = bytes.len().next_multiple_of(ALIGNMENT as usize) - bytes.len();
        self.put(&vec![0; padding])
    }

    /// Writes the next tensor, from its values.
    fn values(&mut self, name: &str, values: Vec<f32>) -> Result<(), LmError> {
        let planned = self.left.as_slice().first().expect("more tensors than were planned");
        let bytes = match planned.dtype {
            GgmlDType::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            dtype => {
                let tensor = Tensor::from_vec(values, planned.shape.as_slice(), &Device::Cpu)?;
                QTensor::quantize(&tensor, dtype)?.data()?.into_owned()
            }
        };
        self.raw(name, &bytes)
    }

    fn finish(self) -> Result<(), LmError> {
        assert_eq!(self.left.len(), 0, "all tensors that were planned");
        let wrong = |source| LmError::Io { verb: "write", path: self.path.clone(), source };
        self.out.into_inner().map_err(|error| wrong(error.into_error()))?.sync_all().map_err(wrong)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), LmError> {
        self.out.write_all(bytes).map_err(|source| LmError::Io { verb: "write", path: self.path.clone(), source })
    }
}

fn put_text(head: &mut Vec<u8>, text: &str) {
    head.extend_from_slice(&(text.len() as u64).to_le_bytes());
    head.extend_from_slice(text.as_bytes());
}

fn put(head: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::I8(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::U16(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::I16(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::U32(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::I32(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::U64(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::I64(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::F32(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::F64(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::Bool(yes) => head.push(u8::from(*yes)),
        Value::String(text) => put_text(head, text),
        Value::Array(values) => {
            // Of an empty list no file tells the type any more; nobody looks at it.
            let kind = values.first().map_or(ValueType::U32, Value::value_type);
            head.extend_from_slice(&type_number(kind).to_le_bytes());
            head.extend_from_slice(&(values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| put(head, value));
        }
    }
}

fn type_number(kind: ValueType) -> u32 {
    match kind {
        ValueType::U8 => 0,
        ValueType::I8 => 1,
        ValueType::U16 => 2,
        ValueType::I16 => 3,
        ValueType::U32 => 4,
        ValueType::I32 => 5,
        ValueType::F32 => 6,
        ValueType::Bool => 7,
        ValueType::String => 8,
        ValueType::Array => 9,
        ValueType::U64 => 10,
        ValueType::I64 => 11,
        ValueType::F64 => 12,
    }
}

fn dtype_number(dtype: GgmlDType) -> u32 {
    match dtype {
        GgmlDType::F32 => 0,
        GgmlDType::F16 => 1,
        GgmlDType::Q4_0 => 2,
        GgmlDType::Q4_1 => 3,
        GgmlDType::Q5_0 => 6,
        GgmlDType::Q5_1 => 7,
        GgmlDType::Q8_0 => 8,
        GgmlDType::Q8_1 => 9,
        GgmlDType::Q2K => 10,
        GgmlDType::Q3K => 11,
        GgmlDType::Q4K => 12,
        GgmlDType::Q5K => 13,
        GgmlDType::Q6K => 14,
        GgmlDType::Q8K => 15,
        GgmlDType::BF16 => 30,
    }
}
