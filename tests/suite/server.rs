//! A server of chat completions on this machine, which counts what it is asked and answers only as fast as a test lets it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

/// The server. Its threads end with the test's process.
#[derive(Clone)]
pub(crate) struct Server {
    url: String,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Default)]
struct Gate {
    /// Replies that may still be given.
    replies: usize,
    asked: usize,
    /// Requests that have no reply yet, and the most that there were.
    open: usize,
    most: usize,
}

impl Server {
    /// Starts a server that gives `replies` replies and keeps whoever asks more waiting.
    pub(crate) fn start(replies: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let server = Server { url, gate: Arc::default() };
        server.allow(replies);
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = serving.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        server
    }

    /// An entry of `models:` that leads here.
    pub(crate) fn model(&self, parallel: usize) -> String {
        format!("{{server: '{}', name: m, parallel: {parallel}}}", self.url)
    }

    /// Lets it give so many more replies.
    pub(crate) fn allow(&self, replies: usize) {
        let (gate, opened) = &*self.gate;
        gate.lock().unwrap().replies += replies;
        opened.notify_all();
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> usize {
        self.gate.0.lock().unwrap().asked
    }

    /// The most requests that waited for a reply at the same time.
    pub(crate) fn most(&self) -> usize {
        self.gate.0.lock().unwrap().most
    }

    fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Some(body) = request(&mut stream) {
            let (gate, opened) = &*self.gate;
            let mut state = gate.lock().unwrap();
            (state.asked, state.open) = (state.asked + 1, state.open + 1);
            state.most = state.most.max(state.open);
            let mut state = opened.wait_while(state, |gate| gate.replies == 0).unwrap();
            (state.replies, state.open) = (state.replies - 1, state.open - 1);
            drop(state);
            let reply = reply(&body);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", reply.len());
            if stream.get_mut().write_all(format!("{head}{reply}").as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// A function of the question alone.
fn reply(body: &Value) -> String {
    let text = format!("Q: What is {}?\nA: It is {}.", body["messages"], body["seed"]);
    let choice = json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
    json!({"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 3}}).to_string()
}

fn request(stream: &mut BufReader<TcpStream>) -> Option<Value> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:").map(str::to_owned));
    let mut body = vec![0; length?.trim().parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}
