//! Archives as an enemy packs them, and as a friend does.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use zip::write::SimpleFileOptions;

use super::*;

fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap()
}

fn told(path: &str, bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    let outcome = documents(path, bytes, &Tools::NONE).unwrap();
    let documents =
        outcome.documents.into_iter().map(|(path, document)| format!("{path}: {}", document.text)).collect();
    let refused = outcome.refused.into_iter().map(|(path, reason)| format!("{path}: {reason}")).collect();
    (documents, refused)
}

#[test]
fn everything_in_an_archive_is_told() {
    let inner = zip(&[("deep.txt", b"Deep.")]);
    let members: &[(&str, &[u8])] = &[
        ("a/b.md", b"*One.*"),
        ("../evil.txt", b"x"),
        ("/etc/passwd", b"x"),
        ("a/p.png", b"\x89PNG\r\n"),
        ("Help.rtfd/TXT.rtf", b"{\\rtf1 Help.}"),
        ("inner.zip", &inner),
        ("__MACOSX/._b", b"litter"),
        ("t.html.gz", &gzip(b"<p>Packed <b>page</b>.")),
    ];
    let (documents, refused) = told("x.zip", &zip(members));
    assert_eq!(
        documents,
        [
            "x.zip/a/b.md: One.",
            "x.zip/Help.rtfd: Help.",
            "x.zip/inner.zip/deep.txt: Deep.",
            "x.zip/t.html.gz: Packed page."
        ]
    );
    assert_eq!(
        refused,
        [
            "x.zip/../evil.txt: its name leads out of the archive",
            "x.zip//etc/passwd: its name leads out of the archive",
            "x.zip/a/p.png: a picture is not a format that `extract` reads",
        ]
    );
}

#[test]
fn a_packed_file_keeps_its_path() {
    assert_eq!(told("a.md.gz", &gzip(b"# One\n\nTwo.")).0, ["a.md.gz: One\n\nTwo."]);
    let refused = documents("a.png.gz", &gzip(b"\x89PNG\r\n"), &Tools::NONE).unwrap_err();
    assert_eq!(refused.to_string(), "a picture is not a format that `extract` reads");
    let cut = &gzip(&b"text ".repeat(2000))[..40];
    assert!(documents("a.txt.gz", cut, &Tools::NONE).unwrap_err().to_string().starts_with("not a readable gzip file"));
}

#[test]
fn bombs_end_at_the_limit() {
    let zeros = gzip(&vec![b' '; 1 << 20].repeat(MAX_BYTES as usize / (1 << 20) + 1));
    assert_eq!(documents("a.gz", &zeros, &Tools::NONE).unwrap_err(), Unreadable::TooLarge("archive"));
    // Gzip in gzip in zip: each small, together past the limit.
    let half = gzip(&vec![0; MAX_BYTES as usize / 2]);
    let both = zip(&[("a.gz", &half), ("b.gz", &half), ("c.gz", &half)]);
    assert_eq!(documents("a.zip", &both, &Tools::NONE).unwrap_err(), Unreadable::TooLarge("archive"));
    let mut nested = zip(&[("x.txt", b"x")]);
    for _ in 0..MAX_NESTING {
        nested = zip(&[("x.zip", &nested)]);
    }
    assert_eq!(documents("a.zip", &nested, &Tools::NONE).unwrap_err(), Unreadable::NestedArchives);
}

#[test]
fn a_table_of_texts_in_parquet_is_read() {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch, StringArray};
    let numbers = Arc::new(Int64Array::from(vec![1, 2]));
    let texts = Arc::new(StringArray::from(vec!["First.", "Second."]));
    let rows = RecordBatch::try_from_iter([("id", numbers as _), ("text", texts as _)]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer =
        retort_cache::parquet::FileWriter::new(file.reopen().unwrap(), file.path(), rows.schema()).unwrap();
    writer.write(&rows).unwrap();
    writer.finish().unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    assert_eq!(told("a.bin", &bytes).0, ["a.bin#1: First.", "a.bin#2: Second."]);
    let cut = [&bytes[..bytes.len() - 60], b"PAR1"].concat();
    assert!(
        documents("a.parquet", &cut, &Tools::NONE).unwrap_err().to_string().starts_with("not a readable table file")
    );
}
