//! Files that nobody would write: the pipelines that ship and the gallery, cut, spliced and sprinkled with what YAML stumbles over.
//!
//! Whatever a file is, loading it ends soon with a pipeline or with mistakes that can be shown, and laying it out gives a file that
//! means the same and is laid out, or says why not. The cases are drawn from a seed: `RETORT_YAML_CASES=100000 cargo test --workspace
//! --lib fuzz` looks longer, `RETORT_YAML_SEED=7` elsewhere. A failure names its seed and leaves the file in the temporary folder.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;

/// Cases, where no number is asked for.
const CASES: u64 = 300;
/// No file takes longer, on a machine that has much else to do.
const LONGEST: Duration = Duration::from_secs(20);
/// What is sprinkled in.
const WORDS: [&str; 44] = [
    "&a ",
    "*a",
    "<<: *a\n",
    "- ",
    "? ",
    ": ",
    ":",
    "|",
    ">-\n",
    "|2+\n",
    "\t",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "!!str ",
    "!x ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "#",
    " # c\n",
    "\"",
    "'",
    "\\",
    "\r\n",
    "\r",
    "\u{feff}",
    "\0",
    "\u{85}",
    "\u{2028}",
    "é",
    "~",
    "\n\n",
    "  ",
    "${params.a}",
    "${item.b}",
    "${",
    "foreach: [x, y]\n",
    "nodes:\n",
    "matrix: {a: [1, 2]}\n",
    "op: extract\n",
    "from: [a, b.c]\n",
];

/// A generator of numbers: splitmix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = Vec::new();
    for folder in [".", "src/cli/new", "tests/gallery", "tests/gallery/included"] {
        paths.extend(fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    assert!(paths.len() > 100, "{}", paths.len());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// One of the files, changed in one to six places.
fn file(draw: &mut Draw, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[draw.below(corpus.len())].clone();
    for _ in 0..=draw.below(6) {
        let at = draw.below(bytes.len() + 1);
        let end = (at + 1 + draw.below(40)).min(bytes.len());
        match draw.below(9) {
            0 => drop(bytes.drain(at..end.max(at))),
            1 => {
                let piece = bytes[at..end.max(at)].to_vec();
                let to = draw.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            2 if at < bytes.len() => bytes[at] = draw.next() as u8,
            3 => {
                let other = &corpus[draw.below(corpus.len())];
                let from = draw.below(other.len());
                let piece = other[from..(from + 200).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => bytes.truncate(at),
            5 => {
                // A line further in, or further out.
                let line = bytes[..at].iter().rposition(|b| *b == b'\n').map_or(0, |line| line + 1);
                let blanks = bytes[line..].iter().take_while(|b| **b == b' ').count();
                let n = draw.below(8);
                bytes.splice(line..line + blanks, vec![b' '; n]);
            }
            _ => {
                let word = WORDS[draw.below(WORDS.len())];
                bytes.splice(at..at, word.bytes());
            }
        }
    }
    bytes
}

/// What must hold of any file.
fn hold(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    if let Err(mistakes) = load(path, &LoadOptions::default(), retort_ops::REGISTRY) {
        let said = mistakes.render(false);
        assert!(mistakes.count() > 0 && said.starts_with("error: "), "{said}");
        assert!(said.len() < 200_000, "{} bytes are said", said.len());
        assert!(mistakes.to_json().iter().all(|object| object["line"] != json!(0)));
    }
    match crate::fmt::fmt(path, bytes.to_vec()) {
        Ok(new) => {
            let again = crate::fmt::fmt(path, new.clone().into_bytes());
            let again = again.unwrap_or_else(|mistakes| panic!("{}\nof\n{new}", mistakes.render(false)));
            assert!(again == new, "laid out twice:\n{again}\ninstead of\n{new}");
        }
        // Also a file that it would not lay out rightly: it notices, and leaves the file alone.
        Err(mistakes) => assert!(mistakes.count() > 0),
    }
}

#[test]
fn no_file_is_too_bad() {
    let number = |name: &str, or: u64| std::env::var(name).ok().map_or(or, |text| text.parse().unwrap());
    let (cases, first) = (number("RETORT_YAML_CASES", CASES), number("RETORT_YAML_SEED", 1));
    let corpus = corpus();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.yaml");
    let mut failed = Vec::new();
    for seed in first..first + cases {
        let bytes = file(&mut Draw(seed), &corpus);
        let begun = Instant::now();
        let held = catch_unwind(AssertUnwindSafe(|| hold(&path, &bytes)));
        if held.is_err() || begun.elapsed() > LONGEST {
            let kept = std::env::temp_dir().join(format!("retort-yaml-{seed}.yaml"));
            fs::write(&kept, &bytes).unwrap();
            failed.push(format!(
                "RETORT_YAML_SEED={seed} RETORT_YAML_CASES=1: {}, {:?}",
                kept.display(),
                begun.elapsed()
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
