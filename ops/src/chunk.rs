//! `chunk`: documents to chunks. The way from one to the other is in `chunk/pack.rs`.

pub mod atoms;
mod carry;
pub mod cut;
pub mod measure;
pub mod pack;
mod see;
pub mod sentence;
mod ties;
pub mod topics;

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use retort_engine::{
    Answers, Asset, Batching, Carry, Cx, Define, Env, Failure, Memo, Operator, Problem, RowBatch, RowOp, TokenBudget,
};
use retort_lm::embed::Encoder;
use retort_lm::tokenizer::Tokenizer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::cut::By;
use self::measure::{Measure, Words};
use self::pack::{Budget, ChunkError, Piece, chunks_with};
pub use self::see::References;
use self::topics::Falls;
use crate::document::links::{links_from_arrow, links_type};
use crate::document::targets::{targets_from_arrow, targets_type};
use crate::document::{BlocksError, Document, blocks_from_arrow, blocks_type, heading_path_builder, heading_path_type};
use crate::models::{self, ModelRef};

/// Cuts documents into chunks that fit a budget, counted by the tokenizer of the model that will read them. No chunk is
/// ever over it.
///
/// Cuts fall before headings, else between paragraphs, lists, tables and listings, else between items, rows, lines or
/// sentences, and between words only where a single sentence is over the budget. A heading stays with what it stands
/// over; a list with the line that leads in to it, a table or listing with its caption, and the steps of a sequence with each
/// other where the budget allows. A chunk's text begins with the headings above it on one line (`Printing > Queues`), which count; a piece of a table
/// begins with the table's header. The chunks of a document depend on that document alone, and on what `resolve` found that it points to.
///
/// Columns: `chunk_id` (`doc_id`, a dash and digits that stand for the chunk's text), `heading_path`, `page` (of its first
/// block, null where there are none), `start` and `end` (bytes of the document's text), `n_tokens`, `text`. The document's own
/// `text`, `blocks`, `links`, `anchors` and `targets` are left behind, its other columns go along.
///
/// ```yaml
/// chunks:
///   op: chunk
///   from: documents
///   with: {max_words: 250, by: headings}
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chunk {
    /// The model whose tokenizer counts. Needed with `max_tokens`; none with `max_words`.
    #[serde(default)]
    pub model: Option<ModelRef>,
    /// The most tokens that a chunk's text may have. Either this or `max_words`.
    #[serde(default)]
    pub max_tokens: Option<NonZeroUsize>,
    /// The most words that a chunk's text may have, where a pipeline has no model. Either this or `max_tokens`.
    #[serde(default)]
    pub max_words: Option<NonZeroUsize>,
    /// How much of what lies before a cut inside a section is said again after it, in tokens (or words): whole sentences,
    /// items or lines, as many as fit; default 0. A chunk that begins with a heading has none.
    #[serde(default)]
    pub overlap: usize,
    /// Where to cut by preference: `headings` (default: a section a chunk, small neighbours together), `paragraphs` or
    /// `sentences` (as many as fit), or `semantic`: as `headings`, and inside a section where the text turns to something else, as an
    /// `encoder` tells.
    #[serde(default)]
    pub by: By,
    /// The sentence encoder for `by: semantic`, an entry of `models:` whose `weights` are all its files: `model.safetensors`,
    /// `config.json`, `sentence_bert_config.json`, `tokenizer.json`. Every sentence of a paragraph, and every list, table and listing as a
    /// whole, has a vector; where the means of the two before and the two after a place are the least alike, by a
    /// cosine of 0.3 or more below the places around it, a cut costs as little as before a heading. No rule above is broken for it.
    #[serde(default)]
    pub encoder: Option<ModelRef>,
    /// Chunks of fewer tokens (or words) are joined to a neighbour where that tears nothing else; default five sixths of
    /// the budget by `headings`, else a third, 0 for never. The more, the fuller are chunks and the more sections share one: by `headings`, five sixths of
    /// the budget fill 86 of 100 tokens, where a third fills 79.
    #[serde(default)]
    pub min_tokens: Option<usize>,
    /// What a chunk says at its end of the places that it points to (`see chapter 5`, links): nothing (`off`, default), their headings
    /// (`names`), or also their first paragraphs (`text`). Places in other documents are known where `resolve` stands before. At most a
    /// quarter of the budget is given to it. References that lead nowhere, or had no room, are named in `rejects`, a row a document.
    #[serde(default)]
    pub references: References,
}

impl Chunk {
    /// Smaller chunks are joined to a neighbour. What more would tear, by sentences and paragraphs, it does not by headings.
    fn least(&self, max: usize) -> usize {
        self.min_tokens.unwrap_or(match self.by {
            By::Headings => max * 5 / 6,
            By::Paragraphs | By::Sentences | By::Semantic => max / 3,
        })
    }
}

impl Define for Chunk {
    const NAME: &'static str = "chunk";
    const VERSION: u32 = 4;

    fn assets(&self, env: &Env<'_>) -> Vec<Asset> {
        let model = self.model.as_ref().and_then(|model| model.asset(env));
        let encoder = self.encoder.as_ref().and_then(|encoder| encoder.asset_called("encoder", env));
        model.into_iter().chain(encoder).collect()
    }

    fn budget(&self) -> Option<TokenBudget> {
        self.max_tokens.map(|max| TokenBudget { field: "max_tokens", tokens: max.get(), column: "text" })
    }

    fn build(self, env: &Env<'_>) -> Result<Operator, Problem> {
        let (max, asset) = match (self.max_tokens, self.max_words, &self.model) {
            (Some(max), None, Some(model)) => {
                model.check_local("model")?;
                (max.get(), model.asset(env))
            }
            (None, Some(max), None) => (max.get(), None),
            (Some(_), None, None) => {
                return Err(Problem::at_field("max_tokens", "`max_tokens` needs a `model` to count by")
                    .hint("name a `model`, or say `max_words`"));
            }
            (None, Some(_), Some(_)) => {
                return Err(Problem::at_field("model", "`max_words` needs no `model`")
                    .hint("say `max_tokens` to count by the model"));
            }
            (Some(_), Some(_), _) => {
                return Err(Problem::at_field("max_words", "`max_tokens` and `max_words` exclude each other"));
            }
            (None, None, _) => {
                return Err(Problem::at_field("", "`chunk` needs a budget")
                    .hint("`max_tokens: 384` with a `model`, or `max_words: 250`"));
            }
        };
        if self.overlap * 2 > max {
            return Err(Problem::at_field("overlap", format!("`overlap` is more than half of the budget of {max}")));
        }
        let min = self.least(max);
        if min > max {
            return Err(Problem::at_field("min_tokens", format!("`min_tokens` is more than the budget of {max}")));
        }
        let encoder = match (self.by, &self.encoder) {
            (By::Semantic, Some(encoder)) => {
                encoder.check_local("encoder")?;
                encoder.asset_called("encoder", env)
            }
            (By::Semantic, None) => {
                return Err(Problem::at_field("by", "`by: semantic` needs an `encoder`")
                    .hint("name an entry of `models:`, such as all-MiniLM-L6-v2"));
            }
            (_, Some(_)) => {
                return Err(Problem::at_field("encoder", "an `encoder` is for `by: semantic`"));
            }
            (_, None) => None,
        };
        let budget = Budget { max, min, overlap: self.overlap, by: self.by };
        let (tokenizer, meaning) = (OnceLock::new(), OnceLock::new());
        Ok(Operator::Rows(Box::new(Chunker {
            budget,
            references: self.references,
            asset,
            tokenizer,
            encoder,
            meaning,
        })))
    }
}

/// Chunks one document a row.
struct Chunker {
    budget: Budget,
    references: References,
    /// The model whose tokenizer counts; words where there is none.
    asset: Option<Asset>,
    tokenizer: OnceLock<Arc<Tokenizer>>,
    /// What tells where a text turns to something else.
    encoder: Option<Asset>,
    meaning: OnceLock<Arc<Encoder>>,
}

impl Chunker {
    fn measure(&self, cx: &Cx<'_>) -> Result<&dyn Measure, Failure> {
        let Some(asset) = &self.asset else { return Ok(&Words) };
        if self.tokenizer.get().is_none() {
            let tokenizer = models::tokenizer(asset, cx)?;
            // Another thread may have been first: both have the same.
            let _ = self.tokenizer.set(tokenizer);
        }
        Ok(&**self.tokenizer.get().expect("it was set"))
    }
}

impl Chunker {
    /// Where a document turns to something else; nowhere without an encoder.
    fn falls(&self, document: &Document, cx: &Cx<'_>) -> Result<Falls, Failure> {
        let Some(asset) = &self.encoder else { return Ok(Falls::default()) };
        if self.meaning.get().is_none() {
            let _ = self.meaning.set(models::encoder(asset, cx)?);
        }
        topics::falls(document, &**self.meaning.get().expect("it was set")).map_err(Failure::op)
    }

    fn document(&self, batch: &RecordBatch, row: usize, text: &str) -> Result<Document, BlocksError> {
        let blocks = blocks_from_arrow(batch.column(2), row, text)?;
        let links = match self.references {
            References::Off => Vec::new(),
            References::Names | References::Text => links_from_arrow(batch.column(3), row, blocks.len())?,
        };
        let targets = match batch.columns().get(4) {
            Some(column) => targets_from_arrow(column, row, links.len())?,
            None => Vec::new(),
        };
        Ok(Document { text: text.to_owned(), blocks, links, targets, ..Document::default() })
    }

    /// What is said of the references that are not in any chunk.
    fn lost(&self, document: &Document, chunks: &[Piece]) -> Option<String> {
        if self.references == References::Off {
            return None;
        }
        let nowhere: Vec<String> = see::unresolved(document).map(|link| format!("`{}`", see::said(link))).collect();
        let left_out: usize = chunks.iter().map(|chunk| chunk.left_out).sum();
        let mut lost = Vec::new();
        if !nowhere.is_empty() {
            let all = see::inner(document);
            lost.push(format!("{} of {all} references lead nowhere: {}", nowhere.len(), nowhere.join(", ")));
        }
        if left_out > 0 {
            lost.push(format!("{left_out} references had no room in their chunks"));
        }
        (!lost.is_empty()).then(|| lost.join("; "))
    }
}

fn added() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("chunk_id", DataType::Utf8, false),
        Field::new("heading_path", heading_path_type(), false),
        Field::new("page", DataType::UInt32, true),
        Field::new("start", DataType::UInt64, false),
        Field::new("end", DataType::UInt64, false),
        Field::new("n_tokens", DataType::UInt32, false),
        Field::new("text", DataType::Utf8, false),
    ]))
}

impl RowOp for Chunker {
    fn reads(&self) -> Vec<String> {
        let mut reads = vec!["doc_id".into(), "text".into(), "blocks".into()];
        if self.references != References::Off {
            reads.push("links".into());
        }
        reads
    }

    fn reads_if_there(&self) -> Vec<String> {
        if self.references == References::Off { Vec::new() } else { vec!["targets".into()] }
    }

    fn adds(&self, reads: &Schema) -> Result<SchemaRef, Problem> {
        let wanted = [DataType::Utf8, DataType::Utf8, blocks_type(), links_type(), targets_type()];
        for (field, wanted) in reads.fields().iter().zip(wanted) {
            if *field.data_type() != wanted {
                let message = format!("column `{}` is {}, not {wanted}", field.name(), field.data_type());
                return Err(Problem::new("type", "from", message).hint("`chunk` reads what `extract` gives"));
            }
        }
        Ok(added())
    }

    fn carries(&self) -> Carry {
        Carry::Except(["text", "blocks", "links", "anchors", "targets"].map(str::to_owned).to_vec())
    }

    fn memo(&self) -> Memo {
        if self.encoder.is_some() { Memo::Remember } else { Memo::Recompute }
    }

    fn batching(&self) -> Batching {
        // An encoder has all threads for itself.
        Batching { rows: if self.encoder.is_some() { 8 } else { 1 }, parallel: self.encoder.is_none() }
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, cx: &Cx<'_>) -> Result<(), Failure> {
        let measure = self.measure(cx)?;
        let ids = rows.batch.column(0).as_string::<i32>();
        let texts = rows.batch.column(1).as_string::<i32>();
        for row in 0..rows.batch.num_rows() {
            cx.check()?;
            if ids.is_null(row) || texts.is_null(row) || rows.batch.column(2).is_null(row) {
                out.reject(row, "a document without id, text or blocks")?;
                continue;
            }
            let document = match self.document(&rows.batch, row, texts.value(row)) {
                Ok(document) => document,
                Err(error) => {
                    out.reject(row, error.to_string())?;
                    continue;
                }
            };
            let falls = self.falls(&document, cx)?;
            match chunks_with(&document, measure, self.budget, self.references, &falls) {
                Ok(chunks) if chunks.is_empty() => out.reject(row, "no text but headings")?,
                Ok(chunks) => {
                    let answer = chunk_rows(ids.value(row), &chunks);
                    match self.lost(&document, &chunks) {
                        Some(lost) => out.keep_some(row, answer, lost)?,
                        None => out.keep(row, answer)?,
                    }
                }
                Err(error @ (ChunkError::TooSmall(_) | ChunkError::Measure(_))) => {
                    out.reject(row, error.to_string())?;
                }
            }
        }
        Ok(())
    }
}

fn chunk_rows(doc_id: &str, chunks: &[Piece]) -> RecordBatch {
    let mut paths = heading_path_builder();
    for chunk in chunks {
        for heading in &chunk.heading_path {
            paths.values().append_value(heading);
        }
        paths.append(true);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(chunk_ids(doc_id, chunks))),
        Arc::new(paths.finish()),
        Arc::new(chunks.iter().map(|chunk| chunk.page).collect::<UInt32Array>()),
        Arc::new(UInt64Array::from_iter_values(chunks.iter().map(|chunk| chunk.start as u64))),
        Arc::new(UInt64Array::from_iter_values(chunks.iter().map(|chunk| chunk.end as u64))),
        Arc::new(UInt32Array::from_iter_values(chunks.iter().map(|chunk| chunk.n_tokens as u32))),
        Arc::new(StringArray::from_iter_values(chunks.iter().map(|chunk| &chunk.text))),
    ];
    RecordBatch::try_new(added(), columns).expect("one value a chunk in every column")
}

/// A chunk is called by its document and its text, so it keeps its id when others around it change. Equal texts in
/// one document are told apart by their number.
fn chunk_ids(doc_id: &str, chunks: &[Piece]) -> Vec<String> {
    let mut ids: Vec<String> = Vec::with_capacity(chunks.len());
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for chunk in chunks {
        let digest = blake3::hash(chunk.text.as_bytes()).to_hex();
        let id = format!("{doc_id}-{}", &digest[..10]);
        let count = seen.entry(id.clone()).or_default();
        *count += 1;
        ids.push(if *count == 1 { id } else { format!("{id}-{count}") });
    }
    ids
}

#[cfg(test)]
mod tests;
