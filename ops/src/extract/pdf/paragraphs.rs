//! Lines to paragraphs: by distance, indent, look and where lines end; words that a line end cut are joined again.

use std::collections::BTreeSet;

use super::lines::Line;
use super::rows;
use crate::extract::styled::{self, Role, Styled};

/// The paragraphs of a document, from the lines of its pages.
pub(super) fn of(pages: Vec<Vec<Line>>) -> Vec<Styled> {
    let words = vocabulary(&pages);
    let shape = Shape::of(&pages);
    let mut paragraphs: Vec<Open> = Vec::new();
    for lines in pages {
        let mut at = 0;
        while at < lines.len() {
            if let Some((rows, end)) = rows::at(&lines, at, &words) {
                match paragraphs.last_mut() {
                    Some(open) if at == 0 && open.is_one_table_with(&lines[0], &rows) => {
                        let header_again = usize::from(open.rows[0] == rows[0]);
                        open.rows.extend(rows.into_iter().skip(header_again));
                    }
                    _ => paragraphs.push(Open { lines: vec![lines[at].clone()], rows }),
                }
                at = end;
                continue;
            }
            let line = lines[at].clone();
            match paragraphs.last_mut() {
                Some(open) if open.goes_on(&line, &shape) => open.lines.push(line),
                _ => paragraphs.push(Open { lines: vec![line], rows: Vec::new() }),
            }
            at += 1;
        }
    }
    let mut markers: Vec<f32> = Vec::new();
    paragraphs.into_iter().flat_map(|open| open.finish(&words, &mut markers)).collect()
}

/// What the document's lines have in common.
struct Shape {
    /// The usual distance between baselines, in sizes.
    leading: f32,
    /// Where full lines end.
    right: f32,
}

impl Shape {
    fn of(pages: &[Vec<Line>]) -> Self {
        let mut leadings: Vec<f32> = Vec::new();
        let mut rights: Vec<f32> = Vec::new();
        for page in pages {
            for pair in page.windows(2) {
                let distance = (pair[0].bottom - pair[1].bottom) / pair[1].size.max(1.0);
                if (pair[0].size - pair[1].size).abs() < 0.5 && (0.9..2.2).contains(&distance) {
                    leadings.push(distance);
                }
            }
            rights.extend(page.iter().map(|line| line.right));
        }
        leadings.sort_by(f32::total_cmp);
        rights.sort_by(f32::total_cmp);
        let leading = leadings.get(leadings.len() / 2).copied().unwrap_or(1.2);
        let right = rights.get(rights.len() * 9 / 10).copied().unwrap_or(0.0);
        Self { leading, right }
    }
}

/// A paragraph that is being gathered. Never empty.
struct Open {
    lines: Vec<Line>,
    /// The rows, if it is a table; `lines` is then its first line.
    rows: Vec<Vec<String>>,
}

impl Open {
    fn goes_on(&self, line: &Line, shape: &Shape) -> bool {
        if !self.rows.is_empty() {
            return false;
        }
        let first = &self.lines[0];
        let last = &self.lines[self.lines.len() - 1];
        if last.mono != line.mono || (last.size - line.size).abs() > 0.6 || starts_item(&line.text) && !line.mono {
            return false;
        }
        let distance = (last.bottom - line.bottom) / line.size.max(1.0);
        let next_page = line.page != last.page || distance < -2.0;
        if line.mono {
            return !next_page && distance < shape.leading * 2.6;
        }
        let ended = last.text.ends_with(['.', '!', '?', ':']);
        if next_page {
            let lower = line.text.starts_with(|char: char| char.is_lowercase());
            return lower && !ended && !is_heading_like(last);
        }
        if distance > shape.leading * 1.3 || distance < 0.3 {
            return false;
        }
        if last.bold != line.bold && (self.lines.iter().all(|line| line.bold) || line.bold) {
            return false;
        }
        let size = line.size.max(1.0);
        let in_item = starts_item(&first.text);
        let was_full = last.right > shape.right - size * 6.0;
        let hangs = self.lines.len() == 1 && (in_item || was_full && !ended);
        let steps_in = line.left > last.left + size * 0.8 && !hangs;
        let steps_out = line.left < last.left - size * 0.8 && (in_item || self.lines.len() > 1);
        !(steps_in
            || steps_out && in_item
            || ended && !was_full && !line.text.starts_with(|char: char| char.is_lowercase()))
    }

    /// Whether a table that a page begins with goes on with this one, with which the page before ended: it says the same header again, or its columns
    /// stand where this one's do.
    fn is_one_table_with(&self, first: &Line, rows: &[Vec<String>]) -> bool {
        let columns = |line: &Line| line.segments.iter().map(|segment| segment.left).collect::<Vec<_>>();
        !self.rows.is_empty()
            && (self.rows[0] == rows[0] || rows::are_same_columns(&columns(&self.lines[0]), &columns(first)))
    }

    /// The paragraph; a listing gives a paragraph a line. `markers` are the indents of the list that is open.
    fn finish(self, words: &BTreeSet<String>, markers: &mut Vec<f32>) -> Vec<Styled> {
        let first = self.lines[0].clone();
        let look = |text: String, role: Role| Styled {
            text,
            size: first.size,
            bold: self.lines.iter().all(|line| line.bold),
            mono: first.mono,
            role,
            page: Some(first.page),
            ..Styled::default()
        };
        if !self.rows.is_empty() {
            markers.clear();
            let gap = look(String::new(), Role::Gap);
            let rows = self.rows.iter().map(|row| look(String::new(), Role::Row(row.clone())));
            return rows.chain([gap]).collect();
        }
        if first.mono {
            markers.clear();
            return listing(&self.lines).into_iter().map(|line| look(line, Role::Text)).collect();
        }
        let text = join(&self.lines, words);
        if let Some((marker, rest)) = styled::hand_made_item(&text) {
            markers.retain(|left| *left < first.left - 4.0);
            markers.push(first.left);
            let depth = markers.len().min(6) as u8;
            return vec![look(rest.to_owned(), Role::Item(marker, depth))];
        }
        markers.clear();
        vec![look(text, Role::Text)]
    }
}

fn starts_item(text: &str) -> bool {
    styled::hand_made_item(text).is_some()
}

fn is_heading_like(line: &Line) -> bool {
    line.bold && line.text.len() < 80
}

/// The lines of a listing with the indents and blank lines that their places show.
fn listing(lines: &[Line]) -> Vec<String> {
    let left = lines.iter().map(|line| line.left).fold(f32::INFINITY, f32::min);
    let widths = lines.iter().map(|line| (line.right - line.left) / line.text.chars().count().max(1) as f32);
    let width = widths.fold(0.0, f32::max).max(1.0);
    let mut laid = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let distance = if at == 0 { 0.0 } else { (lines[at - 1].bottom - line.bottom) / line.size.max(1.0) };
        if distance > 1.8 {
            laid.push(String::new());
        }
        let blanks = ((line.left - left) / width).round().clamp(0.0, 80.0) as usize;
        laid.push(format!("{}{}", " ".repeat(blanks), line.text));
    }
    laid
}

/// The lines as one text.
fn join(lines: &[Line], words: &BTreeSet<String>) -> String {
    let mut text = String::new();
    for line in lines {
        append(&mut text, line.text.trim(), words);
    }
    text
}

/// Goes on with the next line. A hyphen at a line's end goes, unless the word is elsewhere written with it.
pub(super) fn append(text: &mut String, next: &str, words: &BTreeSet<String>) {
    if let Some(before) = text.strip_suffix(['-', '\u{ad}', '‐']).filter(|before| before.ends_with(char::is_alphabetic))
    {
        let head = before.rsplit(|char: char| !char.is_alphanumeric() && char != '-').next().unwrap_or("");
        let tail = next.split(|char: char| !char.is_alphanumeric() && char != '-').next().unwrap_or("");
        let capitals = |word: &str| word.len() > 1 && word.chars().all(char::is_uppercase);
        if next.starts_with(char::is_lowercase) || capitals(head) && capitals(tail) {
            let hyphenated = words.contains(&format!("{head}-{tail}").to_lowercase());
            let is_hyphen = hyphenated && !words.contains(&format!("{head}{tail}").to_lowercase());
            text.truncate(before.len());
            text.push_str(if is_hyphen { "-" } else { "" });
            return text.push_str(next);
        }
    }
    if !text.is_empty() && !text.ends_with('/') {
        text.push(' ');
    }
    text.push_str(next);
}

/// Every word that stands whole on a line, in lower case.
fn vocabulary(pages: &[Vec<Line>]) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for line in pages.iter().flatten() {
        let mut parts: Vec<&str> = line.text.split(|char: char| !char.is_alphanumeric() && char != '-').collect();
        if line.text.ends_with('-') {
            parts.pop();
        }
        words.extend(parts.into_iter().filter(|word| word.len() > 2).map(str::to_lowercase));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::lines::Segment;
    use super::*;

    fn line(text: &str, bottom: f32, page: u32) -> Line {
        let segments = Vec::new();
        Line {
            text: text.into(),
            left: 72.0,
            right: 500.0,
            bottom,
            size: 10.0,
            bold: false,
            mono: false,
            page,
            segments,
        }
    }

    fn texts(pages: Vec<Vec<Line>>) -> Vec<String> {
        of(pages).into_iter().map(|paragraph| paragraph.text).collect()
    }

    #[test]
    fn words_cut_by_line_and_page_ends_are_whole() {
        let pages = vec![
            vec![
                line("The net-", 700.0, 1),
                line("work has user-", 688.0, 1),
                line("defined parts, WITH-", 682.0, 1),
                line("OUT WARRANTY; a user-defined one is", 676.0, 1),
            ],
            vec![line("stored in NetInfo.", 700.0, 2), line("Another paragraph.", 670.0, 2)],
        ];
        assert_eq!(
            texts(pages),
            [
                "The network has user-defined parts, WITHOUT WARRANTY; a user-defined one is stored in NetInfo.",
                "Another paragraph."
            ]
        );
    }

    #[test]
    fn a_table_goes_on_over_the_page() {
        let row = |cells: [&str; 2], bottom: f32, page: u32| {
            let mut row = line(&cells.join(" "), bottom, page);
            let places = [72.0, 200.0].into_iter().zip(cells);
            row.segments = places.map(|(left, text)| Segment { text: text.into(), left, right: left + 50.0 }).collect();
            row
        };
        let rows = |second: Vec<Line>| {
            let first = vec![row(["Port", "Speed"], 60.0, 1), row(["ttya", "9600"], 48.0, 1)];
            let cells = of(vec![first, second]).into_iter().map(|styled| match styled.role {
                Role::Row(cells) => cells.join(" "),
                Role::Gap => "-".to_owned(),
                _ => styled.text,
            });
            cells.collect::<Vec<_>>()
        };
        let header_again = vec![row(["Port", "Speed"], 700.0, 2), row(["ttyb", "38400"], 688.0, 2)];
        assert_eq!(rows(header_again), ["Port Speed", "ttya 9600", "ttyb 38400", "-"]);
        let straight_on = vec![row(["ttyb", "38400"], 700.0, 2), row(["ttyc", "1200"], 688.0, 2)];
        assert_eq!(rows(straight_on), ["Port Speed", "ttya 9600", "ttyb 38400", "ttyc 1200", "-"]);
        let mut elsewhere = vec![row(["ttyb", "38400"], 700.0, 2), row(["ttyc", "1200"], 688.0, 2)];
        elsewhere.iter_mut().for_each(|row| row.segments[1].left = 300.0);
        assert_eq!(rows(elsewhere), ["Port Speed", "ttya 9600", "-", "ttyb 38400", "ttyc 1200", "-"]);
        let text_between =
            vec![line("Another.", 700.0, 2), row(["Port", "Speed"], 660.0, 2), row(["ttyb", "1"], 648.0, 2)];
        assert_eq!(rows(text_between), ["Port Speed", "ttya 9600", "-", "Another.", "Port Speed", "ttyb 1", "-"]);
    }

    #[test]
    fn listings_keep_their_indent() {
        let mut lines = vec![line("if x", 700.0, 1), line("then", 688.0, 1), line("fi", 652.0, 1)];
        for line in &mut lines {
            line.mono = true;
            line.right = line.left + 6.0 * line.text.len() as f32;
        }
        lines[1].left += 12.0;
        lines[1].right += 12.0;
        assert_eq!(texts(vec![lines]), ["if x", "  then", "fi"]);
    }
}
