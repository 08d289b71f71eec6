//! Lines that run over the lower edge of their page: of a table that was set too long for it. They are in the file, and nobody
//! sees them on paper.
//!
//! What lies off a page is left out as a rule, since files hide things there: drawings that many pages share a piece of, a printer's notes. So only
//! what goes on below lines that stand at the very edge, no farther from each other than lines are, is taken in.

use pdf_oxide::extractors::SpanMergingConfig;
use pdf_oxide::layout::TextSpan;
use pdf_oxide::{Error, PdfDocument};

use super::{Line, of_spans};

/// Nearer to the edge than this, in points, no page has text that was meant to be there.
const EDGE: f32 = 14.0;
/// Lines that go on are no farther apart than so many sizes.
const APART: f32 = 3.0;

/// The lines below a page of which these lines can be seen.
pub(super) fn below(pdf: &PdfDocument, page: usize, seen: &[Line]) -> Result<Vec<Line>, Error> {
    let (left, low, right, high) = pdf.get_page_visible_box(page)?;
    let edge = low.min(high);
    let lowest = seen.iter().map(|line| line.bottom).fold(f32::INFINITY, f32::min);
    if lowest > edge + EDGE {
        return Ok(Vec::new());
    }
    let mut spans = pdf.extract_spans_with_config(page, SpanMergingConfig::default())?;
    let inside = left.min(right)..left.max(right);
    spans.retain(|span| span.bbox.y + 1.0 < lowest && inside.contains(&span.bbox.x));
    let mut lines = of_spans(in_rows(spans), page);
    let mut at = lowest;
    let goes_on = lines.iter().take_while(|line| {
        let near = at - line.bottom <= APART * line.size.max(1.0);
        at = line.bottom;
        near
    });
    let count = goes_on.count();
    lines.truncate(count);
    Ok(lines)
}

/// From top to bottom, and in a row from left to right.
fn in_rows(mut spans: Vec<TextSpan>) -> Vec<TextSpan> {
    spans.sort_by(|a, b| b.bbox.y.total_cmp(&a.bbox.y));
    let mut begin = 0;
    for at in 1..=spans.len() {
        let same = spans.get(at).is_some_and(|span| spans[begin].bbox.y - span.bbox.y < span.font_size.max(1.0) * 0.45);
        if !same {
            spans[begin..at].sort_by(|a, b| a.bbox.x.total_cmp(&b.bbox.x));
            begin = at;
        }
    }
    spans
}
