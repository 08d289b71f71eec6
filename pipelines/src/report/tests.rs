//! A page of a run that was written down by hand, with texts that would be tags.

#![expect(clippy::format_push_string, reason = "short texts: what `write!` returns would have to be thrown away")]

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use retort_cache::{ContentId, RecipeId, Store as _};
use retort_engine::EventKind;
use retort_engine::event::OutputSummary;
use retort_engine::plan::Reason;

use super::*;
use crate::history::{Counts, Status};
use crate::observe::{About, EVENTS_FILE, RUNS_FOLDER};

fn put(disk: &Disk, batch: &RecordBatch) -> ContentId {
    let mut writer = disk.writer(batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap().id
}

fn run() -> Run {
    let asked = About { file: "a&b.yaml".into(), pipeline: "shelf <b>".into(), ..About::default() };
    let counts = Counts { ran: 3, fresh: 0, failed: 1, skipped: 0, seconds: 75.0 };
    let began = "2026-11-28T10:00:00.000Z".into();
    Run { id: "2026".into(), began, retort: "0.1.0".into(), asked, status: Status::Failed, counts: Some(counts) }
}

#[test]
fn a_page_tells_all_and_is_nothing_but_text_to_a_browser() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(folder.path()).unwrap();
    let reasons: ArrayRef = Arc::new(StringArray::from(vec!["page 3 is <img src=x>", "page 4 is <img src=x>"]));
    let rejects = RecordBatch::try_from_iter([("reason", reasons)]).unwrap();
    let recipe = RecipeId(retort_cache::Digest::of("test", |_| ()));
    let tables = [
        ("adapter", vec![("metrics", training::tests::log())]),
        ("exam", vec![("out", exam::tests::rows()), ("summary", exam::tests::summary())]),
        ("docs", vec![("rejects", rejects)]),
    ];
    let runs = folder.path().join(RUNS_FOLDER).join("2026");
    std::fs::create_dir_all(&runs).unwrap();
    let mut events = String::new();
    let mut tell = |node: &str, kind: &EventKind| {
        let mut line = serde_json::to_value(kind).unwrap();
        line["node"] = node.into();
        line["at"] = 1.5.into();
        events += &format!("{line}\n");
    };
    for (node, batches) in tables {
        let outputs = batches.iter().map(|(port, batch)| OutputSummary {
            port: (*port).into(),
            content: put(&disk, batch),
            rows: batch.num_rows() as u64,
        });
        let outputs = outputs.collect();
        tell(node, &EventKind::Started { why: Reason::FirstRun });
        tell(node, &EventKind::Fresh { recipe, outputs });
    }
    tell("b\"ad", &EventKind::Failed { error: "no <script>alert(1)</script>".into() });
    std::fs::write(runs.join(EVENTS_FILE), events).unwrap();

    let report = gather(folder.path(), &disk, run()).unwrap();
    assert_eq!(report.nodes.len(), 4);
    let page = report.html();
    for text in
        ["shelf &lt;b&gt;", "a&amp;b.yaml", "1 min 15 s", "pa&lt;irs", "q1 &lt;i&gt;", "t1 &lt;script&gt;", "b&quot;ad"]
    {
        assert!(page.contains(text), "{text}:\n{page}");
    }
    for text in
        ["2 rows", "page 3 is &lt;img", "tu&lt;ned", "+0.375", "kept step 20", "<polyline", "&lt;script&gt;alert(1)"]
    {
        assert!(page.contains(text), "{text}:\n{page}");
    }
    for tag in ["<script", "<img", "<i>x", "href=", "src=\"", "url("] {
        assert!(!page.contains(tag), "{tag}");
    }
    assert_eq!(page.matches("<section>").count(), page.matches("</section>").count());
}

#[test]
fn a_run_without_anything_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join(RUNS_FOLDER).join("2026");
    std::fs::create_dir_all(&runs).unwrap();
    std::fs::write(runs.join(EVENTS_FILE), "").unwrap();
    let report = gather(folder.path(), &Disk::open(folder.path()).unwrap(), run()).unwrap();
    assert!(report.html().ends_with("</html>\n") && report.nodes.is_empty());
}
