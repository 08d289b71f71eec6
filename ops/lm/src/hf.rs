//! The model as a Hugging Face folder: `config.json` and `model.safetensors`.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::LmError;
use crate::lora::Adapter;
use crate::model::Model;

/// Writes the weights in `f32` under their Hugging Face names, merged with `adapter` if there is one, into `folder`,
/// which is made if it is not there. `transformers` loads it as `LlamaForCausalLM`; the tokenizer's files are not ours.
///
/// # Errors
///
/// If a file cannot be written.
pub fn write_folder(model: &Model, adapter: Option<&Adapter>, folder: &Path) -> Result<(), LmError> {
    std::fs::create_dir_all(folder).map_err(|e| io("create", folder, e))?;
    let file = folder.join("config.json");
    let text = serde_json::to_string_pretty(&model.config().to_json()).expect("a config is plain data");
    std::fs::write(&file, text + "\n").map_err(|e| io("write", &file, e))?;
    let file = folder.join("model.safetensors");
    write_safetensors(model, adapter, &file).map_err(|e| io("write", &file, e))
}

/// One tensor is in memory at a time: the header is made of shapes alone, in a first walk over the names.
fn write_safetensors(model: &Model, adapter: Option<&Adapter>, file: &Path) -> std::io::Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0;
    for tensor in model.tensors(None) {
        let begin = end;
        end += tensor.values.len() * size_of::<f32>();
        header.insert(tensor.name, json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [begin, end]}));
    }
    let mut header = Value::Object(header).to_string();
    // Tensors begin on a multiple of eight bytes; blanks may follow the header.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));

    let mut out = BufWriter::new(File::create(file)?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for tensor in model.tensors(adapter) {
        for value in tensor.values {
            out.write_all(&value.to_le_bytes())?;
        }
    }
    out.into_inner()?.sync_all()
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
        write_folder(&model, None, folder.path()).unwrap();
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
        write_folder(&model, Some(&adapter), folder.path()).unwrap();
        let weights = Weights::open(folder.path()).unwrap();
        let merged =
            Model::build(weights.config(), crate::kernels::Precision::F32, |n, s| weights.tensor(n, s)).unwrap();
        let segments = [crate::testing::segment(12, 5)];
        let with = model.loss(Some(&adapter), &segments).unwrap()[0].nll;
        let without = merged.loss(None, &segments).unwrap()[0].nll;
        assert!((with - without).abs() < 1e-4 * with, "{with} {without}");
        assert!((with - model.loss(None, &segments).unwrap()[0].nll).abs() > 1e-3);
    }
}
