//! The process in which PDF files are read: the same documents come of it, and what is too much for it is a reject.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};

use retort_tests::Space;

/// A PDF of many pages that all show the same lines.
fn pdf(pages: usize, lines: usize) -> Vec<u8> {
    let mut shown = String::from("BT /F1 10 Tf 12 TL 50 800 Td ");
    for line in 0..lines {
        write!(shown, "(Line {line} of a page that says nothing much.) Tj T* ").unwrap();
    }
    shown.push_str("ET");
    let kids: Vec<String> = (0..pages).map(|page| format!("{} 0 R", page + 5)).collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!("<< /Type /Pages /Count {pages} /Kids [{}] >>", kids.join(" ")),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
        format!("<< /Length {} >>\nstream\n{shown}\nendstream", shown.len()),
    ];
    let page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 3 0 R >> >> >>";
    objects.extend((0..pages).map(|_| page.to_owned()));
    let mut file = b"%PDF-1.4\n".to_vec();
    let mut places = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        places.push(file.len());
        file.extend(format!("{} 0 obj\n{object}\nendobj\n", number + 1).bytes());
    }
    let table = file.len();
    file.extend(format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).bytes());
    file.extend(places.iter().flat_map(|place| format!("{place:010} 00000 n \n").into_bytes()));
    file.extend(format!("trailer << /Size {} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n", objects.len() + 1).bytes());
    file
}

fn reader(args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_victim"));
    command.arg("read-apart").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// What a process answers to a file, and how it ends when there are no more.
fn ask(args: &[&str], file: &[u8]) -> (String, ExitStatus) {
    let mut reader = reader(args);
    let mut files = reader.stdin.take().unwrap();
    let _ = files.write_all(&(file.len() as u64).to_le_bytes()).and_then(|()| files.write_all(file));
    drop(files);
    let mut answer = Vec::new();
    reader.stdout.take().unwrap().read_to_end(&mut answer).unwrap();
    (String::from_utf8_lossy(answer.get(8..).unwrap_or_default()).into_owned(), reader.wait().unwrap())
}

#[test]
fn a_pipeline_reads_pdf_files_as_the_library_does() {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    space.write(
        "small.yaml",
        "retort: 1\nname: small\nnodes:\n  documents:\n    op: extract\n    with: {paths: ['docs/*']}\n",
    );
    space.write("docs/a.txt", "A text beside them.\n");
    let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/testdata/manual.pdf")).unwrap();
    for (name, bytes) in [("b.pdf", &file[..]), ("c.pdf", &pdf(1, 9)), ("d.pdf", b"%PDF-1.4\nnothing more")] {
        std::fs::write(space.path().join("docs").join(name), bytes).unwrap();
    }
    space.run("small.yaml");
    let rows = space.rows("small.yaml", "documents");
    let text = |path: &str| rows.iter().find(|row| row["path"] == path).unwrap()["text"].clone();
    assert_eq!(text("docs/b.pdf"), retort_ops::extract::read("b.pdf", &file).unwrap().text);
    assert_eq!(text("docs/c.pdf"), retort_ops::extract::read("c.pdf", &pdf(1, 9)).unwrap().text);
    let refused = space.rows("small.yaml", "documents.rejects");
    assert_eq!(refused.len(), 1);
    assert!(refused[0]["reason"].as_str().unwrap().starts_with("not a readable pdf file"), "{refused:?}");
}

#[test]
fn a_reader_ends_with_its_pipe() {
    let (answer, status) = ask(&[], &pdf(1, 9));
    assert!(status.success() && answer.starts_with("{\"Read\":") && answer.contains("Line 2 of a page"), "{answer}");
}

#[cfg(unix)]
#[test]
fn a_reader_is_held_to_its_time() {
    use std::os::unix::process::ExitStatusExt;
    // Linux's number of SIGXCPU. Memory that the allocator set aside at the start is not counted anew, so a test of that limit would need gigabytes.
    let (answer, status) = ask(&["--seconds", "0"], &pdf(4000, 60));
    assert_eq!((answer.len(), status.signal()), (0, Some(24)), "{status}");
}
