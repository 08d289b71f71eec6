//! The drawing: boxes with name and operator, arrows with the names of outputs and inputs.

use std::fmt::Write;

use super::Picture;
use super::layout::{Layout, layout};

const BOX_HEIGHT: f64 = 46.0;
const LAYER_GAP: f64 = 54.0;
const MARGIN: f64 = 20.0;
/// Widths of a letter in the two sizes, on the safe side.
const NAME_LETTER: f64 = 8.4;
const SMALL_LETTER: f64 = 6.8;

const HEAD: &str = r##"<style>
  text { font-family: ui-sans-serif, system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; text-anchor: middle; }
  .name { font-size: 14px; font-weight: 600; fill: #1f2933; }
  .op { font-size: 11.5px; fill: #52606d; }
  .label { font-size: 11px; fill: #3e4c59; stroke: #ffffff; stroke-width: 4px; paint-order: stroke; }
  .edge { fill: none; stroke: #829ab1; stroke-width: 1.5; marker-end: url(#head); }
  .node { fill: #f0f4f8; stroke: #486581; stroke-width: 1.2; }
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0.8 L7.2 4 L0 7.2 Z" fill="#829ab1"/></marker></defs>
"##;

/// Draws a picture.
pub(super) fn draw(picture: &Picture) -> String {
    let layout = layout(picture, &|node| box_width(picture, node));
    let right = layout.spots.iter().map(|spot| spot.x + spot.width / 2.0).fold(0.0, f64::max);
    let (width, height) = (right + 2.0 * MARGIN, top(layout.layers.len()) - LAYER_GAP + MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">\n\
         <title>{}</title>\n{HEAD}<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        escaped(&picture.title)
    );
    let mut labels = String::new();
    for edge in 0..picture.edges.len() {
        arrow(picture, &layout, edge, &mut svg, &mut labels);
    }
    for (node, (name, op)) in picture.nodes.iter().enumerate() {
        let spot = &layout.spots[node];
        let (x, y, width) = (spot.x + MARGIN, top(spot.layer), spot.width);
        let colors = picture.marks.get(node).map(|mark| mark.colors());
        let style = colors.map(|(fill, border)| format!(" style=\"fill:{fill};stroke:{border}\"")).unwrap_or_default();
        let _ = writeln!(
            svg,
            "<rect class=\"node\"{style} x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BOX_HEIGHT}\" rx=\"7\"/>\
             <text class=\"name\" x=\"{x:.1}\" y=\"{:.1}\">{}</text><text class=\"op\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            x - width / 2.0,
            y + 20.0,
            escaped(name),
            y + 36.0,
            escaped(&picture.op(node, op))
        );
    }
    svg + &labels + "</svg>\n"
}

/// Wide enough for the name, the operator, and the names of the inputs side by side.
fn box_width(picture: &Picture, node: usize) -> f64 {
    let (name, op) = &picture.nodes[node];
    let labels = picture.edges.iter().filter(|edge| edge.to == node).map(|edge| edge.label().chars().count());
    let labels: f64 = labels.map(|n| n as f64 * SMALL_LETTER + 10.0).sum();
    let op = picture.op(node, op);
    let text = (name.chars().count() as f64 * NAME_LETTER).max(op.chars().count() as f64 * SMALL_LETTER);
    (text + 28.0).max(labels).max(90.0)
}

fn top(layer: usize) -> f64 {
    MARGIN + layer as f64 * (BOX_HEIGHT + LAYER_GAP)
}

/// An arrow through its bends; its label stands above its head.
fn arrow(picture: &Picture, layout: &Layout, edge: usize, svg: &mut String, labels: &mut String) {
    let path = &layout.paths[edge];
    let last = path.len() - 1;
    let begin = (door(layout, edge, true), top(layout.spots[path[0]].layer) + BOX_HEIGHT);
    let end = (door(layout, edge, false), top(layout.spots[path[last]].layer) - 2.0);
    let mut line = format!("M{:.1} {:.1}", begin.0, begin.1);
    let mut at = begin;
    for bend in &path[1..last] {
        let (x, y) = (layout.spots[*bend].x + MARGIN, top(layout.spots[*bend].layer));
        curve(&mut line, at, (x, y));
        let _ = write!(line, " L{x:.1} {:.1}", y + BOX_HEIGHT);
        at = (x, y + BOX_HEIGHT);
    }
    curve(&mut line, at, end);
    let _ = writeln!(svg, "<path class=\"edge\" d=\"{line}\"/>");
    let label = picture.edges[edge].label();
    if !label.is_empty() {
        let _ = writeln!(
            labels,
            "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            end.0,
            end.1 - 13.0,
            escaped(&label)
        );
    }
}

/// A curve that leaves and arrives straight down.
fn curve(line: &mut String, from: (f64, f64), to: (f64, f64)) {
    let pull = (to.1 - from.1) * 0.5;
    let _ = write!(line, " C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}", from.0, from.1 + pull, to.0, to.1 - pull, to.0, to.1);
}

/// Where an arrow leaves or enters a box: its arrows share the side, in the order of their other ends.
fn door(layout: &Layout, edge: usize, leaves: bool) -> f64 {
    let ends = |path: &[usize]| {
        if leaves { (path[0], path[1]) } else { (path[path.len() - 1], path[path.len() - 2]) }
    };
    let (node, _) = ends(&layout.paths[edge]);
    let mut beside: Vec<usize> =
        (0..layout.paths.len()).filter(|other| ends(&layout.paths[*other]).0 == node).collect();
    let far = |other: usize| layout.spots[ends(&layout.paths[other]).1].x;
    beside.sort_by(|one, other| far(*one).total_cmp(&far(*other)).then(one.cmp(other)));
    let place = beside.iter().position(|other| *other == edge).expect("the edge ends at the node");
    let spot = &layout.spots[node];
    MARGIN + spot.x - spot.width / 2.0 + spot.width * (place as f64 + 0.5) / beside.len() as f64
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::picture;
    use super::*;

    #[test]
    fn every_node_and_arrow_is_drawn() {
        let mut picture = picture();
        picture.nodes[0].0 = "a<b".into();
        let svg = draw(&picture);
        assert_eq!(svg.matches("class=\"node\"").count(), 3);
        assert_eq!(svg.matches("class=\"edge\"").count(), 4);
        assert!(svg.contains(">a&lt;b</text>") && svg.contains(">eval → held</text>"));
    }
}
