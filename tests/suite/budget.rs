//! What a run may spend on a server: it stops where the budget ends, and what was paid for is kept. Ctrl-C waits for no slow server.

use std::process::Command;
use std::time::{Duration, Instant};

use retort_tests::Space;

use crate::server::Server;

const DOCUMENTS: usize = 6;

/// A pipeline that asks the server about each of some documents, one at a time; `terms` are keys of the model.
fn space(server: &Server, terms: &str) -> Space {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    for n in 0..DOCUMENTS {
        space.write(&format!("docs/{n}.txt"), &format!("Document number {n}.\n"));
    }
    let model = server.model(1);
    let model = model.trim_end_matches('}');
    space.write(
        "p.yaml",
        &format!(
            "retort: 1\nname: p\nmodels:\n  m: {model}, {terms}}}\nnodes:\n  documents:\n    op: extract\n    with: {{paths: [docs]}}\n  \
             answers:\n    op: prompt-llm\n    from: documents\n    with:\n      model: m\n      messages: [{{user: '{{{{ text }}}}'}}]\n      \
             sample: {{max_tokens: 3}}\n"
        ),
    );
    space
}

#[test]
fn a_run_stops_at_its_budget_and_keeps_what_was_paid_for() {
    let server = Server::start(1000);
    // A reply takes 14 tokens, and could take some more.
    let space = space(&server, "price: {prompt: 1, output: 2}, max_tokens_total: 60");
    let (_, errors) = space.ends(1, &["run", "p.yaml"]);
    assert!(errors.contains("the budget is spent: `max_tokens_total` is 60"), "{errors}");
    assert!(errors.contains("what was paid for is kept"), "{errors}");
    let paid = server.asked();
    assert!((2..DOCUMENTS).contains(&paid), "{paid}");
    assert!(paid * 14 <= 60);

    space.edit("p.yaml", "max_tokens_total: 60", "max_tokens_total: 6000, requests_per_minute: 6000");
    let story = space.run("p.yaml");
    assert_eq!(server.asked(), DOCUMENTS, "a budget is no fact, and no answer was lost");
    assert_eq!(story.recalled("answers"), Some((paid as u64, DOCUMENTS as u64)));
    let notes: Vec<String> =
        story.events.iter().filter(|event| event["event"] == "note").map(ToString::to_string).collect();
    let cost = format!("cost {:.4}", 17e-6 * (DOCUMENTS - paid) as f64);
    assert!(notes.iter().any(|note| note.contains(&cost)), "{cost}: {notes:?}");
}

#[test]
fn an_interrupt_waits_for_no_slow_server() {
    let server = Server::start(2);
    let space = space(&server, "timeout: 600");
    let run = space.start(&["run", "p.yaml"]);
    while server.asked() < 3 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let begun = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap().success());
    let output = run.wait_with_output().unwrap();
    let took = begun.elapsed();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(took < Duration::from_secs(4), "{took:?}");
    server.allow(1000);
    assert_eq!(space.run("p.yaml").recalled("answers"), Some((2, DOCUMENTS as u64)));
}
