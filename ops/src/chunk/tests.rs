//! The laws of chunks: never over budget, nothing lost, offsets exact, whole things whole.

use super::pack::chunks;
use super::*;
use crate::document::{Kind, Raw};
use retort_lm::tokenizer::Marks;

fn budget(max: usize, overlap: usize, by: By) -> Budget {
    Budget { max, min: max / 3, overlap, by }
}

fn sentence(seed: usize) -> String {
    let words = ["the", "NetInfo", "server", "binds", "to", "its", "parent", "at", "boot", "and", "serves", "machines"];
    let length = 4 + seed % 9;
    let text: Vec<&str> = (0..length).map(|at| words[(seed * 7 + at * 5) % words.len()]).collect();
    format!("S{seed} {}.", text.join(" "))
}

/// A document with every kind of block, some of them long.
fn manual() -> Document {
    let mut raws = vec![Raw::new(Kind::Paragraph, 0, "Before any heading.")];
    for chapter in 0..4 {
        raws.push(Raw::new(Kind::Heading, 1, format!("Chapter {chapter}")));
        for section in 0..3 {
            raws.push(Raw::new(Kind::Heading, 2, format!("Section {chapter}.{section}")));
            let length = 1 + (chapter * 5 + section * 3) % 11;
            let text: Vec<String> = (0..length).map(|at| sentence(chapter * 31 + section * 7 + at)).collect();
            raws.push(Raw::new(Kind::Paragraph, 0, text.join(" ")));
            if section == 1 {
                raws.push(Raw::new(Kind::Paragraph, 0, "Do this:"));
                let items: Vec<String> = (1..5 + chapter).map(|at| format!("{at}. {}", sentence(at))).collect();
                raws.push(Raw::new(Kind::List, 1, items.join("\n")));
            }
            if section == 2 {
                raws.push(Raw::new(Kind::Code, 0, "niload passwd . < file\n\n    ls -l\n  cat a | sort"));
                let rows: Vec<String> = (0..6 + chapter * 4).map(|at| format!("| r{at} | value of {at} |")).collect();
                raws.push(Raw::new(Kind::Table, 0, format!("| name | value |\n| --- | --- |\n{}", rows.join("\n"))));
            }
        }
    }
    raws.push(Raw::new(Kind::Paragraph, 0, format!("A {} end", "longwordwithoutanyblank".repeat(40))));
    raws.push(Raw::new(Kind::Heading, 1, "A heading over nothing"));
    Document::assemble(None, raws)
}

fn check(document: &Document, measure: &dyn Measure, budget: Budget) -> Vec<Piece> {
    let found = chunks(document, measure, budget).unwrap();
    let mut covered = vec![false; document.text.len()];
    for chunk in &found {
        assert!(chunk.n_tokens <= budget.max, "{} over {budget:?}: {chunk:?}", chunk.n_tokens);
        assert_eq!(chunk.n_tokens, measure.count(&chunk.text).unwrap());
        assert!(chunk.text.ends_with(&document.text[chunk.start..chunk.end]), "{chunk:?}");
        covered[chunk.start..chunk.end].fill(true);
    }
    for block in document.blocks.iter().filter(|block| block.kind != Kind::Heading) {
        for (at, char) in document.text_of(block).char_indices() {
            assert!(covered[block.start + at] || char.is_whitespace(), "lost at {} with {budget:?}", block.start + at);
        }
    }
    if budget.overlap == 0 {
        assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start));
    }
    found
}

#[test]
fn never_over_budget_and_nothing_lost() {
    let document = manual();
    for by in [By::Headings, By::Paragraphs, By::Sentences, By::Semantic] {
        for max in [1, 2, 3, 5, 8, 13, 30, 64, 200, 5000] {
            for overlap in [0, max / 4] {
                check(&document, &Words, budget(max, overlap, by));
            }
        }
    }
}

/// Seeded numbers (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn words(&mut self, most: usize) -> String {
        let words = [
            "a",
            "the queue.",
            "e.g.",
            "No!",
            "日本語。",
            "https://a.example/b?c=d",
            "🙂",
            "x\u{301}",
            "x = 3;",
            "See",
            "\"Why?\"",
        ];
        let count = 1 + self.below(most);
        (0..count).map(|_| words[self.below(words.len())]).collect::<Vec<_>>().join(" ")
    }

    fn block(&mut self) -> Raw {
        let lines = 1 + self.below(9);
        let lines: Vec<String> = (0..lines).map(|_| self.words(12)).collect();
        match self.below(7) {
            0 | 1 => Raw::new(Kind::Heading, 1 + self.below(4) as u8, self.words(6)),
            2 => Raw::new(Kind::Code, 0, lines.join(if self.below(2) == 0 { "\n    " } else { "\n\n" })),
            3 => Raw::new(Kind::Table, 0, format!("| h | i |\n| --- | --- |\n| {} |", lines.join(" | b |\n| "))),
            4 => {
                Raw::new(Kind::List, 1, format!("- {}", lines.join(if self.below(2) == 0 { "\n- " } else { "\n  - " })))
            }
            5 => Raw::new(Kind::Paragraph, 0, format!("{}:", lines[0])),
            _ => Raw::new(Kind::Paragraph, 0, lines.join(" ")),
        }
    }

    fn document(&mut self) -> Document {
        let blocks = 1 + self.below(30);
        Document::assemble(None, (0..blocks).map(|_| self.block()).collect())
    }
}

#[test]
fn random_documents_obey_the_laws() {
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    for number in 0..400 {
        let document = random.document();
        let max = 1 + random.below(80);
        let by = [By::Headings, By::Paragraphs, By::Sentences][random.below(3)];
        let budget = budget(max, random.below(max / 2 + 1), by);
        let found = check(&document, &Words, budget);
        assert_eq!(found, check(&document, &Words, budget), "{number} again");
        check(&document, &Letters, Budget { max: max * 4, ..budget });
        check(&document, &Surprising, Budget { max: max * 2, ..budget });
    }
}

#[test]
fn chunks_with_references_are_never_over_budget_and_give_their_text_back() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut said = 0;
    for _ in 0..200 {
        let mut raws = Vec::new();
        for chapter in 1..5 {
            raws.push(Raw::new(Kind::Heading, 1, format!("Chapter {chapter}: {}", random.words(3))));
            for _ in 0..random.below(4) {
                let (words, to) = (random.words(20), random.below(7));
                raws.push(Raw::new(Kind::Paragraph, 0, format!("{words} For that see chapter {to}.")));
                raws.push(random.block());
            }
        }
        let document = Document::assemble(None, raws);
        let max = 5 + random.below(80);
        for references in [References::Names, References::Text] {
            let found =
                chunks_with(&document, &Words, budget(max, max / 5, By::Headings), references, &Falls::default())
                    .unwrap();
            for chunk in &found {
                assert!(chunk.n_tokens <= max, "{} of {max}: {chunk:?}", chunk.n_tokens);
                assert_eq!(chunk.n_tokens, Words.count(&chunk.text).unwrap());
                assert!(chunk.text.contains(&document.text[chunk.start..chunk.end]), "{chunk:?}");
                said += usize::from(chunk.text.contains("\n\nSee:\n- "));
            }
        }
    }
    assert!(said > 300, "{said}");
}

/// Counts letters, and so has to cut inside words.
struct Letters;

impl Measure for Letters {
    fn marks(&self, text: &str) -> Result<Marks, measure::MeasureError> {
        Ok(text.char_indices().map(|(at, _)| at).collect::<Vec<_>>().into())
    }

    fn count(&self, text: &str) -> Result<usize, measure::MeasureError> {
        Ok(text.chars().count())
    }
}

/// Counts more in a text by itself than the whole would tell: the estimate is always wrong.
struct Surprising;

impl Measure for Surprising {
    fn marks(&self, text: &str) -> Result<Marks, measure::MeasureError> {
        Words.marks(text)
    }

    fn count(&self, text: &str) -> Result<usize, measure::MeasureError> {
        Ok(Words.count(text)? * 3 / 2)
    }
}

#[test]
fn counted_exactly_even_where_the_estimate_is_wrong() {
    let document = manual();
    for max in [4, 20, 100] {
        check(&document, &Surprising, budget(max, 0, By::Headings));
        check(&document, &Letters, budget(max * 5, max, By::Sentences));
    }
}

#[test]
fn a_budget_below_a_letter_is_refused() {
    struct Heavy;
    impl Measure for Heavy {
        fn marks(&self, text: &str) -> Result<Marks, measure::MeasureError> {
            Words.marks(text)
        }
        fn count(&self, text: &str) -> Result<usize, measure::MeasureError> {
            Ok(text.chars().count() * 10)
        }
    }
    let refused = chunks(&manual(), &Heavy, budget(5, 0, By::Headings)).unwrap_err();
    assert_eq!(refused.to_string(), "not even a single letter fits into 5");
}

#[test]
fn whole_things_stay_whole_and_headings_stay_with_their_text() {
    let document = manual();
    for chunk in check(&document, &Words, budget(120, 0, By::Headings)) {
        for block in &document.blocks {
            let cut = chunk.start > block.start && chunk.start < block.end;
            let fits = Words.count(document.text_of(block)).unwrap() < 100;
            assert!(!(cut && fits), "{:?} is cut by {chunk:?}", document.text_of(block));
        }
        let last = document.text[..chunk.end].rsplit("\n\n").next().unwrap();
        assert!(!last.starts_with("Section"), "{chunk:?}");
        assert!(!chunk.text.ends_with("Do this:"), "{chunk:?}");
    }
}

#[test]
fn a_piece_of_a_table_has_the_header() {
    let found = check(&manual(), &Words, budget(60, 0, By::Headings));
    let pieces: Vec<_> = found.iter().filter(|chunk| chunk.text.contains("| r17 |")).collect();
    assert!(
        pieces[0].text.contains("Chapter 3 > Section 3.2\n\n| name | value |\n| --- | --- |\n| r"),
        "{}",
        pieces[0].text
    );
}

#[test]
fn overlap_is_whole_sentences_inside_a_section() {
    let text: Vec<String> = (0..40).map(sentence).collect();
    let document =
        Document::assemble(None, vec![Raw::new(Kind::Heading, 1, "One"), Raw::new(Kind::Paragraph, 0, text.join(" "))]);
    let found = check(&document, &Words, budget(60, 20, By::Headings));
    assert!(found.len() > 4);
    for pair in found.windows(2) {
        let shared = &document.text[pair[1].start..pair[0].end];
        assert!(shared.starts_with('S') && shared.ends_with('.'), "{shared:?}");
        assert!((8..=20).contains(&Words.count(shared).unwrap()));
    }
}

#[test]
fn an_edit_changes_the_chunks_of_its_section_only() {
    let before = manual();
    let edited = before.text.replace("S31 ", "S31 newly and at once and without a doubt ");
    assert_ne!(edited, before.text);
    let mut raws = Vec::new();
    for block in &before.blocks {
        let text = before.text_of(block).replace("S31 ", "S31 newly and at once and without a doubt ");
        raws.push(Raw::new(block.kind, block.level, text));
    }
    let after = Document::assemble(None, raws);
    let ids = |document: &Document| chunk_ids("d", &check(document, &Words, budget(80, 0, By::Headings)));
    let (old, new) = (ids(&before), ids(&after));
    let changed = new.iter().filter(|id| !old.contains(id)).count();
    assert!((1..=2).contains(&changed), "{changed} of {}", new.len());
}

#[test]
fn how_full_chunks_are_without_being_asked() {
    let least = |with: serde_json::Value| serde_json::from_value::<Chunk>(with).unwrap().least(384);
    assert_eq!(least(serde_json::json!({})), 320);
    assert_eq!(["paragraphs", "sentences", "semantic"].map(|by| least(serde_json::json!({"by": by}))), [128; 3]);
    assert_eq!(least(serde_json::json!({"min_tokens": 0})), 0);
}

#[test]
fn config_problems() {
    let env = Env { base: std::path::Path::new(".") };
    let problem = |with: serde_json::Value| {
        let config: Chunk = serde_json::from_value(with).unwrap();
        config.build(&env).err().unwrap().message
    };
    assert_eq!(problem(serde_json::json!({"max_tokens": 5})), "`max_tokens` needs a `model` to count by");
    assert_eq!(problem(serde_json::json!({})), "`chunk` needs a budget");
    assert_eq!(
        problem(serde_json::json!({"max_words": 5, "overlap": 3})),
        "`overlap` is more than half of the budget of 5"
    );
    assert_eq!(
        problem(serde_json::json!({"max_words": 5, "max_tokens": 3})),
        "`max_tokens` and `max_words` exclude each other"
    );
}

/// The test model's own vocabulary, by `.ci/fetch-model`; no weights are read.
#[expect(clippy::disallowed_methods, reason = "tests may be told where the model is")]
fn tokenizer() -> Tokenizer {
    let fetched = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("RETORT_TEST_MODEL").map_or_else(|| fetched.into(), std::path::PathBuf::from);
    if !path.is_file() {
        // A bare clone has none yet.
        let fetch = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/fetch-model")).status();
        assert!(fetch.is_ok_and(|status| status.success()), "`.ci/fetch-model` could not fetch the test model");
    }
    Tokenizer::open(&path).unwrap()
}

#[test]
fn never_over_budget_by_a_real_tokenizer() {
    let tokenizer = tokenizer();
    let mut documents = vec![manual()];
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    for name in ["manual.html", "manual.md", "manual.txt", "manual.rtf", "manual.docx", "manual.pdf"] {
        documents.push(crate::extract::read(name, &std::fs::read(folder.join(name)).unwrap()).unwrap());
    }
    documents.push(Document::assemble(None, vec![Raw::new(Kind::Paragraph, 0, "日本語の文章。🙂👩‍👩‍👧 ".repeat(30))]));
    for document in &documents {
        for (max, overlap) in [(8, 0), (24, 8), (64, 16), (200, 0), (384, 40)] {
            for by in [By::Headings, By::Paragraphs, By::Sentences, By::Semantic] {
                check(document, &tokenizer, budget(max, overlap, by));
            }
        }
    }
}
