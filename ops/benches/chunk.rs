//! How fast documents are chunked, in MB of text per CPU second: `CHUNK_DIR=docs CHUNK_MODEL=model.gguf cargo bench --workspace --bench chunk`.
//!
//! One thread, so wall time on a machine that has nothing else to do is the same. Beside it the tokenizer alone, as the
//! reference does it and as it is done here. `CHUNK_MAX` is the budget (384), `CHUNK_RUNS` the number of runs (3), of which
//! the fastest counts.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench reads its settings and reports"
)]

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

fn main() {
    let Ok(folder) = std::env::var("CHUNK_DIR") else { return println!("CHUNK_DIR names no folder: nothing to do") };
    let documents = documents(&folder);
    let bytes: usize = documents.iter().map(|document| document.text.len()).sum();
    println!("{} documents, {:.2} MB of text", documents.len(), bytes as f64 / 1e6);
    let report = |what: &str, begin: &mut dyn FnMut() -> String| {
        let runs = std::env::var("CHUNK_RUNS").map_or(3, |runs| runs.parse().unwrap());
        let mut said = String::new();
        let mut best = f64::INFINITY;
        for _ in 0..runs {
            let begun = cpu_seconds();
            said = begin();
            best = best.min(cpu_seconds() - begun);
        }
        println!("{what:24} {:7.1} MB per CPU second  {said}", bytes as f64 / 1e6 / best);
    };
    let tokenizer = std::env::var("CHUNK_MODEL").ok().map(|path| Tokenizer::open(Path::new(&path)).unwrap());
    let measure: &dyn Measure = match &tokenizer {
        Some(tokenizer) => {
            let equal = |document: &&Document| {
                tokenizer.encode(&document.text).unwrap() == tokenizer.encode_by_reference(&document.text).unwrap()
            };
            println!("{} of them with the reference's own tokens", documents.iter().filter(equal).count());
            report("tokens by the reference", &mut || {
                tally(&documents, |text| tokenizer.encode_by_reference(text).unwrap().len())
            });
            report("tokens", &mut || tally(&documents, |text| tokenizer.count(text).unwrap()));
            tokenizer
        }
        None => &Words,
    };
    let max = std::env::var("CHUNK_MAX").map_or(384, |max| max.parse().unwrap());
    for by in [By::Headings, By::Paragraphs, By::Sentences] {
        let budget = Budget { max, min: max / 3, overlap: 0, by };
        report(&format!("chunks by {by:?}").to_lowercase(), &mut || {
            let mut fills = Vec::new();
            for document in &documents {
                fills.extend(chunks(document, measure, budget).unwrap().into_iter().map(|chunk| chunk.n_tokens));
            }
            let mean = fills.iter().sum::<usize>() as f64 / fills.len() as f64;
            format!("{} chunks, mean {mean:.0} of {max}, most {}", fills.len(), fills.iter().max().unwrap_or(&0))
        });
    }
}

fn documents(folder: &str) -> Vec<Document> {
    let files = WalkDir::new(folder).sort_by_file_name().into_iter().flatten();
    let files = files.filter(|entry| entry.file_type().is_file());
    files.filter_map(|entry| read(entry.path().to_str()?, &std::fs::read(entry.path()).unwrap()).ok()).collect()
}

fn tally(documents: &[Document], count: impl Fn(&str) -> usize) -> String {
    format!("{} tokens", documents.iter().map(|document| count(&document.text)).sum::<usize>())
}

/// Seconds that this thread was on a processor; where the system does not tell, seconds.
fn cpu_seconds() -> f64 {
    static BEGUN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|told| told.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(|| BEGUN.elapsed().as_secs_f64(), |nanoseconds| nanoseconds / 1e9)
}
