//! Generation on the real model: the law that neighbours do not matter, and where texts end.

use super::*;
use crate::{
    template::{ChatTemplate, Message},
    testing::smollm2,
};
use std::sync::LazyLock;

static SMOL: LazyLock<(Model, Tokenizer)> =
    LazyLock::new(|| (Model::load(&smollm2()).unwrap(), Tokenizer::from_gguf(&smollm2()).unwrap()));

const SAMPLED: Sampling =
    Sampling { temperature: 0.9, top_k: 40, top_p: 0.95, min_p: 0.02, repeat_penalty: 1.1, repeat_window: 64 };

fn request(question: &str, sampling: Sampling, max_tokens: usize) -> Request {
    let template = ChatTemplate::of(&SMOL.1).unwrap();
    let messages = [Message::new("system", "You answer in one sentence."), Message::new("user", question)];
    let prompt = SMOL.1.encode_prompt(&template, &messages, true).unwrap();
    Request { prompt, sampling, seed: 7, max_tokens, stop: Vec::new() }
}

fn run(requests: &[Request], limits: Limits) -> (Vec<Finished>, Vec<String>) {
    let mut finished = Vec::new();
    let mut texts = vec![String::new(); requests.len()];
    let mut on_event = |event| {
        match event {
            Event::Finished(row) => finished.push(row),
            Event::Text { index, text } => texts[index].push_str(&text),
            Event::Step { .. } => {}
        }
        Flow::Continue
    };
    generate(&SMOL.0, &SMOL.1, None, requests, limits, &mut on_event).unwrap();
    finished.sort_by_key(|row| row.index);
    (finished, texts)
}

#[test]
fn a_row_is_the_same_alone_and_in_company() {
    let questions = ["What is a host file?", "Name a planet.", "Why is the sky blue? Explain it to a child.", "Hi!"];
    let requests: Vec<Request> = (0..8)
        .map(|i| {
            let sampling = if i % 2 == 0 { Sampling::default() } else { SAMPLED };
            Request { seed: i as u64, ..request(questions[i % 4], sampling, 4 + 3 * i) }
        })
        .collect();
    let alone: Vec<Finished> = requests
        .iter()
        .enumerate()
        .map(|(index, request)| {
            let mut row = run(std::slice::from_ref(request), Limits::default()).0.remove(0);
            row.index = index;
            row
        })
        .collect();
    let one_row = KvCache::bytes(SMOL.0.config(), 128);
    for limits in [
        Limits::default(),
        Limits { rows: 3, step_tokens: 7, ..Limits::default() },
        Limits { cache_bytes: 3 * one_row, rows: 5, step_tokens: 1 },
        Limits { cache_bytes: 0, ..Limits::default() },
    ] {
        let (together, texts) = run(&requests, limits);
        assert_eq!(together, alone, "{limits:?}");
        assert!(together.iter().map(|row| &row.text).eq(&texts), "pieces make the text");
    }
    let mut turned = requests.clone();
    turned.reverse();
    let (mut turned, _) = run(&turned[..5], Limits::default());
    for row in &mut turned {
        row.index = 7 - row.index;
    }
    turned.reverse();
    assert_eq!(turned, alone[3..]);
}

#[test]
fn texts_end_where_they_should() {
    let whole = run(&[request("Name three planets.", Sampling::default(), 40)], Limits::default()).0.remove(0);
    assert!(whole.tokens.len() > 4 && whole.text.contains("planets"), "{whole:?}");
    let at = whole.text.find("planets").unwrap();
    let mut stopping = request("Name three planets.", Sampling::default(), 40);
    stopping.stop = vec!["no such text".into(), "lanets".into(), "planets".into()];
    let (stopped, texts) = run(&[stopping], Limits::default());
    assert_eq!((stopped[0].text.as_str(), stopped[0].reason), (&whole.text[..at], FinishReason::Stop));
    assert_eq!(texts[0], stopped[0].text, "a begun stop string is held back");
    let cut = run(&[request("Name three planets.", Sampling::default(), 3)], Limits::default()).0.remove(0);
    assert_eq!((&cut.tokens[..], cut.reason), (&whole.tokens[..3], FinishReason::Length));
    let ended = run(&[request("Say yes.", Sampling::default(), 200)], Limits::default()).0.remove(0);
    assert_eq!(ended.reason, FinishReason::Stop);
    assert_eq!(SMOL.1.decode(&ended.tokens), ended.text);
}

#[test]
fn a_break_cancels_and_what_does_not_fit_is_refused() {
    let requests = [request("Tell me a long story.", SAMPLED, 100)];
    let mut steps = 0;
    let mut stop = |_| {
        steps += 1;
        if steps == 3 { Flow::Stop } else { Flow::Continue }
    };
    let cancelled = generate(&SMOL.0, &SMOL.1, None, &requests, Limits::default(), &mut stop);
    assert!(matches!(cancelled, Err(LmError::Cancelled)));
    assert_eq!(steps, 3);
    let long = Request { max_tokens: 8_192, ..requests[0].clone() };
    let error = generate(&SMOL.0, &SMOL.1, None, &[long], Limits::default(), &mut |_| Flow::Continue);
    assert!(error.unwrap_err().to_string().ends_with("8192 output tokens exceed the context of 8192"));
}

#[test]
fn a_drain_finishes_what_is_under_way_and_begins_nothing() {
    let requests = [request("Say yes.", SAMPLED, 30), request("Say no.", SAMPLED, 30), request("Say so.", SAMPLED, 30)];
    let two = Limits { rows: 2, ..Limits::default() };
    let whole = run(&requests, two).0;
    let mut finished = Vec::new();
    let mut drain = |event| {
        if let Event::Finished(text) = event {
            finished.push(text);
        }
        Flow::Drain
    };
    // The first event may be a step of the shared prefix: nothing is under way then.
    let none = generate(&SMOL.0, &SMOL.1, None, &requests, two, &mut drain);
    assert!(matches!(none, Err(LmError::Cancelled)));
    assert!(finished.is_empty());
    let mut steps = 0;
    let mut drain_later = |event| {
        match event {
            Event::Step { output, .. } => steps += usize::from(output > 0),
            Event::Finished(text) => finished.push(text),
            Event::Text { .. } => {}
        }
        if steps > 1 { Flow::Drain } else { Flow::Continue }
    };
    let drained = generate(&SMOL.0, &SMOL.1, None, &requests, two, &mut drain_later);
    assert!(matches!(drained, Err(LmError::Cancelled)), "the third was left");
    finished.sort_by_key(|text| text.index);
    assert_eq!(finished, whole[..2], "the two under way are as in an undisturbed run");
    let mut last = |_| Flow::Drain;
    let alone = generate(&SMOL.0, &SMOL.1, None, &requests[..1], two, &mut last);
    assert!(alone.is_ok(), "nothing was left behind");
}

#[test]
fn what_prompts_share_leaves_each_a_token() {
    let requests = |prompts: &[&[u32]]| -> Vec<Request> {
        prompts
            .iter()
            .map(|prompt| Request { prompt: prompt.to_vec(), ..request("", Sampling::default(), 1) })
            .collect()
    };
    assert_eq!(shared_prefix(&requests(&[&[1, 2, 3, 4], &[1, 2, 3, 5, 6], &[1, 2, 9, 9]])), [1, 2]);
    assert_eq!(shared_prefix(&requests(&[&[1, 2, 3], &[1, 2, 3]])), [1, 2]);
    assert!(shared_prefix(&requests(&[&[1, 2, 3]])).is_empty());
    assert!(shared_prefix(&requests(&[&[1], &[1, 2]])).is_empty());
}
