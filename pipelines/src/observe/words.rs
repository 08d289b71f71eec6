//! Says numbers, times, facts and reasons in words.

use retort_cache::Change;
use retort_engine::EventKind;
use retort_engine::plan::Reason;

use super::Tally;
use crate::history::parts;

/// The longest that a value is shown.
const LONGEST: usize = 40;
/// The longest that the part of a text is shown that changed.
const PART: usize = 80;
/// Changes that one line names.
const NAMED: usize = 3;

/// A number with its digits in threes: `12,345`.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 row`, `12 rows`.
pub fn count(n: u64, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{} {one}s", number(n)) }
}

/// A duration: `0.4 s`, `1 min 20 s`, `2 h 05 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A number of bytes in decimal units: `98.4 MB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 999.95 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A rate with as many digits as mean something: `0.42`, `3.1`, `412`.
pub fn rate(value: f64) -> String {
    match value {
        ..1.0 => format!("{value:.2}"),
        1.0..10.0 => format!("{value:.1}"),
        _ => number(value.round() as u64),
    }
}

/// A measured value: six significant digits at most, no zeros at the end.
pub fn measure(value: f64) -> String {
    if value != 0.0 && (value.abs() < 1e-4 || value.abs() >= 1e9) {
        return format!("{value:.3e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Text on one line, cut in the middle where it is longer than `longest` characters.
pub fn cut_middle(text: &str, longest: usize) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let n = text.chars().count();
    if n <= longest {
        return text;
    }
    let head = (longest - 1).div_ceil(2);
    let begin: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(n - (longest - 1 - head)).collect();
    format!("{begin}…{end}")
}

/// A fact's value: a digest as 12 digits, long text cut in the middle.
pub fn value(text: &str) -> String {
    if is_digest(text) { text[..12].to_string() } else { cut_middle(text, LONGEST) }
}

/// Whether a value is a digest.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// One change: `with.max_tokens 384 → 512`, `file nextstep/docs/a.md changed`.
pub fn change(change: &Change) -> String {
    let Change { fact, old, new } = change;
    let verb = match (old, new) {
        (Some(_), Some(_)) => "changed",
        (None, _) => "added",
        (_, None) => "removed",
    };
    if fact.starts_with("file ") {
        return format!("{fact} {verb}");
    }
    match (old, new) {
        (Some(old), Some(new)) if !is_digest(old) && old.chars().count().max(new.chars().count()) > LONGEST => {
            let (old, new) = parts(old, new);
            format!("{fact} {} → {}", cut_middle(&old, PART), cut_middle(&new, PART))
        }
        (Some(old), Some(new)) => format!("{fact} {} → {}", value(old), value(new)),
        (None, Some(new)) => format!("{fact} added: {}", value(new)),
        (Some(old), None) => format!("{fact} removed: {}", value(old)),
        (None, None) => fact.clone(),
    }
}

/// Every change as a text of its own.
pub fn reasons(reason: &Reason) -> Vec<String> {
    match reason {
        Reason::FirstRun => vec!["first run".into()],
        Reason::Forced => vec!["forced".into()],
        Reason::Verify => vec!["to compare".into()],
        Reason::Lost => vec!["its tables are gone from the store".into()],
        Reason::Changed { changes } => changes.iter().map(change).collect(),
    }
}

/// A reason on one line.
pub fn reason(reason: &Reason) -> String {
    let all = reasons(reason);
    let named = all[..all.len().min(NAMED)].join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}, and {more} more"),
    }
}

/// What a node waits for: ``waiting for another run of `answers` (process 4711)``.
pub fn waiting(node: &str, holder: Option<&str>, process: Option<u32>) -> String {
    let process = process.map(|process| format!(" (process {process})")).unwrap_or_default();
    match holder {
        Some(holder) if holder.split_once('/').is_none_or(|(_, holder)| holder != node) => {
            format!("waiting for `{holder}`, which asks the same{process}")
        }
        _ => format!("waiting for another run of `{node}`{process}"),
    }
}

/// What a node came to: `120 rows, 3 rejects`.
pub fn outcome(tally: &Tally) -> String {
    let ports: Vec<_> = tally.outputs.iter().filter(|out| out.port != "rejects" && out.port != "files").collect();
    let rows = match ports.as_slice() {
        [] => "no tables".to_string(),
        [one] => count(one.rows, "row"),
        several => {
            several.iter().map(|out| format!("{} {}", out.port, number(out.rows))).collect::<Vec<_>>().join(", ")
        }
    };
    match tally.rejects() {
        0 => rows,
        n => format!("{rows}, {}", count(n, "reject")),
    }
}

/// How a node ended: `120 rows, 3 rejects, 0.4 s  (with.max_tokens 384 → 512)`.
pub fn finished(tally: &Tally) -> String {
    let mut text = outcome(tally);
    if let Some((recalled, _)) = tally.recalled.filter(|(rows, _)| *rows > 0) {
        text = format!("{text}, {} recalled", number(recalled));
    }
    text = format!("{text}, {}", duration(tally.seconds()));
    if let Some([prompt, output]) = tally.token_rates() {
        text = format!("{text}, {} prompt and {} output tokens/s", rate(prompt), rate(output));
    }
    if tally.changed == Some(false) {
        text.push_str(", same answer as before");
    }
    match &tally.why {
        Some(why) => format!("{text}  ({})", reason(why)),
        None => text,
    }
}

/// Where two answers to the same question part: `out row 3, column `text`: "a" → "b" (tables 8c2f… and 51ab…)`.
pub fn parting(kind: &EventKind) -> String {
    let EventKind::Differs { port, was, now, row, column, old, new } = kind else { return String::new() };
    let place = port.as_deref().map_or("remembered for input".into(), |port| format!("`{port}`"));
    let column = column.as_deref().map(|column| format!(", column `{column}`")).unwrap_or_default();
    let value = |value: &Option<String>| format!("{:?}", value.as_deref().unwrap_or_default());
    let tables = was.zip(*now).map(|(was, now)| format!(" (tables {:?}… and {:?}…)", was.0, now.0)).unwrap_or_default();
    format!("{place} row {}{column}: {} → {}{tables}", number(*row), value(old), value(new))
}

/// How far a running node is: `120/410 rows  3.2 rows/s  412 tokens/s  1 min 20 s left`.
pub fn standing(tally: &Tally, at: f64) -> String {
    if let Some((asset, done, of)) = &tally.fetching {
        let of = if *of > 0 { format!(" of {}", bytes(*of)) } else { String::new() };
        return format!("fetching {asset}: {}{of}", bytes(*done));
    }
    let mut parts = Vec::new();
    let trains = tally.metrics.is_some();
    if let Some((done, of)) = tally.progress {
        let unit = if trains { "steps" } else { "rows" };
        parts.push(format!("{}/{} {unit}", number(done), number(of)));
        parts.extend(tally.rate(at).map(|value| format!("{} {unit}/s", rate(value))));
    }
    parts.extend(tally.token_rate(at).map(|value| format!("{} tokens/s", rate(value))));
    parts.extend(tally.losses().map(|(name, value)| format!("{name} {value:.3}")));
    // A training may find that it learns no more.
    let most = if trains { "at most " } else { "" };
    parts.extend(tally.left(at).filter(|left| *left > 0.0).map(|left| format!("{most}{} left", duration(left))));
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([number(7), number(1234), number(1_234_567)], ["7", "1,234", "1,234,567"]);
        assert_eq!([count(1, "row"), count(0, "row")], ["1 row", "0 rows"]);
        assert_eq!([duration(0.44), duration(80.2), duration(7500.0)], ["0.4 s", "1 min 20 s", "2 h 05 min"]);
        assert_eq!([bytes(12), bytes(999_960), bytes(98_400_000)], ["12 B", "1.0 MB", "98.4 MB"]);
        assert_eq!([measure(1.5), measure(2.0), measure(0.000_02)], ["1.5", "2", "2.000e-5"]);
    }

    #[test]
    fn a_training_may_end_before_its_last_step() {
        let mut tally = Tally::default();
        tally.take(&EventKind::Started { why: Reason::FirstRun }, 1.0);
        tally.take(&EventKind::Metrics { step: 1, values: vec![("loss".into(), 2.0)] }, 3.0);
        tally.take(&EventKind::Progress { done: 1, of: 100 }, 3.0);
        assert_eq!(standing(&tally, 3.0), "1/100 steps  0.50 steps/s  loss 2.000  at most 3 min 18 s left");
    }

    #[test]
    fn a_wait_names_what_it_waits_for() {
        assert_eq!(waiting("answers", None, None), "waiting for another run of `answers`");
        assert_eq!(
            waiting("answers", Some("small/answers"), Some(4711)),
            "waiting for another run of `answers` (process 4711)"
        );
        assert_eq!(waiting("answers", Some("small/twin"), None), "waiting for `small/twin`, which asks the same");
    }

    #[test]
    fn changes_are_said_in_words() {
        let said = |fact: &str, old: Option<&str>, new: Option<&str>| {
            change(&Change { fact: fact.into(), old: old.map(Into::into), new: new.map(Into::into) })
        };
        assert_eq!(said("with.max_tokens", Some("384"), Some("512")), "with.max_tokens 384 → 512");
        assert_eq!(said("file docs/a.md", Some("aa"), Some("bb")), "file docs/a.md changed");
        assert_eq!(said("file docs/b.md", None, Some("bb")), "file docs/b.md added");
        assert_eq!(
            said("input.from", Some(&"8c".repeat(32)), Some(&"51".repeat(32))),
            "input.from 8c8c8c8c8c8c → 515151515151"
        );
        let (three, five) =
            ("Write three pairs about the text, please", "Write at least five pairs about the text, please");
        assert_eq!(
            said("with.messages[0].user", Some(three), Some(five)),
            "with.messages[0].user Write three pairs about the text, … → Write at least five pairs about the text, …"
        );
        let long = format!("Write pairs about {} please", "x".repeat(80));
        assert_eq!(
            said("with.messages[0].user", None, Some(&long)).chars().count(),
            "with.messages[0].user added: ".len() + 40
        );
    }
}
