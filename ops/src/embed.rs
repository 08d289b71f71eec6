//! `embed`: texts to vectors. The encoder is in `ops/lm/src/embed.rs`.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, Float32Builder, ListBuilder, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use retort_engine::{Answers, Asset, Batching, Cx, Define, Env, Failure, Memo, Operator, Problem, RowBatch, RowOp};
use retort_lm::embed::Encoder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::models::{self, ModelRef};

/// Gives every row the vector of a text: what a sentence encoder makes of it.
///
/// Vectors have length one, so the product of two is the cosine between them: near 1 for texts that say the same. A text that is longer than the
/// encoder reads (256 tokens for all-MiniLM-L6-v2) is cut there. A row's vector does not depend on other rows, and is remembered.
///
/// Column: `embedding` (or `into`), a list of float32, as many as the encoder is wide.
///
/// ```yaml
/// vectors:
///   op: embed
///   from: chunks
///   with: {encoder: minilm}
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embed {
    /// The sentence encoder, an entry of `models:` whose `weights` are all its files: `model.safetensors`, `config.json`,
    /// `sentence_bert_config.json`, `tokenizer.json`.
    pub encoder: ModelRef,
    /// The column that has the text; default `text`.
    #[serde(default = "text")]
    pub column: String,
    /// The column that the vector goes to; default `embedding`.
    #[serde(default = "embedding")]
    pub into: String,
}

fn text() -> String {
    "text".into()
}

fn embedding() -> String {
    "embedding".into()
}

impl Define for Embed {
    const NAME: &'static str = "embed";
    const VERSION: u32 = 1;

    fn assets(&self, env: &Env<'_>) -> Vec<Asset> {
        self.encoder.asset_called("encoder", env).into_iter().collect()
    }

    fn build(self, env: &Env<'_>) -> Result<Operator, Problem> {
        self.encoder.check_local("encoder")?;
        let asset = self.encoder.asset_called("encoder", env).expect("it is no server, so it has weights");
        Ok(Operator::Rows(Box::new(Embedder { column: self.column, into: self.into, asset, encoder: OnceLock::new() })))
    }
}

struct Embedder {
    column: String,
    into: String,
    asset: Asset,
    encoder: OnceLock<Arc<Encoder>>,
}

fn item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float32, false))
}

impl RowOp for Embedder {
    fn reads(&self) -> Vec<String> {
        vec![self.column.clone()]
    }

    fn adds(&self, reads: &Schema) -> Result<SchemaRef, Problem> {
        let found = reads.field(0).data_type();
        if *found != DataType::Utf8 {
            return Err(Problem::at_field("column", format!("column `{}` is {found}, not text", self.column)));
        }
        Ok(Arc::new(Schema::new(vec![Field::new(&self.into, DataType::List(item()), false)])))
    }

    fn memo(&self) -> Memo {
        Memo::Remember
    }

    fn batching(&self) -> Batching {
        // The encoder has all threads for itself.
        Batching { rows: 64, parallel: false }
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, cx: &Cx<'_>) -> Result<(), Failure> {
        if self.encoder.get().is_none() {
            let _ = self.encoder.set(models::encoder(&self.asset, cx)?);
        }
        let encoder = self.encoder.get().expect("it was set");
        let texts = rows.batch.column(0).as_string::<i32>();
        let there: Vec<usize> = (0..texts.len()).filter(|row| !texts.is_null(*row)).collect();
        for row in (0..texts.len()).filter(|row| texts.is_null(*row)) {
            out.reject(row, "no text")?;
        }
        let schema = self.adds(&rows.batch.schema()).map_err(|problem| Failure::op(problem.message))?;
        for some in there.chunks(16) {
            cx.check()?;
            let some_texts: Vec<&str> = some.iter().map(|row| texts.value(*row)).collect();
            let vectors = encoder.embed(&some_texts).map_err(Failure::op)?;
            for (row, vector) in some.iter().zip(vectors) {
                let mut list = ListBuilder::new(Float32Builder::new()).with_field(item());
                list.values().append_slice(&vector);
                list.append(true);
                let column: ArrayRef = Arc::new(list.finish());
                out.keep(*row, RecordBatch::try_new(schema.clone(), vec![column]).expect("one vector"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
