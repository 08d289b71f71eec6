//! Text on its way to blocks: runs of inline text become paragraphs, lines of navigation vanish, lists are put together.

use super::chrome;
use crate::document::links::Marks;
use crate::document::{Kind, Raw};
use crate::extract::tidy;

/// The blocks so far, and the text of the one that is open.
#[derive(Default)]
pub(super) struct Flow {
    blocks: Vec<Raw>,
    /// Inline text since the last block; `\n\0` is a line break that was asked for.
    line: String,
    /// The part of `line` that is outside links, and the part inside.
    bare: String,
    linked: String,
    links: usize,
    /// A link of `line` stands among words, not apart as in a bar.
    in_words: bool,
    /// Where in `line` the words of each open link begin, and its target.
    links_open: Vec<(usize, String)>,
    /// Anchors and links that the next block takes.
    marks: Marks,
    /// Navigation was left out since the last block.
    left_out: bool,
    /// How many blocks stand above the last rule.
    ruled: Option<usize>,
    /// The last block is a bar of links, with words beside it.
    ends_in_bar: bool,
}

impl Flow {
    /// Inline text, as it stands in the source; a line break that counts is followed by NUL.
    pub(super) fn text(&mut self, text: &str) {
        self.line.push_str(text);
        if self.links_open.is_empty() { &mut self.bare } else { &mut self.linked }.push_str(text);
    }

    pub(super) fn open_link(&mut self, target: String) {
        self.links += 1;
        self.in_words |= !chrome::is_apart(&self.line);
        self.links_open.push((self.line.len(), target));
        self.linked.push(' ');
    }

    pub(super) fn close_link(&mut self) {
        let Some((start, target)) = self.links_open.pop() else { return };
        if !target.is_empty() {
            let label = self.line.get(start..).unwrap_or("").replace('\0', "");
            self.marks.links.push((label, target));
        }
    }

    /// A name that leads to what comes next.
    pub(super) fn anchor(&mut self, name: &str) {
        self.marks.anchors.push(name.to_owned());
    }

    /// Ends the open paragraph; a line of navigation is left out.
    pub(super) fn flush(&mut self) {
        let line = std::mem::take(&mut self.line);
        let bare = std::mem::take(&mut self.bare);
        let linked = std::mem::take(&mut self.linked);
        let links = std::mem::take(&mut self.links);
        let in_words = std::mem::take(&mut self.in_words);
        self.links_open.iter_mut().for_each(|(start, _)| *start = 0);
        let text = broken_lines(&line);
        if text.is_empty() {
            return;
        }
        let under_heading = self.blocks.last().is_some_and(|last| last.kind == Kind::Heading);
        let named = under_heading && chrome::is_enumeration(&bare, links);
        if !named && chrome::is_navigation(&bare, &linked, links) {
            self.marks.links.clear();
            return self.left_out();
        }
        self.block(Kind::Paragraph, &text);
        self.ends_in_bar = links > 1 && !in_words && chrome::is_short(&text);
    }

    /// A rule across the page.
    pub(super) fn rule(&mut self) {
        self.ruled = Some(self.blocks.len());
    }

    /// Adds a block, which takes the anchors and links that wait for one.
    fn push(&mut self, mut block: Raw) {
        let mut marks = std::mem::take(&mut self.marks);
        marks.add(std::mem::take(&mut block.marks));
        block.marks = marks;
        self.ends_in_bar = false;
        self.blocks.push(block);
    }

    /// A finished block; nothing if its text is empty.
    pub(super) fn block(&mut self, kind: Kind, text: &str) {
        if !text.trim().is_empty() {
            self.left_out = false;
            self.push(Raw::new(kind, 0, text));
        }
    }

    /// A heading. The heading before it goes, if all that it stood over was navigation.
    pub(super) fn heading(&mut self, level: u8, text: &str, marks: Marks) {
        self.drop_emptied(level);
        self.push(Raw { marks, ..Raw::new(Kind::Heading, level, text) });
    }

    /// Notes that navigation stood here.
    pub(super) fn left_out(&mut self) {
        self.left_out = true;
    }

    /// Notes that a list of links stood here; a label before it (`Method summary`) goes with it.
    pub(super) fn links_left_out(&mut self) {
        let is_label = |block: &Raw| {
            let short = block.text.lines().all(|line| line.chars().count() <= 40) && block.text.lines().count() <= 2;
            block.kind == Kind::Paragraph && short && !block.text.ends_with(['.', '!', '?'])
        };
        if self.blocks.last().is_some_and(is_label) {
            self.blocks.pop();
        }
        self.left_out();
    }

    fn drop_emptied(&mut self, level: u8) {
        let emptied =
            self.left_out && self.blocks.last().is_some_and(|last| last.kind == Kind::Heading && last.level >= level);
        if emptied && let Some(heading) = self.blocks.pop() {
            self.marks.anchors.extend(heading.marks.anchors);
        }
        self.left_out = false;
    }

    /// Blocks read elsewhere.
    pub(super) fn blocks_of(&mut self, blocks: Vec<Raw>) {
        for block in blocks {
            if block.kind == Kind::Heading {
                self.heading(block.level, &block.text, block.marks);
            } else {
                self.left_out = false;
                self.push(block);
            }
        }
    }

    /// A list of (marker, blocks). One that holds headings was there for layout, and is opened up.
    pub(super) fn list(&mut self, items: Vec<(String, Vec<Raw>)>) {
        let blocks = || items.iter().flat_map(|(_, blocks)| blocks);
        if blocks().any(|block| block.kind == Kind::Heading) {
            return self.blocks_of(items.into_iter().flat_map(|(_, blocks)| blocks).collect());
        }
        let depth = blocks().filter(|block| block.kind == Kind::List).map(|block| block.level).max().unwrap_or(0);
        let text: Vec<String> = items.iter().map(|(marker, blocks)| tidy::list_item(marker, blocks)).collect();
        let text = text.join("\n");
        if !text.is_empty() {
            self.left_out = false;
            let mut marks = Marks::default();
            items.into_iter().flat_map(|(_, blocks)| blocks).for_each(|block| marks.add(block.marks));
            self.push(Raw { marks, ..Raw::new(Kind::List, depth.saturating_add(1), text) });
        }
    }

    /// Everything, with the last paragraph even if it is only links: the inside of an item, a cell, a heading.
    pub(super) fn everything(mut self) -> Vec<Raw> {
        let text = broken_lines(&std::mem::take(&mut self.line));
        self.block(Kind::Paragraph, &text);
        self.with_last_marks()
    }

    /// Everything of a page. A bar below its last rule is its foot, whatever it says beside the links.
    pub(super) fn finish(mut self) -> Vec<Raw> {
        self.flush();
        if self.ends_in_bar && self.ruled == Some(self.blocks.len() - 1) {
            let foot = self.blocks.pop().expect("a bar is a block");
            self.marks.anchors.extend(foot.marks.anchors);
            self.left_out();
        }
        self.drop_emptied(0);
        self.with_last_marks()
    }

    /// Anchors after the last block lead to it.
    fn with_last_marks(mut self) -> Vec<Raw> {
        if let Some(last) = self.blocks.last_mut() {
            last.marks.add(self.marks);
        }
        self.blocks
    }
}

/// Source text to a paragraph: white space collapsed, the line breaks that were asked for kept.
fn broken_lines(line: &str) -> String {
    let lines = line.split("\n\u{0}").map(|part| tidy::inline(part, false));
    lines.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}
