//! A mistake in a pipeline, located by node and field. It knows no file: `pipelines` adds the place.

use std::num::NonZeroU32;

/// A mistake in a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A short name of the kind of mistake: `unknown-operator`.
    pub code: &'static str,
    /// Where it is.
    pub at: Locus,
    /// What is wrong: a lowercase fragment without a full stop, names in backticks.
    pub message: String,
    /// A way out.
    pub hint: Option<String>,
}

/// A place in a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locus {
    /// The node, or `None` for the pipeline as a whole.
    pub node: Option<String>,
    /// A dotted path below the node: `op`, `from.train`, `with.sample.top_p`, `with.messages[1].user`; empty for the node itself.
    pub field: String,
    /// The line of the field's text, from 1, where it is that of a template.
    pub line: Option<NonZeroU32>,
    /// The character of that line, from 1, where it is that of a query.
    pub column: Option<NonZeroU32>,
}

impl Problem {
    /// A problem of the node that is being looked at.
    pub fn new(code: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        let at = Locus { node: None, field: field.into(), line: None, column: None };
        Problem { code, at, message: message.into(), hint: None }
    }

    /// A problem with one field of an operator's config; `field` is relative to `with`.
    pub fn at_field(field: impl AsRef<str>, message: impl Into<String>) -> Self {
        let field = field.as_ref();
        let field = if field.is_empty() || field == "." { "with".into() } else { format!("with.{field}") };
        Problem::new("config", field, message)
    }

    /// Adds a way out.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds `did you mean …`, if a name is near enough.
    #[must_use]
    pub fn did_you_mean<'a>(self, wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(wrong, names) {
            Some(name) => self.hint(format!("did you mean `{name}`?")),
            None => self,
        }
    }

    /// Says in which line of the field's text it is, from 1.
    #[must_use]
    pub fn in_line(mut self, line: Option<usize>) -> Self {
        self.at.line = line.and_then(number);
        self
    }

    /// Says at which line and character of the field's text it is, both from 1.
    #[must_use]
    pub fn in_text(mut self, place: Option<(usize, usize)>) -> Self {
        self.at.line = place.and_then(|(line, _)| number(line));
        self.at.column = place.and_then(|(_, column)| number(column));
        self
    }

    /// Says which node it is about.
    #[must_use]
    pub fn in_node(mut self, node: &str) -> Self {
        self.at.node = Some(node.to_string());
        self
    }
}

fn number(n: usize) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(n).ok()?)
}

/// The name that is most likely meant by `wrong`, if one is near enough.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&wrong.to_lowercase(), &name.to_lowercase());
    let near = |name: &str| distance(name) <= 1 + wrong.len().max(name.len()) / 4;
    let prefixed = |name: &str| wrong.len() > 3 && (name.starts_with(wrong) || wrong.starts_with(name));
    names.into_iter().filter(|name| near(name) || prefixed(name)).min_by_key(|name| distance(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["chunk", "extract", "parse", "prompt-llm"];
        assert_eq!(nearest("chunck", names), Some("chunk"));
        assert_eq!(nearest("prompt_llm", names), Some("prompt-llm"));
        assert_eq!(nearest("prompt", names), Some("prompt-llm"));
        assert_eq!(nearest("sql", names), None);
    }
}
