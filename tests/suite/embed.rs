//! A sentence encoder in a pipeline: chunks by meaning, vectors by row, both remembered.

use retort_tests::Space;

const PIPELINE: &str = "\
retort: 1
name: small
models:
  minilm: {weights: 'file:MODEL', sha256: 1e1c13f2886ec8dc31fb14bd2a364a7b8a290606a082717c9e8b388d0f81d053}
nodes:
  documents:
    op: extract
    with: {paths: ['docs/*.md']}
  chunks:
    op: chunk
    from: documents
    with: {max_words: 80, by: semantic, encoder: minilm}
  vectors:
    op: embed
    from: chunks
    with: {encoder: minilm}
";

pub(crate) fn encoder() -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let fetched = std::process::Command::new(format!("{root}/.ci/fetch-encoder")).status().unwrap();
    assert!(fetched.success(), "`.ci/fetch-encoder` could not fetch the encoder that this test runs on");
    format!("{root}/target/models/all-MiniLM-L6-v2.joined")
}

const TWO_MATTERS: &str = "\
The printer daemon keeps one queue for each printer. A job waits in the queue until the printer is free. The command lpq shows the jobs of a queue. \
Bread dough has to rest for an hour before it is baked. Knead the flour with water, salt and yeast. A hot oven gives the loaf a crisp crust.";

#[test]
fn meaning_cuts_and_what_is_known_is_not_asked_again() {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    space.write("small.yaml", &PIPELINE.replace("MODEL", &encoder()));
    space.write("docs/a.md", &format!("# Notes\n\n{TWO_MATTERS}\n"));
    space.write("docs/b.md", "# Disks\n\nA disk has partitions.\n");
    space.run("small.yaml");
    let chunks = space.rows("small.yaml", "chunks");
    assert_eq!(chunks.len(), 3, "{chunks:#?}");
    assert!(chunks[1]["text"].as_str().unwrap().contains("\n\nBread dough has to rest"), "{chunks:#?}");

    let vectors = space.rows("small.yaml", "vectors");
    let product = |a: usize, b: usize| -> f64 {
        let numbers = |at: usize| vectors[at]["embedding"].as_array().unwrap().clone();
        numbers(a).iter().zip(numbers(b)).map(|(a, b)| a.as_f64().unwrap() * b.as_f64().unwrap()).sum()
    };
    assert!((product(0, 0) - 1.0).abs() < 1e-5);
    assert!(product(0, 1) < 0.5);

    space.edit("docs/b.md", "partitions", "cylinders");
    let story = space.run("small.yaml");
    assert_eq!((story.recalled("chunks"), story.recalled("vectors")), (Some((1, 2)), Some((2, 3))));
}

#[test]
fn an_encoder_and_semantic_belong_together() {
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    let without = PIPELINE.replace(", encoder: minilm}\n  vectors", "}\n  vectors").replace("MODEL", "none");
    space.write("small.yaml", &without);
    let (_, said) = space.ends(2, &["check", "small.yaml"]);
    assert!(said.contains("`by: semantic` needs an `encoder`"), "{said}");
    space.write("small.yaml", &PIPELINE.replace("by: semantic, ", "").replace("MODEL", "none"));
    let (_, said) = space.ends(2, &["check", "small.yaml"]);
    assert!(said.contains("an `encoder` is for `by: semantic`"), "{said}");
}
