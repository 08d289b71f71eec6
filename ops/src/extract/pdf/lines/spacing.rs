//! Words that a file parts by spacing its characters and not by blanks: troff writes such PostScript, and PDF files that were made of it have them.
//!
//! The spacing (`Tc`, ISO 32000-1, 9.3.2) is added behind every character of a run, the last one too, and what follows is set back over it. So a run is
//! known by reaching over the next, and where its characters are wider than elsewhere by as much, a word ends. Where none is meant, the file takes
//! the spacing back.

use std::collections::HashMap;

use pdf_oxide::layout::TextSpan;

/// Less than this, in sizes, parts no words.
const LEAST: f32 = 0.12;

/// Puts blanks between the words of runs that are parted so. The rows' spans come from left to right.
pub(super) fn part_words(rows: &mut [Vec<TextSpan>]) {
    let is_spaced = |row: &Vec<TextSpan>| row.windows(2).any(|pair| spacing(&pair[0], &pair[1]).is_some());
    if !rows.iter().any(is_spaced) {
        return;
    }
    let usual = Usual::of(rows);
    for row in rows {
        for next in 1..row.len() {
            if let Some(spacing) = spacing(&row[next - 1], &row[next]) {
                let span = &mut row[next - 1];
                span.text = parted(span, spacing, &usual);
            }
        }
    }
}

/// By how much, in points, a run reaches over the next, if it is as much as words are apart.
fn spacing(span: &TextSpan, next: &TextSpan) -> Option<f32> {
    let over = span.bbox.x + span.bbox.width - next.bbox.x;
    (over > span.font_size * LEAST && span.char_widths.len() == span.text.chars().count()).then_some(over)
}

/// The text with a blank behind each character that is spaced; as it is where all are: that is how titles are set.
fn parted(span: &TextSpan, spacing: f32, usual: &Usual) -> String {
    let chars: Vec<char> = span.text.chars().collect();
    let ends_word = |at: usize| {
        let inside = !chars[at].is_whitespace() && !chars[at + 1].is_whitespace();
        inside && span.char_widths[at] - usual.width(span, chars[at]) > spacing * 0.7
    };
    let last = chars.len().saturating_sub(1);
    let ends: Vec<bool> = (0..last).map(ends_word).collect();
    if ends.len() >= 3 && ends.iter().all(|ends| *ends) {
        return span.text.clone();
    }
    let mut text = String::with_capacity(span.text.len() + 2);
    for (at, char) in chars.iter().enumerate() {
        text.push(*char);
        if ends.get(at) == Some(&true) {
            text.push(' ');
        }
    }
    text
}

/// How wide a page's characters mostly are, by font, in sizes.
struct Usual(HashMap<(String, char), f32>);

impl Usual {
    fn of(rows: &[Vec<TextSpan>]) -> Self {
        let mut all: HashMap<(String, char), Vec<f32>> = HashMap::new();
        for span in rows.iter().flatten().filter(|span| span.font_size > 0.0) {
            for (char, width) in span.text.chars().zip(&span.char_widths) {
                all.entry((span.font_name.clone(), char)).or_default().push(width / span.font_size);
            }
        }
        let middle = all.into_iter().map(|(key, mut widths)| {
            widths.sort_by(f32::total_cmp);
            (key, widths[widths.len() / 2])
        });
        Self(middle.collect())
    }

    /// In points. Every character of the page is known.
    fn width(&self, span: &TextSpan, char: char) -> f32 {
        self.0.get(&(span.font_name.clone(), char)).map_or(f32::INFINITY, |width| width * span.font_size)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use pdf_oxide::PdfDocument;

    /// The text of a page that shows this, in Helvetica.
    fn text(shown: &str) -> String {
        let objects = [
            "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
            "<< /Type /Pages /Count 1 /Kids [5 0 R] >>".to_owned(),
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
            format!("<< /Length {} >>\nstream\n{shown}\nendstream", shown.len()),
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 3 0 R >> >> >>".to_owned(),
        ];
        let mut file = "%PDF-1.4\n".to_owned();
        let mut places = Vec::new();
        for (number, object) in objects.iter().enumerate() {
            places.push(file.len());
            write!(file, "{} 0 obj\n{object}\nendobj\n", number + 1).unwrap();
        }
        let table = file.len();
        file += "xref\n0 6\n0000000000 65535 f \n";
        places.iter().for_each(|place| writeln!(file, "{place:010} 00000 n ").unwrap());
        write!(file, "trailer << /Size 6 /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n").unwrap();
        let pdf = PdfDocument::from_bytes(file.into_bytes()).unwrap();
        let lines = super::super::of_page(&pdf, 0).unwrap();
        lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn spaced_characters_part_words() {
        let shown = "BT /F1 10 Tf 72 700 Td (what you do with it) Tj 0 -14 Td (now, to or from) Tj \
            0 -14 Td (ho) Tj 2.706 Tc 11.12 0 Td [(wt) 270.6 (od)] TJ 0 Tc 26.53 0 Td (efine macros) Tj ET";
        assert_eq!(text(shown), "what you do with it\nnow, to or from\nhow to define macros");
    }

    #[test]
    fn a_title_that_is_spaced_throughout_is_one_word() {
        let shown = "BT /F1 10 Tf 72 700 Td (XTNe NeXT) Tj 0 -14 Td 3 Tc (NeXT) Tj 0 Tc 31 0 Td (step) Tj ET";
        assert!(!text(shown).lines().nth(1).unwrap_or_default().contains("N e"), "{}", text(shown));
    }
}
