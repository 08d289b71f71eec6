//! From characters to a tree: the tokens of `html5gum` given to `html5ever`'s tree builder, which takes half the time of `html5ever` alone.

use std::convert::Infallible;

use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{Doctype, Tag, TagKind, Token, TokenSink, TokenSinkResult};
use html5ever::tree_builder::{TreeBuilder, TreeBuilderOpts, TreeSink};
use html5ever::{Attribute, LocalName, QualName, ns};
use html5gum::{Emitter, Error, State, Tokenizer};

/// An element keeps no more attributes. No page has so many; as each is held against those before it, a tag of a million would take hours.
const MOST_ATTRS: usize = 1 << 10;

/// Parses a page into a sink, as `html5ever::parse_document` does.
pub(super) fn parse<S: TreeSink>(text: &str, sink: S) -> S::Output {
    let builder = TreeBuilder::new(sink, TreeBuilderOpts::default());
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Ok(()) = Tokenizer::new_with_emitter(text, Bridge::to(&builder)).finish();
    builder.sink.finish()
}

/// Puts tokens together out of the pieces in which the tokenizer gives them.
struct Bridge<'a, S> {
    builder: &'a S,
    /// Text since the last token. All bytes are of UTF-8 once a token is whole.
    text: Vec<u8>,
    tag: Vec<u8>,
    is_end: bool,
    is_self_closing: bool,
    attrs: Vec<Attribute>,
    /// Whether an attribute is being read, its name, its value.
    in_attribute: bool,
    attribute: Vec<u8>,
    value: Vec<u8>,
    /// The name of the last start tag: what ends a `<title>` or a `<script>`.
    last_start: Vec<u8>,
    comment: Vec<u8>,
    doctype: Declared,
}

#[derive(Default)]
struct Declared {
    name: Vec<u8>,
    public: Option<Vec<u8>>,
    system: Option<Vec<u8>>,
    force_quirks: bool,
}

fn utf8(bytes: &[u8]) -> &str {
    // The text was a `str`, and is cut at signs of ASCII only.
    std::str::from_utf8(bytes).unwrap_or("\u{fffd}")
}

impl<'a, S: TokenSink> Bridge<'a, S> {
    fn to(builder: &'a S) -> Self {
        Self {
            builder,
            text: Vec::new(),
            tag: Vec::new(),
            is_end: false,
            is_self_closing: false,
            attrs: Vec::new(),
            in_attribute: false,
            attribute: Vec::new(),
            value: Vec::new(),
            last_start: Vec::new(),
            comment: Vec::new(),
            doctype: Declared::default(),
        }
    }

    /// Gives a token to the tree builder; the state that it asks for.
    fn give(&self, token: Token) -> Option<State> {
        // Errors, which line numbers are for, are not looked at.
        match self.builder.process_token(token, 1) {
            TokenSinkResult::Plaintext => Some(State::PlainText),
            TokenSinkResult::RawData(RawKind::Rcdata) => Some(State::RcData),
            TokenSinkResult::RawData(RawKind::Rawtext) => Some(State::RawText),
            // A tree builder never begins inside an escaped script.
            TokenSinkResult::RawData(RawKind::ScriptData | RawKind::ScriptDataEscaped(_)) => Some(State::ScriptData),
            TokenSinkResult::Continue | TokenSinkResult::Script(_) | TokenSinkResult::EncodingIndicator(_) => None,
        }
    }

    fn give_text(&mut self) {
        let mut pieces = self.text.split(|byte| *byte == 0);
        let mut piece = pieces.next();
        while let Some(text) = piece {
            if !text.is_empty() {
                self.give(Token::CharacterTokens(utf8(text).into()));
            }
            piece = pieces.next();
            if piece.is_some() {
                self.give(Token::NullCharacterToken);
            }
        }
        self.text.clear();
    }

    fn begin_tag(&mut self, is_end: bool) {
        self.tag.clear();
        self.is_end = is_end;
        self.is_self_closing = false;
        self.attrs.clear();
        self.in_attribute = false;
        self.attribute.clear();
        self.value.clear();
    }

    /// An element keeps the first of two attributes of one name, an end tag none.
    fn end_attribute(&mut self) {
        if std::mem::take(&mut self.in_attribute) && !self.is_end && self.attrs.len() < MOST_ATTRS {
            let local = LocalName::from(utf8(&self.attribute));
            if self.attrs.iter().all(|attr| attr.name.local != local) {
                let name = QualName::new(None, ns!(), local);
                self.attrs.push(Attribute { name, value: utf8(&self.value).into() });
            }
        }
        self.attribute.clear();
        self.value.clear();
    }
}

impl<S: TokenSink> Emitter for Bridge<'_, S> {
    /// Tokens go to the tree builder, none to the caller.
    type Token = Infallible;

    fn pop_token(&mut self) -> Option<Infallible> {
        None
    }

    fn should_emit_errors(&mut self) -> bool {
        false
    }

    fn emit_error(&mut self, _: Error) {}

    fn emit_eof(&mut self) {
        self.give_text();
        self.give(Token::EOFToken);
        self.builder.end();
    }

    fn emit_string(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
    }

    fn init_start_tag(&mut self) {
        self.begin_tag(false);
    }

    fn init_end_tag(&mut self) {
        self.begin_tag(true);
    }

    fn push_tag_name(&mut self, name: &[u8]) {
        self.tag.extend_from_slice(name);
    }

    fn set_self_closing(&mut self) {
        self.is_self_closing = true;
    }

    fn init_attribute(&mut self) {
        self.end_attribute();
        self.in_attribute = true;
    }

    fn push_attribute_name(&mut self, name: &[u8]) {
        self.attribute.extend_from_slice(name);
    }

    fn push_attribute_value(&mut self, value: &[u8]) {
        self.value.extend_from_slice(value);
    }

    fn emit_current_tag(&mut self) -> Option<State> {
        self.end_attribute();
        self.give_text();
        let kind = if self.is_end { TagKind::EndTag } else { TagKind::StartTag };
        if kind == TagKind::StartTag {
            self.last_start.clone_from(&self.tag);
        }
        let attrs = std::mem::take(&mut self.attrs);
        let (name, self_closing) = (utf8(&self.tag).into(), self.is_self_closing);
        self.give(Token::TagToken(Tag { kind, name, self_closing, attrs, had_duplicate_attributes: false }))
    }

    fn set_last_start_tag(&mut self, name: Option<&[u8]>) {
        self.last_start.clear();
        self.last_start.extend_from_slice(name.unwrap_or_default());
    }

    fn current_is_appropriate_end_tag_token(&mut self) -> bool {
        self.is_end && !self.last_start.is_empty() && self.last_start == self.tag
    }

    fn adjusted_current_node_present_but_not_in_html_namespace(&mut self) -> bool {
        self.builder.adjusted_current_node_present_but_not_in_html_namespace()
    }

    fn init_comment(&mut self) {
        self.comment.clear();
    }

    fn push_comment(&mut self, text: &[u8]) {
        self.comment.extend_from_slice(text);
    }

    fn emit_current_comment(&mut self) {
        self.give_text();
        self.give(Token::CommentToken(utf8(&self.comment).into()));
    }

    fn init_doctype(&mut self) {
        self.doctype = Declared::default();
    }

    fn push_doctype_name(&mut self, name: &[u8]) {
        self.doctype.name.extend_from_slice(name);
    }

    fn set_doctype_public_identifier(&mut self, id: &[u8]) {
        self.doctype.public = Some(id.to_vec());
    }

    fn push_doctype_public_identifier(&mut self, id: &[u8]) {
        self.doctype.public.get_or_insert_default().extend_from_slice(id);
    }

    fn set_doctype_system_identifier(&mut self, id: &[u8]) {
        self.doctype.system = Some(id.to_vec());
    }

    fn push_doctype_system_identifier(&mut self, id: &[u8]) {
        self.doctype.system.get_or_insert_default().extend_from_slice(id);
    }

    fn set_force_quirks(&mut self) {
        self.doctype.force_quirks = true;
    }

    fn emit_current_doctype(&mut self) {
        self.give_text();
        let Declared { name, public, system, force_quirks } = std::mem::take(&mut self.doctype);
        let owned = |bytes: Vec<u8>| StrTendril::from(utf8(&bytes));
        self.give(Token::DoctypeToken(Doctype {
            name: (!name.is_empty()).then(|| owned(name)),
            public_id: public.map(owned),
            system_id: system.map(owned),
            force_quirks,
        }));
    }
}

#[cfg(test)]
mod tests {
    use html5ever::ParseOpts;
    use html5ever::tendril::TendrilSink;

    use super::super::tree::Tree;
    use super::*;
    use crate::extract::tests::fuzz::{Draw, setting};

    /// Pieces of pages, right and wrong, that lead a tokenizer from state to state.
    const PIECES: &[&str] = &[
        "<",
        ">",
        "</",
        "/>",
        "<!",
        "<!--",
        "-->",
        "--!>",
        "<!-->",
        "<?",
        "<![CDATA[",
        "]]>",
        "=",
        "\"",
        "'",
        "`",
        " ",
        "\n",
        "\r",
        "\r\n",
        "\t",
        "\0",
        "&",
        "&amp",
        "&amp;",
        "&notit;",
        "&not",
        "&#65;",
        "&#x41",
        "&#0;",
        "&#xD800;",
        "&#128;",
        "&#x110000;",
        "&lt;p&gt;",
        "ä",
        "\u{10ffff}",
        "a",
        "Text",
        "<p>",
        "</p>",
        "<P CLASS=x id='y' id=z>",
        "<a href=\"?a=1&b=2&copy=3&amp;d\">",
        "</a>",
        "<b>",
        "</b>",
        "<i>",
        "</i>",
        "<br/>",
        "<p/>",
        "<div>",
        "</div>",
        "<table>",
        "<tr>",
        "<td>",
        "</table>",
        "<ul>",
        "<li>",
        "</ul>",
        "<pre>\n",
        "</pre>",
        "<title>",
        "</title>",
        "<TITLE>",
        "</title ",
        "<textarea>",
        "</textarea>",
        "<script>",
        "</script>",
        "<!--<script>",
        "</script/>",
        "<style>",
        "</style>",
        "<svg>",
        "<math>",
        "<foreignObject>",
        "</svg>",
        "<plaintext>",
        "<select>",
        "<option>",
        "<template>",
        "</template>",
        "<noscript>",
        "<iframe>",
        "</iframe>",
        "<form>",
        "<input type=hidden>",
        "<h1>",
        "</h2>",
        "<frameset>",
        "<body>",
        "</body>",
        "</html>",
        "<head>",
        "<!DOCTYPE html>",
        "<!doctype",
        "<!DOCTYPE html PUBLIC \"-//W3C//DTD HTML 3.2//EN\" 'x'>",
        "<!DOCTYPE a SYSTEM>",
        " public ",
        " system ",
        "</ x>",
        "</p a=b>",
        "<a b=c/d e>",
        "<a =b>",
        "<a b='c'd>",
        "<x:y z:w=1>",
    ];

    fn by_html5ever(text: &str) -> Tree {
        html5ever::parse_document(Tree::sink(text.len()), ParseOpts::default()).one(text)
    }

    fn here(text: &str) -> Tree {
        parse(text, Tree::sink(text.len()))
    }

    #[test]
    fn a_tag_of_very_many_attributes_keeps_the_first() {
        let attrs: String = (0..100_000).map(|at| ["a", &at.to_string(), " "].concat()).collect();
        let page = here(&["<p ", &attrs, ">text"].concat());
        let element = page.root().descendants().find_map(|node| node.element().filter(|element| element.name() == "p"));
        assert_eq!(element.unwrap().attrs().count(), MOST_ATTRS);
    }

    /// `RETORT_EXTRACT_CASES=20000 cargo test --workspace --lib html::tokens` looks longer.
    #[test]
    fn a_page_is_the_tree_that_html5ever_makes_of_it() {
        let whole = String::from_utf8_lossy(include_bytes!("../../../testdata/manual.html"));
        assert_eq!(here(&whole).outline(), by_html5ever(&whole).outline());
        for page in [
            // In a page of before the standard a table stands in the paragraph, else after it.
            "<!DOCTYPE html PUBLIC '-//W3C//DTD HTML 3.2//EN' 'x'><p>a<table><tr><td>b</table>",
            "<!DOCTYPE html PUBLIC '-//W3C//DTD HTML 4.01 Transitional//EN'><p>a<table><tr><td>b</table>",
            "<!DOCTYPE html PUBLIC '-//W3C//DTD HTML 4.01 Transitional//EN' 'x'><p>a<table><tr><td>b</table>",
            "<!DOCTYPE html SYSTEM 'about:legacy-compat'><p>a<table><tr><td>b</table>",
            "\u{feff}<!DOCTYPE html><p>a<table><tr><td>b</table>",
            "<p>a<table><tr><td>b</table>",
        ] {
            assert_eq!(here(page).outline(), by_html5ever(page).outline(), "{page}");
        }
        let mut draw = Draw(1);
        for case in 0..20 * setting("RETORT_EXTRACT_CASES", 200) {
            let pieces = 1 + draw.below(24);
            let text: String = (0..pieces).map(|_| PIECES[draw.below(PIECES.len())]).collect();
            assert_eq!(here(&text).outline(), by_html5ever(&text).outline(), "case {case}: {text:?}");
        }
    }
}
