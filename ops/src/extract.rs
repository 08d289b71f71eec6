//! `extract`: files to documents. How a format is read is left to the readers in `extract/`, which files there are to
//! `files`.

pub mod apart;
mod docbook;
mod docx;
mod encoding;
mod epub;
mod format;
mod html;
mod info;
mod mail;
mod man;
mod markdown;
mod name;
mod odt;
mod package;
mod pdf;
mod reader;
mod records;
mod rst;
mod rtf;
mod shelf;
mod styled;
mod texinfo;
mod text;
mod tidy;
mod tool;
mod vintage;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use retort_engine::{
    Answers, Batching, Carry, Cx, Define, Env, Failure, Memo, Operator, Problem, RowBatch, RowOp, TableOp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use format::Format;
pub use reader::{MAX_BYTES, MAX_DEPTH, Unreadable, read};
pub use shelf::{MAX_MEMBERS, MAX_NESTING, Outcome, documents};
pub use tool::{Tool, Tools};

use crate::document::links::{anchors_to_arrow, anchors_type, links_to_arrow, links_type};
use crate::document::{Document, Kind, blocks_to_arrow, blocks_type};
use crate::files::{self, Files};

/// Reads files and gives documents: a row a file, with its text and the blocks in it (headings, paragraphs, lists,
/// tables, code), each with the headings above it and its page.
///
/// Formats: HTML and XHTML, EPUB, DocBook, Markdown, reStructuredText, plain text, PDF, RTF (and RTFD folders), DOCX, ODT, info, texinfo, man pages,
/// mail (a message, or an mbox), CSV, TSV, JSON Lines and Parquet; told by content first and by name second, in whatever character set they
/// are (MacRoman and NeXTSTEP's among them). Tables that plain text draws with lines are tables. Navigation, running heads and page numbers are
/// left out. A file that can't be read (encrypted, broken, a picture, XML of another kind, minified code, a PDF without text) is a reject with its reason; the run goes on.
///
/// What is in a zip, tar or gzip file is read, too: a document each, called by the way to it (`docs.zip/guide/a.html`), as is
/// what hangs on a mail. An mbox gives a document a message (`box.mbox#3`); a table that has a column `text`, `content`, `body` or `markdown` one a
/// row, any other table one in all. What in an archive could not be read is listed in one reject beside the documents.
///
/// Word files of before 2007 and PostScript are read with the `tools` that you name and allow, else they are rejects that name what converts them. What a tool
/// made is remembered by the file and the tools' names, not by their versions. PDF files are read in a process of
/// their own; one that takes it more than a minute of processor time (and a second for each MiB), or 4 GiB of memory, is a reject.
///
/// Files are remembered by their content: only changed ones are read again. A link to a file that is not there, or to a folder that it lies
/// in, is left out, and a line says so.
///
/// Columns: `path` (relative to the pipeline), `doc_id` (16 hexadecimal digits that stand for the path), `context`
/// (the title; where that says nothing, as `Index`, the first heading, then the file's name, and at last its folders), `title` (may be
/// null), `text`
/// (the blocks, joined by blank lines), `blocks` (`kind`, `level`, `heading_path`, `page`, `start`, `end`; the last two are
/// bytes of `text`), `links` (`block`, `kind`, `label`, `target`, `to`) and `anchors` (`name`, `block`). Blocks are named by
/// their place in `blocks`, from 0.
///
/// A link's `kind` is `anchor` (into the same document), `document` (another file, `target` relative to the pipeline),
/// `url`, or `reference`: words of the text such as "see chapter 5", "figure 4" or "the next section", which are looked for among
/// numbered headings and captions. `to` is the block that it leads to; an `anchor` or `reference` without one was not resolved.
///
/// ```yaml
/// documents:
///   op: extract
///   with: {paths: ["docs/**/*"]}
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Extract {
    /// Globs, relative to the pipeline's folder: `*` any part of a name, `**` any folders, `{a,b}` either; a folder means
    /// everything in it. Their order does not matter. Names that begin with a dot are found only where a glob says the dot.
    pub paths: Vec<String>,
    /// Programs of this machine that turn into something readable what has no reader here: `ghostscript` PostScript, `antiword` or
    /// `libreoffice` Word files of before 2007. Of two that can do it the first does. None by default: such files are rejects that name them.
    /// The node must be allowed to start programs (`retort run PIPELINE --allow-exec NODE`) when there is such a file to be read.
    #[serde(default)]
    pub tools: Vec<Tool>,
}

impl Define for Extract {
    const NAME: &'static str = "extract";
    const VERSION: u32 = 9;
    const PLACES: &'static [&'static str] = &["paths"];

    fn source(&self, env: &Env<'_>) -> Option<Box<dyn TableOp>> {
        let files = Files::new(env.base, &self.paths).ok()?;
        Some(Box::new(files))
    }

    fn build(self, env: &Env<'_>) -> Result<Operator, Problem> {
        Files::new(env.base, &self.paths)?;
        Ok(Operator::Rows(Box::new(Extractor { base: env.base.to_owned(), tools: self.tools })))
    }
}

/// Reads one file a row.
struct Extractor {
    base: PathBuf,
    tools: Vec<Tool>,
}

fn added() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("path", DataType::Utf8, false),
        Field::new("doc_id", DataType::Utf8, false),
        Field::new("context", DataType::Utf8, false),
        Field::new("title", DataType::Utf8, true),
        Field::new("text", DataType::Utf8, false),
        Field::new("blocks", blocks_type(), false),
        Field::new("links", links_type(), false),
        Field::new("anchors", anchors_type(), false),
    ]))
}

impl RowOp for Extractor {
    fn reads(&self) -> Vec<String> {
        vec!["path".into(), "digest".into()]
    }

    fn adds(&self, reads: &Schema) -> Result<SchemaRef, Problem> {
        for field in reads.fields() {
            if *field.data_type() != DataType::Utf8 {
                let message = format!("column `{}` is {}, not text", field.name(), field.data_type());
                return Err(Problem::new("type", "from", message));
            }
        }
        Ok(added())
    }

    fn carries(&self) -> Carry {
        Carry::Except(vec!["path".into(), "digest".into(), "bytes".into()])
    }

    fn memo(&self) -> Memo {
        Memo::Remember
    }

    fn batching(&self) -> Batching {
        Batching { rows: 1, parallel: true }
    }

    fn effort(&self, rows: &RecordBatch, row: usize) -> Option<u64> {
        let paths = rows.column(0).as_string::<i32>();
        let file = files::content_path(&self.base.join(paths.is_valid(row).then(|| paths.value(row))?));
        Some(file.metadata().ok()?.len())
    }

    fn apply(&self, rows: &RowBatch, out: &Answers<'_>, cx: &Cx<'_>) -> Result<(), Failure> {
        let paths = rows.batch.column(0).as_string::<i32>();
        let digests = rows.batch.column(1).as_string::<i32>();
        let tools = Tools { named: &self.tools, cx: Some(cx) };
        for row in 0..rows.batch.num_rows() {
            cx.check()?;
            if paths.is_null(row) || digests.is_null(row) {
                out.reject(row, "a row without path or digest")?;
                continue;
            }
            let path = paths.value(row);
            let file = files::content_path(&self.base.join(path));
            // A file past the limit is refused by its size, before it fills the memory.
            let size = file.metadata().map_err(|error| unread(path, &error))?.len();
            if size > MAX_BYTES {
                out.reject(row, Unreadable::TooLarge("file").to_string())?;
                continue;
            }
            let outcome = documents(path, &contents(&file, path, digests.value(row))?, &tools);
            if let Some(reason) = of_the_world(&outcome) {
                cx.check()?;
                return Err(not_read(path, reason));
            }
            match outcome {
                Ok(outcome) if outcome.refused.is_empty() => out.keep(row, document_rows(&outcome.documents))?,
                Ok(outcome) => out.keep_some(row, document_rows(&outcome.documents), outcome.reasons())?,
                Err(unreadable) => out.reject(row, unreadable.to_string())?,
            }
        }
        Ok(())
    }
}

/// A file's bytes, which must be those that were listed.
fn contents(file: &Path, path: &str, digest: &str) -> Result<Vec<u8>, Failure> {
    let bytes = std::fs::read(file).map_err(|error| unread(path, &error))?;
    if blake3::hash(&bytes).to_hex().as_str() != digest {
        return Err(Failure::op(format!("`{path}` changed while it was read; run again")));
    }
    Ok(bytes)
}

/// The reason, if there is one, that says nothing about the file: then there is no answer, and none to remember.
fn of_the_world(outcome: &Result<Outcome, Unreadable>) -> Option<&Unreadable> {
    let of_the_world =
        |reason: &&Unreadable| matches!(reason, Unreadable::Ended(_) | Unreadable::NotRun(_) | Unreadable::Stopped);
    match outcome {
        Ok(outcome) => outcome.refused.iter().map(|(_, reason)| reason).find(of_the_world),
        Err(reason) => Some(reason).filter(of_the_world),
    }
}

fn not_read(path: &str, reason: &Unreadable) -> Failure {
    match reason {
        Unreadable::NotRun(why) => Failure::op(format!("`{path}`: {why}")),
        _ => Failure::op(format!("the process that read `{path}` was ended from outside; run again")),
    }
}

fn unread(path: &str, error: &std::io::Error) -> Failure {
    Failure::op(format!("failed to read `{path}`: {error}"))
}

fn first_heading(document: &Document) -> Option<&str> {
    let heading = document.blocks.iter().find(|block| block.kind == Kind::Heading)?;
    document.text.get(heading.start..heading.end)
}

fn document_rows(documents: &[(String, Document)]) -> RecordBatch {
    let texts = |text: &dyn Fn(&str, &Document) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(documents.iter().map(|(path, document)| text(path, document))))
    };
    let each = || documents.iter().map(|(_, document)| document);
    let columns: Vec<ArrayRef> = vec![
        texts(&|path, _| path.to_owned()),
        texts(&|path, _| name::doc_id(path)),
        texts(&|path, document| name::context(path, document.title.as_deref(), first_heading(document))),
        Arc::new(each().map(|document| document.title.as_deref()).collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(each().map(|document| &document.text))),
        Arc::new(blocks_to_arrow(each().map(|document| &document.blocks[..]))),
        Arc::new(links_to_arrow(each().map(|document| &document.links[..]))),
        Arc::new(anchors_to_arrow(each().map(|document| &document.anchors[..]))),
    ];
    RecordBatch::try_new(added(), columns).expect("one value a document in every column")
}

#[cfg(test)]
mod tests;
