//! Processes that die in all ways, and the two sides of the pipes. The real process is tested in `tests/suite/apart.rs`.

use super::*;

fn pool(script: &str) -> Pool {
    let args = ["-c", script].map(OsString::from).to_vec();
    Pool::new(Program { path: "/bin/sh".into(), args }, Limits { memory: 1 << 30, seconds: 7 })
}

fn reason(script: &str) -> String {
    pool(script).read(b"%PDF").unwrap().unwrap_err().to_string()
}

#[test]
fn the_end_of_a_process_is_a_reason() {
    assert_eq!(reason("kill -XCPU $$"), "reading the pdf file took more than 7 s of processor time");
    assert!(reason("kill -ABRT $$").starts_with("the reader of pdf files died of it: no memory left"));
    assert!(reason("kill -SEGV $$").starts_with("the reader of pdf files died of it: no stack left"));
    assert!(reason("exit 3").starts_with("the reader of pdf files died of it: exit status: 3"));
    assert!(reason("printf 'xxxxxxxx'; exec sleep 5").starts_with("the reader of pdf files died of it: its answer"));
}

#[test]
fn who_is_killed_by_others_says_nothing_of_the_file() {
    let refused = pool("kill -KILL $$").read(b"%PDF").unwrap().unwrap_err();
    assert!(matches!(refused, Unreadable::Ended(_)), "{refused}");
    let refused = pool("kill -TERM $$").read(b"%PDF").unwrap().unwrap_err();
    assert!(matches!(refused, Unreadable::Ended(_)), "{refused}");
}

#[test]
fn without_a_process_there_is_no_answer() {
    let program = Program { path: "/nowhere/retort".into(), args: Vec::new() };
    assert!(Pool::new(program, Limits::default()).read(b"%PDF").is_none());
    assert!(super::read(b"%PDF").is_none(), "a library reads in place");
}

#[test]
fn what_is_read_apart_is_what_is_read_in_place() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let file = std::fs::read(folder.join("manual.pdf")).unwrap();
    let mut asked = Vec::new();
    for bytes in [&file[..], b"%PDF-1.4\nnothing more", &file[..file.len() / 2], &file] {
        send(&mut asked, bytes).unwrap();
    }
    let mut answers = Vec::new();
    // The limits of a whole test process stay as they are: the greatest change nothing.
    serve(&asked[..], &mut answers, Limits { memory: u64::MAX, seconds: 1 << 20 }).unwrap();
    let mut answers = &answers[..];
    let mut next = || -> Result<Document, Unreadable> {
        serde_json::from_slice::<Reply>(&receive(&mut answers).unwrap().unwrap()).unwrap().outcome()
    };
    let whole = pdf::read(&file);
    assert!(whole.is_ok());
    assert_eq!(next(), whole);
    assert_eq!(next(), quietly(Format::Pdf, || pdf::read(b"%PDF-1.4\nnothing more")));
    assert_eq!(next(), quietly(Format::Pdf, || pdf::read(&file[..file.len() / 2])));
    assert_eq!(next(), whole);
    assert!(receive(&mut answers).unwrap().is_none());
}

#[test]
fn a_cut_stream_is_an_error() {
    let mut whole = Vec::new();
    send(&mut whole, b"0123456789").unwrap();
    assert_eq!(receive(&mut &whole[..]).unwrap().unwrap(), b"0123456789");
    assert!(receive(&mut &whole[..12]).is_err());
    assert!(receive(&mut &u64::MAX.to_le_bytes()[..]).is_err());
    assert!(receive(&mut &[][..]).unwrap().is_none());
}
