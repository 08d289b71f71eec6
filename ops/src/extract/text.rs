//! Plain text to blocks: headings by underline, number or capitals, listings by indent, lists, tables, paragraphs.

mod drawn;

use std::collections::BTreeMap;

use super::reader::Unreadable;
use super::{encoding, tidy};
use crate::document::{Document, Kind, Raw};

/// Reads a text file.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Unreadable> {
    let text = encoding::decode(bytes, None);
    let blocks = blocks(&text);
    let title = blocks.first().filter(|block| block.kind == Kind::Heading).map(|block| block.text.clone());
    Ok(Document::assemble(title, blocks))
}

/// Reads a program's source: one listing.
pub(super) fn read_source(bytes: &[u8]) -> Result<Document, Unreadable> {
    let text = tidy::layout(&encoding::decode(bytes, None));
    Ok(Document::assemble(None, vec![Raw::new(Kind::Code, 0, text)]))
}

/// The blocks of some plain text. The info reader uses it, too.
pub(super) fn blocks(text: &str) -> Vec<Raw> {
    let laid = tidy::layout(text);
    let lines: Vec<&str> = laid.lines().collect();
    let margin = margin(&lines);
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        if lines[at].is_empty() {
            at += 1;
            continue;
        }
        let end = lines[at..].iter().position(|line| line.is_empty()).map_or(lines.len(), |blank| at + blank);
        at = group(&lines, at, end, margin, &mut blocks);
    }
    level_capitals(&mut blocks);
    level_numbers(&mut blocks);
    blocks
}

/// The indent that running text has: the least of those that a tenth of the lines have.
fn margin(lines: &[&str]) -> usize {
    let indents: Vec<usize> = lines.iter().filter(|line| !line.is_empty()).map(|line| indent(line)).collect();
    let common = |width: &usize| indents.iter().filter(|indent| *indent == width).count() * 10 >= indents.len();
    (0..=12).find(common).unwrap_or(0)
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Reads the lines from `at` to the blank line at `end`, or more of a list or listing; gives the line to go on with.
fn group(lines: &[&str], at: usize, end: usize, margin: usize, blocks: &mut Vec<Raw>) -> usize {
    if let Some((level, used)) = heading(lines, at, end) {
        blocks.push(Raw::new(Kind::Heading, level, tidy::inline(lines[at], false)));
        return at + used;
    }
    if let Some((block, used)) = drawn::read(&lines[at..end]) {
        blocks.push(block);
        return at + used;
    }
    if is_rule(lines[at]) {
        return at + 1;
    }
    if item_marker(lines[at]).is_some() {
        return list(lines, at, blocks);
    }
    if let Some(rows) = columns(&lines[at..end]) {
        blocks.push(Raw::new(Kind::Table, 0, tidy::table(&rows)));
        return end;
    }
    let deep = |line: &str| indent(line) >= margin + 2;
    if lines[at..end].iter().all(|line| deep(line)) && looks_laid_out(&lines[at..end], margin) {
        let end = listing_end(lines, end, margin);
        blocks.push(Raw::new(Kind::Code, 0, without_margin(&lines[at..end])));
        return end;
    }
    paragraph(lines, at, end, margin, blocks)
}

/// A paragraph: up to a list or a listing that begins without a blank line before it.
fn paragraph(lines: &[&str], at: usize, end: usize, margin: usize, blocks: &mut Vec<Raw>) -> usize {
    let stop = (at + 1..end).find(|line| {
        let starts_list = item_marker(lines[*line]).is_some_and(|(_, text)| !text.is_empty())
            && (lines[*line - 1].ends_with(':') || lines[*line].trim_start().starts_with("- "));
        let steps_in = indent(lines[*line]) >= indent(lines[at]).max(margin) + 4;
        starts_list || drawn::begins(&lines[*line..end]) || (steps_in && lines[*line - 1].ends_with(':'))
    });
    let stop = stop.unwrap_or(end);
    let text = tidy::inline(&joined(&lines[at..stop]), false);
    blocks.push(Raw::new(Kind::Paragraph, 0, text));
    stop
}

/// Lines joined by blanks; a word that was cut at the end of a line is whole again.
fn joined(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(line);
        text.push(' ');
    }
    text
}

/// Level and number of lines of the heading at `at`, if there is one.
fn heading(lines: &[&str], at: usize, end: usize) -> Option<(u8, usize)> {
    let line = lines[at].trim();
    let alone = end - at == 1;
    if line.is_empty() || line.chars().count() > 80 {
        return None;
    }
    if at + 1 < end && indent(lines[at]) <= 4 {
        let under = lines[at + 1].trim();
        let length = under.chars().count();
        let first = under.chars().next().filter(|char| "=-~*^#\"_.".contains(*char));
        if let Some(first) = first.filter(|_| length >= 3 && length + 3 >= line.chars().count()) {
            let starts_with_letter = line.chars().any(char::is_alphabetic)
                && item_marker(lines[at]).is_none_or(|(marker, _)| marker != "- ");
            if under.chars().all(|char| char == first) && starts_with_letter {
                let level = match first {
                    '=' | '*' | '#' => 1,
                    '-' | '_' => 2,
                    _ => 3,
                };
                return Some((level, 2));
            }
        }
    }
    if !alone || indent(lines[at]) > 4 || line.ends_with(['.', ',', ';', ':', '?', '!']) {
        return None;
    }
    numbered(line).or_else(|| is_capitals(line).then_some(2)).map(|level| (level, 1))
}

/// `3 Title`, `3.1 Title`, `3.1. Title`, `Chapter 3`, `Appendix B: Title`: its level. A line of its own.
fn numbered(line: &str) -> Option<u8> {
    let (first, rest) = line.split_once(' ')?;
    let rest = rest.trim_start();
    if matches!(first.to_ascii_lowercase().as_str(), "chapter" | "part" | "appendix") {
        let number = rest.split([' ', ':', '.', '-']).next().unwrap_or("");
        let is_number = !number.is_empty()
            && number.len() <= 4
            && number.chars().all(|char| char.is_ascii_digit() || char.is_ascii_uppercase());
        return is_number.then_some(1);
    }
    let parts: Vec<&str> = first.trim_end_matches(['.', ')']).split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    let letters = rest.chars().filter(|char| char.is_alphabetic()).count();
    let begins = rest.chars().next().is_some_and(char::is_uppercase);
    // `1. Do this` alone on a line is a step, `1 Title` or `1.2 Title` a heading.
    let is_step = parts.len() == 1 && first.ends_with(['.', ')']) && rest.split(' ').count() > 8;
    (parts.iter().all(is_number) && letters >= 3 && begins && !is_step).then(|| (parts.len() as u8).min(6))
}

/// Capitals throughout, at least four letters of them.
fn is_capitals(line: &str) -> bool {
    let letters = line.chars().filter(|char| char.is_alphabetic()).count();
    let code = line.contains(['=', '$', '{', '}', '<', '>', '|', '\\', '_']);
    letters >= 4 && !code && !line.chars().any(char::is_lowercase) && line.chars().count() <= 60
}

/// Headings in capitals are of the first level where nothing else is, else below those that are.
fn level_capitals(blocks: &mut [Raw]) {
    let headings = || 0..blocks.len();
    let top = headings().any(|at| blocks[at].kind == Kind::Heading && blocks[at].level == 1);
    if !top {
        for block in blocks.iter_mut().filter(|block| block.kind == Kind::Heading) {
            block.level -= 1;
        }
    }
}

/// Headings with numbers of the same depth are of the same level: the lowest that the lines under some of them say,
/// and below that of fewer numbers.
fn level_numbers(blocks: &mut [Raw]) {
    let mut levels = BTreeMap::<u8, u8>::new();
    let depth = |block: &Raw| numbered(&block.text).filter(|_| block.kind == Kind::Heading);
    for block in blocks.iter() {
        if let Some(depth) = depth(block) {
            let level = levels.entry(depth).or_default();
            *level = block.level.max(*level);
        }
    }
    let mut above = 0;
    for level in levels.values_mut() {
        *level = (*level).max(above + 1).min(6);
        above = *level;
    }
    for block in blocks.iter_mut() {
        if let Some(level) = depth(block).and_then(|depth| levels.get(&depth)) {
            block.level = *level;
        }
    }
}

/// A line of nothing but rule characters.
fn is_rule(line: &str) -> bool {
    let line = line.trim();
    line.len() >= 3 && line.chars().all(|char| "-=_*~#+ ".contains(char))
}

/// The marker of a list's item, as it will be written, and the text beside it.
fn item_marker(line: &str) -> Option<(String, &str)> {
    if is_rule(line) {
        return None;
    }
    let line = line.trim_start();
    for bullet in ["- ", "* ", "+ ", "o ", "• ", "· "] {
        if let Some(text) = line.strip_prefix(bullet) {
            return Some(("- ".to_owned(), text.trim_start()));
        }
    }
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = line.split_at(digits);
    let rest = if digits == 0 { line.strip_prefix('(').and_then(|rest| rest.split_once(')')) } else { None }
        .or_else(|| rest.strip_prefix(['.', ')']).map(|rest| (number, rest)));
    let (number, rest) = rest?;
    let is_number = !number.is_empty() && number.len() <= 3 && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && rest.starts_with(' ')).then(|| (format!("{number}. "), rest.trim_start()))
}

/// Reads a list: items and their continuation lines, and items after a blank line as long as they go on.
fn list(lines: &[&str], at: usize, blocks: &mut Vec<Raw>) -> usize {
    let mut items: Vec<(usize, String)> = Vec::new();
    let base = indent(lines[at]);
    let mut line = at;
    while line < lines.len() {
        let text = lines[line];
        if text.is_empty() {
            let next = (line..lines.len()).find(|next| !lines[*next].is_empty());
            let goes_on = next.is_some_and(|next| {
                let inside = indent(lines[next]) > base + 1;
                inside || (indent(lines[next]) == base && item_marker(lines[next]).is_some())
            });
            if !goes_on {
                break;
            }
            line = next.unwrap_or(lines.len());
            continue;
        }
        let width = indent(text);
        if width < base {
            break;
        }
        match item_marker(text) {
            Some((marker, text)) => items.push((width, format!("{marker}{text}"))),
            None if is_rule(text) || width == base && lines[line - 1].is_empty() => break,
            None => continue_item(&mut items, width, text, lines[line - 1].is_empty()),
        }
        line += 1;
    }
    let depth = |width: usize| usize::from(width > base + 1) + usize::from(width > base + 5);
    let deepest = items.iter().map(|(width, _)| depth(*width)).max().unwrap_or(0);
    let laid: Vec<String> = items
        .iter()
        .map(|(width, item)| {
            let blanks = "  ".repeat(depth(*width));
            item.lines().map(|line| format!("{blanks}{line}")).collect::<Vec<_>>().join("\n")
        })
        .collect();
    blocks.push(Raw::new(Kind::List, 1 + deepest as u8, laid.join("\n")));
    line
}

/// A line that belongs to the last item: joined to its text, or, if it stands further in or apart, kept as a line.
fn continue_item(items: &mut [(usize, String)], width: usize, text: &str, apart: bool) {
    let Some((at, item)) = items.last_mut() else { return };
    let marker = item.find(' ').map_or(2, |blank| blank + 1);
    if width > *at + marker + 2 {
        item.push_str("\n    ");
        item.push_str(text.trim_start());
    } else if apart || item.lines().last().is_some_and(|line| line.starts_with("    ")) {
        item.push_str("\n  ");
        item.push_str(text.trim_start());
    } else {
        item.push(' ');
        item.push_str(text.trim_start());
    }
}

/// A table of columns: three lines or more with gaps of two blanks at the same places.
fn columns(lines: &[&str]) -> Option<Vec<Vec<String>>> {
    if lines.len() < 3 || lines.iter().any(|line| line.contains(". . .") || line.ends_with('\\')) {
        return None;
    }
    let width = lines.iter().map(|line| line.chars().count()).max()?;
    let grid: Vec<Vec<char>> = lines.iter().map(|line| line.chars().collect()).collect();
    let rule = |row: &Vec<char>| row.iter().all(|char| "-=+| ".contains(*char));
    let body: Vec<&Vec<char>> = grid.iter().filter(|row| !rule(row)).collect();
    let blank = |row: &Vec<char>, column: usize| row.get(column).is_none_or(|char| *char == ' ' || *char == '|');
    let open: Vec<bool> = (0..width).map(|column| body.iter().all(|row| blank(row, column))).collect();
    let mut starts: Vec<usize> = Vec::new();
    for column in 0..width {
        let gap = column >= 2 && open[column - 1] && open[column - 2];
        if !open[column] && (starts.is_empty() || gap) {
            starts.push(column);
        }
    }
    if starts.len() < 2 || body.len() < 3 {
        return None;
    }
    let cell = |row: &&Vec<char>, index: usize| -> String {
        let end = starts.get(index + 1).copied().unwrap_or(width).min(row.len());
        let start = starts[index].min(end);
        row[start..end].iter().filter(|char| **char != '|').collect::<String>().trim().to_owned()
    };
    let rows: Vec<Vec<String>> =
        body.iter().map(|row| (0..starts.len()).map(|index| cell(row, index)).collect()).collect();
    let filled = rows.iter().filter(|row| row.iter().all(|cell| !cell.is_empty())).count();
    let begun = rows.iter().filter(|row| !row[0].is_empty()).count();
    (filled >= 2 && filled * 3 >= begun * 2).then(|| whole_rows(rows))
}

/// A row without a first cell goes on with the row above it.
fn whole_rows(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let mut whole: Vec<Vec<String>> = Vec::with_capacity(rows.len());
    for row in rows {
        match whole.last_mut() {
            Some(last) if row[0].is_empty() => {
                for (cell, more) in last.iter_mut().zip(row).filter(|(_, more)| !more.is_empty()) {
                    cell.push_str(if cell.is_empty() { "" } else { " " });
                    cell.push_str(&more);
                }
            }
            _ => whole.push(row),
        }
    }
    whole
}

/// Whether indented lines are a listing rather than an indented paragraph: no prose that fills its lines.
fn looks_laid_out(lines: &[&str], margin: usize) -> bool {
    if lines.iter().any(|line| indent(line) >= margin + 4) {
        let first = indent(lines[0]);
        let prose = lines.len() >= 2
            && lines.iter().all(|line| indent(line) == first)
            && lines[..lines.len() - 1].iter().all(|line| line.len() >= 56)
            && lines[lines.len() - 1].ends_with(['.', ':', '!', '?']);
        return !prose;
    }
    false
}

/// The lines of a listing without the indent that all of them have.
fn without_margin(lines: &[&str]) -> String {
    let margin = lines.iter().filter(|line| !line.is_empty()).map(|line| indent(line)).min().unwrap_or(0);
    lines.iter().map(|line| line.get(margin..).unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// A listing goes on over blank lines while what follows is indented as well and no heading or list.
fn listing_end(lines: &[&str], end: usize, margin: usize) -> usize {
    let mut end = end;
    loop {
        let Some(next) = (end..lines.len()).find(|line| !lines[*line].is_empty()) else { return end };
        let stop = lines[next..].iter().position(|line| line.is_empty()).map_or(lines.len(), |blank| next + blank);
        let group = &lines[next..stop];
        let belongs =
            next == end + 1 && group.iter().all(|line| indent(line) >= margin + 4) && looks_laid_out(group, margin);
        if !belongs {
            return end;
        }
        end = stop;
    }
}
