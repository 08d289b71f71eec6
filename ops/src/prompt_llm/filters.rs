//! The filters that a template uses. A template is compiled without looking them up, so that one that is misspelt would refuse every
//! row; here it is found before anything runs.

use minijinja::{Environment, ErrorKind};

/// Filters that a misspelt one is compared with.
pub(super) const USUAL: [&str; 28] = [
    "abs",
    "batch",
    "bool",
    "capitalize",
    "default",
    "dictsort",
    "escape",
    "first",
    "float",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "replace",
    "reverse",
    "round",
    "slice",
    "sort",
    "split",
    "title",
    "tojson",
    "trim",
    "upper",
];

/// The first filter that the environment does not have, and its line, from 1.
pub(super) fn unknown(environment: &Environment<'_>, source: &str) -> Option<(String, usize)> {
    let mut state = environment.empty_state();
    let mut is_unknown =
        |name: &str| state.apply_filter(name, &[]).is_err_and(|error| error.kind() == ErrorKind::UnknownFilter);
    let (at, name) = names(source).into_iter().find(|(_, name)| is_unknown(name))?;
    Some((name.to_owned(), source[..at].matches('\n').count() + 1))
}

/// The names after `|` within `{{ … }}` and `{% … %}`, outside of quotes, with their places.
fn names(source: &str) -> Vec<(usize, &str)> {
    let mut names = Vec::new();
    let mut at = 0;
    while let Some(open) =
        source[at..].find("{{").into_iter().chain(source[at..].find("{%")).chain(source[at..].find("{#")).min()
    {
        let start = at + open;
        let close = match &source[start..start + 2] {
            "{{" => "}}",
            "{%" if is_raw(&source[start..]) => "endraw",
            "{%" => "%}",
            _ => "#}",
        };
        let end = source[start + 2..].find(close).map_or(source.len(), |len| start + 2 + len);
        if matches!(close, "}}" | "%}") {
            collect(source, start + 2, end, &mut names);
        }
        at = end;
    }
    names
}

fn is_raw(block: &str) -> bool {
    block[2..].trim_start_matches(['-', '+']).trim_start().starts_with("raw")
}

fn collect<'a>(source: &'a str, start: usize, end: usize, names: &mut Vec<(usize, &'a str)>) {
    let mut quote = None;
    for (i, c) in source[start..end].char_indices() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None, '|') => {
                let rest = &source[start + i + 1..end];
                let word = rest.trim_start();
                let len = word.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(word.len());
                if len > 0 {
                    names.push((end - word.len(), &word[..len]));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_found_where_they_are_used() {
        let source = "a | b {{ x|upper }} {# {{ y | no }} #}\n{% if y | length > 2 %}{{ \"a | b\" ~ z | uppr }}{% endif %}{% raw %}{{ q | w }}{% endraw %}";
        assert_eq!(names(source).into_iter().map(|(_, name)| name).collect::<Vec<_>>(), ["upper", "length", "uppr"]);
        assert_eq!(unknown(&Environment::new(), source), Some(("uppr".to_owned(), 2)));
        assert_eq!(unknown(&Environment::new(), "{{ x | upper | default('a') }}"), None);
    }

    #[test]
    fn the_usual_filters_are_there() {
        let environment = Environment::new();
        for name in USUAL {
            assert_eq!(unknown(&environment, &format!("{{{{ x | {name} }}}}")), None);
        }
    }
}
