//! The tables of manual pages, as the preprocessor `tbl` reads them (Lesk, "Tbl — a program to format tables"): what stands between
//! `.TS` and `.TE`.

use super::{arguments, plain};
use crate::document::{Kind, Raw};
use crate::extract::tidy;

/// A table of the lines between `.TS` and `.TE`; nothing if it has no cells.
pub(super) fn read(lines: &[String]) -> Option<Raw> {
    let mut lines = lines.iter().map(String::as_str).peekable();
    let options = lines.next_if(|line| line.trim_end().ends_with(';')).unwrap_or("");
    let tab = tab_of(options);
    skip_formats(&mut lines);
    let mut rows: Vec<Vec<String>> = Vec::new();
    while let Some(line) = lines.next() {
        if line.trim_end() == ".T&" {
            skip_formats(&mut lines);
        } else if !line.starts_with('.') && !is_rule(line) {
            let row = cells(line, tab, &mut lines);
            if row.iter().any(|cell| !cell.is_empty()) {
                rows.push(row);
            }
        }
    }
    let text = tidy::table(&rows);
    (!text.is_empty()).then(|| Raw::new(Kind::Table, 0, text))
}

/// The character that parts cells: a tab, or what `tab(x)` says.
fn tab_of(options: &str) -> char {
    let named = options.split_once("tab").and_then(|(_, rest)| rest.trim_start().strip_prefix('('));
    named.and_then(|rest| rest.chars().next()).unwrap_or('\t')
}

/// How columns are set is said up to a line that ends with a full stop.
fn skip_formats<'a>(lines: &mut impl Iterator<Item = &'a str>) {
    for line in lines {
        if line.trim_end().ends_with('.') {
            return;
        }
    }
}

/// A line that is drawn across the whole table.
fn is_rule(line: &str) -> bool {
    matches!(line.trim(), "_" | "=" | "")
}

/// The cells of a row. A cell of several lines stands between `T{` at the end of a line and `T}` at the beginning of one.
fn cells<'a>(line: &str, tab: char, lines: &mut impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut row: Vec<String> = Vec::new();
    let mut rest = line.to_owned();
    loop {
        let mut parts: Vec<&str> = rest.split(tab).collect();
        let opens = parts.last().is_some_and(|last| last.trim() == "T{");
        if opens {
            parts.pop();
        }
        row.extend(parts.into_iter().map(cell));
        if !opens {
            return row;
        }
        let mut block = Vec::new();
        rest = loop {
            match lines.next() {
                None => break String::new(),
                Some(line) => match line.strip_prefix("T}") {
                    Some(after) => break after.strip_prefix(tab).unwrap_or("").to_owned(),
                    None => block.push(shown(line)),
                },
            }
        };
        row.push(tidy::inline(&block.join(" "), false));
        if rest.is_empty() {
            return row;
        }
    }
}

fn cell(text: &str) -> String {
    match text.trim() {
        // A rule inside the cell, or what stands above goes on.
        "_" | "=" | "\\_" | "\\^" => String::new(),
        text => tidy::inline(&plain(text), false),
    }
}

/// A line of a cell: of a request, what it shows.
fn shown(line: &str) -> String {
    let Some(request) = line.strip_prefix('.') else { return plain(line) };
    let (name, rest) = request.split_once([' ', '\t']).unwrap_or((request, ""));
    match name {
        "B" | "I" | "R" | "SM" => arguments(rest).join(" "),
        "BR" | "RB" | "BI" | "IB" | "RI" | "IR" | "SB" => arguments(rest).concat(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> String {
        read(&text.lines().map(str::to_owned).collect::<Vec<_>>()).map_or_else(String::new, |raw| raw.text)
    }

    #[test]
    fn cells_of_one_line_and_of_several() {
        let text = "allbox tab(:);\nlb lb\nl l.\nName:Value\n_\nrm:T{\nThe host of\n.I the printer\nT}\n\\fBlp\\fR:T{\na|b\nT}:c\n.T&\nl s.\nlast\n";
        assert_eq!(
            table(text),
            "| Name | Value | |\n| --- | --- | --- |\n| rm | The host of the printer | |\n| lp | a\\|b | c |\n| last | | |"
        );
    }

    #[test]
    fn tabs_part_cells_where_nothing_else_is_said() {
        assert_eq!(table("l l.\na\tb\nc\t\\_\n"), "| a | b |\n| --- | --- |\n| c | |");
        assert_eq!(table("center;\nl.\n=\n"), "");
        assert_eq!(table("l l.\na\tT{\nnever closed"), "| a | never closed |\n| --- | --- |");
        assert_eq!(table("no end of formats"), "");
    }
}
