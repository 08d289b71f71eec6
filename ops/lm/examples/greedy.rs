//! The likeliest continuation of each prompt, as token ids: what `tests/peers/llama_cpp_parity.py` compares.
//!
//! Arguments: a GGUF file or a folder, how many tokens to say, and `int8` if it is to compute in eight bits. Each line of standard input is a prompt (a JSON string),
//! each line of output `{"prompt": ids, "output": ids, "margins": logits}`; a margin is by how much a token beat the next best.
//! With 0 tokens, no weights are read.

use std::error::Error;
use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::path::PathBuf;

use retort_lm::kernels::Precision;
use retort_lm::model::{Model, Span};
use retort_lm::tokenizer::Tokenizer;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().ok_or("which model?")?);
    let n_tokens: usize = arguments.next().ok_or("how many tokens?")?.parse()?;
    let precision = match arguments.next().as_deref() {
        None => Precision::F16,
        Some("int8") => Precision::Int8,
        Some(other) => return Err(format!("`{other}` is no precision").into()),
    };
    let tokenizer = Tokenizer::open(&path)?;
    let model = if n_tokens > 0 { Some(Model::load_in(precision, &path)?) } else { None };
    for line in stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        let prompt = tokenizer.encode_document(&text)?;
        let (output, margins) = match &model {
            Some(model) => greedy(model, &prompt, n_tokens)?,
            None => Default::default(),
        };
        let json = serde_json::json!({"prompt": prompt, "output": output, "margins": margins});
        writeln!(stdout().lock(), "{json}")?;
    }
    Ok(())
}

fn greedy(model: &Model, prompt: &[u32], n_tokens: usize) -> Result<(Vec<u32>, Vec<f32>), Box<dyn Error>> {
    let mut cache = model.cache();
    let (mut output, mut margins) = (Vec::new(), Vec::new());
    let mut next = prompt.to_vec();
    while output.len() < n_tokens {
        let hidden = model.forward(None, &mut [Span { tokens: &next, cache: &mut cache }])?;
        let logits = model.logits(hidden.row(hidden.rows() - 1));
        let best = |not: Option<usize>| {
            let all = (0..logits.len()).filter(|&at| Some(at) != not);
            all.max_by(|&a, &b| logits[a].total_cmp(&logits[b])).ok_or("an empty vocabulary")
        };
        let first = best(None)?;
        margins.push(logits[first] - logits[best(Some(first))?]);
        output.push(first as u32);
        next = vec![first as u32];
    }
    Ok((output, margins))
}
