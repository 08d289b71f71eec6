//! A pipeline as a picture: text, Mermaid, Graphviz, SVG. Nothing is run.

mod layout;
mod svg;

use std::fmt::Write;

use retort_engine::{Graph, Verdict};

use crate::tables::{Column, Grid};

/// How the picture is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A line a node.
    Text,
    /// A Mermaid flowchart, as Markdown pages show it.
    Mermaid,
    /// Graphviz.
    Dot,
    /// A drawing.
    Svg,
}

/// What is drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// The pipeline's name.
    pub title: String,
    /// Name and operator of each node, each after those that feed it.
    pub nodes: Vec<(String, String)>,
    /// What flows.
    pub edges: Vec<Edge>,
    /// What a run would do with each node; empty where nothing was planned.
    pub marks: Vec<Mark>,
}

/// What a run would do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing: its answer is known.
    Fresh,
    /// It runs.
    Stale,
    /// Its inputs' answers will tell.
    Waiting,
}

impl Mark {
    /// The mark of a verdict.
    pub fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Fresh => Mark::Fresh,
            Verdict::Stale(_) => Mark::Stale,
            Verdict::Waiting(_) => Mark::Waiting,
        }
    }

    /// The word for it.
    fn word(self) -> &'static str {
        match self {
            Mark::Fresh => "fresh",
            Mark::Stale => "stale",
            Mark::Waiting => "waiting",
        }
    }

    /// The colours of the box and of its border.
    fn colors(self) -> (&'static str, &'static str) {
        match self {
            Mark::Fresh => ("#e3f6e8", "#2f855a"),
            Mark::Stale => ("#fdebc8", "#b7791f"),
            Mark::Waiting => ("#eef0f3", "#829ab1"),
        }
    }
}

/// A table that flows from a node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// An index into the picture's nodes.
    pub from: usize,
    /// An index into the picture's nodes.
    pub to: usize,
    /// The output, where it is not the only one.
    pub port: String,
    /// The input, where it has a name.
    pub slot: String,
}

impl Edge {
    /// What is written beside the arrow: the output and the input, once if they are called the same.
    fn label(&self) -> String {
        match (self.port.as_str(), self.slot.as_str()) {
            (port, slot) if port == slot || slot.is_empty() => port.to_string(),
            ("", slot) => slot.to_string(),
            (port, slot) => format!("{port} → {slot}"),
        }
    }
}

impl Picture {
    /// The picture of a graph.
    pub fn of(graph: &Graph) -> Self {
        let mut picture = Picture { title: graph.name().to_string(), ..Picture::default() };
        let place = |id| graph.order().iter().position(|other| *other == id).expect("the order names every node");
        for (to, id) in graph.order().iter().enumerate() {
            let node = graph.node(*id);
            picture.nodes.push((node.name.clone(), node.op.clone()));
            for (slot, sources) in &node.inputs {
                for (feed, port) in sources {
                    let name = &graph.node(*feed).ports[*port].0;
                    let port = if name == "out" { String::new() } else { name.clone() };
                    let slot = if slot == "from" { String::new() } else { slot.clone() };
                    picture.edges.push(Edge { from: place(*feed), to, port, slot });
                }
            }
        }
        picture
    }

    /// The picture in a format.
    pub fn write(&self, format: Format) -> String {
        match format {
            Format::Text => self.text(),
            Format::Mermaid => self.mermaid(),
            Format::Dot => self.dot(),
            Format::Svg => svg::draw(self),
        }
    }

    /// What stands below a node's name: its operator, and the verdict.
    fn op(&self, node: usize, op: &str) -> String {
        match self.marks.get(node) {
            Some(mark) => format!("{op} · {}", mark.word()),
            None => op.to_string(),
        }
    }

    fn text(&self) -> String {
        let mut heads = vec!["node", "operator", "from"];
        heads.extend((!self.marks.is_empty()).then_some("verdict"));
        let mut grid = Grid::new(heads.into_iter().map(|name| Column::new(name, false)));
        for (at, (name, op)) in self.nodes.iter().enumerate() {
            let source = |edge: &Edge| {
                let port = if edge.port.is_empty() { String::new() } else { format!(".{}", edge.port) };
                let slot = if edge.slot.is_empty() { String::new() } else { format!("{}: ", edge.slot) };
                format!("{slot}{}{port}", self.nodes[edge.from].0)
            };
            let sources: Vec<_> = self.edges.iter().filter(|edge| edge.to == at).map(source).collect();
            let mut cells = vec![name.clone(), op.clone(), sources.join(", ")];
            cells.extend(self.marks.get(at).map(|mark| mark.word().to_string()));
            grid.push(cells);
        }
        grid.render(None)
    }

    fn mermaid(&self) -> String {
        let mut text = "flowchart TD\n".to_string();
        let quoted = |text: &str| text.replace('"', "#quot;");
        for (i, (name, op)) in self.nodes.iter().enumerate() {
            let class = self.marks.get(i).map(|mark| format!(":::{}", mark.word())).unwrap_or_default();
            let _ = writeln!(text, "    n{i}[\"<b>{}</b><br>{}\"]{class}", quoted(name), quoted(&self.op(i, op)));
        }
        for edge in &self.edges {
            let label = edge.label();
            let label = if label.is_empty() { String::new() } else { format!("|\"{}\"|", quoted(&label)) };
            let _ = writeln!(text, "    n{} -->{label} n{}", edge.from, edge.to);
        }
        for mark in [Mark::Fresh, Mark::Stale, Mark::Waiting].into_iter().filter(|mark| self.marks.contains(mark)) {
            let (fill, border) = mark.colors();
            let _ = writeln!(text, "    classDef {} fill:{fill},stroke:{border}", mark.word());
        }
        text
    }

    fn dot(&self) -> String {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut text = format!("digraph \"{}\" {{\n    node [shape=box, style=rounded];\n", quoted(&self.title));
        for (i, (name, op)) in self.nodes.iter().enumerate() {
            let color = self.marks.get(i).map(|mark| mark.colors());
            let color = color
                .map(|(fill, border)| format!(", style=\"rounded,filled\", fillcolor=\"{fill}\", color=\"{border}\""));
            let (op, color) = (self.op(i, op), color.unwrap_or_default());
            let _ = writeln!(text, "    n{i} [label=\"{}\\n{}\"{color}];", quoted(name), quoted(&op));
        }
        for edge in &self.edges {
            let _ = writeln!(text, "    n{} -> n{} [label=\"{}\"];", edge.from, edge.to, quoted(&edge.label()));
        }
        text + "}\n"
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    pub(super) fn picture() -> Picture {
        let node = |name: &str, op: &str| (name.to_string(), op.to_string());
        let edge = |from, to, port: &str, slot: &str| Edge { from, to, port: port.into(), slot: slot.into() };
        Picture {
            title: "tiny".into(),
            nodes: vec![node("chunks", "chunk"), node("sets", "split-eval"), node("adapter", "lora-train")],
            edges: vec![
                edge(0, 1, "", ""),
                edge(1, 2, "train", "train"),
                edge(1, 2, "eval", "held"),
                edge(0, 2, "", "text"),
            ],
            marks: Vec::new(),
        }
    }

    #[test]
    fn verdicts_are_words_and_colours() {
        let mut picture = picture();
        picture.marks = vec![Mark::Fresh, Mark::Stale, Mark::Waiting];
        let text = picture.write(Format::Text);
        let line = text.lines().find(|line| line.starts_with("sets ")).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["sets", "split-eval", "chunks", "stale"], "{text}");
        assert!(picture.write(Format::Mermaid).contains("n1[\"<b>sets</b><br>split-eval · stale\"]:::stale\n"));
        let dot = picture.write(Format::Dot);
        assert!(
            dot.contains("n0 [label=\"chunks\\nchunk · fresh\", style=\"rounded,filled\", fillcolor=\"#e3f6e8\""),
            "{dot}"
        );
        let svg = picture.write(Format::Svg);
        assert!(svg.contains("lora-train · waiting</text>") && svg.contains("fill:#fdebc8;stroke:#b7791f"), "{svg}");
    }

    #[test]
    fn text_names_what_feeds() {
        expect![[r"
            node     operator    from
            chunks   chunk
            sets     split-eval  chunks
            adapter  lora-train  train: sets.train, held: sets.eval, text: chunks
        "]]
        .assert_eq(&picture().write(Format::Text));
    }

    #[test]
    fn mermaid_has_nodes_and_arrows() {
        expect![[r#"
            flowchart TD
                n0["<b>chunks</b><br>chunk"]
                n1["<b>sets</b><br>split-eval"]
                n2["<b>adapter</b><br>lora-train"]
                n0 --> n1
                n1 -->|"train"| n2
                n1 -->|"eval → held"| n2
                n0 -->|"text"| n2
        "#]]
        .assert_eq(&picture().write(Format::Mermaid));
    }

    #[test]
    fn dot_is_quoted() {
        let mut picture = picture();
        picture.nodes[0].0 = "say \"x\"".into();
        assert!(picture.write(Format::Dot).contains(r#"n0 [label="say \"x\"\nchunk"];"#));
    }
}
