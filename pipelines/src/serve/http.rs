//! HTTP on this machine's own address: which path asks for what, whole replies and streams of events.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use retort_lm::generate::FinishReason;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::api::{Body, Head, Kind, Mistake, Order, usage};
use super::{Job, Piece, Served};

/// Bytes of a request that are read.
const LONGEST_BODY: usize = 16 << 20;
/// Names of this machine that a request may be sent to: pages of the web that resolve to it are not heard.
const OWN_NAMES: &[&str] = &["localhost", "127.0.0.1", "[::1]"];

type Reply = Response<BoxBody<Bytes, Infallible>>;

/// What every connection needs.
struct Shared {
    served: Arc<Served>,
    jobs: Sender<Job>,
    number: AtomicU64,
}

/// Accepts connections until the process ends.
pub(super) fn listen(served: &Arc<Served>, jobs: Sender<Job>, listener: TcpListener) -> io::Result<()> {
    let shared = Arc::new(Shared { served: Arc::clone(served), jobs, number: AtomicU64::new(0) });
    // Connections wait; texts are written elsewhere.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    listener.set_nonblocking(true)?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    async move { Ok::<_, Infallible>(answer(&shared, request).await) }
                });
                // A connection that ends in an error is a client that went away.
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Reply {
    match route(shared, request).await {
        Ok(reply) => reply,
        Err(mistake) => whole(mistake.status, &mistake.body()),
    }
}

async fn route(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Reply, Mistake> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name);
    if !OWN_NAMES.contains(&name) {
        return Err(mistake(403, format!("`{host}` is no name of this server: it is `127.0.0.1`")));
    }
    let kind = match (request.method(), request.uri().path()) {
        (&Method::GET, "/health") => return Ok(whole(200, &json!({"status": "ok"}))),
        (&Method::GET, "/v1/models") => {
            return Ok(whole(200, &json!({"object": "list", "data": [model(&shared.served)]})));
        }
        (&Method::GET, path) if path.strip_prefix("/v1/models/") == Some(&shared.served.name) => {
            return Ok(whole(200, &model(&shared.served)));
        }
        (&Method::POST, "/v1/chat/completions") => Kind::Chat,
        (&Method::POST, "/v1/completions") => Kind::Completion,
        (_, "/v1/chat/completions" | "/v1/completions") => return Err(mistake(405, "it is asked by POST".to_owned())),
        (_, path) => return Err(mistake(404, format!("nothing is at `{path}`"))),
    };
    let bytes = Limited::new(request.into_body(), LONGEST_BODY).collect().await;
    let bytes = bytes.map_err(|error| mistake(400, format!("the request could not be read: {error}")))?.to_bytes();
    let body: Body = serde_json::from_slice(&bytes).map_err(|error| mistake(400, error.to_string()))?;
    let (number, now) = (shared.number.fetch_add(1, Ordering::Relaxed), now());
    // Prompts are encoded, and guides compiled, beside the connections.
    let (served, seed) = (Arc::clone(&shared.served), now.1.wrapping_add(number));
    let order = tokio::task::spawn_blocking(move || body.order(kind, &served, seed)).await;
    let order = order.map_err(|error| mistake(500, error.to_string()))??;
    let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
    let id = format!("{prefix}-{:x}-{number}", now.1);
    let head = Head { kind, id, created: now.0, model: shared.served.name.clone() };
    let pieces = begin(shared, &order)?;
    if order.stream { Ok(stream(head, &order, pieces)) } else { collect(&head, &order, pieces).await }
}

fn model(served: &Served) -> Value {
    json!({"id": served.name, "object": "model", "created": 0, "owned_by": "retort"})
}

/// Seconds since 1970, and nanoseconds: a seed that differs from request to request.
fn now() -> (u64, u64) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs(), since.as_nanos() as u64)
}

fn mistake(status: u16, message: String) -> Mistake {
    Mistake { status, message }
}

/// Hands the texts of an order to the thread that writes; they come back as pieces.
fn begin(shared: &Shared, order: &Order) -> Result<UnboundedReceiver<Piece>, Mistake> {
    let (sender, pieces) = unbounded_channel();
    for (choice, request) in order.requests.iter().cloned().enumerate() {
        let job = Job { choice, request, pieces: sender.clone() };
        shared.jobs.send(job).map_err(|_| mistake(500, "the model has failed".to_owned()))?;
    }
    Ok(pieces)
}

async fn collect(head: &Head, order: &Order, mut pieces: UnboundedReceiver<Piece>) -> Result<Reply, Mistake> {
    let mut choices = vec![(String::new(), FinishReason::Stop); order.requests.len()];
    let (mut left, mut output, mut shared) = (choices.len(), 0, 0);
    while left > 0 {
        match pieces.recv().await {
            Some(Piece::Text(..)) => {}
            Some(Piece::Finished(choice, finished)) => {
                (left, output, shared) = (left - 1, output + finished.tokens.len(), shared.max(finished.shared));
                choices[choice] = (finished.text, finished.reason);
            }
            None => return Err(mistake(500, "the model has failed".to_owned())),
        }
    }
    Ok(whole(200, &head.whole(&choices, &usage(order.prompt_tokens, output, shared))))
}

/// What a stream has told so far.
struct Told {
    head: Head,
    pieces: UnboundedReceiver<Piece>,
    begun: Vec<bool>,
    left: usize,
    prompt: usize,
    output: usize,
    shared: usize,
    include_usage: bool,
}

fn stream(head: Head, order: &Order, pieces: UnboundedReceiver<Piece>) -> Reply {
    let n = order.requests.len();
    let (prompt, include_usage) = (order.prompt_tokens, order.include_usage);
    let told = Told { head, pieces, begun: vec![false; n], left: n, prompt, output: 0, shared: 0, include_usage };
    let events = futures::stream::unfold(told, |mut told| async move {
        let text = told.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(text))), told))
    });
    let mut reply = Response::new(BodyExt::boxed(StreamBody::new(events)));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-cache"));
    reply
}

impl Told {
    /// The next events; nothing where the stream is over, or the model has failed.
    async fn next(&mut self) -> Option<String> {
        if self.left == 0 {
            return None;
        }
        match self.pieces.recv().await? {
            Piece::Text(choice, text) => {
                let is_first = !std::mem::replace(&mut self.begun[choice], true);
                Some(event(&self.head.part(choice, Some(&text), None, is_first)))
            }
            Piece::Finished(choice, finished) => {
                self.left -= 1;
                self.output += finished.tokens.len();
                self.shared = self.shared.max(finished.shared);
                let is_first = !self.begun[choice];
                let mut text = event(&self.head.part(choice, None, Some(finished.reason), is_first));
                if self.left == 0 {
                    if self.include_usage {
                        let usage = usage(self.prompt, self.output, self.shared);
                        text += &event(&self.head.usage_part(&usage));
                    }
                    text += "data: [DONE]\n\n";
                }
                Some(text)
            }
        }
    }
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn whole(status: u16, body: &Value) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body.to_string())).boxed());
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    reply
}
