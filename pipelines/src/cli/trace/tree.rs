//! A tree of lines, drawn with branches.

use crate::observe::words;

/// A line with what hangs under it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    /// What it is.
    pub(super) head: String,
    /// More about it.
    pub(super) lines: Vec<String>,
    /// What hangs under it.
    pub(super) twigs: Vec<Tree>,
}

impl Tree {
    /// A line with nothing under it.
    pub(super) fn leaf(head: impl Into<String>) -> Self {
        Tree { head: head.into(), ..Tree::default() }
    }

    /// The tree as lines, each cut to `width`.
    pub(super) fn render(&self, width: Option<usize>) -> String {
        let mut text = String::new();
        self.draw("", "", width, &mut text);
        text
    }

    /// `first` stands before the head, `rest` before what follows it.
    fn draw(&self, first: &str, rest: &str, width: Option<usize>, text: &mut String) {
        let mut line = |before: &str, line: &str| {
            let room = width.map_or(usize::MAX, |width| width.saturating_sub(before.chars().count()).max(20));
            let cut = if line.chars().count() > room { words::cut_middle(line, room) } else { line.to_string() };
            text.push_str(format!("{before}{cut}").trim_end());
            text.push('\n');
        };
        line(first, &self.head);
        let stem = if self.twigs.is_empty() { "    " } else { "│   " };
        self.lines.iter().for_each(|more| line(&format!("{rest}{stem}"), more));
        for (at, twig) in self.twigs.iter().enumerate() {
            let (branch, stem) = if at + 1 == self.twigs.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            twig.draw(&format!("{rest}{branch}"), &format!("{rest}{stem}"), width, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_hangs_under_a_line_is_drawn_under_it() {
        let tree = Tree {
            head: "pairs row 1".into(),
            lines: vec!["question: why is a long line cut in the middle?".into()],
            twigs: vec![
                Tree { lines: vec!["page: 3".into()], twigs: vec![Tree::leaf("file")], head: "chunks row 0".into() },
                Tree::leaf("all rows"),
            ],
        };
        expect![[r#"
            pairs row 1
            │   question: why is a …cut in the middle?
            ├─ chunks row 0
            │  │   page: 3
            │  └─ file
            └─ all rows
        "#]]
        .assert_eq(&tree.render(Some(42)));
    }
}
