//! Tables in a PDF, which says nothing of them: lines whose parts stand below one another.

use std::collections::BTreeSet;

use super::lines::{Line, Segment};
use super::paragraphs::append;
use crate::extract::styled::hand_made_item;

/// Parts whose left edges are no farther apart than this, in points, stand in one column.
const SAME_COLUMN: f32 = 8.0;

/// The rows of the table that begins with line `at`, and the line after it; nothing if there is none.
///
/// A line of one part that stands in a later column goes on with the cell above it. `words` are those that the document writes whole.
pub(super) fn at(lines: &[Line], at: usize, words: &BTreeSet<String>) -> Option<(Vec<Vec<String>>, usize)> {
    if !has_cells(&lines[at]) {
        return None;
    }
    let mut columns: Vec<f32> = lines[at].segments.iter().map(|segment| segment.left).collect();
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut full_rows = 0;
    let mut end = at;
    while end < lines.len() {
        let line = &lines[end];
        let far = end > at && !(0.0..line.size * 3.2).contains(&(lines[end - 1].bottom - line.bottom));
        let Some(places) = places(line, &columns).filter(|_| !far && !line.mono) else { break };
        if has_cells(line) && places.first() == Some(&0) {
            full_rows += 1;
            rows.push(vec![String::new(); columns.len()]);
        } else if !goes_on(lines, end, at, &places) {
            break;
        }
        let row = rows.last_mut().expect("the first line has cells and begins the first row");
        for (segment, place) in line.segments.iter().zip(places) {
            if place == columns.len() {
                columns.push(segment.left);
            }
            row.resize(columns.len().max(row.len()), String::new());
            append(&mut row[place], segment.text.trim(), words);
        }
        end += 1;
    }
    (full_rows >= 2).then_some((rows, end))
}

/// Whether two lines have as many parts, at the same places.
pub(super) fn are_same_columns(one: &[f32], other: &[f32]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| (one - other).abs() <= SAME_COLUMN)
}

/// Two parts or more, of which the first is no marker of a list.
fn has_cells(line: &Line) -> bool {
    line.segments.len() >= 2 && !line.mono && hand_made_item(&format!("{} x", line.segments[0].text.trim())).is_none()
}

/// The column of every part; nothing if one stands in none. A part after the last column opens one.
fn places(line: &Line, columns: &[f32]) -> Option<Vec<usize>> {
    let place = |segment: &Segment| {
        let known = columns.iter().position(|left| (left - segment.left).abs() <= SAME_COLUMN);
        known.or_else(|| {
            (line.segments.len() >= 2 && columns.last().is_some_and(|left| segment.left > left + SAME_COLUMN))
                .then_some(columns.len())
        })
    };
    line.segments.iter().map(place).collect()
}

/// Whether a line without a first cell, or with that alone, belongs to the row above: it is close below it, and if it
/// is the first cell that goes on, the table goes on after it.
fn goes_on(lines: &[Line], line: usize, first: usize, places: &[usize]) -> bool {
    if line == first {
        return false;
    }
    let close = lines[line - 1].bottom - lines[line].bottom < lines[line].size * 1.6;
    let after = lines.get(line + 1).is_some_and(has_cells);
    close && (places.first() != Some(&0) || after && lines[line].bold == lines[line - 1].bold)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bottom: f32, parts: &[(f32, &str)]) -> Line {
        let segment = |(left, text): &(f32, &str)| Segment { text: (*text).into(), left: *left, right: left + 50.0 };
        let segments: Vec<Segment> = parts.iter().map(segment).collect();
        let text = parts.iter().map(|(_, text)| *text).collect::<Vec<_>>().join(" ");
        Line { text, left: parts[0].0, right: 500.0, bottom, size: 10.0, bold: false, mono: false, page: 1, segments }
    }

    #[test]
    fn rows_with_cells_of_several_lines() {
        let lines = [
            line(700.0, &[(72.0, "File"), (200.0, "Purpose")]),
            line(684.0, &[(72.0, "Default.table"), (200.0, "the settings which ac-")]),
            line(672.0, &[(200.0, "company it")]),
            line(656.0, &[(72.0, "NE2K_reloc"), (201.0, "the driver"), (400.0, "x")]),
            line(630.0, &[(72.0, "The text goes on.")]),
        ];
        let (rows, end) = at(&lines, 0, &BTreeSet::new()).unwrap_or_default();
        assert_eq!(end, 4);
        assert_eq!(rows[1], ["Default.table", "the settings which accompany it"]);
        assert_eq!(rows[2], ["NE2K_reloc", "the driver", "x"]);
        assert_eq!(at(&lines[3..], 0, &BTreeSet::new()), None, "one row is no table");
    }

    #[test]
    fn lists_are_no_tables() {
        let lines = [line(700.0, &[(72.0, "•"), (100.0, "one")]), line(688.0, &[(72.0, "•"), (100.0, "two")])];
        assert_eq!(at(&lines, 0, &BTreeSet::new()), None);
    }
}
