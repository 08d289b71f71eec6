//! HTML to blocks: a walk over the parsed tree. What is navigation is told by `chrome`, tables are read by `grid`.

mod chrome;
mod flow;
mod grid;
mod tokens;
mod tree;

use self::chrome::Weights;
use self::flow::Flow;
use self::tree::{Element, Node, Tree};
use super::reader::Unreadable;
use super::{encoding, tidy};
use crate::document::links::{Marks, percent_decoded};
use crate::document::{Document, Kind, Raw};

/// Reads an HTML or XHTML page.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Unreadable> {
    let (title, blocks) = blocks(bytes)?;
    let first_heading = || blocks.iter().find(|block| block.kind == Kind::Heading).map(|block| block.text.clone());
    let title = title.or_else(first_heading);
    Ok(Document::assemble(title, blocks))
}

/// A page's own title, and its blocks.
pub(super) fn blocks(bytes: &[u8]) -> Result<(Option<String>, Vec<Raw>), Unreadable> {
    let text = encoding::decode(bytes, declared_charset(bytes).as_deref());
    let page = tokens::parse(&text, Tree::sink(text.len()));
    let root = page.root();
    if redirects(root) {
        return Err(Unreadable::Redirect);
    }
    let walker = Walker { weights: Weights::of(&page)? };
    let mut flow = Flow::default();
    walker.walk(walker.main_part(root), &mut flow);
    let title = elements(root, "title").next().map(|title| tidy::inline(&all_text(title), false));
    Ok((title.filter(|title| !title.is_empty()), flow.finish()))
}

/// The label in `<meta charset>`, `<meta http-equiv … charset=…>` or `<?xml encoding=…?>`, in the first 4 KiB.
fn declared_charset(bytes: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).to_ascii_lowercase();
    let start = head.find("charset=").map(|at| at + 8).or_else(|| {
        let xml = head.starts_with("<?xml").then(|| head.find("encoding="))?;
        xml.map(|at| at + 9)
    })?;
    let label = head[start..].trim_start_matches(['"', '\'', ' ']);
    let end = label.find(|char: char| !(char.is_ascii_alphanumeric() || "-_:".contains(char))).unwrap_or(label.len());
    Some(label[..end].to_owned())
}

/// A `<meta http-equiv="refresh">` that goes elsewhere at once.
fn redirects(root: Node<'_>) -> bool {
    elements(root, "meta").any(|meta| {
        let of = |name| meta.element().and_then(|element| element.attr(name)).unwrap_or("").trim();
        let content = of("content").to_ascii_lowercase();
        of("http-equiv").eq_ignore_ascii_case("refresh") && content.starts_with('0') && content.contains("url=")
    })
}

fn elements<'a>(root: Node<'a>, name: &str) -> impl Iterator<Item = Node<'a>> {
    root.descendants().filter(move |node| node.element().is_some_and(|element| element.name() == name))
}

/// The text below a node as it stands in the source, `<br>` as a line break.
fn all_text(node: Node<'_>) -> String {
    let mut text = String::new();
    for below in node.descendants() {
        if let Some(piece) = below.text() {
            text.push_str(piece);
        } else if below.element().is_some_and(|element| element.name() == "br") {
            text.push('\n');
        }
    }
    text
}

struct Walker {
    weights: Weights,
}

impl Walker {
    /// `<main>` where it holds a third of the page's text or more, else the body.
    fn main_part<'a>(&self, root: Node<'a>) -> Node<'a> {
        let all = self.weights.get(root).text;
        let main = root.descendants().find(|node| {
            let element = node.element();
            element.is_some_and(|element| element.name() == "main" || element.attr("role") == Some("main"))
        });
        main.filter(|main| self.weights.get(*main).text * 3 >= all).unwrap_or(root)
    }

    fn walk_children(&self, node: Node<'_>, flow: &mut Flow) {
        for child in node.children() {
            self.walk(child, flow);
        }
    }

    fn walk(&self, node: Node<'_>, flow: &mut Flow) {
        if let Some(text) = node.text() {
            return flow.text(text);
        }
        let Some(element) = node.element() else { return self.walk_children(node, flow) };
        if self.weights.get(node).is_hidden {
            return;
        }
        if self.weights.is_chrome(node, element) {
            flow.flush();
            return flow.left_out();
        }
        if is_block(element.name()) {
            flow.flush();
        }
        if let Some(name) = anchor(element) {
            flow.anchor(name);
        }
        match element.name() {
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.heading(node, element, flow),
            "ul" | "ol" | "menu" | "dir" => self.list(node, element, flow),
            "dl" => self.definitions(node, flow),
            "table" => self.table(node, flow),
            "pre" | "listing" | "xmp" | "plaintext" => preformatted(node, element, flow),
            "br" => flow.text("\n\u{0}"),
            "hr" => flow.rule(),
            "sup" if is_footnote_mark(node) => {}
            "a" if element.attr("href").is_some() => {
                flow.open_link(target(element));
                self.walk_children(node, flow);
                flow.close_link();
            }
            name if is_block(name) => {
                self.walk_children(node, flow);
                flow.flush();
            }
            _ => self.walk_children(node, flow),
        }
    }

    fn heading(&self, node: Node<'_>, element: &Element, flow: &mut Flow) {
        flow.flush();
        let mut inner = Flow::default();
        self.walk_children(node, &mut inner);
        let (mut text, mut marks) = (Vec::new(), Marks::default());
        for block in inner.everything() {
            text.push(block.text);
            marks.add(block.marks);
        }
        let text = tidy::inline(&text.join(" "), false);
        let text = text.trim_end_matches(['¶', '#', '§', ' ']);
        // A footnote's number is marked up as a heading by Texinfo.
        let is_mark = !text.chars().any(char::is_alphabetic) && text.starts_with('(');
        let level = element.name().as_bytes()[1] - b'0';
        if !text.is_empty() && !is_mark {
            flow.heading(level, text, marks);
        }
    }

    /// The blocks of an item or a cell, read by themselves.
    fn inside(&self, node: Node<'_>) -> Vec<Raw> {
        let mut flow = Flow::default();
        self.walk_children(node, &mut flow);
        flow.everything()
    }

    fn list(&self, list: Node<'_>, element: &Element, flow: &mut Flow) {
        flow.flush();
        if self.weights.is_link_list(list) {
            return flow.links_left_out();
        }
        let mut items: Vec<Vec<Raw>> = Vec::new();
        for child in list.children() {
            let Some(inner) = child.element() else { continue };
            if inner.name() == "li" {
                items.push(self.inside(child));
                continue;
            }
            // A list right inside a list belongs to the item before it.
            let mut inner = Flow::default();
            self.walk(child, &mut inner);
            match items.last_mut() {
                Some(item) => item.extend(inner.everything()),
                None => items.push(inner.everything()),
            }
        }
        let first = element.attr("start").and_then(|start| start.trim().parse::<i64>().ok()).unwrap_or(1);
        let ordered = element.name() == "ol";
        let mut number = first;
        let items = items.into_iter().filter(|item| !item.is_empty()).map(|item| {
            let marker = if ordered { format!("{number}. ") } else { "- ".to_owned() };
            number = number.saturating_add(1);
            (marker, item)
        });
        flow.list(items.collect());
    }

    fn definitions(&self, list: Node<'_>, flow: &mut Flow) {
        flow.flush();
        if self.weights.is_link_list(list) {
            return flow.links_left_out();
        }
        let mut items: Vec<(String, Vec<Raw>)> = Vec::new();
        let mut terms: Vec<String> = Vec::new();
        let mut marks = Marks::default();
        let parts = list.children().flat_map(|child| {
            let grouped = child.element().is_some_and(|element| element.name() == "div");
            if grouped { child.children().collect() } else { vec![child] }
        });
        for part in parts {
            let Some(element) = part.element() else { continue };
            let blocks = self.inside(part);
            match element.name() {
                "dt" => {
                    for block in blocks {
                        terms.push(tidy::inline(&block.text, false));
                        marks.add(block.marks);
                    }
                }
                "dd" if terms.is_empty() => match items.last_mut() {
                    Some((_, last)) => last.extend(blocks),
                    None => items.push(("- ".to_owned(), blocks)),
                },
                "dd" => {
                    let mut item = defined(&std::mem::take(&mut terms), blocks);
                    item[0].marks.add(std::mem::take(&mut marks));
                    items.push(("- ".to_owned(), item));
                }
                _ => items.push(("- ".to_owned(), blocks)),
            }
        }
        for term in terms {
            let marks = std::mem::take(&mut marks);
            items.push(("- ".to_owned(), vec![Raw { marks, ..Raw::new(Kind::Paragraph, 0, term) }]));
        }
        items.retain(|(_, item)| !item.is_empty());
        flow.list(items);
    }

    fn table(&self, table: Node<'_>, flow: &mut Flow) {
        flow.flush();
        if self.weights.is_link_list(table) {
            return flow.links_left_out();
        }
        let grid = grid::read(table, &|cell| self.inside(cell));
        flow.blocks_of(grid);
    }
}

/// A term and what is said of it: on one line where the description begins with running text.
fn defined(terms: &[String], mut blocks: Vec<Raw>) -> Vec<Raw> {
    let term = terms.join(", ");
    let term = term.trim_end_matches([':', ' ']);
    match blocks.first_mut() {
        Some(first) if first.kind == Kind::Paragraph => first.text = format!("{term}: {}", first.text),
        Some(_) => blocks.insert(0, Raw::new(Kind::Paragraph, 0, format!("{term}:"))),
        None => blocks.push(Raw::new(Kind::Paragraph, 0, term)),
    }
    blocks
}

/// The name that an element gives itself.
fn anchor(element: &Element) -> Option<&str> {
    let named = || element.attr("name").filter(|_| element.name() == "a");
    element.attr("id").or_else(named).map(str::trim).filter(|name| !name.is_empty())
}

/// What a link leads to, its `%20` and the like decoded where that makes a name; nothing for scripts.
fn target(element: &Element) -> String {
    let target = element.attr("href").unwrap_or("").trim();
    if target.to_ascii_lowercase().starts_with("javascript:") || target == "#" {
        String::new()
    } else if target.contains("://") {
        target.to_owned()
    } else {
        percent_decoded(target)
    }
}

fn preformatted(node: Node<'_>, element: &Element, flow: &mut Flow) {
    flow.flush();
    let text = tidy::layout(&all_text(node));
    // Texinfo's `@display` and `@format`: prose with its own line breaks.
    let is_prose = element.classes().any(|class| matches!(class, "display" | "format" | "menu-comment"));
    flow.block(if is_prose { Kind::Paragraph } else { Kind::Code }, &text);
}

/// A superscript number that is a link: it would run into the word before it.
fn is_footnote_mark(sup: Node<'_>) -> bool {
    let is_link = |node: Node<'_>| node.element().is_some_and(|element| element.name() == "a");
    let linked = sup.parent().is_some_and(is_link) || sup.children().any(is_link);
    linked && all_text(sup).trim().chars().all(|char| char.is_ascii_digit() || "*†‡()[]".contains(char))
}

fn is_block(name: &str) -> bool {
    matches!(
        name,
        "html"
            | "body"
            | "main"
            | "div"
            | "p"
            | "section"
            | "article"
            | "header"
            | "footer"
            | "aside"
            | "address"
            | "blockquote"
            | "center"
            | "figure"
            | "figcaption"
            | "details"
            | "summary"
            | "fieldset"
            | "legend"
            | "form"
            | "hr"
            | "li"
            | "dt"
            | "dd"
            | "td"
            | "th"
            | "tr"
            | "tbody"
            | "thead"
            | "tfoot"
            | "caption"
            | "hgroup"
            | "dialog"
            | "search"
    )
}
