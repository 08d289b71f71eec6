//! Tables that are drawn with lines: `+---+`, `|---+---|`, box-drawing characters.
//!
//! Text that browsers and document tools write has them. Where rules part the rows, a row may have several lines.

use crate::document::{Kind, Raw};
use crate::extract::tidy;

/// What is drawn where `lines` begin, and how many lines it has: a table; or a listing, where the lines do not part it into cells.
pub(super) fn read(lines: &[&str]) -> Option<(Raw, usize)> {
    if !begins(lines) {
        return None;
    }
    let end = lines.iter().position(|line| !is_rule(line) && !is_row(line)).unwrap_or(lines.len());
    let lines = &lines[..end];
    let n_rules = lines.iter().filter(|line| is_rule(line)).count();
    if end < n_rules + 2 {
        return None;
    }
    let block = match rows(lines) {
        Some(rows) => Raw::new(Kind::Table, 0, tidy::table(&rows)),
        None => Raw::new(Kind::Code, 0, super::without_margin(lines)),
    };
    Some((block, end))
}

/// Whether a table may begin: at a rule above a row, or a row above a rule.
pub(super) fn begins(lines: &[&str]) -> bool {
    let (Some(first), Some(second)) = (lines.first(), lines.get(1)) else { return false };
    (is_rule(first) && is_row(second)) || (is_row(first) && is_rule(second))
}

/// The rows, or `None` where lines are not parted as the rules say: diagrams, cells over several columns or rows.
fn rows(lines: &[&str]) -> Option<Vec<Vec<String>>> {
    let columns = lines.iter().filter(|line| is_rule(line)).map(|line| joints(line)).max()?.checked_sub(1)?;
    let parts = lines.split(|line| is_rule(line)).filter(|part| !part.is_empty());
    let parts = parts.map(|part| part.iter().map(|line| cells(line)).collect()).collect::<Vec<Vec<_>>>();
    if columns < 2 || parts.iter().flatten().any(|cells| cells.len() != columns) {
        return None;
    }
    // One rule is that below the header, and every line after it a row.
    let mut rows = Vec::new();
    for part in &parts {
        if parts.len() > 2 || rows.is_empty() {
            rows.push((0..columns).map(|at| joined(part.iter().map(|cells| cells[at]))).collect());
        } else {
            let lines = part.iter().map(|cells| cells.iter().map(|cell| (*cell).to_owned()).collect()).collect();
            rows.extend(super::whole_rows(lines));
        }
    }
    Some(rows)
}

fn joined<'a>(pieces: impl Iterator<Item = &'a str>) -> String {
    pieces.filter(|piece| !piece.is_empty()).collect::<Vec<_>>().join(" ")
}

/// What is between the upright lines.
fn cells(line: &str) -> Vec<&str> {
    let line = line.trim();
    let inner = line.strip_prefix(is_upright).and_then(|line| line.strip_suffix(is_upright)).unwrap_or(line);
    inner.split(is_upright).map(str::trim).collect()
}

/// A line of nothing but rules and their joints.
fn is_rule(line: &str) -> bool {
    let line = line.trim();
    let is_level = |char| matches!(char, '-' | '=' | ':' | '\u{2500}' | '\u{2501}' | '\u{2550}');
    line.starts_with(is_joint)
        && line.ends_with(is_joint)
        && line.chars().any(is_level)
        && line.chars().all(|char| is_joint(char) || is_level(char))
}

fn joints(line: &str) -> usize {
    line.chars().filter(|char| is_joint(*char)).count()
}

fn is_joint(char: char) -> bool {
    char == '+' || is_upright(char) || matches!(char, '\u{250c}'..='\u{254b}' | '\u{2552}'..='\u{256c}')
}

fn is_row(line: &str) -> bool {
    let line = line.trim();
    line.chars().nth(1).is_some()
        && line.starts_with(is_upright)
        && line.ends_with(|char| is_upright(char) || is_joint(char))
}

fn is_upright(char: char) -> bool {
    matches!(char, '|' | '\u{2502}' | '\u{2503}' | '\u{2551}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str) -> Option<(Kind, String, usize)> {
        let lines: Vec<&str> = text.lines().collect();
        read(&lines).map(|(block, used)| (block.kind, block.text, used))
    }

    #[test]
    fn rules_part_rows_of_several_lines() {
        let framed = "  +-----------------------+\n  | package |    size     |\n  |---------+-------------|\n  |         |1482 kB, with|\n  |mc       |its manual   |\n  |---------+-------------|\n  |sudo     |5990 kB      |\n  +-----------------------+\nand so on";
        let table = "| package | size |\n| --- | --- |\n| mc | 1482 kB, with its manual |\n| sudo | 5990 kB |";
        assert_eq!(drawn(framed), Some((Kind::Table, table.into(), 8)));
        let boxes = "┌────┬─────┐\n│Atom│Type │\n├────┼─────┤\n│PIXEL_\u{ad}X│ATOM │\n├────┼─────┤\n│CURSOR│a    │\n│    │b | c│\n└────┴─────┘";
        assert_eq!(drawn(boxes), Some((Kind::Code, boxes.into(), 8)), "a bar in a cell could be a border");
        let boxes = boxes.replace("b | c", "b    ");
        let table = "| Atom | Type |\n| --- | --- |\n| PIXEL_X | ATOM |\n| CURSOR | a b |";
        assert_eq!(drawn(&boxes), Some((Kind::Table, table.into(), 8)));
    }

    #[test]
    fn plain_text_has_them_below_a_paragraph_too() {
        let blocks = crate::extract::text::blocks(
            "The sizes are\n+----+----+\n|a   |b   |\n+----+----+\n|c   |d   |\n+----+----+\n\nDone.",
        );
        let kinds: Vec<_> = blocks.iter().map(|block| block.kind).collect();
        assert_eq!(kinds, [Kind::Paragraph, Kind::Table, Kind::Paragraph]);
    }

    #[test]
    fn below_a_header_alone_every_line_is_a_row() {
        let text = "| key | does |\n|-----|:----:|\n| a   | one  |\n|     | more |\n| b   | two  |";
        let table = "| key | does |\n| --- | --- |\n| a | one more |\n| b | two |";
        assert_eq!(drawn(text), Some((Kind::Table, table.into(), 5)));
    }

    #[test]
    fn what_is_no_table_keeps_its_layout_or_is_left_alone() {
        let header = "+-+-+-+-+-+-+\n|Type |Value|\n+-+-+-+-+-+-+\n|   Length  |\n+-+-+-+-+-+-+";
        assert_eq!(drawn(header), Some((Kind::Code, header.into(), 5)));
        assert_eq!(drawn("| a | b |\n| c | d |"), None, "no rule");
        assert_eq!(drawn("+---+    +---+\n| a |--->| b |\n+---+    +---+"), None);
        assert_eq!(drawn("|| a command | with pipes |\n|"), None);
    }
}
