//! The page: every text that comes from a pipeline, a model or a document is escaped, and nothing is loaded from elsewhere.

#![expect(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "short texts: what `write!` returns would have to be thrown away"
)]

use std::fmt::Write as _;

use super::{Exam, Example, Log, Node, Report, Score, Tells, Value, brief};
use crate::history::Status;
use crate::observe::{State, words};

/// Pixels of a plot.
const WIDE: (u32, u32) = (860, 300);
const SMALL: (u32, u32) = (422, 190);
/// Reasons that are shown of a node.
const REASONS: usize = 10;
/// Characters of an answer that are shown; the rest is cut.
const LONGEST: usize = 1200;

/// A text that means itself in HTML, in an element or an attribute.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

pub(super) fn page(report: &Report) -> String {
    let mut body = head(report);
    body += &nodes(report);
    for node in &report.nodes {
        if let Some(log) = &node.log {
            body += &training(node, log);
        }
    }
    for node in &report.nodes {
        if let Some((exam, examples)) = &node.exam {
            body += &examined(node, exam, examples);
        }
    }
    body += &refused(report);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{} – Retort</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(&report.run.asked.pipeline),
        include_str!("style.css"),
    )
}

fn head(report: &Report) -> String {
    let run = &report.run;
    let class = match run.status {
        Status::Done => "good",
        Status::Running => "",
        _ => "bad",
    };
    let mut facts = vec![
        ("run", escape(&run.id)),
        ("began", escape(&run.began)),
        ("took", words::duration(report.seconds)),
        ("retort", escape(&run.retort)),
    ];
    if !run.asked.file.is_empty() {
        facts.insert(0, ("file", escape(&run.asked.file)));
    }
    let asked = crate::history::asked(&run.asked);
    if !asked.is_empty() {
        facts.push(("asked", format!("<code>{}</code>", escape(&asked))));
    }
    let facts: String = facts.iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>")).collect();
    format!(
        "<header><h1>{} <span class=\"state {class}\">{}</span></h1>\n<dl>{facts}</dl></header>\n",
        escape(&run.asked.pipeline),
        run.status.word(),
    )
}

fn nodes(report: &Report) -> String {
    let mut text = String::from(
        "<section><h2>Nodes</h2>\n<div class=\"wide\"><table>\n<tr><th>node</th><th>operator</th><th></th>\
         <th class=\"n\">rows</th><th class=\"n\">rejects</th><th class=\"n\">asked</th><th class=\"n\">time</th></tr>\n",
    );
    let longest = report.nodes.iter().map(|node| node.story.tally.seconds()).fold(0.0, f64::max);
    for Node { story, op, .. } in &report.nodes {
        let tally = &story.tally;
        let (class, why) = match &tally.state {
            State::Failed(why) | State::Differs(why) | State::Unverified(why) => ("bad", Some(why.clone())),
            State::Skipped(because) => ("bad", Some(format!("`{because}` failed"))),
            State::Ran | State::Verified => ("good", tally.why.as_ref().map(words::reason)),
            _ => ("", None),
        };
        let count = |n: Option<u64>| n.map(words::number).unwrap_or_default();
        let why = why.map(|why| format!(" <span class=\"why\">{}</span>", escape(&why))).unwrap_or_default();
        let ran = !matches!(tally.state, State::Fresh | State::Skipped(_) | State::Waiting);
        let share = if longest > 0.0 { 100.0 * tally.seconds() / longest } else { 0.0 };
        let time = if ran {
            format!("<span class=\"bar\" style=\"width:{share:.0}%\"></span>{}", words::duration(tally.seconds()))
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td><code>{}</code></td><td><span class=\"state {class}\">{}</span>{why}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n time\">{time}</td></tr>",
            escape(&story.name),
            escape(op.as_deref().unwrap_or_default()),
            tally.state.word(),
            count(tally.rows()),
            count(Some(tally.rejects()).filter(|n| *n > 0)),
            count(tally.asked),
        );
    }
    text + "</table></div></section>\n"
}

fn training(node: &Node, log: &Log) -> String {
    let mut text = format!("<section><h2>Training <code>{}</code></h2>\n", escape(&node.story.name));
    let figure = |plot: &super::Plot, (width, height): (u32, u32)| {
        format!("<figure><figcaption>{}</figcaption>{}</figure>\n", escape(&plot.title), plot.svg(width, height))
    };
    if let Some(plot) = log.loss_plot() {
        text += &figure(&plot, WIDE);
    }
    let others: String = log.other_plots().iter().map(|plot| figure(plot, SMALL)).collect();
    let _ = writeln!(text, "<div class=\"pair\">{others}</div>");
    text += "<div class=\"wide\"><table>\n<tr><th>phase</th><th>loss</th><th class=\"n\">values</th>\
             <th class=\"n\">first</th><th class=\"n\">best</th><th class=\"n\">last</th></tr>\n";
    for measure in log.losses() {
        let values = || measure.points.iter().map(|point| point.1);
        let [first, last] = [values().next(), values().next_back()].map(Option::unwrap_or_default);
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td></tr>",
            escape(&measure.phase),
            escape(&measure.name.replace('_', " ")),
            words::number(measure.points.len() as u64),
            brief(first),
            brief(values().fold(f64::INFINITY, f64::min)),
            brief(last),
        );
    }
    text += "</table></div>\n";
    if !log.notes.is_empty() {
        let note = |(phase, step, note): &(String, f64, String)| {
            format!("<li><b>{}</b> step {step}: {}</li>", escape(phase), escape(note))
        };
        let _ = writeln!(text, "<ul class=\"notes\">{}</ul>", log.notes.iter().map(note).collect::<String>());
    }
    text + "</section>\n"
}

fn examined(node: &Node, exam: &Exam, examples: &[Example]) -> String {
    let mut text = format!(
        "<section><h2>Exam <code>{}</code></h2>\n<p>{}, closed book. In brackets an interval by bootstrap over the questions; \
         a change whose interval does not hold 0 is more than chance.</p>\n",
        escape(&node.story.name),
        words::count(exam.questions.iter().copied().max().unwrap_or(0), "question"),
    );
    text += "<div class=\"wide\"><table class=\"exam\">\n<tr><th>score</th>";
    let (head, _) = exam.lines();
    head[1..].iter().for_each(|name| text += &format!("<th>{}</th>", escape(name)));
    text += "</tr>\n";
    for score in &exam.scores {
        text += &scored(exam, score);
    }
    text += "</table></div>\n";
    if !examples.is_empty() {
        text += "<h3>Questions that changed most</h3>\n";
        examples.iter().for_each(|example| text += &shown(example));
    }
    text + "</section>\n"
}

fn scored(exam: &Exam, score: &Score) -> String {
    let ends = |values: &[Option<Value>]| {
        let all = values.iter().flatten();
        all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), one| {
            let (from, to) = one.interval.unwrap_or((one.value, one.value));
            (low.min(from), high.max(to))
        })
    };
    let range = ends(&score.values);
    let mut text = format!("<tr><td>{}</td>", escape(&score.name.replace('_', " ")));
    for at in 0..exam.models.len() {
        text +=
            &format!("<td>{}</td>", score.values[at].map(|value| cell(value, range, false, "")).unwrap_or_default());
        if at > 0 {
            let class = match score.tells(at) {
                Tells::Better => "good",
                Tells::Worse => "bad",
                Tells::Nothing => "same",
            };
            let change = score.changes.get(at).copied().flatten();
            let (low, high) = ends(&score.changes);
            let range = (low.min(0.0), high.max(0.0));
            let change = change.map(|value| cell(value, range, true, score.unit())).unwrap_or_default();
            text += &format!("<td class=\"{class}\">{change}</td>");
        }
    }
    text + "</tr>\n"
}

/// A number, its interval as text, and as a line with a point.
fn cell(value: Value, range: (f64, f64), change: bool, unit: &str) -> String {
    let sign = |value: f64| if change && value > 0.0 { "+" } else { "" };
    let number = format!("<b>{}{}{unit}</b>", sign(value.value), brief(value.value));
    let Some((low, high)) = value.interval else { return number };
    let place = |value: f64| {
        let wide = range.1 - range.0;
        if wide > 0.0 { 4.0 + 112.0 * (value - range.0) / wide } else { 60.0 }
    };
    let zero = if change {
        format!("<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"0\" y2=\"12\" class=\"zero\"/>", place(0.0))
    } else {
        String::new()
    };
    format!(
        "{number} <span class=\"ends\">({}{} to {}{})</span><br><svg class=\"range\" width=\"120\" height=\"12\">{zero}\
         <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"6\" y2=\"6\"/><circle cx=\"{:.1}\" cy=\"6\" r=\"3\"/></svg>",
        sign(low),
        brief(low),
        sign(high),
        brief(high),
        place(low),
        place(high),
        place(value.value),
    )
}

fn shown(example: &Example) -> String {
    let mut text = format!(
        "<article><p class=\"question\">{}</p>\n<dl><dt>wanted</dt><dd>{}</dd>",
        escape(&cut(&example.question)),
        escape(&cut(&example.answer)),
    );
    for (model, said, f1) in &example.said {
        let said = if said.trim().is_empty() { "<i>nothing</i>".into() } else { escape(&cut(said)) };
        let _ = write!(text, "<dt>{}</dt><dd>{said} <span class=\"ends\">F1 {f1:.2}</span></dd>", escape(model));
    }
    text + "</dl></article>\n"
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn refused(report: &Report) -> String {
    let mut text = String::new();
    for node in report.nodes.iter().filter(|node| !node.refused.is_empty()) {
        let rows: usize = node.refused.iter().map(|one| one.rows).sum();
        let _ = writeln!(
            text,
            "<h3><code>{}</code>, {}</h3>\n<div class=\"wide\"><table>\n<tr><th class=\"n\">rows</th><th>reason, as one of them has it</th></tr>",
            escape(&node.story.name),
            words::count(rows as u64, "row"),
        );
        for one in node.refused.iter().take(REASONS) {
            let rows = words::number(one.rows as u64);
            let _ = writeln!(text, "<tr><td class=\"n\">{rows}</td><td>{}</td></tr>", escape(&cut(&one.reason)));
        }
        text += "</table></div>\n";
        if node.refused.len() > REASONS {
            let _ = writeln!(text, "<p>… and {} more reasons</p>", node.refused.len() - REASONS);
        }
    }
    if text.is_empty() { text } else { format!("<section><h2>Refused rows</h2>\n{text}</section>\n") }
}
