//! Commands of Texinfo inside lines: `@code{…}`, `@xref{…}`, `@dots{}`, `@@`.

use std::collections::BTreeMap;

use crate::document::links::Marks;

/// Commands inside commands, no deeper than this; what is deeper stays as it is.
const DEEPEST: usize = 32;

/// Text without its commands, and the cross references in it.
pub(super) fn plain(text: &str, values: &BTreeMap<String, String>) -> (String, Marks) {
    let mut marks = Marks::default();
    let plain = read(text, values, &mut marks, 0);
    (plain, marks)
}

/// The name of a node, as an anchor.
pub(super) fn node(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn read(text: &str, values: &BTreeMap<String, String>, marks: &mut Marks, depth: usize) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let length = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let (name, after) = rest.split_at(length);
        if length == 0 {
            rest = symbol(rest, &mut plain);
        } else if let Some((inner, end)) = after.strip_prefix('{').filter(|_| depth < DEEPEST).and_then(braces) {
            braced(name, inner, values, marks, depth, &mut plain);
            rest = end;
        } else {
            // `@c` and index entries within a paragraph: the rest of the line is not for readers.
            let line = after.find('\n').unwrap_or(after.len());
            if matches!(name, "c" | "comment") || name.ends_with("index") {
                rest = &after[line..];
            } else {
                rest = after.strip_prefix(' ').unwrap_or(after);
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// `@@`, `@{`, `@*`, accents such as `@'e`.
fn symbol<'a>(rest: &'a str, plain: &mut String) -> &'a str {
    let mut chars = rest.chars();
    match chars.next() {
        Some(char @ ('@' | '{' | '}' | '!' | '?' | '.' | '/')) => plain.push(char),
        Some('*') => plain.push('\n'),
        Some(' ' | '\t' | '\n') => plain.push(' '),
        Some(accent @ ('\'' | '`' | '^' | '"' | '~' | ',' | '=')) => {
            let mark = match accent {
                '\'' => '\u{301}',
                '`' => '\u{300}',
                '^' => '\u{302}',
                '"' => '\u{308}',
                '~' => '\u{303}',
                ',' => '\u{327}',
                _ => '\u{304}',
            };
            let after = chars.as_str();
            let braced = after.starts_with('{');
            let mut chars = after.trim_start_matches('{').chars();
            if let Some(letter) = chars.next() {
                plain.push(unicode_normalization::char::compose(letter, mark).unwrap_or(letter));
            }
            let after = chars.as_str();
            return if braced { after.strip_prefix('}').unwrap_or(after) } else { after };
        }
        _ => {}
    }
    chars.as_str()
}

/// What stands up to the brace that closes, and what follows it.
fn braces(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    let mut escaped = false;
    for (at, char) in text.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '@' => escaped = text[at + 1..].starts_with(['{', '}', '@']),
            '{' => depth += 1,
            '}' if depth == 0 => return Some((&text[..at], &text[at + 1..])),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn braced(
    name: &str,
    inner: &str,
    values: &BTreeMap<String, String>,
    marks: &mut Marks,
    depth: usize,
    plain: &mut String,
) {
    let said = |marks: &mut Marks| read(inner, values, marks, depth + 1);
    match name {
        "xref" | "pxref" | "ref" | "inforef" => plain.push_str(&reference(name, inner, values, marks, depth)),
        "uref" | "url" | "email" => {
            let parts: Vec<String> = inner.split(',').map(|part| read(part.trim(), values, marks, depth + 1)).collect();
            let label = parts.get(2).or(parts.get(1)).filter(|label| !label.is_empty()).unwrap_or(&parts[0]);
            let scheme = if name == "email" { "mailto:" } else { "" };
            marks.links.push((label.clone(), format!("{scheme}{}", parts[0])));
            plain.push_str(label);
        }
        "footnote" => plain.extend([" (", said(marks).trim(), ")"]),
        "anchor" => marks.anchors.push(node(inner)),
        "value" => plain.push_str(values.get(inner.trim()).map_or("", String::as_str)),
        "samp" | "option" | "file" | "command" => plain.push_str(&said(marks)),
        "key" => plain.extend(["<", &said(marks), ">"]),
        "image" | "w" if name == "image" => {}
        "titlefont" | "w" => plain.push_str(&said(marks)),
        "acronym" | "abbr" => plain.push_str(said(marks).split(',').next().unwrap_or("")),
        _ => match sign(name) {
            Some(sign) => plain.push_str(sign),
            None => plain.push_str(&said(marks)),
        },
    }
}

/// `@xref{node, name, title, file, manual}`, as it reads in print.
fn reference(name: &str, inner: &str, values: &BTreeMap<String, String>, marks: &mut Marks, depth: usize) -> String {
    let parts: Vec<String> = inner.split(',').map(|part| node(&read(part, values, marks, depth + 1))).collect();
    let part = |index: usize| parts.get(index).filter(|part| !part.is_empty());
    let label = part(2).or(part(1)).unwrap_or(&parts[0]).clone();
    let file = part(3);
    let target = file.map_or_else(|| format!("#{}", parts[0]), |file| format!("info:({file}){}", parts[0]));
    marks.links.push((label.clone(), target));
    let manual = part(4).map_or_else(String::new, |manual| format!(" in {manual}"));
    match name {
        "xref" => format!("See {label}{manual}"),
        "pxref" => format!("see {label}{manual}"),
        _ => format!("{label}{manual}"),
    }
}

fn sign(name: &str) -> Option<&'static str> {
    Some(match name {
        "dots" => "...",
        "enddots" => "....",
        "bullet" => "•",
        "minus" => "-",
        "copyright" => "©",
        "registeredsymbol" => "®",
        "TeX" => "TeX",
        "LaTeX" => "LaTeX",
        "result" | "expansion" => "=>",
        "print" => "-|",
        "equiv" => "==",
        "error" => "error-->",
        "point" => "-!-",
        "pounds" => "£",
        "tie" => " ",
        "lbracechar" => "{",
        "rbracechar" => "}",
        "atchar" => "@",
        "backslashchar" => "\\",
        "hashchar" => "#",
        "aa" => "å",
        "AA" => "Å",
        "ae" => "æ",
        "AE" => "Æ",
        "o" => "ø",
        "O" => "Ø",
        "ss" => "ß",
        "l" => "ł",
        "quotedblleft" => "“",
        "quotedblright" => "”",
        "quoteleft" => "‘",
        "quoteright" => "’",
        "today" | "indent" | "noindent" | "refill" => "",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_become_text_and_links() {
        let values = BTreeMap::from([("V".to_owned(), "1.2".to_owned())]);
        let (text, marks) =
            plain("@code{a@{b@}} @'e@dots{} v@value{V} @pxref{Two  words,,the title}. @key{RET} x@c no", &values);
        assert_eq!(text, "a{b} é... v1.2 see the title. <RET> x");
        assert_eq!(marks.links, [("the title".to_owned(), "#Two words".to_owned())]);
        assert_eq!(plain("@uref{https://x.org, the page} @code{open", &values).0, "the page {open");
    }
}
