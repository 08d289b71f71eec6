//! Tables of reStructuredText: grids drawn with `+--+`, simple ones under `===  ===`, and those of directives.

use crate::document::Raw;

/// The rows of a table that begins here, and how many lines it has.
pub(super) fn read(lines: &[&str]) -> Option<(Vec<Vec<String>>, usize)> {
    if lines[0].starts_with("+-") && lines[0].ends_with('+') { grid(lines) } else { simple(lines) }
}

/// Cells are where their left borders are; a cell over several rows stands in the first of them.
fn grid(lines: &[&str]) -> Option<(Vec<Vec<String>>, usize)> {
    let end = lines.iter().position(|line| !line.starts_with(['+', '|'])).unwrap_or(lines.len());
    let columns: Vec<usize> = {
        let all = lines[..end].iter().filter(|line| line.starts_with('+')).flat_map(|line| {
            line.chars().enumerate().filter(|(_, char)| *char == '+').map(|(at, _)| at).collect::<Vec<_>>()
        });
        let mut columns: Vec<usize> = all.collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    };
    if end < 3 || columns.len() < 2 {
        return None;
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = vec![String::new(); columns.len() - 1];
    for line in &lines[1..end] {
        let chars: Vec<char> = line.chars().collect();
        let is_rule = line.starts_with('+') && chars.iter().all(|char| "+-=".contains(*char));
        if is_rule {
            if row.iter().any(|cell| !cell.is_empty()) {
                rows.push(std::mem::replace(&mut row, vec![String::new(); columns.len() - 1]));
            }
            continue;
        }
        let mut open = 0;
        for (index, pair) in columns.windows(2).enumerate() {
            // A border that is not drawn: the cell to the left goes on.
            if matches!(chars.get(pair[0]), Some('|' | '+')) {
                open = index;
            }
            let last = chars.len().min(pair[1]);
            let start = (pair[0] + usize::from(open == index)).min(last);
            let piece: String = chars[start..last].iter().collect();
            let piece = piece.trim_matches(['+', ' ']);
            if !piece.is_empty() && !piece.chars().all(|char| char == '-') {
                if !row[open].is_empty() {
                    row[open].push(' ');
                }
                row[open].push_str(piece);
            }
        }
    }
    Some((rows, end))
}

/// Columns are where the `=` are; a row whose first cell is empty goes on with the one before.
fn simple(lines: &[&str]) -> Option<(Vec<Vec<String>>, usize)> {
    let is_rule = |line: &str| line.starts_with("==") && line.chars().all(|char| char == '=' || char == ' ');
    if !is_rule(lines[0]) || !lines[0].contains(' ') {
        return None;
    }
    let chars: Vec<char> = lines[0].chars().collect();
    let starts: Vec<usize> =
        (0..chars.len()).filter(|at| chars[*at] == '=' && (*at == 0 || chars[at - 1] == ' ')).collect();
    let rules: Vec<usize> = (0..lines.len()).filter(|at| is_rule(lines[*at])).take(3).collect();
    // The last rule is followed by a blank line; between the first two is the header, if there are three.
    let last = rules.iter().skip(1).find(|at| lines.get(**at + 1).is_none_or(|line| line.is_empty()))?;
    let mut rows: Vec<Vec<String>> = Vec::new();
    for line in &lines[1..*last] {
        if is_rule(line) || line.is_empty() || line.chars().all(|char| char == '-' || char == ' ') {
            continue;
        }
        let chars: Vec<char> = line.chars().collect();
        let cells: Vec<String> = starts
            .iter()
            .enumerate()
            .map(|(index, start)| {
                let end = starts.get(index + 1).map_or(chars.len(), |next| (*next).min(chars.len()));
                chars[(*start).min(end)..end].iter().collect::<String>().trim().to_owned()
            })
            .collect();
        match rows.last_mut().filter(|_| cells[0].is_empty()) {
            Some(above) => {
                for (cell, more) in above.iter_mut().zip(cells).filter(|(_, more)| !more.is_empty()) {
                    cell.push(' ');
                    cell.push_str(&more);
                }
            }
            None => rows.push(cells),
        }
    }
    (!rows.is_empty()).then_some((rows, last + 1))
}

/// The rows of a `list-table`: a list of lists, as its text stands.
pub(super) fn of_list(list: &Raw) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for line in list.text.lines() {
        let cell = line.trim_start().trim_start_matches("- ").to_owned();
        if line == "-" || line.starts_with("- ") {
            rows.push(Vec::new());
            if line.starts_with("- ") {
                rows.last_mut().expect("it was pushed").push(cell);
            }
        } else if let Some(row) = rows.last_mut() {
            if line.starts_with("  - ") || line == "  -" {
                row.push(if line == "  -" { String::new() } else { cell });
            } else if let Some(last) = row.last_mut() {
                last.push(' ');
                last.push_str(line.trim());
            }
        }
    }
    rows
}

/// The rows of a `csv-table`.
pub(super) fn of_csv(header: Option<&str>, content: &[&str]) -> Vec<Vec<String>> {
    let split = |line: &str| {
        let mut cells = vec![String::new()];
        let mut quoted = false;
        for char in line.chars() {
            match char {
                '"' => quoted = !quoted,
                ',' if !quoted => cells.push(String::new()),
                _ => cells.last_mut().expect("there is a cell from the start").push(char),
            }
        }
        cells.iter().map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    header.into_iter().chain(content.iter().copied()).filter(|line| !line.trim().is_empty()).map(split).collect()
}
