//! What a model and a data set say of themselves on the Hub: `README.md` with the front matter that it reads.

#![expect(clippy::format_push_string, reason = "short texts: what `write!` returns would have to be thrown away")]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Data, LOSS, Published, Weights, is_hub_name};
use crate::observe::words;
use crate::report::brief;

/// The card of the model.
pub(super) fn model(published: &Published<'_>) -> String {
    let merged = published.wishes.weights == Weights::Merged;
    // The Hub takes no card whose base is none of its own.
    let base = is_hub_name(&published.base).then(|| ("base_model", json!(published.base)));
    let mut front: Vec<_> = base.into_iter().collect();
    front.extend([
        ("library_name", json!(if merged { "transformers" } else { "peft" })),
        ("pipeline_tag", json!("text-generation")),
        ("tags", json!(if merged { vec!["retort"] } else { vec!["lora", "retort"] })),
    ]);
    if merged && is_hub_name(&published.base) {
        front.push(("base_model_relation", json!("finetune")));
    }
    front.extend(published.wishes.license.map(|license| ("license", json!(license))));
    front.extend(published.data_name().map(|name| ("datasets", json!([name]))));
    let mut text = front_matter(&front);
    let _ = write!(text, "# {}\n\n{}\n\n", plain(&published.title), published.about(merged));
    text += &published.usage(merged);
    text += &published.exam();
    text += &published.training();
    text += &published.learned_from();
    let _ = write!(
        text,
        "## How it was made\n\nBy Retort, pipeline `{}`. Every fact that the weights depend on; who asks \
         the same question gets the same adapter:\n\n{}",
        plain(published.pipeline),
        published.facts,
    );
    text
}

/// The card of the data.
pub(super) fn dataset(published: &Published<'_>) -> String {
    let mut configs: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for data in &published.data {
        let (config, split) = place(data);
        configs.entry(config).or_default().entry(split).or_default().push(&data.file);
    }
    let split = |(split, files): (&&str, &Vec<&str>)| json!({"split": split, "path": files});
    let configs: Vec<Value> = configs
        .iter()
        .map(|(name, splits)| json!({"config_name": name, "data_files": splits.iter().map(split).collect::<Vec<_>>()}))
        .collect();
    let mut front = vec![("pretty_name", json!(format!("Data of {}", published.title)))];
    front.push(("task_categories", json!(["question-answering", "text-generation"])));
    front.push(("tags", json!(["retort", "synthetic"])));
    front.extend(published.wishes.license.map(|license| ("license", json!(license))));
    front.push(("configs", json!(configs)));
    let mut text = front_matter(&front);
    let _ = write!(
        text,
        "# Data of {}\n\nWhat the model learned from, and what it was held to while it did, as Retort's pipeline `{}` made it.\n\n",
        plain(&published.title),
        plain(published.pipeline),
    );
    text += &published.tables();
    text += "\nQuestions and answers that a model wrote of documents are no better than model and documents: read some before you \
             trust them. The licence of the documents holds for what was taken from them.\n";
    text
}

/// Which part of the data set a table is: its config and split.
fn place(data: &Data) -> (&'static str, &str) {
    match data.slot.as_str() {
        "train" => ("pairs", "train"),
        "eval" => ("pairs", "test"),
        "text" => ("text", "train"),
        other => ("more", other),
    }
}

impl Published<'_> {
    /// What the data are called on the Hub.
    fn data_name(&self) -> Option<String> {
        self.wishes.name.map(|name| format!("{name}-data"))
    }

    fn about(&self, merged: bool) -> String {
        let (adapter, config) = (&self.tuned.adapter, self.tuned.adapter.config());
        let kind = if config.dora { "DoRA" } else { "LoRA" };
        let what = if merged {
            format!("`{}` with a {kind} adapter merged in", plain(&self.base))
        } else {
            format!("A {kind} adapter of `{}`", plain(&self.base))
        };
        let scale = if config.rslora { ", scaled by the root of the rank" } else { "" };
        format!(
            "{what}: rank {}, alpha {}{scale}, {} trained numbers.",
            config.rank,
            config.alpha,
            words::number(adapter.parameters() as u64)
        )
    }

    fn usage(&self, merged: bool) -> String {
        let name = Value::from(self.wishes.name.unwrap_or("FOLDER")).to_string();
        let base = Value::from(self.base.as_str()).to_string();
        let load = if merged {
            format!(
                "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
                 model = AutoModelForCausalLM.from_pretrained({name})\ntokenizer = AutoTokenizer.from_pretrained({name})\n"
            )
        } else {
            format!(
                "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
                 base = {base}\nmodel = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), {name})\n\
                 tokenizer = AutoTokenizer.from_pretrained(base)\n"
            )
        };
        let gguf = if self.wishes.weights == Weights::AdapterAndGguf {
            "With llama.cpp: `llama-cli -m BASE.gguf --lora adapter-lora.gguf`.\n\n"
        } else {
            ""
        };
        format!(
            "## Use\n\n```python\n{load}messages = [{{\"role\": \"user\", \"content\": \"…\"}}]\n\
             inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors=\"pt\", return_dict=True)\n\
             print(tokenizer.decode(model.generate(**inputs, max_new_tokens=200)[0]))\n```\n\n{gguf}"
        )
    }

    fn exam(&self) -> String {
        let mut text = String::new();
        for (node, exam) in &self.exams {
            let n = exam.questions.iter().copied().max().unwrap_or(0);
            let _ = write!(
                text,
                "## Exam `{}`\n\n{}, closed book. In brackets an interval by bootstrap over the questions; a change whose interval does not \
                 hold 0 is more than chance.\n\n",
                plain(node),
                words::count(n, "question")
            );
            let (head, lines) = exam.lines();
            let row = |cells: &[String]| {
                format!("| {} |\n", cells.iter().map(|cell| plain(cell)).collect::<Vec<_>>().join(" | "))
            };
            text += &row(&head);
            text += &format!("|{}\n", " --- |".repeat(head.len()));
            lines.iter().for_each(|line| text += &row(line));
            text.push('\n');
        }
        text
    }

    fn training(&self) -> String {
        let Some(log) = &self.log else { return String::new() };
        let mut text = String::from("## Training\n\n");
        if log.loss_plot().is_some() {
            let _ = write!(text, "![losses by step]({LOSS})\n\n");
        }
        text += "| phase | loss | values | first | best | last |\n| --- | --- | --- | --- | --- | --- |\n";
        for measure in log.losses() {
            let values: Vec<f64> = measure.points.iter().map(|point| point.1).collect();
            let best = values.iter().copied().fold(f64::INFINITY, f64::min);
            let [first, last] =
                [values.first(), values.last()].map(|value| value.copied().map(brief).unwrap_or_default());
            let (phase, name) = (plain(&measure.phase), measure.name.replace('_', " "));
            let _ = writeln!(text, "| {phase} | {name} | {} | {first} | {} | {last} |", values.len(), brief(best));
        }
        for (phase, step, note) in &log.notes {
            let _ = write!(text, "\n- {} step {step}: {}", plain(phase), plain(note));
        }
        text + "\n\n"
    }

    fn learned_from(&self) -> String {
        let mut text = String::from("## Data\n\n");
        if let Some(name) = self.data_name() {
            let _ = write!(text, "They are in the data set `{}`.\n\n", plain(&name));
        }
        text += &self.tables();
        let _ = write!(text, "\nBase weights: SHA-256 `{}`.", self.base_sha256);
        if let Some(content) = self.adapter_content {
            let _ = write!(text, " The adapter is table `{content}` in Retort's store.");
        }
        text + "\n\n"
    }

    /// What each table is, how long, and its digest.
    fn tables(&self) -> String {
        let mut text =
            String::from("| input | rows | file | digest of its rows (BLAKE3) |\n| --- | --- | --- | --- |\n");
        for data in &self.data {
            let Data { slot, file, content, rows } = data;
            let _ = writeln!(text, "| {slot} | {} | `{file}` | `{content}` |", words::number(*rows));
        }
        text
    }
}

/// Keys and values between two lines of dashes. JSON on one line is YAML.
fn front_matter(keys: &[(&str, Value)]) -> String {
    let mut text = String::from("---\n");
    keys.iter().for_each(|(key, value)| text += &format!("{key}: {value}\n"));
    text + "---\n\n"
}

/// A text on one line in which nothing is a mark of a table or a tag.
fn plain(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace('|', "\\|").replace('<', "&lt;")
}
