//! Finds the question/answer pairs in what a model wrote. Where labels are is told by `labels`.
//!
//! | what models write | what becomes of it |
//! |---|---|
//! | a preamble, a rule, a heading over a pair | left out |
//! | several pairs on one line | parted at their labels |
//! | an answer of several lines, with lists or code | one answer, its lines kept |
//! | all questions first, then all answers | joined by their numbers |
//! | `1. What is it?` above `Answer: …` | a question without its label |
//! | `Q: What is it?` and its answer below without a label | parted after the question mark |
//! | no labels at all, but questions as headings, list items or in bold | a question each, what follows its answer |
//! | the same pair twice | once |
//! | a question without an answer, an answer without a question | left out, and said |

use super::labels::{self, Kind, Label};

/// What was found in an output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Question and answer, in the order of the questions, no two alike.
    pub(super) pairs: Vec<(String, String)>,
    /// Questions that were seen, with and without an answer.
    pub(super) n_questions: usize,
    /// What was seen of pairs that are not whole, and why it makes none.
    pub(super) left_out: Vec<String>,
}

/// The pairs of an output. One that was `cut` off by a token limit loses its last answer, which may be half of one.
pub(super) fn find(output: &str, cut: bool) -> Found {
    let lines: Vec<&str> = output.lines().collect();
    let code = code_lines(&lines);
    let mut scan = Scan { entries: Vec::new(), at: At::Outside, section: None, asked: None, n_stray: 0 };
    for (row, line) in lines.iter().enumerate() {
        if code[row] { scan.text(line) } else { scan.line(line, &lines[row + 1..]) }
    }
    let mut entries = scan.entries;
    if entries.is_empty() {
        entries = unlabelled(&lines, &code);
    }
    if cut && let Some(last) = entries.last_mut() {
        last.answer = None;
    }
    let mut found = finish(entries, cut);
    found.left_out.extend(std::iter::repeat_n("an answer without a question".to_string(), scan.n_stray));
    found
}

/// A question and what was found for it.
#[derive(Debug, Default)]
struct Entry {
    number: Option<u32>,
    question: String,
    answer: Option<String>,
}

/// Where text goes. Changed in `Scan::open` and by headings over lists only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Nowhere: before the first label, between pairs.
    Outside,
    /// The last entry's question.
    Question,
    /// The answer of this entry.
    Answer(usize),
}

struct Scan {
    entries: Vec<Entry>,
    at: At,
    /// Below `Questions:` or `Answers:` list items are what the heading says.
    section: Option<Kind>,
    /// The line that was last read outside of pairs, if it asks.
    asked: Option<String>,
    /// Answers that belong to no question.
    n_stray: usize,
}

impl Scan {
    fn line(&mut self, line: &str, below: &[&str]) {
        if let Some(section) = labels::section(line) {
            (self.section, self.at) = (Some(section), At::Outside);
            return;
        }
        if labels::parts_pairs(line) && !matches!(self.at, At::Question) {
            self.at = At::Outside;
            return;
        }
        let mut at = 0;
        if let Some(label) = labels::at_start(line) {
            self.section = None;
            self.open(label.kind, label.number);
            at = label.end;
        } else if let Some(kind) = self.section
            && let Some((number, end)) = labels::item(line)
        {
            self.open(kind, Some(number));
            at = end;
        }
        for label in labels::within(&labels::blank_code(line), at) {
            if self.takes(&label, &line[..label.start], &line[label.end..], below) {
                self.text(&line[at..label.start]);
                self.open(label.kind, label.number);
                at = label.end;
            }
        }
        self.text(&line[at..]);
    }

    /// Whether a label in the middle of a line is one: an answer needs an open question, a question a sentence that ended, or an answer
    /// of its own further on.
    fn takes(&self, label: &Label, before: &str, after: &str, below: &[&str]) -> bool {
        let ended = before.trim().is_empty() || labels::ends_sentence(before);
        match (label.kind, self.at) {
            (Kind::Answer, At::Question) => true,
            (Kind::Answer, _) => false,
            (Kind::Question, At::Question) => ended,
            (Kind::Question, _) => ended || std::iter::once(&after).chain(below).any(|text| text.contains("Answer")),
        }
    }

    fn open(&mut self, kind: Kind, number: Option<u32>) {
        self.at = match kind {
            Kind::Question => {
                self.entries.push(Entry { number, ..Entry::default() });
                At::Question
            }
            Kind::Answer => self.open_answer(number),
        };
    }

    fn open_answer(&mut self, number: Option<u32>) -> At {
        let waits = |entry: &Entry| entry.answer.is_none();
        let numbered = self.entries.iter().position(|entry| waits(entry) && number.is_some() && entry.number == number);
        let asked = self.entries.len().checked_sub(1).filter(|_| self.at == At::Question);
        if let Some(index) = numbered.or(asked) {
            self.entries[index].answer = Some(String::new());
            return At::Answer(index);
        }
        // "1. What is it?" above "Answer: …": a question that has no label.
        let question = match self.at {
            At::Answer(index) => self.entries[index].answer.as_mut().and_then(take_question),
            At::Outside | At::Question => self.asked.take(),
        };
        if let Some(question) = question {
            self.entries.push(Entry { number: None, question, answer: Some(String::new()) });
            return At::Answer(self.entries.len() - 1);
        }
        // A second answer to the same question goes on with the first.
        if let At::Answer(index) = self.at {
            return At::Answer(index);
        }
        self.n_stray += 1;
        At::Outside
    }

    fn text(&mut self, text: &str) {
        let into = match self.at {
            At::Question => self.entries.last_mut().map(|entry| &mut entry.question),
            At::Answer(index) => self.entries[index].answer.as_mut(),
            At::Outside if text.trim().is_empty() => None,
            At::Outside => {
                self.asked = Some(labels::unmarked(text).0).filter(|text| asks(text)).map(str::to_owned);
                None
            }
        };
        if let Some(into) = into {
            into.push_str(text);
            into.push('\n');
        }
    }
}

/// Takes the last paragraph's first line off an answer, if it is a marked question and all that there is of the paragraph.
fn take_question(answer: &mut String) -> Option<String> {
    let text = answer.trim_end();
    let start = text.rfind('\n').map_or(0, |end| end + 1);
    let (question, marked) = labels::unmarked(&text[start..]);
    let parted = text[..start].ends_with("\n\n");
    if start == 0 || !asks(question) || !(marked || parted) {
        return None;
    }
    let question = question.to_owned();
    answer.truncate(start);
    Some(question)
}

/// Pairs without labels: questions that are headings, list items or bold, and what stands below each.
fn unlabelled(lines: &[&str], code: &[bool]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for (line, code) in lines.iter().zip(code) {
        let (text, marked) = labels::unmarked(line);
        if !code && marked && asks(text) {
            entries.push(Entry { number: None, question: text.to_owned(), answer: Some(String::new()) });
        } else if !code && labels::parts_pairs(line) {
        } else if let Some(answer) = entries.last_mut().and_then(|entry| entry.answer.as_mut()) {
            answer.push_str(line);
            answer.push('\n');
        }
    }
    entries
}

fn asks(text: &str) -> bool {
    text.trim_end().trim_end_matches(['*', '_']).ends_with(['?', '？'])
}

/// Tidies the texts and leaves out what is not whole.
fn finish(entries: Vec<Entry>, cut: bool) -> Found {
    let mut found = Found::default();
    let last = entries.len().saturating_sub(1);
    for (at, mut entry) in entries.into_iter().enumerate() {
        if entry.answer.is_none() {
            entry.answer = part_at_question_mark(&mut entry.question);
        }
        let question = tidy(&entry.question);
        let answer = entry.answer.as_deref().map(tidy).unwrap_or_default();
        found.n_questions += usize::from(!question.is_empty());
        match (question.is_empty(), answer.is_empty()) {
            (true, true) => {}
            (true, false) => found.left_out.push("an answer without a question".into()),
            (false, true) if cut && at == last => {
                found.left_out.push(format!("the cut-off answer to `{}`", short(&question)));
            }
            (false, true) => found.left_out.push(format!("`{}`, which has no answer", short(&question))),
            (false, false) => {
                let pair = (question, answer);
                if !found.pairs.contains(&pair) {
                    found.pairs.push(pair);
                }
            }
        }
    }
    found
}

/// The beginning of a question's first line.
fn short(question: &str) -> String {
    const LONG: usize = 60;
    let line = question.lines().next().unwrap_or_default();
    if line.chars().count() <= LONG && line.len() == question.len() {
        return line.to_owned();
    }
    let begin: String = line.chars().take(LONG).collect();
    format!("{}…", begin.trim_end())
}

/// A question whose answer has no label: its first line asks, the others answer.
fn part_at_question_mark(question: &mut String) -> Option<String> {
    let text = question.trim_start();
    let (first, rest) = text.split_once('\n')?;
    if !asks(first) || rest.trim().is_empty() {
        return None;
    }
    let (first, rest) = (first.to_owned(), rest.to_owned());
    *question = first;
    Some(rest)
}

/// Which lines are fenced code. A fence around labels was never closed, if fences don't come in twos, or holds the whole output, if no label
/// stands before it: then it is no code.
fn code_lines(lines: &[&str]) -> Vec<bool> {
    let asks = |line: &&str| labels::at_start(line).is_some_and(|label| label.kind == Kind::Question);
    let paired = lines.iter().filter(|line| fence(line).is_some()).count() % 2 == 0;
    let mut code = vec![false; lines.len()];
    let mut row = 0;
    while row < lines.len() {
        if let Some(fence) = fence(lines[row]) {
            let closes =
                |line: &&str| line.trim().starts_with(fence) && line.trim().trim_start_matches(&fence[..1]).is_empty();
            let end = lines[row + 1..].iter().position(closes).map(|n| row + 1 + n);
            let trusted = paired && lines[..row].iter().any(asks);
            if let Some(end) = end.filter(|end| trusted || !lines[row + 1..*end].iter().any(asks)) {
                code[row..=end].fill(true);
                row = end;
            }
        }
        row += 1;
    }
    code
}

fn fence(line: &str) -> Option<&'static str> {
    ["```", "~~~"].into_iter().find(|fence| line.trim_start().starts_with(fence))
}

/// Without what belongs to the layout around a text: blank lines, a rule or a lone list number below it, a lone fence, emphasis around the
/// whole of it.
fn tidy(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let n_fences = lines.iter().filter(|line| fence(line).is_some()).count();
    if n_fences % 2 == 1 && lines.iter().rev().find(|line| !line.is_empty()).is_some_and(|line| fence(line).is_some()) {
        let last = lines.iter().rposition(|line| fence(line).is_some()).expect("counted above");
        lines.remove(last);
    }
    let filled = |lines: &[&str]| lines.iter().filter(|line| !line.is_empty()).count();
    while let Some(last) = lines.last() {
        let empty = labels::unmarked(last).0.is_empty() || labels::parts_pairs(last);
        if !(last.is_empty() || (empty && filled(&lines) > 1)) {
            break;
        }
        lines.pop();
    }
    let first = lines.iter().position(|line| !line.is_empty()).unwrap_or(lines.len());
    without_emphasis(lines[first..].join("\n").trim()).to_owned()
}

/// Strips emphasis around the whole text, or a half of it that a label left behind.
fn without_emphasis(text: &str) -> &str {
    for mark in ["**", "__"] {
        let inner = text.trim_start_matches(mark).trim_end_matches(mark);
        let halves = text.matches(mark).count();
        if !inner.contains(mark)
            && inner.len() < text.len()
            && (halves == 1 || (text.starts_with(mark) && text.ends_with(mark)))
        {
            return inner.trim();
        }
    }
    text
}
