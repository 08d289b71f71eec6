//! What counts in the loss, checked on the real tokenizer and template.

use super::*;
use crate::testing::smollm2;

fn targets(segment: &Segment) -> Vec<u32> {
    segment.targets.iter().flatten().copied().collect()
}

fn said(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let name = |&id: &u32| tokenizer.control_name(id).map_or_else(|| tokenizer.decode(&[id]), str::to_owned);
    ids.iter().map(name).collect()
}

#[test]
fn of_a_pair_the_answer_and_the_end_of_turn_count_and_nothing_else() {
    let tokenizer = Tokenizer::open(&smollm2()).unwrap();
    let template = ChatTemplate::of(&tokenizer).unwrap();
    for answer in ["Run niload.", "\n\nRun niload.", "  <|im_end|> is a token", "é"] {
        let pair = Pair { question: "How?".into(), answer: answer.into() };
        let segment = super::pair(&tokenizer, &template, &pair).unwrap().unwrap();
        assert_eq!(said(&tokenizer, &targets(&segment)), format!("{answer}<|im_end|>"));
        let prompt = tokenizer.encode_prompt(&template, &[Message::new("user", "How?")], true).unwrap();
        assert_eq!(segment.tokens[..prompt.len()], prompt, "what generation begins with");
        let end = tokenizer.control("<|im_end|>");
        assert_eq!(*segment.targets.last().unwrap(), end);
    }
}

#[test]
fn a_pair_over_the_limit_is_dropped_and_counted() {
    let tokenizer = Tokenizer::open(&smollm2()).unwrap();
    let template = ChatTemplate::of(&tokenizer).unwrap();
    let pair = |answer: &str| Pair { question: "How?".into(), answer: answer.into() };
    let input = [pair("By hand."), pair(" "), pair(&"again ".repeat(50))];
    let all = pairs(&tokenizer, &template, &input, Counts::Answer, 1000).unwrap();
    assert_eq!((all.segments.len(), all.dropped), (2, 1), "an empty answer is no example");
    let length = all.segments[0].tokens.len() + 1;
    let short = pairs(&tokenizer, &template, &input, Counts::Answer, length).unwrap();
    assert_eq!((short.segments.len(), short.dropped), (1, 2));
    assert_eq!(pairs(&tokenizer, &template, &input, Counts::Answer, length - 1).unwrap().dropped, 3);
}

#[test]
fn of_a_document_every_token_and_the_end_count_once() {
    let tokenizer = Tokenizer::open(&smollm2()).unwrap();
    let text = "The NeXT computer keeps its users in NetInfo. ".repeat(9);
    let ids = tokenizer.encode(&text).unwrap();
    for max_length in [7, 64, 1000] {
        let examples = texts(&tokenizer, [text.as_str(), "", "Short."], max_length).unwrap();
        assert!(examples.segments.iter().all(|segment| segment.tokens.len() <= max_length));
        let all: Vec<u32> = examples.segments.iter().flat_map(targets).collect();
        let end = tokenizer.control("<|endoftext|>").unwrap();
        let mut expected = ids.clone();
        expected.push(end);
        expected.extend(tokenizer.encode("Short.").unwrap());
        expected.push(end);
        assert_eq!(all, expected, "{max_length}");
        assert_eq!(examples.targets(), expected.len() as u64);
        assert_eq!(examples.dropped, 1);
    }
}

#[test]
fn where_all_counts_every_token_but_the_first_is_a_target() {
    let tokenizer = Tokenizer::open(&smollm2()).unwrap();
    let template = ChatTemplate::of(&tokenizer).unwrap();
    let pair = Pair { question: "How?".into(), answer: "By hand.".into() };
    let all = pairs(&tokenizer, &template, [&pair], Counts::All, 1000).unwrap();
    let answer = pairs(&tokenizer, &template, [&pair], Counts::Answer, 1000).unwrap();
    assert_eq!(all.segments[0].tokens, answer.segments[0].tokens);
    assert!(all.segments[0].targets.iter().all(Option::is_some));
    assert!(all.targets() > answer.targets());
}

#[test]
fn a_template_of_ones_own_marks_no_token_of_the_question() {
    let tokenizer = Tokenizer::open(&smollm2()).unwrap();
    let source = "{% for m in messages %}{{ 'Q: ' if m.role == 'user' else '' }}{{ m.content }}{{ '\nA: ' if m.role == 'user' else eos_token }}{% endfor %}";
    let template = ChatTemplate::new(source, String::new(), "<|im_end|>".into()).unwrap();
    let pair = Pair { question: "How?".into(), answer: "By hand.".into() };
    let segment = super::pair(&tokenizer, &template, &pair).unwrap().unwrap();
    assert!(said(&tokenizer, &segment.tokens).starts_with("Q: How?\nA: "), "{}", said(&tokenizer, &segment.tokens));
    assert_eq!(said(&tokenizer, &targets(&segment)).trim_start(), "By hand.<|im_end|>");
}

#[test]
fn the_plain_form_is_a_question_its_answer_and_the_end() {
    let tokenizer = Tokenizer::open(&smollm2()).unwrap();
    let plain = ChatTemplate::plain(&tokenizer).unwrap();
    for (question, answer) in [("How?", "By hand."), (" How?\n", "  By hand.\n"), ("How?", "By <|im_end|> hand.")] {
        let pair = Pair { question: question.into(), answer: answer.into() };
        let segment = super::pair(&tokenizer, &plain, &pair).unwrap().unwrap();
        let answer = answer.trim();
        assert_eq!(said(&tokenizer, &targets(&segment)), format!(" {answer}<|im_end|>"));
        assert_eq!(said(&tokenizer, &segment.tokens), format!("Question: How?\nAnswer: {answer}"));
        let text = format!("Question: How?\nAnswer: {answer}");
        assert_eq!(segment.tokens, tokenizer.encode(&text).unwrap(), "what the model reads in a document");
        assert_eq!(*segment.targets.last().unwrap(), tokenizer.eos());
    }
}

#[test]
fn the_end_counts_whatever_else_does() {
    // Trainers that pad with the end token mask it out of the loss, and their models never stop (PEERS: unsloth 416, trl 1623).
    let tokenizer = Tokenizer::open(&smollm2()).unwrap();
    let pair = Pair { question: "How?".into(), answer: "By hand.".into() };
    for template in [ChatTemplate::of(&tokenizer).unwrap(), ChatTemplate::plain(&tokenizer).unwrap()] {
        for counts in [Counts::Answer, Counts::All] {
            for length in [20, 64, 1000] {
                let made = pairs(&tokenizer, &template, [&pair, &pair], counts, length).unwrap();
                for segment in &made.segments {
                    assert_eq!(segment.targets.last(), Some(&tokenizer.control("<|im_end|>")), "{counts:?} {length}");
                }
            }
        }
    }
}
