//! A Hugging Face Hub on a loopback port: its interface for making repositories and commits, and beside it the Hub's own store of pieces, as its makers
//! have it for their tests. The first request for a commit's ways of sending fails, as a busy server's does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use xet_client::cas_client::simulation::{
    DeletionControlableClient, DirectAccessClient, LocalTestServer, LocalTestServerBuilder, MemoryClient,
};
use xet_runtime::core::XetContext;

/// A token that may do everything.
pub(super) const TOKEN: &str = "hf_write";
/// A token that may write to what is there.
pub(super) const NARROW_TOKEN: &str = "hf_narrow";

/// A commit that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) message: String,
    /// Files that came with it.
    pub(super) inline: BTreeMap<String, Vec<u8>>,
    /// Files that lie in the store of pieces, by their SHA-256.
    pub(super) stored: BTreeMap<String, String>,
}

/// A running Hub. It goes with the value.
pub(super) struct Hub {
    address: String,
    pieces: Arc<MemoryClient>,
    shared: Arc<Shared>,
    runtime: Runtime,
}

struct Shared {
    address: String,
    pieces: LocalTestServer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    made: Vec<String>,
    repositories: BTreeSet<String>,
    commits: Vec<Commit>,
    has_failed: bool,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Hub {
    pub(super) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let pieces = MemoryClient::new(XetContext::default().unwrap());
        let server = runtime.block_on(LocalTestServerBuilder::new().with_client(pieces.clone()).start());
        let shared = Arc::new(Shared { address: address.clone(), pieces: server, state: Mutex::default() });
        let serving = shared.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        Hub { address, pieces, shared, runtime }
    }

    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    /// The repositories that were made: kind, name, and whether they are private.
    pub(super) fn made(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().made.clone()
    }

    pub(super) fn commits(&self) -> Vec<Commit> {
        self.shared.state.lock().unwrap().commits.clone()
    }

    /// The file of which this is the SHA-256, put together from its pieces.
    pub(super) fn stored(&self, sha256: &str) -> Vec<u8> {
        let found = self.runtime.block_on(async {
            for (file, _) in self.pieces.list_file_shard_entries().await.unwrap() {
                let data = self.pieces.get_file_data(&file, None).await.unwrap();
                if retort_cache::Digest::from_bytes(Sha256::digest(&data).into()).hex() == sha256 {
                    return Some(data.to_vec());
                }
            }
            None
        });
        found.unwrap_or_else(|| panic!("the store of pieces has no file {sha256}"))
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(shared.clone(), request));
    // A connection that ends in an error is a client that went away.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Failed> {
    let (method, path) = (request.method().clone(), request.uri().path().trim_start_matches('/').to_owned());
    let sender = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    let token = sender.strip_prefix("Bearer ").unwrap_or("");
    let (status, value) = if token != TOKEN && token != NARROW_TOKEN {
        (StatusCode::UNAUTHORIZED, json!({"error": "Invalid username or password."}))
    } else {
        shared.answer(&method, &path, &body, token == TOKEN)?
    };
    Ok(Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::from(value.to_string()))?)
}

impl Shared {
    fn answer(&self, method: &Method, path: &str, body: &[u8], may_make: bool) -> Result<(StatusCode, Value), Failed> {
        let mut state = self.state.lock().unwrap();
        let parts: Vec<&str> = path.split('/').collect();
        Ok(match (method.as_str(), parts.as_slice()) {
            ("POST", ["api", "repos", "create"]) => {
                let asked: Value = serde_json::from_slice(body)?;
                let text = |key: &str| asked[key].as_str().unwrap_or("model").to_owned();
                let name = format!("{}/{}", text("organization"), text("name"));
                let prefix = if text("type") == "dataset" { "datasets/" } else { "" };
                let url = format!("{}/{prefix}{name}", self.address);
                if !may_make {
                    (StatusCode::FORBIDDEN, json!({"error": "You don't have the rights to create a model here"}))
                } else if state.repositories.insert(format!("{}s/{name}", text("type"))) {
                    let private = if asked["private"] == true { "private" } else { "public" };
                    state.made.push(format!("{} {name} {private}", text("type")));
                    (StatusCode::OK, json!({"url": url}))
                } else {
                    (StatusCode::CONFLICT, json!({"error": "You already created this repo", "url": url}))
                }
            }
            ("GET", ["api", kind, owner, name]) if state.repositories.contains(&format!("{kind}/{owner}/{name}")) => {
                (StatusCode::OK, json!({"id": format!("{owner}/{name}")}))
            }
            ("POST", ["api", _, _, _, "preupload", "main"]) if !std::mem::replace(&mut state.has_failed, true) => {
                (StatusCode::SERVICE_UNAVAILABLE, json!({"error": "busy"}))
            }
            ("POST", ["api", _, _, _, "preupload", "main"]) => {
                let asked: Value = serde_json::from_slice(body)?;
                let large = |path: &str| path.ends_with(".safetensors") || path.ends_with(".parquet");
                let files = asked["files"].as_array().ok_or("files")?.iter().map(|file| {
                    let mode = if large(file["path"].as_str().unwrap_or("")) { "lfs" } else { "regular" };
                    json!({"path": file["path"], "uploadMode": mode, "shouldIgnore": false})
                });
                (StatusCode::OK, json!({"files": files.collect::<Vec<_>>()}))
            }
            ("POST", [.., "info", "lfs", "objects", "batch"]) => {
                let asked: Value = serde_json::from_slice(body)?;
                (StatusCode::OK, json!({"transfer": "xet", "objects": asked["objects"]}))
            }
            ("GET", ["api", _, _, _, "xet-write-token", "main"]) => {
                let pieces = self.pieces.http_endpoint();
                (StatusCode::OK, json!({"casUrl": pieces, "exp": 4_102_444_800_u64, "accessToken": "pieces"}))
            }
            ("POST", ["api", kind, owner, name, "commit", "main"]) => {
                let commit = commit(body)?;
                let prefix = if *kind == "datasets" { "datasets/" } else { "" };
                let url = format!("{}/{prefix}{owner}/{name}/commit/{}", self.address, state.commits.len());
                state.commits.push(commit);
                (StatusCode::OK, json!({"success": true, "commitOid": "0", "commitUrl": url}))
            }
            _ => (StatusCode::NOT_FOUND, json!({"error": format!("{method} {path}")})),
        })
    }
}

/// A commit as the Hub is sent it: an object a line.
fn commit(body: &[u8]) -> Result<Commit, Failed> {
    let mut commit = Commit::default();
    for line in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
        let line = line?;
        let text = |key: &str| line["value"][key].as_str().map(str::to_owned).ok_or_else(|| format!("{key}: {line}"));
        match line["key"].as_str() {
            Some("header") => commit.message = text("summary")?,
            Some("file") => drop(commit.inline.insert(text("path")?, BASE64_STANDARD.decode(text("content")?)?)),
            Some("lfsFile") => drop(commit.stored.insert(text("path")?, text("oid")?)),
            _ => return Err(format!("{line}").into()),
        }
    }
    Ok(commit)
}
