//! The limits of a program, and what its end says of the file.
#![cfg(unix)]

use std::os::unix::process::ExitStatusExt;

use super::*;

fn shell(script: &str, seconds: u64) -> ExitStatus {
    limited(Path::new("/bin/sh"), &["-c".into(), script.into()], seconds).status().unwrap()
}

#[test]
fn a_program_is_held_to_its_time() {
    assert_eq!(shell("while :; do :; done", 1).signal(), Some(nix::libc::SIGXCPU));
    assert!(shell("test \"$(ulimit -v)\" = 4194304 -o \"$(uname)\" = Darwin", 1).success());
}

#[test]
fn how_a_program_ends_is_told() {
    let judged = |code: i32, said: &str, made: &str| {
        let status = ExitStatus::from_raw(code);
        judge(Tool::Ghostscript, Format::PostScript, 60, status, said.as_bytes(), made.into())
    };
    assert_eq!(judged(0, "a warning", "pdf"), Ok(b"pdf".to_vec()));
    let reason = |code, said| judged(code, said, "").unwrap_err().to_string();
    assert_eq!(reason(1 << 8, "\nError: /undefined\nmore"), "`gs` failed on it: Error: /undefined");
    assert_eq!(reason(0, ""), "`gs` failed on it: it made nothing of it, and did not say why");
    assert!(judged(1 << 8, "half of it", "half").is_err());
    let slow = "reading the PostScript file took more than 60 s of processor time";
    assert_eq!(reason(nix::libc::SIGXCPU, ""), slow);
    assert!(matches!(judged(nix::libc::SIGKILL, "", ""), Err(Unreadable::Ended(_))));
}
