//! Words that a file parts, or draws closer, by spacing its characters and not by blanks: troff writes such PostScript, and PDF files that were made of
//! it have them.
//!
//! The spacing (`Tc`, ISO 32000-1, 9.3.2) is added behind every character of a run, the last one too, and what follows is set back over it. So a run is
//! known by reaching over the next, and where its characters are wider than elsewhere by as much, a word ends. Where none is meant, the file takes
//! the spacing back. A run that is drawn closer ends too early by as much; the gap is none between words, and a blank that was read there goes.

use std::collections::HashMap;

use pdf_oxide::layout::TextSpan;

/// Less than this, in sizes, parts no words.
const LEAST: f32 = 0.12;
/// A blank that a font has is wider than this, in sizes.
const NARROW: f32 = 0.16;

/// Puts blanks between words that are parted by spacing, and takes out those inside a word. The rows' spans come from left to right.
pub(super) fn mend(rows: &mut [Vec<TextSpan>]) {
    let is_spaced = |row: &Vec<TextSpan>| row.windows(2).any(|pair| spacing(&pair[0], &pair[1]).is_some());
    let is_drawn_closer = |row: &Vec<TextSpan>| row.iter().any(has_narrow_blank);
    if !rows.iter().any(|row| is_spaced(row) || is_drawn_closer(row)) {
        return;
    }
    let usual = Usual::of(rows);
    for row in rows {
        for at in 0..row.len() {
            let spacing = row.get(at + 1).and_then(|next| spacing(&row[at], next));
            if spacing.is_some() || has_narrow_blank(&row[at]) {
                row[at].text = mended(&row[at], spacing, &usual);
            }
        }
    }
}

fn has_narrow_blank(span: &TextSpan) -> bool {
    let mut chars = span.text.chars().zip(&span.char_widths);
    let narrow = |(char, width): (char, &f32)| char == ' ' && *width < span.font_size * NARROW;
    span.char_widths.len() == span.text.chars().count() && chars.any(narrow)
}

/// By how much, in points, a run reaches over the next, if it is as much as words are apart.
fn spacing(span: &TextSpan, next: &TextSpan) -> Option<f32> {
    let over = span.bbox.x + span.bbox.width - next.bbox.x;
    (over > span.font_size * LEAST && span.char_widths.len() == span.text.chars().count()).then_some(over)
}

/// The text with a blank behind each character that is spaced, unless all are (that is how titles are set), and without the blanks that are as
/// wide as the character before is too narrow.
fn mended(span: &TextSpan, spacing: Option<f32>, usual: &Usual) -> String {
    let chars: Vec<char> = span.text.chars().collect();
    let surplus = |at: usize| span.char_widths[at] - usual.width(span, chars[at]);
    let last = chars.len().saturating_sub(1);
    let ends_word = |at: usize| {
        let inside = at < last && !chars[at].is_whitespace() && !chars[at + 1].is_whitespace();
        inside && spacing.is_some_and(|spacing| surplus(at) > spacing * 0.7)
    };
    let is_title = last >= 3 && (0..last).all(ends_word);
    let is_in_word = |at: usize| {
        let width = span.char_widths[at];
        let narrow = at > 0 && chars[at] == ' ' && width < span.font_size * NARROW;
        narrow && (surplus(at - 1) + width).abs() < span.font_size * 0.03
    };
    let mut text = String::with_capacity(span.text.len() + 2);
    for (at, char) in chars.iter().enumerate().filter(|(at, _)| !is_in_word(*at)) {
        text.push(*char);
        if !is_title && ends_word(at) {
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
    fn words_that_are_drawn_closer_are_whole() {
        // As troff kerns: the run ends 1.11 points early, and what follows is set behind that.
        let shown = "BT /F1 10 Tf 72 700 Td (Text, then text) Tj 0 -14 Td (A ) Tj -1.11 Tc 9.45 0 Td (Te) Tj 0 Tc 10.56 0 Td (xt of) Tj ET";
        assert_eq!(text(shown), "Text, then text\nA Text of");
        let shown = shown.replace("(xt of) Tj", "(x) Tj 2.7 Tc 5 0 Td (to) Tj 0 Tc 11.04 0 Td (f it) Tj");
        assert_eq!(text(&shown), "Text, then text\nA Text of it");
    }

    #[test]
    fn a_title_that_is_spaced_throughout_is_one_word() {
        let shown = "BT /F1 10 Tf 72 700 Td (XTNe NeXT) Tj 0 -14 Td 3 Tc (NeXT) Tj 0 Tc 31 0 Td (step) Tj ET";
        assert!(!text(shown).lines().nth(1).unwrap_or_default().contains("N e"), "{}", text(shown));
    }
}
