//! A remote store, behind real S3 requests: what is missing travels and nothing else, whatever happens on the way.
//!
//! The server is `s3s-fs`, started in the test on a loopback port, with keys. `gs:` and `az:` have no server here: that their
//! URLs and settings are understood is tested in `cache/src/remote.rs`.

mod server;

use std::fs;
use std::path::Path;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use hyper::Method;
use rand::{RngExt, SeedableRng};
use retort_cache::remote::{self as far, Freight, Remote};
use retort_cache::{ANSWER_VERSION, Answer, Disk, Fact, Output, Recipe, Store};
use retort_tests::Space;

use crate::lock::space;
pub(crate) use server::objects;
use server::{BUCKET, Fault, Server};

/// A machine that reaches the server.
fn machine(server: &Server) -> Space {
    let mut space = space();
    for (name, value) in server.env() {
        space.set_env(&name, &value);
    }
    space
}

fn url() -> String {
    format!("s3://{BUCKET}/team/one")
}

fn kinds(paths: &[String]) -> [usize; 3] {
    ["/tables/", "/answers/", "/rows/"].map(|kind| paths.iter().filter(|path| path.contains(kind)).count())
}

fn push(space: &Space) -> String {
    space.ends(0, &["cache", "push", "words.yaml", "--remote", &url()]).1
}

fn pull(space: &Space) -> String {
    space.ends(0, &["cache", "pull", "words.yaml", "--remote", &url()]).1
}

fn all_fresh(space: &Space) -> bool {
    space.plan("words.yaml")["nodes"].as_array().unwrap().iter().all(|node| node["verdict"] == "fresh")
}

/// Cuts a file short.
fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 20]).unwrap();
}

#[test]
fn what_one_machine_pushed_another_pulls_and_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Fault::Never);
    let (here, there) = (machine(&server), machine(&server));
    here.run("words.yaml");
    push(&here);
    let sent = server.requests(&Method::PUT);
    let [tables, answers, rows] = kinds(&sent);
    assert!(tables >= 3 && answers == 3 && rows >= 1, "{sent:?}");
    let last_table = sent.iter().rposition(|path| path.contains("/tables/")).unwrap();
    let first_answer = sent.iter().position(|path| path.contains("/answers/")).unwrap();
    assert!(last_table < first_answer, "an answer is there after its tables: {sent:?}");

    server.forget();
    assert!(push(&here).contains("pushed 0 tables, 0 answers and 0 segments"));
    assert_eq!(server.requests(&Method::PUT), Vec::<String>::new(), "what is there does not travel again");

    pull(&there);
    assert!(all_fresh(&there));
    assert!(there.run("words.yaml").ran().is_empty());
    assert_eq!(there.rows("words.yaml", "chunks"), here.rows("words.yaml", "chunks"));
    server.forget();
    pull(&there);
    let got: Vec<_> = server.requests(&Method::GET).into_iter().filter(|path| !path.ends_with("/version")).collect();
    assert_eq!(kinds(&got), [0, 0, 0], "{got:?}");
    // The rows came along: one changed document costs one document over there, too.
    there.edit("docs/3.md", "never shrinks", "does not shrink");
    assert_eq!(there.run("words.yaml").recalled("documents"), Some((4, 5)));
}

#[test]
fn a_run_reads_through_and_takes_only_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Fault::Never);
    let (here, there) = (machine(&server), machine(&server));
    here.run_with("words.yaml", &["--remote", &url(), "--push"]);
    let plan = there.retort(&["plan", "words.yaml", "--json", "--remote", &url()]);
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    let nodes = plan["nodes"].as_array().unwrap();
    assert!(
        nodes.len() > 2 && nodes.iter().all(|node| node["verdict"] == "fresh"),
        "a plan sees what is there: {plan}"
    );
    let story = there.run_with("words.yaml", &["--remote", &url()]);
    assert!(story.ran().is_empty(), "{:?}", story.ran());
    assert!(all_fresh(&there), "what came is kept");
    assert_eq!(kinds(&server.requests(&Method::PUT))[1], 3, "reading through sends nothing");

    let mut third = machine(&server);
    third.set_env("RETORT_REMOTE", &url());
    third.edit("docs/3.md", "never shrinks", "does not shrink");
    let story = third.run("words.yaml");
    assert_eq!(story.recalled("documents"), Some((4, 5)), "remembered rows come with the operator");
}

#[test]
fn a_server_that_fails_every_third_request_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Fault::EveryThird);
    let (here, there) = (machine(&server), machine(&server));
    here.run("words.yaml");
    push(&here);
    pull(&there);
    assert!(all_fresh(&there));
    let third = machine(&server);
    assert!(third.run_with("words.yaml", &["--remote", &url()]).ran().is_empty());
}

#[test]
fn a_push_that_was_cut_goes_on_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let here = {
        let server = Server::start(folder.path(), Fault::StallAfter(4));
        let here = machine(&server);
        here.run("words.yaml");
        let child = here.start(&["cache", "push", "words.yaml", "--remote", &url()]);
        server.kill_when_stalled();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("failed to put `{}", url())), "{said}");
        here
    };
    let server = Server::start(folder.path(), Fault::Never);
    let there = server.objects();
    assert_eq!(there.len(), 4, "{there:?}");
    assert_eq!(kinds(&there.iter().map(|(path, _)| format!("/{path}")).collect::<Vec<_>>())[1], 0, "no answer yet");
    let mut here = here;
    for (name, value) in server.env() {
        here.set_env(&name, &value);
    }
    push(&here);
    let sent = server.requests(&Method::PUT);
    assert!(there.iter().all(|(path, _)| !sent.contains(path)), "what had arrived did not travel again: {sent:?}");
    assert_eq!(sent.len() + there.len(), server.objects().len());
    let other = machine(&server);
    pull(&other);
    assert!(all_fresh(&other));
}

#[test]
fn an_object_that_was_changed_is_named_and_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Fault::Never);
    let here = machine(&server);
    here.run("words.yaml");
    push(&here);
    let tables = server.objects().into_iter().filter(|(path, _)| path.contains("tables/"));
    let (name, path) = tables.max_by_key(|(_, path)| fs::metadata(path).unwrap().len()).unwrap();
    cut(&path);
    let there = machine(&server);
    let said = there.ends(1, &["cache", "pull", "words.yaml", "--remote", &url()]).1;
    assert!(said.contains(&format!("`s3://{BUCKET}/{name}` is not what its name promises")), "{said}");
    let table = name.rsplit("tables/").next().unwrap();
    assert!(!there.path().join(".retort/tables").join(table).exists());
    // A run goes on without it, says so, and makes it anew.
    let third = machine(&server);
    let output = third.retort(&["run", "words.yaml", "--remote", &url()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("is not what its name promises"), "{said}");
    assert!(all_fresh(&third));

    for (name, path) in
        server.objects().into_iter().filter(|(path, _)| path.contains("answers/") || path.contains("rows/"))
    {
        cut(&path);
        let fourth = machine(&server);
        let said = fourth.ends(1, &["cache", "pull", "--remote", &url()]).1;
        assert!(said.contains(&format!("`s3://{BUCKET}/{name}` is not what its name promises")), "{said}");
    }
}

#[test]
fn a_long_table_goes_up_in_parts_whatever_fails() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("s3"), Fault::EveryThird);
    let remote = Remote::open(&url(), &server.env()).unwrap();
    let [here, there] = ["here", "there"].map(|name| Disk::open(folder.path().join(name)).unwrap());
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let schema = std::sync::Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let mut writer = here.writer(schema.clone()).unwrap();
    for _ in 0..24 {
        let numbers = Int64Array::from_iter_values((0..1 << 16).map(|_| rng.random::<i64>()));
        writer.write(&RecordBatch::try_new(schema.clone(), vec![std::sync::Arc::new(numbers)]).unwrap()).unwrap();
    }
    let table = writer.finish().unwrap();
    let length = fs::metadata(table.path().unwrap()).unwrap().len();
    assert!(length > 8 << 20, "{length} bytes go up in one part");
    let recipe = Recipe { op: vec![Fact::new("op.name", "test")], inputs: Vec::new() };
    let output = Output { port: "out".into(), content: table.id, rows: table.rows };
    let answer = Answer { version: ANSWER_VERSION, op: "test".into(), recipe, outputs: vec![output] };
    here.commit("p/long", &answer).unwrap();
    let freight = Freight::of(vec![answer.clone()]);
    let seen = std::sync::Mutex::new(Vec::new());
    let moved = far::push(&here, &remote, &freight, &|progress| seen.lock().unwrap().push(progress)).unwrap();
    assert_eq!((moved.tables, moved.answers), (1, 1));
    assert!(moved.bytes > length, "{moved:?}");
    let last = *seen.lock().unwrap().last().unwrap();
    assert_eq!((last.done, last.of, last.bytes), (2, 2, moved.bytes));
    let parts = server.requests(&Method::PUT).iter().filter(|path| path.contains("/tables/")).count();
    assert!(parts >= 2, "{parts}");
    far::pull(&there, &remote, &freight, &|_| ()).unwrap();
    assert_eq!(there.record(answer.recipe.id()).unwrap(), Some(answer.clone()));
    assert_eq!(there.recall(answer.recipe.id()).unwrap(), Some(answer.outputs));
    let copy = there.open(table.id).unwrap().unwrap();
    assert_eq!(fs::read(copy.path().unwrap()).unwrap(), fs::read(table.path().unwrap()).unwrap());
}

#[test]
fn a_refusal_says_what_was_tried_and_where_credentials_come_from() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), Fault::Never);
    let mut space = machine(&server);
    space.set_env("AWS_SECRET_ACCESS_KEY", "wrong");
    space.run("words.yaml");
    let said = space.ends(1, &["cache", "push", "words.yaml", "--remote", &url()]).1;
    assert!(said.contains(&format!("failed to get `{}/version`", url())), "{said}");
    assert!(said.contains("hint: the credentials are taken from the environment (AWS_ACCESS_KEY_ID"), "{said}");
    let said = space.ends(2, &["cache", "push", "words.yaml", "--remote", "ftp://somewhere"]).1;
    assert!(said.contains("s3://BUCKET/PREFIX"), "{said}");
    let said = space.ends(2, &["cache", "push", "words.yaml"]).1;
    assert!(said.contains("`--remote URL` or RETORT_REMOTE names one"), "{said}");
    let right = machine(&server);
    let said = right.ends(1, &["cache", "pull", "--remote", &format!("s3://{BUCKET}/nothing/here")]).1;
    assert!(said.contains("there is no store at"), "{said}");
}

#[test]
fn a_folder_is_a_remote_store_too() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().join("shared").display());
    let (here, there) = (space(), space());
    here.run("words.yaml");
    here.ends(0, &["cache", "push", "--remote", &url]);
    let pushed = objects(&folder.path().join("shared"));
    there.ends(0, &["cache", "pull", "--remote", &url]);
    assert!(all_fresh(&there));
    // Pushing back what came from there brings nothing new.
    there.ends(0, &["cache", "push", "--remote", &url]);
    let names =
        |objects: &[(String, std::path::PathBuf)]| objects.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&objects(&folder.path().join("shared"))), names(&pushed));
    assert!(there.run("words.yaml").ran().is_empty());
}
