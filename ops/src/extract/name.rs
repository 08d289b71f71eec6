//! What a document is called: its stable id, and the words that say what it is about.

/// The id of the document at `path`: 16 hexadecimal digits of its BLAKE3 digest. It stays when the content changes.
pub(super) fn doc_id(path: &str) -> String {
    blake3::hash(path.as_bytes()).to_hex()[..16].to_owned()
}

/// What a document is about, in a few words: its title; if that says nothing, its first heading; if that says nothing either, its file
/// name; and at last the folders it lies in.
pub(super) fn context(path: &str, title: Option<&str>, heading: Option<&str>) -> String {
    // Texinfo puts the name of the whole after that of the page, even where it has none.
    let title = title.map(|title| title.trim().trim_end_matches("(Untitled Document)").trim_end());
    if let Some(said) = [title, heading].into_iter().flatten().find(|said| says_something(said)) {
        return said.to_owned();
    }
    let mut parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
    let name = parts.pop().unwrap_or(path);
    let stem = words(name.rsplit_once('.').map_or(name, |(stem, _)| stem));
    if says_something(&stem) {
        return stem;
    }
    // `English.lproj` and its like hold the words of a language and say nothing themselves.
    let folders: Vec<String> =
        parts.iter().filter(|part| super::format::extension(part) != "lproj").map(|part| words(part)).collect();
    if folders.is_empty() { stem } else { folders.join(" / ") }
}

/// Separators to blanks.
fn words(name: &str) -> String {
    let spaced: String = name.chars().map(|char| if matches!(char, '_' | '-' | '+') { ' ' } else { char }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a name is more than a word for "a document".
fn says_something(name: &str) -> bool {
    const NOTHING: &[&str] = &[
        "",
        "cover",
        "contents",
        "content",
        "default",
        "document",
        "file",
        "help",
        "home",
        "index",
        "introduction",
        "main",
        "new document",
        "no title",
        "overview",
        "page",
        "preface",
        "readme",
        "start",
        "table of contents",
        "test",
        "text",
        "title",
        "toc",
        "top",
        "txt",
        "under construction",
        "untitled",
        "untitled document",
        "welcome",
    ];
    let plain: String = name.to_lowercase().chars().filter(|char| char.is_alphabetic() || *char == ' ').collect();
    plain.chars().any(char::is_alphabetic) && !NOTHING.contains(&plain.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts() {
        assert_eq!(context("a/b.html", Some("NetInfo domains"), None), "NetInfo domains");
        assert_eq!(context("a/lookup-order_v2.txt", None, None), "lookup order v2");
        assert_eq!(context("a/lookup-order.html", Some("Untitled 1"), None), "lookup order");
        assert_eq!(context("docs/printing/index.html", Some("Index"), None), "docs / printing");
        assert_eq!(context("docs/GWorkspace.app/English.lproj/Help.rtfd", None, None), "docs / GWorkspace.app");
        assert_eq!(context("index.html", None, None), "index");
        assert_eq!(context("a/b.html", Some("What is it? (Untitled Document)"), None), "What is it?");
        assert_eq!(context("../shelf/dump.rtfd", Some(""), None), "dump");
        let printers = Some("Chapter 17: Setting up printers");
        assert_eq!(context("docs/printing/index.html", Some("Index"), printers), "Chapter 17: Setting up printers");
        assert_eq!(context("docs/printing/queues.html", None, Some("Contents")), "queues");
        assert_eq!(
            context("docs/printing/queues.html", Some("Queues of the spooler"), printers),
            "Queues of the spooler"
        );
    }

    #[test]
    fn ids_depend_on_the_path_alone() {
        assert_eq!(doc_id("a/b.html").len(), 16);
        assert_ne!(doc_id("a/b.html"), doc_id("a/c.html"));
    }
}
