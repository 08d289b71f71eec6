//! Reads and chunks a folder of real documents and says how fast: `EXTRACT_DIR=docs cargo bench --workspace --bench extract`.
//!
//! `CHUNK_MODEL=model.gguf` counts by that model's tokenizer (else words), `SHOW=1` prints blocks and chunks to look at.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench reads its settings and reports"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use retort_lm::tokenizer::Tokenizer;
use retort_ops::chunk::By;
use retort_ops::chunk::measure::{Measure, Words};
use retort_ops::chunk::pack::{Budget, chunks};
use retort_ops::document::Document;
use retort_ops::extract::read;
use walkdir::WalkDir;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What was read of one kind of file.
#[derive(Default)]
struct Tally {
    files: usize,
    bytes: usize,
    seconds: f64,
    pages: u32,
}

fn main() {
    let Ok(folder) = std::env::var("EXTRACT_DIR") else {
        return println!("EXTRACT_DIR names no folder: nothing to do");
    };
    let show = std::env::var("SHOW").is_ok();
    let mut tallies = BTreeMap::<String, Tally>::new();
    let mut rejects = BTreeMap::<String, Vec<String>>::new();
    let mut documents = Vec::new();
    for entry in
        WalkDir::new(&folder).sort_by_file_name().into_iter().flatten().filter(|entry| entry.file_type().is_file())
    {
        let path = entry.path().to_str().unwrap().to_owned();
        let bytes = std::fs::read(&path).unwrap();
        let begun = Instant::now();
        let outcome = read(&path, &bytes);
        let kind = Path::new(&path).extension().map_or("-".into(), |kind| kind.to_string_lossy().into_owned());
        let tally = tallies.entry(kind).or_default();
        tally.files += 1;
        tally.bytes += bytes.len();
        tally.seconds += begun.elapsed().as_secs_f64();
        match outcome {
            Ok(document) => {
                tally.pages += document.blocks.iter().filter_map(|block| block.page).max().unwrap_or(0);
                documents.push((path, document));
            }
            Err(reason) => rejects.entry(reason.to_string()).or_default().push(path),
        }
    }
    for (kind, tally) in tallies {
        let rate = |amount: f64| amount / tally.seconds.max(1e-9);
        println!(
            "{kind:12} {:5} files {:8.2} MB {:8.3} s {:7.1} MB/s {:7.0} files/s {:5} pages {:6.0} pages/s",
            tally.files,
            tally.bytes as f64 / 1e6,
            tally.seconds,
            rate(tally.bytes as f64 / 1e6),
            rate(tally.files as f64),
            tally.pages,
            rate(f64::from(tally.pages)),
        );
    }
    for (reason, paths) in &rejects {
        println!("{:5} rejects: {reason} (as {})", paths.len(), paths[0]);
    }
    chunk_all(&documents, show);
}

fn chunk_all(documents: &[(String, Document)], show: bool) {
    let measure: Box<dyn Measure> = match std::env::var("CHUNK_MODEL") {
        Ok(path) => Box::new(Tokenizer::open(Path::new(&path)).unwrap()),
        Err(_) => Box::new(Words),
    };
    let max = std::env::var("CHUNK_MAX").map_or(384, |max| max.parse().unwrap());
    let budget = Budget { max, min: max / 3, overlap: 0, by: By::Headings };
    let begun = Instant::now();
    let all: Vec<_> = documents.iter().map(|(_, document)| chunks(document, &*measure, budget).unwrap()).collect();
    let seconds = begun.elapsed().as_secs_f64();
    let bytes: usize = documents.iter().map(|(_, document)| document.text.len()).sum();
    let sizes: Vec<usize> = all.iter().flatten().map(|chunk| chunk.n_tokens).collect();
    println!(
        "{} documents, {:.2} MB of text, {} chunks in {seconds:.3} s ({:.1} MB/s): mean {} of {max}, most {}, under a third {}",
        documents.len(),
        bytes as f64 / 1e6,
        sizes.len(),
        bytes as f64 / 1e6 / seconds,
        sizes.iter().sum::<usize>() / sizes.len().max(1),
        sizes.iter().max().unwrap_or(&0),
        sizes.iter().filter(|size| **size < max / 3).count(),
    );
    for ((path, document), chunks) in documents.iter().zip(all).filter(|_| show) {
        println!("##### {path}\n##### title {:?}", document.title);
        for block in &document.blocks {
            let page = block.page.map_or(String::new(), |page| format!(" p{page}"));
            println!(
                "[{} {}{page}] {}",
                block.kind.name(),
                block.level,
                document.text_of(block).replace('\n', "\n    ")
            );
        }
        for chunk in chunks {
            println!(
                "----- chunk {} of {max} {:?} page {:?}\n{}",
                chunk.n_tokens, chunk.heading_path, chunk.page, chunk.text
            );
        }
    }
}
