//! Text made plain: white space, invisible and control characters, ligatures; and how lists and tables are written.

use crate::document::{Kind, Raw};

/// Running text: white space collapsed to single blanks, but line breaks in `\n` kept where `keep_lines`.
pub(super) fn inline(text: &str, keep_lines: bool) -> String {
    let mut tidy = String::with_capacity(text.len());
    let mut gap = "";
    let mut add = |plain: &str, gap: &mut &str| {
        if !tidy.is_empty() {
            tidy.push_str(gap);
        }
        *gap = "";
        tidy.push_str(plain);
    };
    let mut rest = text;
    loop {
        // What stays as it is, at once.
        let plain = rest.bytes().position(|byte| !byte.is_ascii_graphic()).unwrap_or(rest.len());
        if plain > 0 {
            add(&rest[..plain], &mut gap);
            rest = &rest[plain..];
        }
        let Some(char) = rest.chars().next() else { break };
        let own = &rest[..char.len_utf8()];
        rest = &rest[own.len()..];
        if char == '\n' && keep_lines {
            gap = "\n";
        } else if char.is_whitespace() {
            if gap.is_empty() {
                gap = " ";
            }
        } else {
            match spelt(char) {
                Some("") => {}
                Some(plain) => add(plain, &mut gap),
                None => add(own, &mut gap),
            }
        }
    }
    tidy
}

/// Lines whose layout counts: tabs to columns of eight, blanks at line ends cut, the blank lines around them gone.
pub(super) fn layout(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.replace("\r\n", "\n").replace('\r', "\n").split('\n') {
        let mut laid = String::with_capacity(line.len());
        let mut column = 0;
        for char in line.chars() {
            match char {
                '\t' => {
                    let blanks = 8 - column % 8;
                    laid.extend(std::iter::repeat_n(' ', blanks));
                    column += blanks;
                }
                '\u{c}' => {}
                _ if char.is_whitespace() => {
                    laid.push(' ');
                    column += 1;
                }
                _ => {
                    if let Some(plain) = spelt(char) {
                        laid.push_str(plain);
                    } else {
                        laid.push(char);
                        column += 1;
                    }
                }
            }
        }
        laid.truncate(laid.trim_end().len());
        lines.push(laid);
    }
    let first = lines.iter().position(|line| !line.is_empty()).unwrap_or(lines.len());
    let last = lines.iter().rposition(|line| !line.is_empty()).map_or(first, |last| last + 1);
    lines[first..last].join("\n")
}

/// What a character is written as, where it is not itself: nothing for the invisible ones, letters for a ligature.
fn spelt(char: char) -> Option<&'static str> {
    Some(match char {
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' | 'ﬆ' => "st",
        // Soft hyphen, zero-width characters and directions, byte order mark, object replacement.
        '\u{ad}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2064}'
        | '\u{feff}'
        | '\u{fffc}' => "",
        _ if char.is_control() => "",
        _ => return None,
    })
}

/// An item of a list: its first block beside the marker, everything else below, indented.
///
/// `marker` ends with a blank. Items of nested lists keep their own markers, two blanks further in.
pub(super) fn list_item(marker: &str, blocks: &[Raw]) -> String {
    let mut item = String::from(marker);
    for (index, block) in blocks.iter().enumerate() {
        let beside = index == 0 && block.kind != Kind::List;
        for (number, line) in block.text.lines().enumerate() {
            if !(beside && number == 0) {
                item.truncate(item.trim_end_matches(' ').len());
                item.push('\n');
                if !line.is_empty() {
                    item.push_str(if block.kind == Kind::Code { "    " } else { "  " });
                }
            }
            item.push_str(if beside && number == 0 { line.trim_start() } else { line });
        }
    }
    item.truncate(item.trim_end().len());
    item
}

/// A table in markdown, a row a line; short rows are filled up. The first row is the header.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut table = String::new();
    for (index, row) in rows.iter().enumerate() {
        table.push('|');
        for column in 0..columns {
            let cell = row.get(column).map_or("", String::as_str);
            table.push(' ');
            table.push_str(&inline(cell, false).replace('|', "\\|"));
            table.push_str(if cell.is_empty() { "|" } else { " |" });
        }
        table.push('\n');
        if index == 0 {
            table.push('|');
            table.push_str(&" --- |".repeat(columns));
            table.push('\n');
        }
    }
    table.truncate(table.trim_end().len());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_text() {
        assert_eq!(inline(" a\u{a0}\t b\n c\u{ad}d e\u{fb01}le \u{200b} x\0 ", false), "a b cd efile x");
        assert_eq!(inline("a  \n  b \n\n c", true), "a\nb\nc");
    }

    #[test]
    fn layout_is_kept() {
        assert_eq!(layout("\r\n\r\n  a\tb  \r\n\r\n\tc\r\n \r\n"), "  a     b\n\n        c");
        assert_eq!(layout(" \n "), "");
    }

    #[test]
    fn items() {
        let blocks = [
            Raw::new(Kind::Paragraph, 0, "Become root:"),
            Raw::new(Kind::Code, 0, "su\n\n  exit"),
            Raw::new(Kind::List, 1, "- one\n- two"),
        ];
        assert_eq!(list_item("1. ", &blocks), "1. Become root:\n    su\n\n      exit\n  - one\n  - two");
        assert_eq!(list_item("- ", &blocks[2..]), "-\n  - one\n  - two");
    }

    #[test]
    fn tables() {
        let rows = [vec!["a".into(), "b|c".into()], vec!["d\ne".into()]];
        assert_eq!(table(&rows), "| a | b\\|c |\n| --- | --- |\n| d e | |");
    }
}
