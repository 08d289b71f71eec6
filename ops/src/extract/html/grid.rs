//! HTML tables: rows and columns of text where they are tables, their contents where they are layout.

use super::tree::{Element, Node};
use crate::document::links::Marks;
use crate::document::{Kind, Raw};
use crate::extract::tidy;

/// No cell is stretched over more columns or rows than this, whatever it says.
const MAX_SPAN: usize = 64;

struct Cell {
    blocks: Vec<Raw>,
    columns: usize,
    rows: usize,
}

/// Reads a `<table>`: one table block, before it its caption; or, if the table is there for layout, what its cells hold.
pub(super) fn read(table: Node<'_>, inside: &dyn Fn(Node<'_>) -> Vec<Raw>) -> Vec<Raw> {
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    let mut blocks: Vec<Raw> = Vec::new();
    collect(table, inside, &mut rows, &mut blocks);
    rows.retain(|row| row.iter().any(|cell| !cell.blocks.is_empty()));
    if is_layout(&rows) {
        blocks.extend(rows.into_iter().flatten().flat_map(|cell| cell.blocks));
    } else {
        let text = tidy::table(&spread(&rows));
        let mut marks = Marks::default();
        rows.into_iter().flatten().flat_map(|cell| cell.blocks).for_each(|block| marks.add(block.marks));
        blocks.push(Raw { marks, ..Raw::new(Kind::Table, 0, text) });
    }
    blocks
}

/// The rows of this table, not of those inside it.
fn collect(node: Node<'_>, inside: &dyn Fn(Node<'_>) -> Vec<Raw>, rows: &mut Vec<Vec<Cell>>, before: &mut Vec<Raw>) {
    for child in node.children() {
        let Some(element) = child.element() else { continue };
        match element.name() {
            "tbody" | "thead" | "tfoot" => collect(child, inside, rows, before),
            "caption" => before.extend(inside(child)),
            "tr" => rows.push(child.children().filter_map(|cell| read_cell(cell, inside)).collect()),
            _ => {}
        }
    }
}

fn read_cell(node: Node<'_>, inside: &dyn Fn(Node<'_>) -> Vec<Raw>) -> Option<Cell> {
    let element = node.element().filter(|element| matches!(element.name(), "td" | "th"))?;
    if element.classes().any(|class| class == "linenos") {
        return None;
    }
    let span = |name| span(element, name);
    Some(Cell { blocks: inside(node), columns: span("colspan"), rows: span("rowspan") })
}

fn span(element: &Element, name: &str) -> usize {
    element.attr(name).and_then(|span| span.trim().parse().ok()).unwrap_or(1).clamp(1, MAX_SPAN)
}

/// One row or one column, or cells that hold headings, tables, listings or long prose.
fn is_layout(rows: &[Vec<Cell>]) -> bool {
    let filled = |row: &Vec<Cell>| row.iter().filter(|cell| !cell.blocks.is_empty()).count();
    let columns = rows.iter().map(filled).max().unwrap_or(0);
    if rows.len() < 2 || columns < 2 {
        return true;
    }
    rows.iter().flatten().any(|cell| {
        let length: usize = cell.blocks.iter().map(|block| block.text.len()).sum();
        cell.blocks.iter().any(|block| match block.kind {
            Kind::Heading | Kind::Table => true,
            Kind::Code => block.text.contains('\n'),
            Kind::List | Kind::Paragraph => false,
        }) || (cell.blocks.len() > 3 && length > 1500)
    })
}

/// Cells to text: one over several columns is followed by empty ones, one over several rows is said again in each.
fn spread(rows: &[Vec<Cell>]) -> Vec<Vec<String>> {
    let mut below: Vec<(usize, String)> = Vec::new();
    let mut table = Vec::new();
    for row in rows {
        let mut line: Vec<String> = Vec::new();
        let mut cells = row.iter();
        loop {
            let column = line.len();
            if let Some((left, text)) = below.get_mut(column).filter(|(left, _)| *left > 0) {
                *left -= 1;
                line.push(text.clone());
                continue;
            }
            let Some(cell) = cells.next() else {
                if below[column.min(below.len())..].iter().all(|(left, _)| *left == 0) {
                    break;
                }
                line.push(String::new());
                continue;
            };
            let text = cell.blocks.iter().map(|block| block.text.as_str()).collect::<Vec<_>>().join(" ");
            for extra in 0..cell.columns {
                let text = if extra == 0 { text.clone() } else { String::new() };
                if below.len() <= line.len() {
                    below.resize(line.len() + 1, (0, String::new()));
                }
                below[line.len()] = (cell.rows - 1, text.clone());
                line.push(text);
            }
        }
        table.push(line);
    }
    table
}
