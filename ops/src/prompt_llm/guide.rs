//! What an answer must be, as the config has it.

use retort_engine::Problem;
use retort_lm::guide::Grammar;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What an answer must be: the model can write nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Guide {
    /// Question/answer pairs as `parse` reads them, at least one, until the model ends them.
    QuestionAnswer,
    /// As many question/answer pairs as this number says.
    Pairs(usize),
    /// JSON that fits this JSON schema, on one line.
    Json(Value),
    /// A text that this regular expression (of the Rust `regex` crate, without look-around) matches as a whole.
    Regex(String),
    /// What this Lark grammar derives from its rule `start`.
    Lark(String),
}

/// Most pairs that can be asked for.
const MOST_PAIRS: usize = 100;

/// A pair: labels at the beginning of lines and nowhere else, so that it can be read in one way only; an answer may go on in list
/// items, each a line.
const PAIR: &str = r#"
pair: "Question: " TEXT "\nAnswer: " TEXT (ITEM TEXT)*
ITEM: /\n(- |[0-9]{1,2}\. )/
TEXT: /[A-Za-z0-9"'`(<\/$\x{80}-\x{10FFFF}][^\x00-\x1F]*/ & ~LABELLED & ~LABEL
LABELLED: /[^\n]*((?i:question|answer|ques|ans)s?|[QA])[ #*_0-9()]*[:：][^\n]*/
LABEL: /(?i:question|answer|ques|ans|q|a)s?[ #*_0-9()]*([.)–—-][^\n]*)?/
"#;

impl Guide {
    /// Checks it; `local` where the model runs here.
    pub(super) fn check(&self, local: bool) -> Result<(), Problem> {
        let field = self.field();
        if let Self::Pairs(n) = self
            && !(1..=MOST_PAIRS).contains(n)
        {
            return Err(Problem::at_field(field, format!("between 1 and {MOST_PAIRS} pairs can be asked for")));
        }
        if !local && self.schema().is_none() {
            return Err(Problem::at_field("guide", "a `server` can be guided by a `json` schema only")
                .hint("a model with `weights` follows any guide"));
        }
        self.grammar().check().map_err(|mistake| {
            Problem::at_field(field, format!("not a guide: {}", mistake.message)).in_line(mistake.line)
        })
    }

    /// What is sent to a server.
    pub(super) fn schema(&self) -> Option<&Value> {
        if let Self::Json(schema) = self { Some(schema) } else { None }
    }

    pub(super) fn grammar(&self) -> Grammar {
        match self {
            Self::QuestionAnswer => pairs("(\"\\n\\n\" pair)*"),
            Self::Pairs(1) => pairs("\"\\n\\n\"?"),
            Self::Pairs(n) => pairs(&format!("(\"\\n\\n\" pair){{{}}} \"\\n\\n\"?", n.saturating_sub(1))),
            Self::Json(schema) => Grammar::Json(schema.clone()),
            Self::Regex(pattern) => Grammar::Regex(pattern.clone()),
            Self::Lark(source) => Grammar::Lark(source.clone()),
        }
    }

    fn field(&self) -> &'static str {
        match self {
            Self::QuestionAnswer => "guide",
            Self::Pairs(_) => "guide.pairs",
            Self::Json(_) => "guide.json",
            Self::Regex(_) => "guide.regex",
            Self::Lark(_) => "guide.lark",
        }
    }
}

fn pairs(more: &str) -> Grammar {
    Grammar::Lark(format!("start: pair {more}{PAIR}"))
}
