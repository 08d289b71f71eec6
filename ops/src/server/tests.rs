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
    client_on(url, &json!({}))
}

/// A client of an entry with more keys.
fn client_on(url: &str, more: &Value) -> Client {
    let mut entry = json!({"server": url, "name": "m", "api_key": "s3cret", "timeout": 5});
    entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let model: crate::models::ModelRef = serde_json::from_value(entry).unwrap();
    let model = model.server().unwrap();
    let meter = Meter::of(&model);
    Client { backoff: Duration::from_millis(1), ..Client::new(model, meter) }
}

const NEVER: Stops<'_> = Stops { soon: &|| false, now: &|| false };

fn ask(client: &Client) -> Result<Completion, ServerError> {
    ask_for(client, 3, NEVER)
}

fn ask_for(client: &Client, max_tokens: u64, stops: Stops<'_>) -> Result<Completion, ServerError> {
    let options = json!({"temperature": 0.5, "max_tokens": max_tokens});
    let messages = [Message::new("user", "Hi \"there\"")];
    let ask = Ask { messages: &messages, options: options.as_object().unwrap(), seed: u64::MAX };
    client.complete(&ask, stops)
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
    let asked = std::cell::Cell::new(0);
    let soon = || asked.replace(asked.get() + 1) > 1;
    let stopped = ask_for(&client(&url), 3, Stops { soon: &soon, ..NEVER });
    assert!(matches!(stopped, Err(ServerError::Cancelled)));
}

#[expect(clippy::disallowed_methods, reason = "how long a client waits is what is tested")]
fn seconds<R>(work: impl FnOnce() -> R) -> (f64, R) {
    let begin = std::time::Instant::now();
    let result = work();
    (begin.elapsed().as_secs_f64(), result)
}

#[test]
fn a_reply_that_was_cut_off_is_asked_for_again() {
    let (url, requests) = serve(|number, _| match number {
        0 => (200, "", said("Hello")[..40].to_owned()),
        _ => (200, "", said("whole")),
    });
    assert_eq!(ask(&client(&url)).unwrap().text, "whole");
    assert_eq!(requests.lock().unwrap().len(), 2);
}

#[test]
fn a_date_to_ask_again_is_read_by_the_servers_clock() {
    let (url, _) = serve(|number, _| match number {
        0 => {
            let headers = "Date: Wed, 21 Oct 2015 07:28:00 GMT\r\nRetry-After: Wed, 21 Oct 2015 07:28:01 GMT\r\n";
            (503, headers, String::new())
        }
        _ => (200, "", said("later")),
    });
    let (seconds, completion) = seconds(|| ask(&client(&url)));
    assert_eq!(completion.unwrap().text, "later");
    assert!((0.95..30.0).contains(&seconds), "{seconds}");
}

#[test]
fn nobody_asks_a_server_that_wants_to_be_left_alone() {
    let (url, requests) = serve(|number, _| match number {
        0 => (429, "Retry-After: 0.6\r\n", String::new()),
        _ => (200, "", said("now")),
    });
    let client = client(&url);
    std::thread::scope(|scope| {
        scope.spawn(|| ask(&client).unwrap());
        while requests.lock().unwrap().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
        let (seconds, _) = seconds(|| ask(&client).unwrap());
        assert!(seconds > 0.3, "{seconds}");
    });
}

#[test]
fn requests_and_tokens_keep_their_rates() {
    let (url, requests) = serve(|_, _| (200, "", said("Hello")));
    let slow = client_on(&url, &json!({"requests_per_minute": 600}));
    let (took, ()) = seconds(|| (0..5).for_each(|_| _ = ask(&slow).unwrap()));
    assert!(took > 0.35, "five requests at ten a second: {took}");
    // A request takes 14 tokens, at ten a second; the next begins when nothing is owed.
    let slow = client_on(&url, &json!({"tokens_per_minute": 600}));
    let (took, ()) = seconds(|| (0..3).for_each(|_| _ = ask(&slow).unwrap()));
    assert!(took > 1.6, "{took}");
    assert_eq!(requests.lock().unwrap().len(), 8);
    let stopped = ask_for(&slow, 3, Stops { soon: &|| true, ..NEVER });
    assert!(matches!(stopped, Err(ServerError::Cancelled)), "also while it waits for its turn");
}

#[test]
fn what_could_go_beyond_the_budget_is_not_asked() {
    let (url, requests) = serve(|_, _| (200, "", said("Hello")));
    let client = client_on(&url, &json!({"max_tokens_total": 40}));
    assert!(ask(&client).is_ok() && ask(&client).is_ok());
    let error = ask(&client).unwrap_err().to_string();
    let expected = "the budget is spent: `max_tokens_total` is 40: 28 tokens are used, and the next request may take 14; what was paid for is kept";
    assert_eq!(error, expected);
    assert_eq!(requests.lock().unwrap().len(), 2);
    let price = json!({"prompt": 1e6, "output": 2e6});
    let client = client_on(&url, &json!({"price": price, "max_cost": 40.0}));
    assert!(ask(&client).is_ok() && ask(&client).is_ok());
    let error = ask(&client).unwrap_err().to_string();
    assert!(error.contains("`max_cost` is 40: 34.0000 is spent, and the next request may cost 17.0000"), "{error}");
}

#[test]
fn requests_under_way_may_turn_out_to_be_cheaper() {
    let (url, _) = serve(|_, _| (200, "", said("Hello")));
    let client = client_on(&url, &json!({"max_tokens_total": 70}));
    // Each may take 51 tokens, and takes 14.
    std::thread::scope(|scope| {
        let others = [(); 2].map(|()| scope.spawn(|| ask_for(&client, 40, NEVER)));
        assert!(others.into_iter().all(|other| other.join().unwrap().is_ok()));
    });
}

#[test]
fn a_slow_reply_is_left_behind_when_somebody_wants_to_go() {
    let (url, _) = serve(|number, _| {
        std::thread::sleep(Duration::from_secs(if number == 0 { 20 } else { 0 }));
        (200, "", said("late"))
    });
    let stops = Stops { soon: &|| false, now: &|| true };
    let (seconds, stopped) = seconds(|| ask_for(&client(&url), 3, stops));
    assert!(matches!(stopped, Err(ServerError::Cancelled)) && seconds < 10.0, "{seconds}");
    assert_eq!(ask_for(&client(&url), 3, stops).unwrap().text, "late", "what comes soon is kept");
}

const EVENTS: &str = "Content-Type: text/event-stream; charset=utf-8\r\n";

/// A chunk of a stream.
fn chunk(text: &str, finish_reason: Option<&str>) -> String {
    let choice = json!({"index": 0, "delta": {"content": text}, "finish_reason": finish_reason});
    format!("data: {}\n\n", json!({"object": "chat.completion.chunk", "choices": [choice]}))
}

#[test]
fn a_stream_is_put_together() {
    let (url, requests) = serve(|number, _| {
        let role =
            "data: {\"choices\": [{\"index\": 0, \"delta\": {\"role\": \"assistant\", \"content\": null}}]}\r\n\r\n";
        let usage = "data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 11, \"completion_tokens\": 3}}\n\n";
        let (some, more) = (chunk("Grüß", None), chunk(" Gott", Some("length")));
        match number {
            0 => (200, EVENTS, format!(": wait\n\n{role}event: x\n{some}{more}{usage}data: [DONE]\n\n")),
            // It knows no streams.
            _ => (200, "", said("at once")),
        }
    });
    let client = client_on(&url, &json!({"stream": true}));
    let completion = ask(&client).unwrap();
    assert_eq!(completion.text, "Grüß Gott");
    assert_eq!(
        (completion.finish_reason.as_str(), completion.prompt_tokens, completion.output_tokens),
        ("length", Some(11), Some(3))
    );
    assert_eq!(ask(&client).unwrap().text, "at once");
    let requests = requests.lock().unwrap();
    assert_eq!(requests[0].1["stream"], true);
    assert_eq!(requests[0].1["stream_options"], json!({"include_usage": true}));
}

#[test]
fn a_stream_that_breaks_off_is_asked_for_again() {
    let halves = ["", "data: {\"error\": {\"message\": \"out of memory\"}}\n\n"];
    for half in halves {
        let (url, requests) = serve(move |number, _| match number {
            0 => (200, EVENTS, chunk("Hel", None) + half),
            _ => (200, EVENTS, chunk("Hello", Some("stop"))),
        });
        assert_eq!(ask(&client_on(&url, &json!({"stream": true}))).unwrap().text, "Hello");
        assert_eq!(requests.lock().unwrap().len(), 2);
    }
    let (url, _) = serve(|_, _| (200, EVENTS, chunk("Hel", None) + "data: {\"error\": \"no s3cret\"}\n\n"));
    let error = ask(&client_on(&url, &json!({"stream": true}))).unwrap_err().to_string();
    assert!(error.ends_with("broke off after Hel: \"no …\"; it was asked 6 times"), "{error}");
    let (url, _) = serve(|_, _| (200, EVENTS, chunk("Hel", None) + "data: <html>\n\n"));
    let error = ask(&client_on(&url, &json!({"stream": true}))).unwrap_err().to_string();
    assert!(error.contains("`<html>` is no chunk") && error.ends_with("Hel"), "{error}");
}

/// A server that says `pieces`, so many milliseconds after each other, and then nothing more.
fn slow(pieces: usize, pause: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let asked = read_request(&mut stream).is_some();
            let mut stream = stream.into_inner();
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{EVENTS}\r\n");
            let mut open = asked && stream.write_all(head.as_bytes()).is_ok();
            for piece in 1..=pieces {
                std::thread::sleep(Duration::from_millis(pause));
                let end = (piece == pieces && pieces > 1).then_some("stop");
                open = open && stream.write_all(chunk("x", end).as_bytes()).is_ok();
            }
            if pieces == 1 {
                std::thread::sleep(Duration::from_secs(20));
            }
        }
    });
    url
}

#[test]
fn a_stream_may_last_but_not_be_silent() {
    let client = |url: &str| client_on(url, &json!({"stream": true, "timeout": 1}));
    let (seconds, completion) = seconds(|| ask(&client(&slow(8, 250))));
    assert_eq!(completion.unwrap().text, "xxxxxxxx");
    assert!(seconds > 1.9, "longer than the timeout: {seconds}");
    let stops = std::cell::Cell::new(0);
    // Heard before the second attempt.
    let soon = || stops.replace(stops.get() + 1) > 1;
    let (seconds, given_up) = self::seconds(|| ask_for(&client(&slow(1, 0)), 3, Stops { soon: &soon, ..NEVER }));
    assert!(matches!(given_up, Err(ServerError::Cancelled)) && seconds < 15.0, "{seconds}: {given_up:?}");
}
