//! Mail to blocks: a message (RFC 5322, MIME) and a mailbox of them (mbox). The parsing is `mail_parser`'s.

use mail_parser::mailbox::mbox::MessageIterator;
use mail_parser::{Addr, Address, HeaderName, MessageParser, MimeHeaders, PartType};

use super::format::Format;
use super::reader::Unreadable;
use super::{html, text, tidy};
use crate::document::{Document, Kind, Raw};

/// A message, and what hangs on it: names and contents.
pub(super) struct Message {
    pub(super) document: Document,
    pub(super) attachments: Vec<(Option<String>, Vec<u8>)>,
}

/// The messages of a mailbox, as they were before `From ` lines were put between and `>` before some lines.
pub(super) fn messages(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    MessageIterator::new(bytes).map_while(Result::ok).map(mail_parser::mailbox::mbox::Message::unwrap_contents)
}

/// Reads a message: its subject is its title; who wrote it and when stand before the text.
pub(super) fn read(bytes: &[u8]) -> Result<Message, Unreadable> {
    let malformed = || Unreadable::malformed(Format::Mail, "it has no header fields");
    let message = parser().parse(bytes).ok_or_else(malformed)?;
    let title = message.subject().map(|subject| tidy::inline(subject, false)).filter(|subject| !subject.is_empty());
    let mut blocks = Vec::new();
    for part in message.text_bodies() {
        match &part.body {
            PartType::Html(page) => blocks.extend(html::blocks(page.as_bytes())?.1),
            PartType::Text(plain) => blocks.extend(text::blocks(plain)),
            _ => {}
        }
    }
    if !blocks.is_empty() {
        let mut head = Vec::new();
        let who = message.from().map(written).filter(|who| !who.is_empty());
        head.extend(who.map(|who| format!("From: {who}")));
        head.extend(message.date().map(|date| format!("Date: {}", date.to_rfc3339())));
        blocks.insert(0, Raw::new(Kind::Paragraph, 0, head.join("\n")));
        if let Some(subject) = &title {
            blocks.insert(0, Raw::new(Kind::Heading, 1, subject.clone()));
        }
    }
    let attachments = message.attachments().map(|part| {
        let name = part.attachment_name().map(|name| name.replace('\\', "/"));
        (name, part.contents().to_vec())
    });
    let attachments = attachments.collect();
    Ok(Message { document: Document::assemble(title, blocks), attachments })
}

/// Reads the fields that are used and no other: that of fields nobody asks for (`Received`) can fail on numbers.
fn parser() -> MessageParser {
    let parser = MessageParser::new().with_mime_headers().header_text(HeaderName::Subject);
    parser.header_address(HeaderName::From).header_date(HeaderName::Date)
}

fn written(address: &Address<'_>) -> String {
    let one = |addr: &Addr<'_>| match (addr.name(), addr.address()) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (name, address) => name.or(address).unwrap_or("").to_owned(),
    };
    tidy::inline(&address.iter().map(one).collect::<Vec<_>>().join(", "), false)
}
