//! Says what changed, down to the part that is not the same.

use retort_cache::Change;

use super::text::{Edit, lines, parts};
use crate::observe::words::{change, cut_middle, is_digest, value};

/// A value that is longer is shown by the part that differs.
const LONG: usize = 40;
/// The longest that a line of a text is shown.
const LONGEST: usize = 100;
/// Lines of a text that are shown.
const SHOWN: usize = 12;

/// A change as lines: what it is, and for a long text what was taken out and put in.
pub fn details(of: &Change) -> Vec<String> {
    let Change { fact, old, new } = of;
    let is_file = fact.starts_with("file ");
    match (old, new) {
        (Some(old), Some(new)) if is_file => vec![format!("{fact} changed {} → {}", value(old), value(new))],
        (Some(old), Some(new)) if is_long(old) || is_long(new) => {
            let mut said = vec![format!("{fact} changed")];
            said.extend(texts(old, new));
            said
        }
        _ => vec![change(of)],
    }
}

fn is_long(text: &str) -> bool {
    !is_digest(text) && (text.contains('\n') || text.chars().count() > LONG)
}

/// The lines that differ, with `-` before what was there and `+` before what is.
fn texts(old: &str, new: &str) -> Vec<String> {
    let mut said = Vec::new();
    let edits: Vec<_> = lines(old, new).into_iter().filter(|edit| *edit != Edit::Same).collect();
    if edits.is_empty() {
        // Only the ends of lines differ.
        let (old, new) = parts(old, new);
        return vec![format!("- {old}"), format!("+ {new}")];
    }
    let mut rest = edits.as_slice();
    while let Some(first) = rest.first() {
        match (first, rest.get(1)) {
            (Edit::Out(old), Some(Edit::In(new))) if old.chars().count().max(new.chars().count()) > LONGEST => {
                let (old, new) = parts(old, new);
                said.extend([format!("- {}", cut_middle(&old, LONGEST)), format!("+ {}", cut_middle(&new, LONGEST))]);
                rest = &rest[2..];
                continue;
            }
            (Edit::Out(line), _) => said.push(format!("- {}", cut(line))),
            (Edit::In(line), _) => said.push(format!("+ {}", cut(line))),
            (Edit::Same, _) => {}
        }
        rest = &rest[1..];
    }
    if said.len() > SHOWN + 1 {
        let more = said.split_off(SHOWN).len();
        said.push(format!("… and {more} more lines"));
    }
    said
}

/// Blanks at the beginning count; what is too long is cut.
fn cut(line: &str) -> String {
    if line.chars().count() > LONGEST { cut_middle(line, LONGEST) } else { line.to_string() }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn said(fact: &str, old: Option<&str>, new: Option<&str>) -> String {
        details(&Change { fact: fact.into(), old: old.map(Into::into), new: new.map(Into::into) }).join("\n")
    }

    #[test]
    fn a_change_is_told_down_to_what_is_not_the_same() {
        let digests = ["8c".repeat(32), "51".repeat(32)];
        assert_eq!(
            said("file docs/a.md", Some(&digests[0]), Some(&digests[1])),
            "file docs/a.md changed 8c8c8c8c8c8c → 515151515151"
        );
        assert_eq!(said("with.seed", Some("1"), Some("2")), "with.seed 1 → 2");
        let user =
            |n: &str| format!("Write {n} question and answer pairs about: {{{{ context }}}}\n\n  {{{{ text }}}}\n");
        expect![[r#"
            with.messages[1].user changed
            - Write 3 question and answer pairs about: {{ context }}
            + Write 5 question and answer pairs about: {{ context }}
            +   as JSON"#]]
        .assert_eq(&said("with.messages[1].user", Some(&user("3")), Some(&(user("5") + "  as JSON\n"))));
        let system = |n: &str| format!("You write {n} for a dataset about NeXTSTEP. {}", "Use only facts. ".repeat(9));
        expect![[r#"
            with.messages[0].system changed
            - You write pairs for a dataset abou…
            + You write question and answer pairs for a dataset abou…"#]]
        .assert_eq(&said(
            "with.messages[0].system",
            Some(&system("pairs")),
            Some(&system("question and answer pairs")),
        ));
        let many = |mark: &str| (0..20).map(|n| format!("{mark} {n}\n")).collect::<Vec<_>>().concat();
        let lines = said("with.text", Some(&many("old")), Some(&many("new")));
        assert!(lines.ends_with("- old 11\n… and 28 more lines"), "{lines}");
    }
}
