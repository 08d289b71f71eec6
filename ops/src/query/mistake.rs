//! What is wrong with a query, in our words: the place in its text, the nearest name.

use std::sync::LazyLock;

use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use regex::Regex;
use retort_engine::{Problem, nearest};

/// A mistake in a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Mistake {
    /// What is wrong: a lowercase fragment without a full stop, names in backticks.
    pub message: String,
    /// A way out.
    pub hint: Option<String>,
    /// Line and column in the query's text, both from 1; columns count characters.
    pub at: Option<(usize, usize)>,
}

/// Where the parser says that it stands.
static PLACE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\s*(?:at|near) Line: (\d+), Column: (\d+)").expect("a constant"));

impl Mistake {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Mistake { message: message.into(), hint: None, at: None }
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn near<'a>(
        self,
        wrong: &str,
        names: impl Iterator<Item = &'a str> + Clone,
        otherwise: impl FnOnce() -> String,
    ) -> Self {
        match nearest(wrong, names) {
            Some(name) => self.hint(format!("did you mean `{name}`?")),
            None => self.hint(otherwise()),
        }
    }

    /// What DataFusion complains about.
    pub(crate) fn of(error: &DataFusionError) -> Self {
        let error = first(error);
        let span = error.diagnostic().and_then(|told| told.span);
        let mut mistake = match error.find_root() {
            DataFusionError::SchemaError(error, _) => of_schema(error),
            DataFusionError::SQL(error, _) => of_text(&error.to_string()),
            _ => of_text(&error.find_root().strip_backtrace()),
        };
        let span = span.map(|span| (span.start.line as usize, span.start.column as usize));
        mistake.at = mistake.at.or(span).filter(|(line, column)| *line > 0 && *column > 0);
        mistake
    }

    /// The problem of the config key that holds the query.
    pub(crate) fn in_field(self, field: &str) -> Problem {
        let mut problem = Problem::at_field(field, self.message).in_text(self.at);
        problem.hint = self.hint;
        problem
    }
}

/// Of several errors the first.
fn first(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Collection(errors) => errors.first().map_or(error, first),
        _ => error,
    }
}

fn of_schema(error: &SchemaError) -> Mistake {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => unknown_column(field, valid_fields),
        SchemaError::AmbiguousReference { field } => {
            let name = &field.name;
            let hint = format!("say of which: `TABLE.{name}`");
            Mistake { at: place(field), ..Mistake::new(format!("several tables have a column `{name}`")).hint(hint) }
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            Mistake::new(format!("two columns are called `{name}`")).hint("name one anew: `… AS NAME`")
        }
    }
}

fn unknown_column(field: &Column, valid: &[Column]) -> Mistake {
    let name = &field.name;
    let message = match &field.relation {
        Some(table) => format!("`{table}` has no column `{name}`"),
        None => format!("no column `{name}`"),
    };
    let mut names: Vec<_> = valid.iter().map(|column| column.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let listed = || match names.len() {
        0 => "no table is read here: say `FROM`".to_string(),
        _ => format!("there are {}", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    };
    Mistake { at: place(field), ..Mistake::new(message).near(name, names.iter().copied(), listed) }
}

fn place(column: &Column) -> Option<(usize, usize)> {
    column.spans.first().map(|span| (span.start.line as usize, span.start.column as usize))
}

/// A message without what its kind is called, the place taken out of it.
fn of_text(text: &str) -> Mistake {
    let text = text.trim();
    let kinds = [
        "SQL error: ParserError(",
        "Error during planning: ",
        "Execution error: ",
        "This feature is not implemented: ",
        "sql parser error: ",
        "Arrow error: ",
        "Schema error: ",
        "Invalid or Unsupported Configuration: ",
    ];
    let text = kinds.iter().fold(text, |text, kind| text.strip_prefix(kind).unwrap_or(text));
    let at = PLACE.captures(text).and_then(|found| Some((found[1].parse().ok()?, found[2].parse().ok()?)));
    let text = PLACE.replace_all(text, "");
    let (message, hint) = match text.split_once('\n') {
        Some((message, rest)) => (message, Some(rest.trim())),
        None => (text.as_ref(), None),
    };
    if let Some(name) = message.strip_prefix("Invalid function '").and_then(|rest| rest.split('\'').next()) {
        let meant = hint.and_then(|hint| hint.split('\'').nth(1));
        let mistake = Mistake { at, ..Mistake::new(format!("unknown function `{name}`")) };
        return match meant.filter(|meant| nearest(name, [*meant]).is_some()) {
            Some(meant) => mistake.hint(format!("did you mean `{meant}`?")),
            None => mistake.hint("DataFusion's manual lists the functions"),
        };
    }
    if message.starts_with("Projections require unique expression names")
        && let Some(name) = message.split('"').nth(1)
    {
        let name = name.rsplit('.').next().unwrap_or(name);
        return Mistake::new(format!("two columns are called `{name}`")).hint("name one anew: `… AS NAME`");
    }
    let message = message.split(": While expanding wildcard").next().unwrap_or(message);
    Mistake { message: uncapitalised(message.trim_end_matches('.')), hint: None, at }
}

/// Messages are fragments, so they begin small, unless with a name in capitals.
fn uncapitalised(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_string(),
    }
}
