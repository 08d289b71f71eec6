//! Columns of text that line up, cut to a width.

use console::{measure_text_width, pad_str, truncate_str};

/// Between two columns.
const GAP: &str = "  ";
/// No column is cut to less, so that a few letters can be read.
const NARROWEST: usize = 6;

/// A column's head.
#[derive(Clone, Debug)]
pub struct Column {
    name: String,
    right: bool,
}

impl Column {
    /// A column, lined up at the right if it holds numbers.
    pub fn new(name: impl Into<String>, right: bool) -> Self {
        Column { name: name.into(), right }
    }
}

/// Rows of text under their columns.
#[derive(Clone, Debug)]
pub struct Grid {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// A grid without rows.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Grid { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Appends a row: a cell a column.
    pub fn push<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The grid as lines, at most `width` characters wide; columns that have no place are named below.
    pub fn render(&self, width: Option<usize>) -> String {
        let (widths, fit) = self.widths(width);
        let mut text = self.line(&self.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), &widths);
        for row in &self.rows {
            text.push_str(&self.line(&row.iter().map(String::as_str).collect::<Vec<_>>(), &widths));
        }
        if fit < self.columns.len() {
            let left: Vec<_> = self.columns[fit..].iter().map(|column| column.name.as_str()).collect();
            text.push_str("… and the columns ");
            text.push_str(&left.join(", "));
            text.push('\n');
        }
        text
    }

    fn line(&self, cells: &[&str], widths: &[usize]) -> String {
        let mut line = String::new();
        for (i, width) in widths.iter().enumerate() {
            let cell = truncate_str(cells[i], *width, "…");
            let side = if self.columns[i].right { console::Alignment::Right } else { console::Alignment::Left };
            if i > 0 {
                line.push_str(GAP);
            }
            line.push_str(&pad_str(&cell, *width, side, None));
        }
        format!("{}\n", line.trim_end())
    }

    /// The width of each column that has a place, and how many have one.
    fn widths(&self, limit: Option<usize>) -> (Vec<usize>, usize) {
        let cells = |i: usize| self.rows.iter().map(move |row| row[i].as_str());
        let natural = |i: usize| {
            let head = self.columns[i].name.as_str();
            cells(i).chain([head]).map(measure_text_width).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = (0..self.columns.len()).map(natural).collect();
        let Some(limit) = limit else {
            let fit = widths.len();
            return (widths, fit);
        };
        let room = |n: usize| limit.saturating_sub(GAP.len() * n.saturating_sub(1));
        while widths.len() > 1 && widths.iter().map(|width| (*width).min(NARROWEST)).sum::<usize>() > room(widths.len())
        {
            widths.pop();
        }
        let room = room(widths.len());
        let fits = |cap: usize| widths.iter().map(|width| (*width).min(cap)).sum::<usize>() <= room;
        let cap = (NARROWEST..=limit).rev().find(|cap| fits(*cap)).unwrap_or(NARROWEST);
        let fit = widths.len();
        (widths.into_iter().map(|width| width.min(cap)).collect(), fit)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_widest_columns_give_way_first() {
        let mut grid = Grid::new([Column::new("id", false), Column::new("n", true), Column::new("text", false)]);
        grid.push(["a", "7", "a long story about nothing at all"]);
        grid.push(["b", "1234", "short"]);
        expect![[r"
            id     n  text
            a      7  a long stor…
            b   1234  short
        "]]
        .assert_eq(&grid.render(Some(22)));
    }

    #[test]
    fn columns_without_a_place_are_named() {
        let mut grid = Grid::new(["one", "two", "three", "four"].map(|name| Column::new(name, false)));
        grid.push(["aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd"]);
        let text = grid.render(Some(16));
        assert!(text.ends_with("… and the columns three, four\n"), "{text}");
    }
}
