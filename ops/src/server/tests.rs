//! The client against a server on a socket of this machine that behaves as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

/// What a server was sent: the head and the body of each request.
pub(crate) type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// A server that answers by `reply(request's number, body)` with a status, extra header lines and a body, until the test ends.
pub(crate) fn serve(
    reply: impl Fn(usize, &Value) -> (u16, &'static str, String) + Send + Sync + 'static,
) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let requests = Requests::default();
    let (seen, reply) = (requests.clone(), Arc::new(reply));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (seen, reply) = (seen.clone(), reply.clone());
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                while let Some((head, body)) = read_request(&mut stream) {
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push((head, body.clone()));
                        seen.len() - 1
                    };
                    let (status, headers, text) = reply(number, &body);
                    let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n{headers}\r\n", text.len());
                    let sent = stream.get_mut().write_all(format!("{head}{text}").as_bytes());
                    if sent.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, requests)
}

fn read_request(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:").map(str::to_owned));
    let mut body = vec![0; length?.trim().parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).ok()?))
}

/// A well-formed reply.
pub(crate) fn said(text: &str) -> String {
    json!({
        "id": "x", "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
    })
    .to_string()
}

fn client(url: &str) -> Client {
    let entry = json!({"server": url, "name": "m", "api_key": "s3cret", "timeout": 5});
    let model: crate::models::ModelRef = serde_json::from_value(entry).unwrap();
    Client { backoff: Duration::from_millis(1), ..Client::new(model.server().unwrap()) }
}

fn ask(client: &Client) -> Result<Completion, ServerError> {
    let options = json!({"temperature": 0.5, "max_tokens": 3});
    let messages = [Message::new("user", "Hi \"there\"")];
    let ask = Ask { messages: &messages, options: options.as_object().unwrap(), seed: u64::MAX };
    client.complete(&ask, &|| false)
}

#[test]
fn a_request_says_what_it_should() {
    let (url, requests) = serve(|_, _| (200, "", said("Hello")));
    let completion = ask(&client(&url)).unwrap();
    assert_eq!(completion.text, "Hello");
    assert_eq!(
        (completion.finish_reason.as_str(), completion.prompt_tokens, completion.output_tokens),
        ("length", Some(11), Some(3))
    );
    let requests = requests.lock().unwrap();
    let (head, body) = &requests[0];
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1") && head.to_lowercase().contains("bearer s3cret"));
    let expected = json!({
        "temperature": 0.5, "max_tokens": 3, "model": "m", "messages": [{"role": "user", "content": "Hi \"there\""}],
        "seed": 0x7fff_ffff_u32, "stream": false,
    });
    assert_eq!(*body, expected);
}

#[test]
fn a_busy_server_is_asked_again() {
    let (url, requests) = serve(|number, _| match number {
        0 => (429, "Retry-After: 0.01\r\n", "slow down".into()),
        1 => (503, "", "loading".into()),
        _ => (200, "", said("at last")),
    });
    assert_eq!(ask(&client(&url)).unwrap().text, "at last");
    assert_eq!(requests.lock().unwrap().len(), 3);
}

#[test]
fn a_server_that_stays_busy_or_is_not_there_fails() {
    let (url, requests) = serve(|_, _| (500, "", "out of memory".into()));
    let error = ask(&client(&url)).unwrap_err().to_string();
    assert!(error.ends_with("answered 500: out of memory; it was asked 6 times"), "{error}");
    assert_eq!(requests.lock().unwrap().len(), 6);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = ask(&client(&format!("http://{free}/v1"))).unwrap_err().to_string();
    assert!(error.contains("cannot be reached"), "{error}");
}

#[test]
fn what_is_no_completion_fails_with_its_beginning_and_without_the_key() {
    for reply in ["<html>welcome, s3cret</html>", "{\"choices\": []}", "{\"choices\": 3}"] {
        let (url, requests) = serve(move |_, _| (200, "", reply.into()));
        let error = ask(&client(&url)).unwrap_err().to_string();
        assert!(error.contains(&reply[..10]) && !error.contains("s3cret"), "{error}");
        assert_eq!(requests.lock().unwrap().len(), 1, "asking again would not help");
    }
    let (url, _) = serve(|_, _| (401, "", format!("{{\"error\": \"{}\"}}", "no ".repeat(500))));
    let error = ask(&client(&url)).unwrap_err().to_string();
    assert!(error.contains("answered 401") && error.chars().count() < 400, "{error}");
}

#[test]
fn a_prompt_that_is_too_long_is_the_rows_fault() {
    let (url, _) = serve(|_, _| (400, "", "This model's maximum context length is 4096 tokens".into()));
    assert!(matches!(ask(&client(&url)), Err(ServerError::TooLong(_))));
}

#[test]
fn a_wish_to_stop_is_heard_while_waiting() {
    let (url, _) = serve(|_, _| (429, "Retry-After: 60\r\n", String::new()));
    let client = client(&url);
    let options = serde_json::Map::new();
    let ask = Ask { messages: &[], options: &options, seed: 1 };
    let asked = std::cell::Cell::new(0);
    let stopped = client.complete(&ask, &|| asked.replace(asked.get() + 1) > 1);
    assert!(matches!(stopped, Err(ServerError::Cancelled)));
}
