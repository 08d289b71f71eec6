//! `publish --upload` against a Hub on a loopback port: what arrives there is what was written, byte for byte.

mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use retort_tests::Space;

use crate::remote::objects;
use server::{Commit, Hub};

/// Sends the adapter `adapter` of `printers.yaml`, which is trained, in several ways.
pub(crate) fn sent(space: &mut Space) {
    let hub = Hub::start();
    let home = space.path().join("home").display().to_string();
    for (name, value) in [("HF_ENDPOINT", hub.address()), ("HF_HOME", home), ("NO_PROXY", "127.0.0.1".into())] {
        space.set_env(name, &value);
    }
    let publish = |what: &'static str, more: &[&'static str]| {
        let args = ["publish", "printers.yaml", "adapter", "--to", "sent", "--name", "me/printers", "--upload", what];
        [&args, more].concat()
    };
    let (_, told) = space.ends(2, &["publish", "printers.yaml", "adapter", "--to", "sent", "--upload", "both"]);
    assert!(told.contains("--name"), "{told}");
    let (_, told) = space.ends(1, &publish("both", &[]));
    assert!(told.contains("cannot send to `me/printers-data`") && told.contains("HF_TOKEN"), "{told}");
    assert!(space.path().join("sent/model/README.md").exists(), "what was written stays");
    assert_eq!(hub.commits(), []);

    space.set_env("HF_TOKEN", server::TOKEN);
    let (_, told) = space.ends(0, &publish("both", &["--private"]));
    for line in ["me/printers-data/commit/0", "me/printers/commit/1"] {
        assert!(
            told.contains(
                &format!("to {}/{line}", hub.address()).replace("/me/printers-data", "/datasets/me/printers-data")
            ),
            "{told}"
        );
    }
    assert!(!told.contains("nothing was sent"), "{told}");
    assert_eq!(hub.made(), ["dataset me/printers-data private", "model me/printers private"]);
    let commits = hub.commits();
    let [dataset, model] = commits.as_slice() else { panic!("{commits:?}") };
    arrived(&hub, dataset, &space.path().join("sent/dataset"));
    arrived(&hub, model, &space.path().join("sent/model"));
    assert_eq!(model.message, "adapter of printers, by retort publish");
    assert!(model.stored.contains_key("adapter_model.safetensors"), "weights travel in pieces: {model:?}");

    // Once more, the model alone, with a file beside that `publish` did not write, and a token that may make no repository.
    space.set_env("HF_TOKEN", server::NARROW_TOKEN);
    space.write("sent/model/notes.txt", "mine");
    space.ends(0, &publish("model", &[]));
    let last = hub.commits().pop().unwrap();
    assert!(last.inline.contains_key("README.md") && !last.inline.contains_key("notes.txt"), "{last:?}");
    let elsewhere =
        ["publish", "printers.yaml", "adapter", "--to", "sent", "--name", "you/printers", "--upload", "model"];
    let (_, told) = space.ends(1, &elsewhere);
    assert!(told.contains("cannot send to `you/printers`") && told.contains("no right to write there"), "{told}");
    assert_eq!(hub.commits().len(), 3);
}

/// The files of a commit are those of a folder.
fn arrived(hub: &Hub, commit: &Commit, folder: &Path) {
    let mut files = commit.inline.clone();
    files.extend(commit.stored.iter().map(|(path, sha256)| (path.clone(), hub.stored(sha256))));
    let wanted: BTreeMap<String, Vec<u8>> =
        objects(folder).into_iter().map(|(path, file)| (path, fs::read(file).unwrap())).collect();
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&files), names(&wanted));
    assert!(files == wanted, "the same bytes");
}
