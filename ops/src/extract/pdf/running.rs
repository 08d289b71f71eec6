//! What stands at the head and foot of every page and is no part of the text: running titles, page numbers; and the
//! dotted lines of a table of contents.

use std::collections::BTreeMap;

use super::lines::Line;

/// Lines this far from the top or bottom of a page may be running ones.
const EDGE_LINES: usize = 2;

/// Two lines of different pages stand at the same height if they are no farther apart than this, in points.
const SAME_HEIGHT: f32 = 2.0;

/// Removes running heads and feet, and the lines of tables of contents.
pub(super) fn remove(pages: &mut [Vec<Line>]) {
    let edges: Vec<Vec<usize>> = pages.iter().map(|page| edge_lines(page)).collect();
    let mut texts = BTreeMap::<String, Vec<f32>>::new();
    let mut offsets = BTreeMap::<i64, usize>::new();
    for (number, (page, edges)) in pages.iter().zip(&edges).enumerate() {
        for &edge in edges {
            texts.entry(page[edge].text.clone()).or_default().push(page[edge].bottom);
            for offset in page_numbers(&page[edge].text).map(|printed| printed - number as i64) {
                *offsets.entry(offset).or_default() += 1;
            }
        }
    }
    let most = offsets.iter().max_by_key(|(_, count)| **count);
    let numbered = most.filter(|(_, count)| **count >= 2).map(|(offset, _)| *offset);
    // On a few pages, twice is often enough; chapters of a long file have titles of their own.
    let enough = if pages.len() < 5 { 2 } else { 3 };
    for (number, (page, edges)) in pages.iter_mut().zip(&edges).enumerate() {
        let runs = |line: &Line| {
            let counts = page_numbers(&line.text).any(|printed| Some(printed - number as i64) == numbered);
            let level = |bottoms: &Vec<f32>| {
                bottoms.iter().filter(|bottom| (*bottom - line.bottom).abs() <= SAME_HEIGHT).count()
            };
            is_page_number(&line.text)
                || counts
                || texts.get(&line.text).is_some_and(|bottoms| level(bottoms) >= enough)
        };
        let out: Vec<usize> = edges.iter().copied().filter(|edge| runs(&page[*edge])).collect();
        // Where dotted lines are the half of a page, its other lines belong to the table of contents, too.
        let leaders = page.iter().filter(|line| has_leader(&line.text)).count();
        if leaders >= 4 && leaders * 2 >= page.len() - out.len() {
            page.clear();
            continue;
        }
        let mut at = 0;
        page.retain(|line| {
            let keep = !out.contains(&at) && !has_leader(&line.text);
            at += 1;
            keep
        });
    }
}

/// The lines nearest to the top and the bottom of a page.
fn edge_lines(page: &[Line]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..page.len()).collect();
    order.sort_by(|a, b| page[*b].bottom.total_cmp(&page[*a].bottom).then(a.cmp(b)));
    let foot = order.len().saturating_sub(EDGE_LINES).max(EDGE_LINES.min(order.len()));
    let mut edges: Vec<usize> = order[..EDGE_LINES.min(order.len())].to_vec();
    edges.extend_from_slice(&order[foot..]);
    edges
}

/// The numbers that a line begins or ends with.
fn page_numbers(text: &str) -> impl Iterator<Item = i64> {
    let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
    let last = text.split_whitespace().next_back().and_then(|word| word.parse().ok());
    first.into_iter().chain(last)
}

/// A number by itself, in digits or small Roman ones, perhaps with `page` or dashes about it.
fn is_page_number(text: &str) -> bool {
    let lower = text.to_lowercase();
    let bare =
        lower.trim_start_matches("page").trim_matches(|char: char| char.is_whitespace() || "-–—|".contains(char));
    let digits = !bare.is_empty() && bare.len() <= 4 && bare.bytes().all(|byte| byte.is_ascii_digit());
    let roman = !bare.is_empty()
        && bare.len() <= 7
        && bare.chars().all(|char| "ivxlc".contains(char))
        && text == text.to_lowercase();
    digits || roman
}

/// Dots that lead to a page number: `Bundles . . . . . . 14`.
fn has_leader(text: &str) -> bool {
    let Some(before) = text.strip_suffix(|char: char| char.is_ascii_digit() || "ivxlc".contains(char)) else {
        return false;
    };
    let dots = before.trim_end_matches(|char: char| char.is_ascii_alphanumeric()).trim_end();
    let run =
        dots.chars().rev().take_while(|char| *char == '.' || char.is_whitespace()).filter(|char| *char == '.').count();
    run >= 4 || run >= 2 && dots.ends_with(" . .")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, bottom: f32) -> Line {
        let segments = Vec::new();
        Line {
            text: text.into(),
            left: 72.0,
            right: 500.0,
            bottom,
            size: 10.0,
            bold: false,
            mono: false,
            page: 1,
            segments,
        }
    }

    #[test]
    fn running_lines_go_and_the_text_stays() {
        let mut pages: Vec<Vec<Line>> = (0..5)
            .map(|page| {
                let body = [700.0, 600.0, 500.0, 400.0, 300.0]
                    .map(|bottom| line(&format!("body {} here", bottom as i32 + page), bottom));
                let mut lines =
                    vec![line(&format!("Chapter {}: Bundles {}", page / 3, page + 7), 780.0), line("GNUstep", 770.0)];
                lines.extend(body);
                lines.push(line("vii", 20.0));
                lines
            })
            .collect();
        pages[1].push(line("Bundles . . . . . . . . 14", 200.0));
        remove(&mut pages);
        assert!(pages.iter().all(|page| page.len() == 5), "{pages:?}");
        assert!(pages.iter().flatten().all(|line| line.text.starts_with("body")));
    }

    #[test]
    fn leaders() {
        assert!(has_leader("1.2 Bundles . . . . . . . 14"));
        assert!(has_leader("Preface......iv"));
        assert!(has_leader("Appendix E GNUstep Compliance to Standards . . 111"));
        assert!(!has_leader("It waits ... 5"));
        assert!(!has_leader("See 14"));
    }
}
