//! A page's tree: all nodes in one list, each knowing its neighbours by their places in it.

use std::borrow::Cow;
use std::cell::{Ref, RefCell};

use html5ever::tendril::StrTendril;
use html5ever::tree_builder::{ElementFlags, NodeOrText, QuirksMode, TreeSink};
use html5ever::{Attribute, QualName};

/// The place of a node in the list.
type Id = u32;

/// Where a neighbour would be named and there is none.
const NONE: Id = Id::MAX;

/// The document node is the first.
const DOCUMENT: Id = 0;

/// A parsed page.
pub(super) struct Tree(Vec<Slot>);

struct Slot {
    value: Value,
    parent: Id,
    previous: Id,
    next: Id,
    first: Id,
    last: Id,
}

enum Value {
    Element(Element),
    Text(StrTendril),
    /// The document, a comment, a processing instruction.
    Other,
}

/// An element's name and attributes.
pub(super) struct Element {
    name: QualName,
    attrs: Vec<Attribute>,
}

impl Element {
    /// The name, in small letters, without the namespace.
    pub(super) fn name(&self) -> &str {
        &self.name.local
    }

    /// The attributes, as they stand in the source.
    pub(super) fn attrs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attrs.iter().map(|attr| (&*attr.name.local, &*attr.value))
    }

    /// An attribute's value.
    pub(super) fn attr(&self, name: &str) -> Option<&str> {
        self.attrs().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// The words of `class`.
    pub(super) fn classes(&self) -> impl Iterator<Item = &str> {
        self.attr("class").unwrap_or("").split_ascii_whitespace()
    }
}

/// A node of a tree.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    tree: &'a Tree,
    id: Id,
}

/// The beginning or the end of what a node holds.
pub(super) enum Edge<'a> {
    Open(Node<'a>),
    Close(Node<'a>),
}

impl<'a> Node<'a> {
    /// The place of the node among all of its tree's, below `Tree::len`.
    pub(super) fn index(self) -> usize {
        self.id as usize
    }

    pub(super) fn element(self) -> Option<&'a Element> {
        match &self.slot().value {
            Value::Element(element) => Some(element),
            _ => None,
        }
    }

    pub(super) fn text(self) -> Option<&'a str> {
        match &self.slot().value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn parent(self) -> Option<Self> {
        self.at(self.slot().parent)
    }

    /// From the parent to the document.
    pub(super) fn ancestors(self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.parent(), |node| node.parent())
    }

    pub(super) fn children(self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.at(self.slot().first), |node| node.at(node.slot().next))
    }

    /// The node and all below it, in the order of the page.
    pub(super) fn descendants(self) -> impl Iterator<Item = Self> {
        self.traverse().filter_map(|edge| match edge {
            Edge::Open(node) => Some(node),
            Edge::Close(_) => None,
        })
    }

    /// Into the node, through all below it, and out of it. Goes without recursion: a page may nest as deep as it likes.
    pub(super) fn traverse(self) -> impl Iterator<Item = Edge<'a>> {
        std::iter::successors(Some(Edge::Open(self)), move |edge| match edge {
            Edge::Open(node) => Some(node.at(node.slot().first).map_or(Edge::Close(*node), Edge::Open)),
            Edge::Close(node) if node.id == self.id => None,
            Edge::Close(node) => node.at(node.slot().next).map(Edge::Open).or_else(|| node.parent().map(Edge::Close)),
        })
    }

    fn slot(self) -> &'a Slot {
        &self.tree.0[self.id as usize]
    }

    fn at(self, id: Id) -> Option<Self> {
        (id != NONE).then_some(Self { tree: self.tree, id })
    }
}

impl Tree {
    pub(super) fn root(&self) -> Node<'_> {
        Node { tree: self, id: DOCUMENT }
    }

    /// How many nodes there are, those that stand nowhere in the tree among them.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What a parser fills, with room for a page of so many bytes: about a node to sixteen of them.
    pub(super) fn sink(bytes: usize) -> Sink {
        const MOST_AT_FIRST: usize = 1 << 16;
        let mut tree = Self(Vec::with_capacity((bytes / 16).min(MOST_AT_FIRST)));
        tree.add(Value::Other);
        Sink(RefCell::new(tree))
    }

    fn add(&mut self, value: Value) -> Id {
        let id = Id::try_from(self.0.len()).unwrap_or(NONE);
        assert_ne!(id, NONE, "a page of more than four thousand million nodes");
        self.0.push(Slot { value, parent: NONE, previous: NONE, next: NONE, first: NONE, last: NONE });
        id
    }

    fn slot(&mut self, id: Id) -> &mut Slot {
        &mut self.0[id as usize]
    }

    /// Takes a node, with all below it, out of its place.
    fn detach(&mut self, id: Id) {
        let slot = self.slot(id);
        let (parent, previous, next) = (slot.parent, slot.previous, slot.next);
        (slot.parent, slot.previous, slot.next) = (NONE, NONE, NONE);
        if parent == NONE {
            return;
        }
        match previous {
            NONE => self.slot(parent).first = next,
            _ => self.slot(previous).next = next,
        }
        match next {
            NONE => self.slot(parent).last = previous,
            _ => self.slot(next).previous = previous,
        }
    }

    /// Puts a node below `parent`, before its child `next`, or last where that is `NONE`.
    fn insert(&mut self, id: Id, parent: Id, next: Id) {
        self.detach(id);
        let previous = if next == NONE { self.slot(parent).last } else { self.slot(next).previous };
        let slot = self.slot(id);
        (slot.parent, slot.previous, slot.next) = (parent, previous, next);
        match previous {
            NONE => self.slot(parent).first = id,
            _ => self.slot(previous).next = id,
        }
        match next {
            NONE => self.slot(parent).last = id,
            _ => self.slot(next).previous = id,
        }
    }

    /// Puts a node or a text there; a text goes on in the one before it.
    fn insert_any(&mut self, child: NodeOrText<Id>, parent: Id, next: Id) {
        let id = match child {
            NodeOrText::AppendNode(id) => id,
            NodeOrText::AppendText(text) => {
                let before = if next == NONE { self.slot(parent).last } else { self.slot(next).previous };
                if before != NONE
                    && let Value::Text(begun) = &mut self.slot(before).value
                {
                    return begun.push_tendril(&text);
                }
                self.add(Value::Text(text))
            }
        };
        self.insert(id, parent, next);
    }
}

/// A tree that a parser fills.
pub(super) struct Sink(RefCell<Tree>);

impl TreeSink for Sink {
    type Handle = Id;
    type Output = Tree;
    type ElemName<'a> = Ref<'a, QualName>;

    fn finish(self) -> Tree {
        self.0.into_inner()
    }

    fn parse_error(&self, _: Cow<'static, str>) {}

    fn set_quirks_mode(&self, _: QuirksMode) {}

    fn get_document(&self) -> Id {
        DOCUMENT
    }

    fn elem_name<'a>(&'a self, target: &'a Id) -> Ref<'a, QualName> {
        Ref::map(self.0.borrow(), |tree| match &tree.0[*target as usize].value {
            Value::Element(element) => &element.name,
            _ => unreachable!("a tree builder asks elements for their names"),
        })
    }

    fn create_element(&self, name: QualName, attrs: Vec<Attribute>, _: ElementFlags) -> Id {
        self.0.borrow_mut().add(Value::Element(Element { name, attrs }))
    }

    fn create_comment(&self, _: StrTendril) -> Id {
        self.0.borrow_mut().add(Value::Other)
    }

    fn create_pi(&self, _: StrTendril, _: StrTendril) -> Id {
        self.0.borrow_mut().add(Value::Other)
    }

    fn append(&self, parent: &Id, child: NodeOrText<Id>) {
        self.0.borrow_mut().insert_any(child, *parent, NONE);
    }

    fn append_before_sibling(&self, sibling: &Id, new_node: NodeOrText<Id>) {
        let mut tree = self.0.borrow_mut();
        if let NodeOrText::AppendNode(id) = new_node {
            tree.detach(id);
        }
        let parent = tree.slot(*sibling).parent;
        if parent != NONE {
            tree.insert_any(new_node, parent, *sibling);
        }
    }

    fn append_based_on_parent_node(&self, element: &Id, prev_element: &Id, child: NodeOrText<Id>) {
        let has_parent = self.0.borrow_mut().slot(*element).parent != NONE;
        if has_parent { self.append_before_sibling(element, child) } else { self.append(prev_element, child) }
    }

    fn append_doctype_to_document(&self, _: StrTendril, _: StrTendril, _: StrTendril) {}

    /// A template holds its contents itself: nothing of it is read.
    fn get_template_contents(&self, target: &Id) -> Id {
        *target
    }

    fn same_node(&self, x: &Id, y: &Id) -> bool {
        x == y
    }

    fn add_attrs_if_missing(&self, target: &Id, attrs: Vec<Attribute>) {
        let mut tree = self.0.borrow_mut();
        let Value::Element(element) = &mut tree.slot(*target).value else { return };
        for attr in attrs {
            if element.attrs.iter().all(|own| own.name != attr.name) {
                element.attrs.push(attr);
            }
        }
    }

    fn remove_from_parent(&self, target: &Id) {
        self.0.borrow_mut().detach(*target);
    }

    fn reparent_children(&self, node: &Id, new_parent: &Id) {
        let mut tree = self.0.borrow_mut();
        loop {
            let first = tree.slot(*node).first;
            if first == NONE {
                break;
            }
            tree.insert(first, *new_parent, NONE);
        }
    }
}

#[cfg(test)]
impl Tree {
    /// The tree in words, a line a node.
    pub(super) fn outline(&self) -> String {
        let (mut lines, mut depth) = (Vec::new(), 0);
        for edge in self.root().traverse() {
            let Edge::Open(node) = edge else {
                depth -= 1;
                continue;
            };
            let what = match &node.slot().value {
                Value::Element(element) => {
                    let attrs: Vec<_> = element.attrs().collect();
                    format!("{} {} {attrs:?}", element.name.ns.rsplit('/').next().unwrap_or(""), element.name())
                }
                Value::Text(text) => format!("{:?}", &**text),
                Value::Other => "other".to_owned(),
            };
            lines.push(format!("{:depth$}{what}", ""));
            depth += 1;
        }
        lines.join("\n")
    }
}
