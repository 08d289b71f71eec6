//! The text of a pipeline as it is laid out: its keys, values and comments, each as a piece of the text.
//!
//! The parser's events say what comes next; this walks the text beside them and picks up what they leave out: comments, blank
//! lines, anchors, how a text is quoted. A text in which the two do not meet is not laid out anew.

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::pieces::{Item, Items, Layout, Line, Shape};

/// Takes a text apart that has been read as YAML; `None` where it is written in a way that this does not follow.
pub(super) fn read(text: &str) -> Option<Layout<'_>> {
    let bytes = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).chain([text.len()]).collect());
    let mut reader = Reader { text, bytes, at: 0, events: Parser::new_from_str(text), lines: Vec::new() };
    reader.document()
}

struct Reader<'a> {
    text: &'a str,
    /// The byte of each character; `None` where all are single bytes.
    bytes: Option<Vec<usize>>,
    /// The text up to here is taken.
    at: usize,
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// Lines that were passed and belong to what comes next.
    lines: Vec<Line<'a>>,
}

/// An event without what is of no use here.
#[derive(Clone, Copy)]
enum Seen {
    Empty { props: usize },
    Text { props: usize, style: ScalarStyle, end: usize },
    Begin { props: usize, is_map: bool },
    End,
    Start(bool),
    Other,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<Seen> {
        let (event, span) = self.events.next()?.ok()?;
        let end = match &self.bytes {
            Some(bytes) => *bytes.get(span.end.index())?,
            None => span.end.index(),
        };
        let props = |anchor: usize, tag: bool| usize::from(anchor != 0) + usize::from(tag);
        Some(match event {
            Event::Scalar(text, ScalarStyle::Plain, anchor, tag) if text.is_empty() => {
                Seen::Empty { props: props(anchor, tag.is_some()) }
            }
            Event::Scalar(_, style, anchor, tag) => Seen::Text { props: props(anchor, tag.is_some()), style, end },
            Event::Alias(_) => Seen::Text { props: 0, style: ScalarStyle::Plain, end },
            Event::SequenceStart(anchor, tag) => Seen::Begin { props: props(anchor, tag.is_some()), is_map: false },
            Event::MappingStart(anchor, tag) => Seen::Begin { props: props(anchor, tag.is_some()), is_map: true },
            Event::SequenceEnd | Event::MappingEnd => Seen::End,
            Event::DocumentStart(explicit) => Seen::Start(explicit),
            Event::DocumentEnd | Event::StreamStart | Event::StreamEnd | Event::Nothing => Seen::Other,
        })
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Goes past a mark that must stand here.
    fn pass(&mut self, mark: &str) -> Option<()> {
        self.rest().starts_with(mark).then(|| self.at += mark.len())
    }

    /// The column of a byte.
    fn column(&self, at: usize) -> usize {
        self.text[self.text[..at].rfind('\n').map_or(0, |line| line + 1)..at].chars().count()
    }

    fn document(&mut self) -> Option<Layout<'a>> {
        let explicit = loop {
            match self.next()? {
                Seen::Start(explicit) => break explicit,
                Seen::Other => {}
                _ => return None,
            }
        };
        self.skip();
        let mut head = None;
        if explicit {
            head = Some(std::mem::take(&mut self.lines));
            self.pass("---")?;
        }
        let mut root = Item::default();
        let seen = self.next()?;
        self.value(seen, None, &mut root)?;
        self.skip();
        if self.rest().starts_with("...") {
            self.at += 3;
            self.skip();
        }
        let end = std::mem::take(&mut self.lines);
        self.rest().is_empty().then_some(Layout { head, root, end })
    }

    /// Goes past white space and comments, which become lines of what comes next.
    fn skip(&mut self) {
        while let Some(c) = self.rest().chars().next() {
            match c {
                '\n' => {
                    let is_blank = self.text[..self.at].ends_with('\n') || self.at == 0;
                    if is_blank && self.lines.last() != Some(&Line::Blank) {
                        self.lines.push(Line::Blank);
                    }
                    self.at += 1;
                }
                ' ' | '\t' => {
                    let blanks = self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
                    let line_begins = self.at == 0 || self.text[..self.at].ends_with('\n');
                    self.at += blanks;
                    if line_begins && self.rest().starts_with('\n') {
                        if self.lines.last() != Some(&Line::Blank) {
                            self.lines.push(Line::Blank);
                        }
                        self.at += 1;
                    }
                }
                '#' if self.at == 0 || self.text[..self.at].ends_with([' ', '\t', '\n']) => {
                    let comment = self.comment();
                    self.lines.push(Line::Comment(comment));
                }
                _ => break,
            }
        }
    }

    /// The comment that begins here; its line ends with it.
    fn comment(&mut self) -> &'a str {
        let comment = self.rest().split('\n').next().unwrap_or_default();
        self.at += comment.len();
        if self.rest().starts_with('\n') {
            self.at += 1;
        }
        comment.trim_end()
    }

    /// The comment on the rest of this line belongs to the item. Of several, the earlier ones go before it.
    fn trailing(&mut self, item: &mut Item<'a>) {
        let blanks = self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
        if blanks == 0 || !self.rest()[blanks..].starts_with('#') {
            return;
        }
        let distance = if self.rest()[..blanks].contains('\t') { 1 } else { blanks };
        self.at += blanks;
        let comment = self.comment();
        if let Some((_, earlier)) = item.after.replace((distance, comment)) {
            item.before.push(Line::Comment(earlier));
        }
    }

    /// Reads the value of `item`, which the event begins. `column` is that of the list or map around it, if that is no flow.
    fn value(&mut self, seen: Seen, column: Option<usize>, item: &mut Item<'a>) -> Option<()> {
        match seen {
            Seen::Empty { props } => self.props(props, item)?,
            Seen::Text { props, style, end } => {
                self.props(props, item)?;
                self.skip();
                item.before.append(&mut self.lines);
                if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
                    return self.block(column?, item);
                }
                let text = self.text.get(self.at..end)?.trim_end();
                self.at += text.len();
                item.value.shape = Shape::Text(text);
            }
            Seen::Begin { props, is_map } => {
                self.props(props, item)?;
                self.trailing(item);
                self.skip();
                let open = if is_map { '{' } else { '[' };
                let items = if self.rest().starts_with(open) {
                    item.before.append(&mut self.lines);
                    self.flow(is_map, item)?
                } else {
                    self.items(is_map, column)?
                };
                item.value.shape = Shape::Items(items);
                return Some(());
            }
            Seen::End | Seen::Start(_) | Seen::Other => return None,
        }
        self.trailing(item);
        Some(())
    }

    /// Anchor and tag.
    fn props(&mut self, n: usize, item: &mut Item<'a>) -> Option<()> {
        for _ in 0..n {
            self.skip();
            item.before.append(&mut self.lines);
            let end = self.rest().find([' ', '\t', '\n', ',', '[', ']', '{', '}']).unwrap_or(self.rest().len());
            let prop = &self.rest()[..end];
            if !prop.starts_with(['&', '!']) {
                return None;
            }
            self.at += end;
            item.value.props.push(prop);
        }
        Some(())
    }

    /// A text below `|` or `>`.
    fn block(&mut self, column: usize, item: &mut Item<'a>) -> Option<()> {
        let end = self.rest().find([' ', '\t', '\n']).unwrap_or(self.rest().len());
        let header = &self.rest()[..end];
        self.at += end;
        self.trailing(item);
        // `trailing` takes the line's end along with a comment.
        if !self.text[..self.at].ends_with('\n') {
            let line = self.rest().split('\n').next().unwrap_or_default();
            if !line.trim().is_empty() {
                return None;
            }
            self.at = (self.at + line.len() + 1).min(self.text.len());
        }
        let digit = header.bytes().find(u8::is_ascii_digit).map(|digit| usize::from(digit - b'0'));
        let spaces = |line: &str| line.len() - line.trim_start_matches(' ').len();
        let written: Vec<&str> = self.rest().split('\n').collect();
        let first = written.iter().find(|line| !line.trim_matches(' ').is_empty());
        let indent = digit.map_or_else(|| first.map_or(0, |line| spaces(line)), |digit| column + digit);
        // A text that is less far in than what holds it is what comes next: this one is empty.
        let indent = indent.max(column + 1);
        let is_blank = |line: &&&str| line.len() <= indent && line.trim_matches(' ').is_empty();
        let mut taken = written.iter().take_while(|line| is_blank(line) || spaces(line) >= indent).count();
        // What the text ends with is no line.
        taken = taken.min(written.len() - 1 + usize::from(!written.last()?.is_empty()));
        if !header.contains('+') {
            taken -= written[..taken].iter().rev().take_while(|line| is_blank(line)).count();
        }
        let lines = written[..taken].iter().map(|line| line.get(indent..).unwrap_or_default()).collect();
        let length: usize = written[..taken].iter().map(|line| line.len() + 1).sum();
        self.at = (self.at + length).min(self.text.len());
        item.value.shape = Shape::Block { header, lines, digit };
        Some(())
    }

    /// A list of dashes, or a map without braces.
    fn items(&mut self, is_map: bool, outer: Option<usize>) -> Option<Items<'a>> {
        let column = self.column(self.at);
        let mut items = Items { is_map, flow: false, list: Vec::new(), tail: Vec::new() };
        loop {
            let seen = self.next()?;
            if matches!(seen, Seen::End) {
                break;
            }
            self.skip();
            let mut item = Item { before: std::mem::take(&mut self.lines), ..Item::default() };
            if is_map {
                let seen = self.key(seen, &mut item)?;
                self.value(seen, Some(column), &mut item)?;
            } else {
                self.pass("-")?;
                self.trailing(&mut item);
                self.value(seen, Some(column), &mut item)?;
            }
            items.list.push(item);
        }
        items.tail = self.tail(outer.map_or(0, |outer| outer + 1));
        Some(items)
    }

    /// A key with its colon; gives the event of the value.
    fn key(&mut self, seen: Seen, item: &mut Item<'a>) -> Option<Seen> {
        let explicit = self.rest().starts_with("? ") || self.rest().starts_with("?\n");
        if explicit {
            self.at += 1;
        }
        let mut key = Item::default();
        self.value(seen, None, &mut key)?;
        let Shape::Text(text) = key.value.shape else { return None };
        self.skip();
        item.before.append(&mut key.before);
        item.before.extend(key.after.map(|(_, comment)| Line::Comment(comment)));
        if text.contains('\n') {
            return None;
        }
        let words = key.value.props.iter().copied().chain([text]).collect::<Vec<_>>().join(" ");
        // An anchor's name may have a colon in it.
        item.key = Some(if text.starts_with('*') { words + " " } else { words });
        let value = self.next()?;
        if self.rest().starts_with(':') {
            item.before.append(&mut self.lines);
            self.at += 1;
            self.trailing(item);
        } else if !matches!(value, Seen::Empty { props: 0 }) {
            return None;
        }
        Some(value)
    }

    /// A list in brackets or a map in braces.
    fn flow(&mut self, is_map: bool, outer: &mut Item<'a>) -> Option<Items<'a>> {
        self.at += 1;
        self.trailing(outer);
        let mut items = Items { is_map, flow: true, list: Vec::new(), tail: Vec::new() };
        loop {
            let seen = self.next()?;
            self.skip();
            if matches!(seen, Seen::End) {
                break;
            }
            let mut item = Item { before: std::mem::take(&mut self.lines), ..Item::default() };
            if is_map {
                let seen = self.key(seen, &mut item)?;
                self.value(seen, None, &mut item)?;
            } else {
                self.flow_item(seen, &mut item)?;
            }
            self.skip();
            if self.rest().starts_with(',') {
                item.before.append(&mut self.lines);
                self.at += 1;
                self.trailing(&mut item);
            }
            items.list.push(item);
        }
        let tail = std::mem::take(&mut self.lines);
        if items.list.is_empty() {
            outer.before.extend(tail);
        } else {
            items.tail = tail;
        }
        self.pass(if is_map { "}" } else { "]" })?;
        self.trailing(outer);
        Some(items)
    }

    /// An item in brackets; `[a: 1]` is a list of a map.
    fn flow_item(&mut self, seen: Seen, item: &mut Item<'a>) -> Option<()> {
        let Seen::Begin { props: 0, is_map: true } = seen else { return self.value(seen, None, item) };
        if self.rest().starts_with('{') {
            return self.value(seen, None, item);
        }
        let mut entry = Item::default();
        let key = self.next()?;
        let value = self.key(key, &mut entry)?;
        self.value(value, None, &mut entry)?;
        let Seen::End = self.next()? else { return None };
        item.value.shape = Shape::Items(Items { is_map: true, flow: true, list: vec![entry], tail: Vec::new() });
        Some(())
    }

    /// The comments after the last item that stand further in than what comes next, and at least so far.
    fn tail(&mut self, least: usize) -> Vec<Line<'a>> {
        let begun = self.at;
        self.skip();
        let next = if self.rest().is_empty() { 0 } else { self.column(self.at) + 1 };
        self.lines.clear();
        let (mut tail, mut blank) = (Vec::new(), false);
        let mut at = begun;
        for line in self.text[begun..self.at].split_inclusive('\n') {
            let bare = line.trim_start_matches([' ', '\t']);
            let is_whole = at == 0 || self.text[..at].ends_with('\n');
            if bare.starts_with('#') && is_whole && line.len() - bare.len() < least.max(next) {
                break;
            }
            at += line.len();
            if bare.starts_with('#') {
                tail.extend(blank.then_some(Line::Blank));
                tail.push(Line::Comment(bare.trim_end()));
                (self.at, blank) = (at, false);
            } else {
                blank |= is_whole;
            }
        }
        if tail.is_empty() {
            self.at = begun;
        }
        tail
    }
}
