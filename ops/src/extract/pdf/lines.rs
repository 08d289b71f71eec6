//! The lines of a PDF page: runs of text that stand on one baseline, in reading order.

mod overflow;
mod spacing;

use pdf_oxide::document::ReadingOrder;
use pdf_oxide::layout::TextSpan;
use pdf_oxide::{Error, PdfDocument};

/// A part of a line with wide gaps around it: a cell, if the line belongs to a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Segment {
    pub(super) text: String,
    pub(super) left: f32,
    pub(super) right: f32,
}

/// A line, in points from the lower left corner of the page.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// As it reads; in a line of fixed pitch, gaps are as many blanks as they are wide.
    pub(super) text: String,
    pub(super) left: f32,
    pub(super) right: f32,
    /// The lower edge.
    pub(super) bottom: f32,
    pub(super) size: f32,
    pub(super) bold: bool,
    pub(super) mono: bool,
    /// From 1.
    pub(super) page: u32,
    /// Its parts; one, unless there are wide gaps in it.
    pub(super) segments: Vec<Segment>,
}

/// The lines of a page, from 0. Turned text and what the file marks as an artifact of its pages is left out.
///
/// Lines go across the page, so that the rows of tables stay together, unless the page is set in columns.
pub(super) fn of_page(pdf: &PdfDocument, page: usize) -> Result<Vec<Line>, Error> {
    let mut across = in_order(pdf, page, ReadingOrder::TopToBottom)?;
    across.extend(overflow::below(pdf, page, &across)?);
    if has_columns(&across) { in_order(pdf, page, ReadingOrder::ColumnAware) } else { Ok(across) }
}

fn in_order(pdf: &PdfDocument, page: usize, order: ReadingOrder) -> Result<Vec<Line>, Error> {
    Ok(of_spans(pdf.extract_spans_with_reading_order(page, order)?, page))
}

/// The lines of a page's spans, which come in reading order.
fn of_spans(spans: Vec<TextSpan>, page: usize) -> Vec<Line> {
    let kept = spans.into_iter().filter(|span| {
        span.artifact_type.is_none() && span.rotation_degrees.abs() < 1.0 && !span.text.trim().is_empty()
    });
    let mut rows: Vec<Vec<TextSpan>> = Vec::new();
    for span in kept {
        match rows.last_mut() {
            Some(row) if same_line(row, &span) => row.push(span),
            _ => rows.push(vec![span]),
        }
    }
    spacing::mend(&mut rows);
    rows.into_iter().map(|row| line(&row, page as u32 + 1)).filter(|line| !line.text.is_empty()).collect()
}

/// Most lines have a gap, and the halves on both sides of it are long: prose in columns, not a table.
fn has_columns(lines: &[Line]) -> bool {
    let long = |segment: &Segment| segment.text.len() >= 25;
    let halved = lines
        .iter()
        .filter(|line| line.segments.len() >= 2 && line.segments.iter().filter(|part| long(part)).count() >= 2);
    lines.len() >= 10 && halved.count() * 2 > lines.len()
}

/// Whether a span goes on with the line: about the same baseline, and not far to the left of where the line has come.
fn same_line(row: &[TextSpan], span: &TextSpan) -> bool {
    let last = &row[row.len() - 1];
    let size = last.font_size.max(span.font_size).max(1.0);
    let level = (last.bbox.y - span.bbox.y).abs() < size * 0.45;
    level && span.bbox.x > last.bbox.x + last.bbox.width - size * 1.5
}

/// Wider than this, in sizes, a gap parts two segments.
const WIDE_GAP: f32 = 1.5;

fn line(row: &[TextSpan], page: u32) -> Line {
    let letters = |span: &TextSpan| span.text.chars().filter(|char| !char.is_whitespace()).count();
    let all: usize = row.iter().map(letters).sum();
    let count = |is: &dyn Fn(&TextSpan) -> bool| row.iter().filter(|span| is(span)).map(letters).sum::<usize>();
    let mono = count(&is_mono) == all;
    let bold = count(&|span| span.font_weight.is_bold() || name_is_bold(&span.font_name)) == all;
    let widest = row.iter().max_by(|a, b| letters(a).cmp(&letters(b)).then(b.bbox.x.total_cmp(&a.bbox.x)));
    let size = widest.map_or(0.0, |span| span.font_size);
    let mut segments: Vec<Segment> = Vec::new();
    let mut text = String::new();
    for span in row {
        let right = span.bbox.x + span.bbox.width;
        let Some(last) = segments.last_mut() else {
            segments.push(Segment { text: span.text.trim_start().to_owned(), left: span.bbox.x, right });
            text.push_str(span.text.trim_start());
            continue;
        };
        let gap = span.bbox.x - last.right;
        let width = if mono { char_width(span) } else { size * 0.25 };
        let blanks = if mono { (gap / width).round().max(0.0) as usize } else { usize::from(gap > size * 0.12) };
        let has_blank = text.ends_with(' ') || span.text.starts_with(' ');
        let blanks = " ".repeat(if has_blank && !mono { 0 } else { blanks.min(120) });
        text.push_str(&blanks);
        text.push_str(&span.text);
        if gap > size * WIDE_GAP && !mono {
            segments.push(Segment { text: span.text.clone(), left: span.bbox.x, right });
        } else {
            last.text.push_str(&blanks);
            last.text.push_str(&span.text);
            last.right = last.right.max(right);
        }
    }
    let left = segments.iter().map(|segment| segment.left).fold(f32::INFINITY, f32::min);
    let right = segments.iter().map(|segment| segment.right).fold(f32::NEG_INFINITY, f32::max);
    let bottom = row.iter().map(|span| span.bbox.y).fold(f32::INFINITY, f32::min);
    Line { text: text.trim_end().to_owned(), left, right, bottom, size, bold, mono, page, segments }
}

/// The width of a character of a run of fixed pitch.
fn char_width(span: &TextSpan) -> f32 {
    let chars = span.text.chars().count().max(1) as f32;
    let width = span.bbox.width / chars;
    if width > 0.0 { width } else { (span.font_size * 0.6).max(1.0) }
}

fn is_mono(span: &TextSpan) -> bool {
    let name = span.font_name.to_ascii_lowercase();
    span.is_monospace
        || ["courier", "cmtt", "mono", "typewriter", "consolas", "cmsltt", "cmcsctt"]
            .iter()
            .any(|part| name.contains(part))
}

fn name_is_bold(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("bold") || name.contains("cmbx") || name.contains("black")
}
