//! Generation on the real model: the law that neighbours do not matter, and where texts end.

use super::*;
use crate::{
    guide::Grammar,
    template::{ChatTemplate, Message},
    testing::smollm2,
};
use std::sync::LazyLock;

static SMOL: LazyLock<(Model, Tokenizer)> =
    LazyLock::new(|| (Model::load(&smollm2()).unwrap(), Tokenizer::from_gguf(&smollm2()).unwrap()));

const UNGUESSED: Limits = Limits { cache_bytes: 1 << 30, rows: 32, step_tokens: 256, cheap_tokens: 0 };

const SAMPLED: Sampling =
    Sampling { temperature: 0.9, top_k: 40, top_p: 0.95, min_p: 0.02, repeat_penalty: 1.1, repeat_window: 64 };

fn request(question: &str, sampling: Sampling, max_tokens: usize) -> Request {
    let template = ChatTemplate::of(&SMOL.1).unwrap();
    let messages = [Message::new("system", "You answer in one sentence."), Message::new("user", question)];
    let prompt = SMOL.1.encode_prompt(&template, &messages, true).unwrap();
    Request { prompt, sampling, seed: 7, max_tokens, stop: Vec::new(), guide: None, repetition: 0 }
}

fn run(requests: &[Request], limits: Limits) -> (Vec<Finished>, Vec<String>) {
    run_on(&SMOL.0, requests, limits)
}

fn run_on(model: &Model, requests: &[Request], limits: Limits) -> (Vec<Finished>, Vec<String>) {
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
    generate(model, &SMOL.1, None, requests, limits, &mut on_event).unwrap();
    finished.sort_by_key(|row| row.index);
    (finished, texts)
}

/// What a row is, whoever computed its prompt.
fn alike(rows: Vec<Finished>) -> Vec<Finished> {
    rows.into_iter().map(|row| Finished { shared: 0, ..row }).collect()
}

/// Long and short prompts, equal ones, some that begin alike for longer than all do; greedy, sampled, guided.
fn mixed() -> Vec<Request> {
    let long = "The spooler keeps one queue for each printer, and lists it when it is asked to. ".repeat(3);
    let questions = ["What is a host file?", "Name a planet.", &long, "Hi!", &format!("{long} Why?")];
    let grammar = Grammar::Regex("(The|A) [a-z ]{5,60}\\.( Yes\\.| No\\.)?".into());
    let guide = Arc::new(Guide::new(&grammar, &SMOL.1).unwrap());
    let one = |i: usize| {
        let sampling = if i.is_multiple_of(2) { Sampling::default() } else { SAMPLED };
        let guide = (i % 3 == 1).then(|| guide.clone());
        let repetition = if i % 4 == 2 { 6 } else { 0 };
        Request { seed: i as u64, guide, repetition, ..request(questions[i % 5], sampling, 4 + 2 * i) }
    };
    (0..11).map(one).collect()
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_company() {
    let requests = mixed();
    let alone: Vec<Finished> = requests
        .iter()
        .enumerate()
        .map(|(index, request)| Finished { index, ..run(std::slice::from_ref(request), UNGUESSED).0.remove(0) })
        .collect();
    assert!(alone.iter().any(|row| row.reason == FinishReason::Stop) && alone.iter().any(|row| row.drawn_from != 0));
    let one_row = SMOL.0.cache().bytes(160);
    let all = [
        Limits::default(),
        Limits { rows: 3, step_tokens: 7, ..Limits::default() },
        Limits { cache_bytes: 3 * one_row, rows: 5, step_tokens: 1, cheap_tokens: 40 },
        Limits { cache_bytes: 0, ..Limits::default() },
        UNGUESSED,
    ];
    for (threads, limits) in [1, 2, 3, 2, 1].into_iter().zip(all) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (together, texts) = pool.install(|| run(&requests, limits));
        assert!(together.iter().map(|row| &row.text).eq(&texts), "pieces make the text");
        assert_eq!(alike(together), alone, "{threads} threads, {limits:?}");
    }
    let mut turned = requests.clone();
    turned.reverse();
    let (mut turned, _) = run(&turned[..6], Limits::default());
    turned.iter_mut().for_each(|row| row.index = 10 - row.index);
    turned.reverse();
    assert_eq!(alike(turned), alone[5..]);
}

#[test]
fn what_was_guessed_right_saves_steps_and_changes_no_text() {
    let list = "Repeat after me: 12 oxen, 12 asses, 12 sheep, 12 goats, 12 oxen, 12 asses, 12 sheep";
    for sampling in [Sampling::default(), Sampling { temperature: 0.6, ..Sampling::default() }] {
        for max_tokens in 30..40 {
            let requests = [Request { stop: vec!["goats, 12".into()], ..request(list, sampling, max_tokens) }];
            let steps = |limits| {
                let (mut finished, mut steps, mut drawn) = (None, 0, 0);
                let mut on_event = |event| {
                    match event {
                        Event::Step { output, .. } => (steps, drawn) = (steps + 1, drawn + output as usize),
                        Event::Finished(row) => finished = Some(row),
                        Event::Text { .. } => {}
                    }
                    Flow::Continue
                };
                generate(&SMOL.0, &SMOL.1, None, &requests, limits, &mut on_event).unwrap();
                (finished.unwrap(), steps, drawn)
            };
            let (plain, plain_steps, plain_drawn) = steps(UNGUESSED);
            let (guessed, guessed_steps, guessed_drawn) = steps(Limits::default());
            assert_eq!((guessed, guessed_drawn), (plain.clone(), plain_drawn));
            assert!(guessed_steps < plain_steps * 3 / 4, "{guessed_steps} of {plain_steps}: {}", plain.text);
        }
    }
}

#[test]
fn a_row_in_eight_bits_has_the_same_bits_alone_and_in_any_company() {
    let model = Model::load_in(crate::kernels::Precision::Int8, &smollm2()).unwrap();
    let requests = &mixed()[..7];
    let alone = |index: usize, request: &Request| {
        let one = run_on(&model, std::slice::from_ref(request), UNGUESSED).0.remove(0);
        Finished { index, ..one }
    };
    let alone: Vec<Finished> = requests.iter().enumerate().map(|(index, request)| alone(index, request)).collect();
    let small = Limits { rows: 3, step_tokens: 7, ..Limits::default() };
    for (threads, limits) in [(1, Limits::default()), (3, small)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (together, _) = pool.install(|| run_on(&model, requests, limits));
        assert_eq!(alike(together), alone, "{threads} threads, {limits:?}");
    }
    let half = run(requests, Limits::default()).0;
    assert!(half.iter().zip(&alone).all(|(half, int8)| half.drawn_from != int8.drawn_from), "it is another question");
}

#[test]
fn requests_that_come_one_by_one_are_answered_as_if_alone_and_go_on_from_what_is_known() {
    let requests = mixed();
    let expected = run(&requests, Limits::default()).0;
    let (mut come, mut finished, mut computed) = (0, Vec::new(), 0);
    let steps = std::cell::Cell::new(0);
    let mut next = |idle: bool| {
        // A new one now and then, and when there is nothing to do; the last is dropped after its first piece.
        if come == requests.len() {
            return if idle { Next::End } else { Next::Nothing };
        }
        if !idle && steps.get() % 3 != 0 {
            return Next::Nothing;
        }
        steps.set(steps.get() + 1);
        come += 1;
        Next::Request(come - 1, Box::new(requests[come - 1].clone()))
    };
    let last = requests.len() - 1;
    let mut on_event = |event| {
        match event {
            Event::Finished(row) => finished.push(row),
            Event::Text { index, .. } if index == last => return Flow::Drop,
            Event::Text { .. } => {}
            Event::Step { prompt, .. } => {
                computed += prompt as usize;
                steps.set(steps.get() + 1);
            }
        }
        Flow::Continue
    };
    serve(&SMOL.0, &SMOL.1, None, Limits { rows: 4, ..Limits::default() }, &mut next, &mut on_event).unwrap();
    finished.sort_by_key(|row| row.index);
    assert_eq!(alike(finished.clone()), alike(expected[..last].to_vec()));
    let in_all: usize = requests.iter().map(|request| request.prompt.len()).sum();
    assert!(computed < in_all / 2, "{computed} of {in_all}");
}

#[test]
fn what_prompts_share_is_computed_once() {
    let requests = mixed();
    let mut computed = 0;
    let mut shared = vec![0; requests.len()];
    let mut on_event = |event| {
        match event {
            Event::Step { prompt, .. } => computed += prompt as usize,
            Event::Finished(row) => shared[row.index] = row.shared,
            Event::Text { .. } => {}
        }
        Flow::Continue
    };
    generate(&SMOL.0, &SMOL.1, None, &requests, Limits::default(), &mut on_event).unwrap();
    let in_all: usize = requests.iter().map(|request| request.prompt.len()).sum();
    let base = prefix::shared(&requests).len();
    assert!(base > 10, "the system prompt");
    assert_eq!(computed, base + in_all - shared.iter().sum::<usize>(), "each token once");
    assert!(shared.iter().all(|&n| n >= base));
    // Of the long prompts only the first is computed; the last of the others' tokens is run for its state.
    let long: Vec<usize> = [2, 4, 7, 9].map(|i| requests[i].prompt.len() - shared[i]).to_vec();
    assert_eq!(long.iter().filter(|&&own| own > 40).count(), 1, "{long:?}");
    // All of one prompt, side by side.
    let same = vec![requests[2].clone(); 5];
    let (rows, _) = run(&same, Limits::default());
    assert!(rows.iter().all(|row| row.shared == same[0].prompt.len() - 1));
}

#[test]
fn a_text_is_written_anew_with_another_seed_as_if_for_the_first_time() {
    let first = Request { seed: 1, ..request("Tell me a story.", SAMPLED, 12) };
    let second = Request { seed: 2, ..first.clone() };
    let expected = run(std::slice::from_ref(&second), Limits::default()).0.remove(0);
    let (mut ended, mut computed) = (Vec::new(), 0);
    let mut on_event = |event| match event {
        Event::Finished(row) => {
            ended.push(row);
            if ended.len() == 1 { Flow::Again(2) } else { Flow::Continue }
        }
        Event::Step { prompt, .. } => {
            computed += prompt as usize;
            Flow::Continue
        }
        Event::Text { .. } => Flow::Continue,
    };
    generate(&SMOL.0, &SMOL.1, None, std::slice::from_ref(&first), Limits::default(), &mut on_event).unwrap();
    assert_eq!(ended.len(), 2);
    assert_ne!(ended[0].tokens, ended[1].tokens);
    assert_eq!(ended[1], expected);
    assert_eq!(computed, first.prompt.len() + 1, "the prompt's last token is all that is run again");
}

#[test]
fn a_text_that_goes_in_circles_is_ended() {
    let greedy =
        request("Write the word yes a hundred times: yes yes yes yes yes yes yes yes", Sampling::default(), 300);
    let mut looking = greedy.clone();
    looking.repetition = 16;
    let (rows, _) = run(&[greedy, looking], Limits::default());
    assert_eq!(
        (rows[0].reason, rows[1].reason),
        (FinishReason::Length, FinishReason::Repetition),
        "{:?}",
        rows[1].text
    );
    assert_eq!(rows[1].tokens, rows[0].tokens[..rows[1].tokens.len()]);
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
fn what_prompts_share_leaves_each_a_token() {
    let requests = |prompts: &[&[u32]]| -> Vec<Request> {
        prompts
            .iter()
            .map(|prompt| Request { prompt: prompt.to_vec(), ..request("", Sampling::default(), 1) })
            .collect()
    };
    assert_eq!(prefix::shared(&requests(&[&[1, 2, 3, 4], &[1, 2, 3, 5, 6], &[1, 2, 9, 9]])), [1, 2]);
    assert_eq!(prefix::shared(&requests(&[&[1, 2, 3], &[1, 2, 3]])), [1, 2]);
    assert!(prefix::shared(&requests(&[&[1, 2, 3]])).is_empty());
    assert!(prefix::shared(&requests(&[&[1], &[1, 2]])).is_empty());
}
