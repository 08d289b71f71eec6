//! Small works of several files: where their references lead, what is left, and what keeps its row.

use super::index::Index;
use crate::document::{Document, Kind, Raw};

/// A document of headings (`# `, `## `) and paragraphs, with links as label and target.
fn document(path: &str, lines: &[&str], links: &[(&str, &str)]) -> Document {
    let mut raws: Vec<Raw> = lines
        .iter()
        .map(|line| match line.split_once("# ") {
            Some((signs, text)) => Raw::new(Kind::Heading, signs.len() as u8 + 1, text),
            None => Raw::new(Kind::Paragraph, 0, *line),
        })
        .collect();
    if let Some(last) = raws.last_mut() {
        last.marks.links = links.iter().map(|(label, target)| (label.to_string(), target.to_string())).collect();
    }
    let mut document = Document::assemble(None, raws);
    document.locate_links(path);
    document
}

/// A path, lines, and links as label and target.
type File<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, &'a str)]);

/// Each link that leads out of its document: the words, and the headings that they lead to or why they don't.
fn found(files: &[File<'_>]) -> Vec<(String, Result<String, String>)> {
    let documents: Vec<Document> = files.iter().map(|(path, lines, links)| document(path, lines, links)).collect();
    let mut index = Index::default();
    files.iter().zip(&documents).for_each(|((path, ..), document)| index.add(path, document));
    let mut seen = Vec::new();
    for (document, links) in documents.iter().zip(index.resolve()) {
        for (at, to) in links {
            let link = &document.links[at as usize];
            let label = if link.label.is_empty() { link.target.clone() } else { link.label.clone() };
            let place = |spot: super::Spot| {
                let block = &documents[spot.document].blocks[spot.block as usize];
                format!("{}: {}", index.path(spot.document), block.heading_path.join(" > "))
            };
            seen.push((label, to.map(place)));
        }
    }
    seen
}

fn leads(to: &str) -> Result<String, String> {
    Ok(to.to_owned())
}

fn fails(reason: &str) -> Result<String, String> {
    Err(reason.to_owned())
}

#[test]
fn chapters_in_files_of_their_own() {
    let seen = found(&[
        ("book/a.md", &["# Chapter 1: Disks", "See chapter 2, section 2.1, figure 2-1 and chapter 9."], &[]),
        (
            "book/b.txt",
            &["# CHAPTER 2: PRINTING", "## 2.1 Queues", "Figure 2-1. A queue", "As in the previous chapter."],
            &[],
        ),
        ("preface.md", &["# Preface", "The next chapter. Section 2.1 of RFC 9 and section 1 of the Book."], &[]),
    ]);
    let seen: Vec<_> = seen.iter().map(|(label, to)| (label.as_str(), to.clone())).collect();
    assert_eq!(
        seen,
        [
            ("chapter 2", leads("book/b.txt: CHAPTER 2: PRINTING")),
            ("section 2.1", leads("book/b.txt: CHAPTER 2: PRINTING > 2.1 Queues")),
            ("figure 2-1", leads("book/b.txt: CHAPTER 2: PRINTING > 2.1 Queues")),
            ("chapter 9", fails("no other part of the work has a chapter 9")),
            ("previous chapter", leads("book/a.md: Chapter 1: Disks")),
            ("Section 2.1", fails("section 2.1 is of another work")),
            ("section 1", fails("section 1 is of another work")),
            ("next chapter", fails("there is no next chapter")),
        ]
    );
}

#[test]
fn two_documents_with_one_chapter_in_both_are_two_works() {
    let seen = found(&[
        ("one.md", &["# 1 Names", "See section 3.1."], &[]),
        ("two.md", &["# 1 Names", "x", "# 3 Hosts", "## 3.1 Tables", "x"], &[]),
    ]);
    assert_eq!(seen, [("section 3.1".to_owned(), fails("no other part of the work has a section 3.1"))]);
}

#[test]
fn the_nearest_folder_and_the_same_format_are_meant() {
    let chapter = |number: u8| [format!("# Chapter {number}: Of {number}"), "Chapter 3 says more.".to_owned()];
    let (two, three) = (chapter(2), chapter(3));
    let (two, three) = ([two[0].as_str(), &two[1]], [three[0].as_str(), &three[1]]);
    let files: Vec<File<'_>> = vec![
        ("a/2.html", &two, &[]),
        ("a/3.html", &three, &[]),
        ("a/3.txt", &three, &[]),
        ("b/2.html", &two, &[]),
        ("c/2.md", &two, &[]),
        ("b/3.md", &three, &[]),
        ("b/3.txt", &three, &[]),
    ];
    let seen: Vec<_> = found(&files).into_iter().map(|(_, to)| to).collect();
    assert_eq!(
        seen,
        [
            leads("a/3.html: Chapter 3: Of 3"),
            fails("2 documents have a chapter 3: `b/3.md`, `b/3.txt`"),
            // Of all chapters 3, one is a file of the same format; but it lies beside another chapter 2.
            fails("the chapter 3 of `b/3.md` is another work's"),
        ]
    );
}

#[test]
fn links_to_files() {
    let seen = found(&[
        (
            "docs/a.html",
            &["# A", "text"],
            &[
                ("chapter 4", "b.html"),
                ("section 4.2", "b.html"),
                ("ports", "b.html#ports"),
                ("folder", "more/"),
                ("gone", "c.html#x"),
                ("nowhere", "#nowhere"),
                ("web", "https://x.org/"),
            ],
        ),
        ("docs/b.html", &["Before.", "# Chapter 4: Boot", "## 4.1 On", "## 4.2 Off"], &[]),
        ("docs/more/index.html", &["# More"], &[]),
    ]);
    let seen: Vec<_> = seen.iter().map(|(label, to)| (label.as_str(), to.clone())).collect();
    assert_eq!(
        seen,
        [
            ("chapter 4", leads("docs/b.html: Chapter 4: Boot")),
            ("section 4.2", leads("docs/b.html: Chapter 4: Boot > 4.2 Off")),
            ("ports", leads("docs/b.html: Chapter 4: Boot")),
            ("folder", leads("docs/more/index.html: More")),
            ("gone", fails("`docs/c.html` is not among the documents")),
            ("nowhere", fails("the document has no anchor `nowhere`")),
        ]
    );
}
