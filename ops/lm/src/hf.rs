//! The model as a Hugging Face folder: `config.json` and `model.safetensors`.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use crate::LmError;
use crate::lora::Adapter;
use crate::model::Model;
use crate::tensors::NamedTensor;

/// How weights are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtype {
    /// Half floats: eleven bits of each number, up to 65,504.
    #[default]
    F16,
    /// Eight bits of each number, as large as single floats.
    Bf16,
    /// Single floats.
    F32,
}

/// Writes the weights under their Hugging Face names, merged in `f32` with `adapter` if there is one and stored as `dtype`, into `folder`,
/// which is made if it is not there. `transformers` loads it; the tokenizer's files are [`Tokenizer::save`](crate::tokenizer::Tokenizer::save)'s.
///
/// # Errors
///
/// If a file cannot be written, or a weight is too large for `dtype`.
pub fn write_folder(model: &Model, adapter: Option<&Adapter>, dtype: Dtype, folder: &Path) -> Result<(), LmError> {
    std::fs::create_dir_all(folder).map_err(|e| io("create", folder, e))?;
    let file = folder.join("config.json");
    let mut config = model.config().to_json();
    config["torch_dtype"] = dtype.torch().into();
    let text = serde_json::to_string_pretty(&config).expect("a config is plain data");
    std::fs::write(&file, text + "\n").map_err(|e| io("write", &file, e))?;
    write_safetensors(model, adapter, dtype, &folder.join("model.safetensors"))
}

impl Dtype {
    /// What PyTorch calls it.
    fn torch(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F32 => "float32",
        }
    }

    /// What safetensors call it, and bytes of a number.
    fn stored(self) -> (&'static str, usize) {
        match self {
            Self::F16 => ("F16", 2),
            Self::Bf16 => ("BF16", 2),
            Self::F32 => ("F32", 4),
        }
    }

    fn bytes(self, tensor: &NamedTensor) -> Result<Vec<u8>, LmError> {
        let values = &tensor.values;
        Ok(match self {
            Self::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
            Self::F16 => {
                if values.iter().any(|value| value.is_finite() && f16::from_f32(*value).is_infinite()) {
                    let message = format!("`{}` has weights that are too large for half floats", tensor.name);
                    return Err(LmError::Argument(format!("{message}: store it as bf16 or f32")));
                }
                values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
            }
        })
    }
}

/// One tensor is in memory at a time: the header is made of shapes alone, in a first walk over the names.
fn write_safetensors(model: &Model, adapter: Option<&Adapter>, dtype: Dtype, file: &Path) -> Result<(), LmError> {
    let (name, size) = dtype.stored();
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0;
    for tensor in model.tensors(None) {
        let begin = end;
        end += tensor.values.len() * size;
        header.insert(tensor.name, json!({"dtype": name, "shape": tensor.shape, "data_offsets": [begin, end]}));
    }
    let mut header = Value::Object(header).to_string();
    // Tensors begin on a multiple of eight bytes; blanks may follow the header.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));

    let wrong = |error| io("write", file, error);
    let mut out = BufWriter::new(File::create(file).map_err(|e| io("create", file, e))?);
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(wrong)?;
    out.write_all(header.as_bytes()).map_err(wrong)?;
    for tensor in model.tensors(adapter) {
        out.write_all(&dtype.bytes(&tensor)?).map_err(wrong)?;
    }
    out.into_inner().map_err(|e| wrong(e.into_error()))?.sync_all().map_err(wrong)
}

fn io(verb: &'static str, path: &Path, source: std::io::Error) -> LmError {
    LmError::Io { verb, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{tiny_adapter, tiny_model};
    use crate::weights::Weights;

    #[test]
    fn a_written_folder_is_read_back_as_the_same_model() {
        let model = tiny_model();
        let folder = tempfile::tempdir().unwrap();
        write_folder(&model, None, Dtype::F32, folder.path()).unwrap();
        let weights = Weights::open(folder.path()).unwrap();
        assert_eq!(weights.config(), model.config());
        for tensor in model.tensors(None) {
            assert_eq!(weights.tensor(&tensor.name, &tensor.shape).unwrap(), tensor.values, "{}", tensor.name);
        }
    }

    #[test]
    fn merging_gives_what_the_adapter_gives() {
        let (model, adapter) = (tiny_model(), tiny_adapter());
        let folder = tempfile::tempdir().unwrap();
        write_folder(&model, Some(&adapter), Dtype::F32, folder.path()).unwrap();
        let weights = Weights::open(folder.path()).unwrap();
        let merged =
            Model::build(weights.config(), crate::kernels::Precision::F32, |n, s| weights.tensor(n, s)).unwrap();
        let segments = [crate::testing::segment(12, 5)];
        let with = model.loss(Some(&adapter), &segments).unwrap()[0].nll;
        let without = merged.loss(None, &segments).unwrap()[0].nll;
        assert!((with - without).abs() < 1e-4 * with, "{with} {without}");
        assert!((with - model.loss(None, &segments).unwrap()[0].nll).abs() > 1e-3);
    }

    #[test]
    fn weights_are_rounded_once_and_never_to_infinity() {
        let (model, adapter) = (tiny_model(), tiny_adapter());
        let folder = tempfile::tempdir().unwrap();
        for (dtype, step) in [(Dtype::F16, 2f32.powi(-11)), (Dtype::Bf16, 2f32.powi(-8))] {
            write_folder(&model, Some(&adapter), dtype, folder.path()).unwrap();
            let weights = Weights::open(folder.path()).unwrap();
            for tensor in model.tensors(Some(&adapter)) {
                let stored = weights.tensor(&tensor.name, &tensor.shape).unwrap();
                let close = |(a, b): (&f32, &f32)| (a - b).abs() <= step * a.abs() + 1e-7;
                assert!(tensor.values.iter().zip(&stored).all(close), "{dtype:?} {}", tensor.name);
            }
        }
        let large = NamedTensor { name: "w".into(), shape: vec![1], values: vec![1e5] };
        assert!(Dtype::F16.bytes(&large).unwrap_err().to_string().contains("too large"));
        assert_eq!(Dtype::Bf16.bytes(&large).unwrap().len(), 2);
    }
}
