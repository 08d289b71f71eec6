//! An S3 server on a loopback port: `s3s-fs` over a folder, with keys, counting requests, and failing as it is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// The only bucket.
pub(super) const BUCKET: &str = "experiments";
const KEY: &str = "AKIAEXAMPLE";
const SECRET: &str = "not-a-secret";

/// How the server fails.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// It does not.
    Never,
    /// Every third request: with status 500, 503, and a cut connection, in turn.
    EveryThird,
    /// After so many uploads it answers nobody any more, and says so to the test, which kills it.
    StallAfter(usize),
}

/// A running server. It goes with the value.
pub(super) struct Server {
    port: u16,
    folder: PathBuf,
    shared: Arc<Shared>,
    stalled: Receiver<()>,
    runtime: Option<Runtime>,
}

struct Shared {
    service: S3Service,
    fault: Fault,
    requests: Mutex<Vec<(Method, String)>>,
    uploaded: AtomicUsize,
    stall: Sender<()>,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Server {
    /// Serves what is in `folder`.
    pub(super) fn start(folder: &Path, fault: Fault) -> Self {
        fs::create_dir_all(folder.join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let (stall, stalled) = channel();
        let (requests, uploaded) = (Mutex::default(), AtomicUsize::new(0));
        let shared = Arc::new(Shared { service: builder.build(), fault, requests, uploaded, stall });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = shared.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        Server { port, folder: folder.into(), shared, stalled, runtime: Some(runtime) }
    }

    /// The environment in which the bucket is reached.
    pub(super) fn env(&self) -> Vec<(String, String)> {
        let pairs = [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
            ("NO_PROXY", "127.0.0.1".into()),
        ];
        pairs.map(|(name, value)| (name.to_string(), value)).into()
    }

    /// The paths of all requests of a method, in order, below the bucket.
    pub(super) fn requests(&self, method: &Method) -> Vec<String> {
        let requests = self.shared.requests.lock().unwrap();
        let of_method = requests.iter().filter(|(other, _)| other == method);
        of_method.map(|(_, path)| path.trim_start_matches(&format!("/{BUCKET}/")).to_string()).collect()
    }

    /// Forgets the requests so far.
    pub(super) fn forget(&self) {
        self.shared.requests.lock().unwrap().clear();
    }

    /// The files of all objects, by their paths below the bucket.
    pub(super) fn objects(&self) -> Vec<(String, PathBuf)> {
        objects(&self.folder.join(BUCKET))
    }

    /// Waits until the server stalls, and kills it with all its connections.
    pub(super) fn kill_when_stalled(mut self) {
        self.stalled.recv_timeout(Duration::from_secs(30)).expect("it stalls");
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(1));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The files below a folder, by their paths from there.
pub(crate) fn objects(folder: &Path) -> Vec<(String, PathBuf)> {
    let files = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path);
    files.map(|path| (path.strip_prefix(folder).unwrap().display().to_string(), path)).collect()
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(shared.clone(), request));
    // A connection that ends in an error is a client that went away, or one that was cut on purpose.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<s3s::Body>, Failed> {
    let (n, uploads) = {
        let mut requests = shared.requests.lock().unwrap();
        requests.push((request.method().clone(), request.uri().path().to_string()));
        (requests.len(), requests.iter().filter(|(method, _)| *method == Method::PUT).count())
    };
    let failing = |status| Ok(Response::builder().status(status).body(s3s::Body::empty())?);
    match shared.fault {
        Fault::EveryThird if n.is_multiple_of(9) => return Err("cut on purpose".into()),
        Fault::EveryThird if n.is_multiple_of(6) => return failing(StatusCode::SERVICE_UNAVAILABLE),
        Fault::EveryThird if n.is_multiple_of(3) => return failing(StatusCode::INTERNAL_SERVER_ERROR),
        Fault::StallAfter(most) if uploads > most => {
            while shared.uploaded.load(Ordering::Relaxed) < most {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let _ = shared.stall.send(());
            std::future::pending::<()>().await;
        }
        _ => {}
    }
    let upload = request.method() == Method::PUT;
    let response = shared.service.call(request.map(s3s::Body::from)).await.map_err(|error| format!("{error:?}"))?;
    shared.uploaded.fetch_add(usize::from(upload), Ordering::Relaxed);
    Ok(response)
}
