//! Each reader on a small real file of its format: the blocks as they are, beside the file.

pub(super) mod fuzz;

use expect_test::{ExpectFile, expect_file};

use super::*;
use crate::document::Block;
use crate::document::links::Link;

fn testdata(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)).unwrap()
}

/// A block as it is shown: kind, level, page, headings, text with a bar before every line.
fn shown(document: &Document, block: &Block) -> String {
    let page = block.page.map_or_else(String::new, |page| format!(" page {page}"));
    let lines = document.text_of(block).lines().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n");
    format!("{} {}{page} [{}]\n{lines}\n", block.kind.name(), block.level, block.heading_path.join(" > "))
}

/// A link as it is shown: its block, kind, words, target, and the first line of the block it leads to.
fn shown_link(document: &Document, link: &Link) -> String {
    let to = link.to.map_or("-", |to| document.text_of(&document.blocks[to as usize]).lines().next().unwrap_or(""));
    format!("link {} {} [{}] {} -> {to}\n", link.block, link.kind.name(), link.label, link.target)
}

fn golden(name: &str, expected: &ExpectFile) {
    let outcome = documents(name, &testdata(name), &Tools::NONE).unwrap();
    let mut all = String::new();
    for (path, document) in &outcome.documents {
        if path != name {
            all.extend(["path: ", path, "\n"]);
        }
        all.extend(["title: ", document.title.as_deref().unwrap_or("-"), "\n"]);
        all.extend(document.blocks.iter().map(|block| shown(document, block)));
        all.extend(document.links.iter().map(|link| shown_link(document, link)));
    }
    all.extend(outcome.refused.iter().map(|(path, reason)| format!("refused: {path}: {reason}\n")));
    expected.assert_eq(&all);
}

#[test]
fn what_a_file_takes_goes_by_its_length() {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let extractor = Extractor { base, tools: Vec::new() };
    let paths: ArrayRef = Arc::new(StringArray::from(vec![Some("manual.html"), Some("there is none"), None]));
    let rows = RecordBatch::try_from_iter_with_nullable([("path", paths, true)]).unwrap();
    let efforts: Vec<_> = (0..3).map(|row| extractor.effort(&rows, row)).collect();
    assert_eq!(efforts, [Some(testdata("manual.html").len() as u64), None, None]);
}

#[test]
fn html() {
    golden("manual.html", &expect_file!["../../testdata/manual.html.blocks"]);
}

#[test]
fn markdown() {
    golden("manual.md", &expect_file!["../../testdata/manual.md.blocks"]);
}

#[test]
fn text() {
    golden("manual.txt", &expect_file!["../../testdata/manual.txt.blocks"]);
}

#[test]
fn docbook() {
    golden("manual.docbook", &expect_file!["../../testdata/manual.docbook.blocks"]);
}

#[test]
fn what_needs_a_tool_is_told_by_content() {
    let refused = |name: &str, bytes: &[u8]| read(name, bytes).unwrap_err().to_string();
    let word = testdata("manual.doc");
    assert!(refused("a.txt", &word).contains("`tools: [antiword]`"), "{}", refused("a.txt", &word));
    for begin in ["%!PS-Adobe-3.0\n", "\u{1b}%-12345X@PJL\r\n%!PS-Adobe-3.0\n"] {
        assert!(refused("a.txt", begin.as_bytes()).contains("`tools: [ghostscript]`"));
    }
    let sheet = [&word[..512], &[0; 512]].concat();
    assert!(refused("a.doc", &sheet).starts_with("an Office file of before 2007 that is no text"));
}

#[test]
fn rtf() {
    golden("manual.rtf", &expect_file!["../../testdata/manual.rtf.blocks"]);
}

#[test]
fn docx() {
    golden("manual.docx", &expect_file!["../../testdata/manual.docx.blocks"]);
}

#[test]
fn pdf() {
    golden("manual.pdf", &expect_file!["../../testdata/manual.pdf.blocks"]);
}

#[test]
fn pdf_in_two_columns() {
    golden("columns.pdf", &expect_file!["../../testdata/columns.pdf.blocks"]);
}

#[test]
fn man() {
    golden("manual.8", &expect_file!["../../testdata/manual.8.blocks"]);
}

#[test]
fn info() {
    golden("manual.info", &expect_file!["../../testdata/manual.info.blocks"]);
}

#[test]
fn epub() {
    golden("manual.epub", &expect_file!["../../testdata/manual.epub.blocks"]);
}

#[test]
fn odt() {
    golden("manual.odt", &expect_file!["../../testdata/manual.odt.blocks"]);
}

#[test]
fn rst() {
    golden("manual.rst", &expect_file!["../../testdata/manual.rst.blocks"]);
}

#[test]
fn rst_with_a_directive_without_its_blank_is_read_to_the_end() {
    let page = "Queues\n======\n\n..note:: lpq\n   shows the queue.\n\nThe end.\n";
    let text = read("a.rst", page.as_bytes()).unwrap().text;
    assert!(text.contains("..note:: lpq: shows the queue.") && text.ends_with("The end."), "{text}");
}

#[test]
fn texinfo() {
    golden("manual.texi", &expect_file!["../../testdata/manual.texi.blocks"]);
}

#[test]
fn mail() {
    golden("manual.eml", &expect_file!["../../testdata/manual.eml.blocks"]);
    golden("manual.mbox", &expect_file!["../../testdata/manual.mbox.blocks"]);
}

#[test]
fn mail_with_numbers_too_large_is_read() {
    for field in ["Received: by example.org; Tue, 3 Oct 1995 10:00:00", "Date: Tue, 3 Oct 1995 10:00:00"] {
        let letter =
            format!("{field} -9223372036854775808\nFrom: root@example.org\nSubject: Quotas\n\nOne for each user.\n");
        let outcome = documents("a.eml", letter.as_bytes(), &Tools::NONE).unwrap();
        assert_eq!(outcome.documents[0].1.title.as_deref(), Some("Quotas"), "{field}");
    }
}

#[test]
fn records() {
    golden("manual.csv", &expect_file!["../../testdata/manual.csv.blocks"]);
    golden("manual.jsonl", &expect_file!["../../testdata/manual.jsonl.blocks"]);
}

#[test]
fn archives() {
    golden("manual.tar.gz", &expect_file!["../../testdata/manual.tar.gz.blocks"]);
}

#[test]
fn a_pdf_of_pictures_is_refused() {
    let reason = read("scan.pdf", &testdata("no-text.pdf")).unwrap_err().to_string();
    assert_eq!(reason, "the pdf file has no text layer: its 2 pages are pictures; run it through OCR first");
}

#[test]
fn nesting_up_to_the_limit_is_read() {
    let depth = MAX_DEPTH / 2 - 8;
    let page = format!("{}deep", "<ul><li>".repeat(depth));
    assert!(read("deep.html", page.as_bytes()).unwrap().text.ends_with("- deep"));
    let text = format!("{}deep", "> - ".repeat(2000));
    assert!(read("deep.md", text.as_bytes()).is_err_and(|reason| reason == Unreadable::TooDeep(Format::Markdown)));
}

#[test]
fn a_zip_bomb_is_refused() {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("word/document.xml", options).unwrap();
    let zeros = vec![b' '; 1 << 20];
    for _ in 0..=(MAX_BYTES >> 20) {
        zip.write_all(&zeros).unwrap();
    }
    let bomb = zip.finish().unwrap().into_inner();
    assert!(bomb.len() < 2 << 20);
    assert_eq!(read("a.docx", &bomb).unwrap_err().to_string(), "the archive holds more than 256 MiB");
}

#[test]
fn entities_of_xml_are_not_followed() {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("word/document.xml", zip::write::SimpleFileOptions::default()).unwrap();
    let xml = "<!DOCTYPE d [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><w:document><w:p><w:r><w:t>x&b;y</w:t></w:r></w:p></w:document>";
    std::io::Write::write_all(&mut zip, xml.as_bytes()).unwrap();
    let file = zip.finish().unwrap().into_inner();
    assert_eq!(read("a.docx", &file).unwrap().text, "xy");
}

/// A PDF of one page.
fn one_page(shown: &str) -> Vec<u8> {
    use std::fmt::Write as _;
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Count 1 /Kids [5 0 R] >>".to_owned(),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
        format!("<< /Length {} >>\nstream\n{shown}\nendstream", shown.len()),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 3 0 R >> >> >>"
            .to_owned(),
    ];
    let mut file = String::from("%PDF-1.4\n");
    let mut table = String::from("xref\n0 6\n0000000000 65535 f \n");
    for (number, object) in objects.iter().enumerate() {
        writeln!(table, "{:010} 00000 n ", file.len()).unwrap();
        write!(file, "{} 0 obj\n{object}\nendobj\n", number + 1).unwrap();
    }
    let start = file.len();
    format!("{file}{table}trailer << /Size 6 /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n").into_bytes()
}

#[test]
fn lines_that_run_over_the_edge_of_a_page_are_kept_and_what_is_hidden_beside_it_is_not() {
    let lines: Vec<String> = (0..80).map(|line| format!("(Line {line} of the table.) Tj T* ")).collect();
    let lines = lines.concat();
    let text = |shown: &str| read("a.pdf", &one_page(shown)).unwrap().text;
    let long = text(&format!("BT /F1 10 Tf 12 TL 50 800 Td {lines}ET"));
    assert!(long.contains("Line 66 of") && long.ends_with("Line 79 of the table."), "{long}");
    // Far below, beside, or under a page that has room.
    let hidden = "BT /F1 10 Tf 50 -300 Td (far below) Tj ET BT /F1 10 Tf 700 -12 Td (beside) Tj ET";
    let far = text(&format!("BT /F1 10 Tf 12 TL 50 800 Td {lines}ET {hidden}"));
    assert!(!far.contains("far below") && !far.contains("beside"), "{far}");
    assert_eq!(text("BT /F1 10 Tf 50 400 Td (One line.) Tj ET BT /F1 10 Tf 50 -12 Td (below) Tj ET"), "One line.");
}
