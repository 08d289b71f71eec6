//! `retort serve` as a client sees it: whole replies, streams, several at once, mistakes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Child;

use retort_tests::Space;
use serde_json::{Value, json};

use crate::model::model;

/// A model that is served until the test ends.
struct Serving {
    child: Child,
    address: String,
    _space: Space,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Serving {
    fn start(arguments: &[&str]) -> Self {
        let space = Space::new(env!("CARGO_BIN_EXE_victim"));
        let mut child = space.start(&[&["serve", "--port", "0"], arguments].concat());
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let address = address.unwrap_or_else(|| panic!("{line}")).to_string();
        Serving { child, address, _space: space }
    }

    /// Status and body of the reply.
    fn ask(&self, method: &str, path: &str, host: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        (status, if chunked { unchunk(body) } else { body.to_string() })
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.ask("POST", path, &self.address, &body.to_string());
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")))
    }

    /// The parts of a stream.
    fn stream(&self, body: &Value) -> Vec<Value> {
        let (status, text) = self.ask("POST", "/v1/chat/completions", &self.address, &body.to_string());
        assert_eq!(status, 200, "{text}");
        let events = text.strip_suffix("data: [DONE]\n\n").unwrap_or_else(|| panic!("{text}"));
        events.split_terminator("\n\n").map(|event| serde_json::from_str(&event["data: ".len()..]).unwrap()).collect()
    }
}

fn unchunk(body: &str) -> String {
    let (mut text, mut rest) = (String::new(), body);
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        text.push_str(&after[..length]);
        rest = after[length..].strip_prefix("\r\n").unwrap();
        if length == 0 {
            break;
        }
    }
    text
}

fn asked(question: &str) -> Value {
    let messages = json!([{"role": "user", "content": question}]);
    json!({"model": "smol", "messages": messages, "temperature": 0, "max_tokens": 12})
}

#[test]
fn a_served_model_answers_like_openai() {
    let serving = Serving::start(&["--model", &model(), "--name", "smol", "--precision", "int8"]);
    let (status, models) = serving.ask("GET", "/v1/models", "localhost", "");
    let models: Value = serde_json::from_str(&models).unwrap();
    assert_eq!((status, &models["data"][0]["id"]), (200, &json!("smol")));

    let questions = ["What is a printer queue?", "Name a planet.", "Hi!"];
    let alone = questions.map(|question| serving.post("/v1/chat/completions", &asked(question)).1);
    assert_eq!(alone[0]["object"], "chat.completion");
    assert_eq!(alone[0]["usage"]["completion_tokens"], 12);
    assert_eq!(alone[0]["choices"][0]["finish_reason"], "length");
    let text = |reply: &Value| reply["choices"][0]["message"]["content"].as_str().unwrap().to_string();
    assert!(alone.iter().all(|reply| !text(reply).is_empty()));

    // Side by side, and as streams, they are the same.
    std::thread::scope(|scope| {
        let threads = [0, 1, 2, 1, 0].map(|at| {
            let (serving, question) = (&serving, questions[at]);
            (
                at,
                scope.spawn(move || {
                    let mut body = asked(question);
                    body["stream"] = true.into();
                    body["stream_options"] = json!({"include_usage": true});
                    serving.stream(&body)
                }),
            )
        });
        for (at, thread) in threads {
            let parts = thread.join().unwrap();
            assert_eq!(parts[0]["choices"][0]["delta"]["role"], "assistant");
            let pieces = parts.iter().filter_map(|part| part["choices"][0]["delta"]["content"].as_str());
            assert_eq!(pieces.collect::<String>(), text(&alone[at]));
            let last = parts.last().unwrap();
            assert_eq!(last["usage"]["completion_tokens"], alone[at]["usage"]["completion_tokens"]);
            assert_eq!(parts[parts.len() - 2]["choices"][0]["finish_reason"], alone[at]["choices"][0]["finish_reason"]);
        }
    });

    let body = json!({"prompt": ["One, two,", "A, B,"], "n": 2, "seed": 3, "max_tokens": 4});
    let (_, reply) = serving.post("/v1/completions", &body);
    let choices = reply["choices"].as_array().unwrap();
    assert_eq!((choices.len(), &reply["object"]), (4, &json!("text_completion")));
    assert_eq!(serving.post("/v1/completions", &body).1["choices"], reply["choices"], "a seed is a seed");

    let mut body = asked("Give a planet as JSON.");
    let schema = json!({"type": "object", "required": ["n"], "additionalProperties": false, "properties": {"n": {"enum": ["Mars"]}}});
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "planet", "schema": schema}});
    body["max_tokens"] = 40.into();
    let (_, reply) = serving.post("/v1/chat/completions", &body);
    assert_eq!(text(&reply), "{\"n\": \"Mars\"}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let serving = Serving::start(&["--model", &model()]);
    let mistake = |key: &str, value: Value| {
        let mut body = asked("Hi!");
        body.as_object_mut().unwrap().remove("model");
        body[key] = value;
        let (status, reply) = serving.post("/v1/chat/completions", &body);
        (status, reply["error"]["message"].as_str().unwrap_or_default().to_string())
    };
    let (status, message) = mistake("model", json!("gpt"));
    assert!(status == 404 && message.contains("here is `SmolLM2-135M-Instruct.Q4_1`"), "{message}");
    let (status, message) = mistake("max_tokens", json!(9000));
    assert!(status == 400 && message.contains("maximum context length is 8192"), "{message}");
    assert_eq!(mistake("tools", json!([{}])).0, 400);
    assert_eq!(mistake("messages", json!([])).0, 400);
    assert_eq!(mistake("messages", json!([{"role": "user", "content": [{"type": "image_url"}]}])).0, 400);
    assert_eq!(mistake("temperature", json!(-1)).0, 400);
    assert_eq!(serving.ask("POST", "/v1/chat/completions", "localhost", "{").0, 400);
    assert_eq!(serving.ask("GET", "/v1/chat/completions", "localhost", "").0, 405);
    assert_eq!(serving.ask("GET", "/v1/models", "evil.example:80", "").0, 403);
    assert_eq!(serving.ask("GET", "/metrics", "localhost", "").0, 404);

    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    let (_, errors) = space.ends(2, &["serve", "p.yaml"]);
    assert!(errors.contains("NODE"), "{errors}");
    let port = serving.address.rsplit(':').next().unwrap();
    let (_, errors) = space.ends(1, &["serve", "--model", &model(), "--port", port]);
    assert!(errors.contains("--port 0"), "{errors}");
}

#[test]
fn a_pipeline_is_answered_by_a_served_model_at_once_or_as_a_stream() {
    let serving = Serving::start(&["--model", &model(), "--name", "smol", "--precision", "int8"]);
    let space = Space::new(env!("CARGO_BIN_EXE_victim"));
    for n in 0..4 {
        space.write(&format!("docs/{n}.txt"), &format!("The machine number {n} has {} megabytes.", 8 * (n + 1)));
    }
    let answers = |stream: bool, store: &str| {
        let pipeline = format!(
            "retort: 1\nname: served\nmodels:\n  m: {{server: 'http://{}/v1', name: smol, stream: {stream}}}\nnodes:\n  \
             documents: {{op: extract, with: {{paths: ['docs/*.txt']}}}}\n  answers:\n    op: prompt-llm\n    \
             from: documents\n    with: {{model: m, messages: [{{user: 'Say it again: {{{{ text }}}}'}}], \
             sample: {{temperature: 0.7, max_tokens: 12, seed: 1}}}}\n",
            serving.address
        );
        space.write("served.yaml", &pipeline);
        space.run_with("served.yaml", &["--store", store]);
        space.ends(0, &["show", "served.yaml", "answers", "--format", "json", "--store", store]).0
    };
    let at_once = answers(false, "a");
    assert_eq!(at_once.lines().count(), 4, "{at_once}");
    assert!(at_once.contains("\"n_output_tokens\":12"), "{at_once}");
    assert_eq!(answers(true, "b"), at_once);
}
