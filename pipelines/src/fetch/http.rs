//! Downloads over HTTP that go on where they were cut (RFC 9110, 14: range requests).

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use retort_engine::Failure;
use sha2::{Digest as _, Sha256};
use ureq::http::{HeaderMap, Response};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

use super::{FetchError, hex};

/// Times that a download is taken up again without a byte having come.
const ATTEMPTS: u32 = 5;
/// Progress is told after so many bytes, or after so long.
const TELL_BYTES: u64 = 1 << 20;
const TELL_AFTER: Duration = Duration::from_millis(100);
/// A page of an index is at most so many bytes.
const MAX_PAGE: u64 = 64 << 20;

/// A client with the user's certificates and proxy.
pub(super) struct Http {
    agent: Agent,
}

/// A file to download.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) url: String,
    /// A bearer token.
    pub(super) token: Option<String>,
    /// Where it is held while it comes, and after.
    pub(super) held: PathBuf,
    /// Its size, where known beforehand.
    pub(super) size: Option<u64>,
    /// Its digest, where known beforehand.
    pub(super) sha256: Option<String>,
}

impl Download {
    pub(super) fn new(url: String, held: PathBuf) -> Self {
        Download { url, token: None, held, size: None, sha256: None }
    }

    /// Removes what came so far.
    pub(super) fn forget(&self) {
        let _ = fs::remove_file(&self.held);
        let _ = fs::remove_file(self.tag_path());
    }

    /// The file with what the server calls the version of which a part is held, and whether all of it is.
    fn tag_path(&self) -> PathBuf {
        self.held.with_extension("tag")
    }

    fn held_bytes(&self) -> u64 {
        fs::metadata(&self.held).map_or(0, |metadata| metadata.len())
    }
}

/// What became of one request.
enum Outcome {
    Done,
    /// The connection broke, or the server is busy.
    Cut(String),
}

impl Http {
    /// A client that trusts the certificates of the system (`SSL_CERT_FILE`), or those in `cert`; proxies are those of the
    /// environment, or `proxy`.
    pub(super) fn new(cert: Option<&Path>, proxy: Option<&str>) -> Result<Self, FetchError> {
        let roots = match cert {
            Some(path) => certificates(path)?,
            None => RootCerts::PlatformVerifier,
        };
        let mut config = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_mins(1)))
            .timeout_per_read(Some(Duration::from_mins(1)))
            .http_status_as_error(false)
            .user_agent(concat!("retort/", env!("CARGO_PKG_VERSION")))
            // A range is one of the file's bytes, so they come as they are.
            .accept_encoding("identity");
        if let Some(proxy) = proxy {
            let proxy =
                Proxy::new(proxy).map_err(|error| FetchError::Index(format!("`{proxy}` is no proxy: {error}")))?;
            config = config.proxy(Some(proxy));
        }
        Ok(Http { agent: config.build().into() })
    }

    /// A page and its media type; `None` where there is none.
    pub(super) fn page(&self, url: &str, accept: &str) -> Result<Option<(String, String)>, FetchError> {
        let failed = |error: ureq::Error| FetchError::Connection { url: shown(url), message: error.to_string() };
        let mut attempt = 0;
        let mut response = loop {
            attempt += 1;
            match self.agent.get(url).header("Accept", accept).call() {
                Ok(response) if is_busy(response.status().as_u16()) && attempt < ATTEMPTS => {}
                Ok(response) => break response,
                Err(error) if attempt < ATTEMPTS && is_transient(&error) => {}
                Err(error) => return Err(failed(error)),
            }
            std::thread::sleep(pause(attempt));
        };
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            status => return Err(FetchError::Status { url: shown(url), status, hint: hint(status) }),
        }
        let kind = response.body().mime_type().unwrap_or_default().to_string();
        let body = response.body_mut().with_config().limit(MAX_PAGE).read_to_string().map_err(failed)?;
        Ok(Some((body, kind)))
    }

    /// Downloads a file into `held`, or the rest of it.
    pub(super) fn download(
        &self,
        download: &Download,
        progress: &mut dyn FnMut(u64, u64) -> Result<(), Failure>,
    ) -> Result<(), FetchError> {
        if let Some(folder) = download.held.parent() {
            fs::create_dir_all(folder).map_err(FetchError::io("create", folder))?;
        }
        let is_whole = fs::read_to_string(download.tag_path()).is_ok_and(|tag| tag.starts_with("whole "));
        let mut attempt = 0;
        let mut total = 0;
        loop {
            if is_whole {
                break;
            }
            let before = download.held_bytes();
            let mut told = |done, of| {
                total = of;
                progress(done, of)
            };
            match self.request(download, &mut told)? {
                Outcome::Done => break,
                Outcome::Cut(message) => {
                    attempt = if download.held_bytes() > before { 1 } else { attempt + 1 };
                    if attempt >= ATTEMPTS {
                        return Err(FetchError::Connection { url: shown(&download.url), message });
                    }
                    progress(download.held_bytes(), total).map_err(FetchError::Stopped)?;
                    std::thread::sleep(pause(attempt));
                }
            }
        }
        verify(download)?;
        let tag = download.tag_path();
        fs::write(&tag, format!("whole {}", download.held_bytes())).map_err(FetchError::io("write", &tag))
    }

    fn request(
        &self,
        download: &Download,
        progress: &mut dyn FnMut(u64, u64) -> Result<(), Failure>,
    ) -> Result<Outcome, FetchError> {
        let held = download.held_bytes();
        let tag = fs::read_to_string(download.tag_path()).unwrap_or_default();
        let mut request = self.agent.get(&download.url);
        if let Some(token) = &download.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if held > 0 {
            request = request.header("Range", format!("bytes={held}-"));
            if !tag.is_empty() {
                request = request.header("If-Range", tag);
            }
        }
        let response = match request.call() {
            Ok(response) => response,
            Err(error) if is_transient(&error) => return Ok(Outcome::Cut(error.to_string())),
            Err(error) => {
                return Err(FetchError::Connection { url: shown(&download.url), message: error.to_string() });
            }
        };
        match response.status().as_u16() {
            200 => self::receive(download, response, 0, progress),
            206 if range_start(response.headers()) == Some(held) => self::receive(download, response, held, progress),
            // All of it is held already, or what is held is of another file.
            416 if held > 0 && whole_size(response.headers()) == Some(held) => Ok(Outcome::Done),
            206 | 416 if held > 0 => {
                download.forget();
                Ok(Outcome::Cut("the server has another range than the one that was asked for".into()))
            }
            status if is_busy(status) => Ok(Outcome::Cut(format!("the server says {status}"))),
            status => Err(FetchError::Status { url: shown(&download.url), status, hint: hint(status) }),
        }
    }
}

/// Writes what comes behind the first `start` bytes.
fn receive(
    download: &Download,
    response: Response<Body>,
    start: u64,
    progress: &mut dyn FnMut(u64, u64) -> Result<(), Failure>,
) -> Result<Outcome, FetchError> {
    let path = &download.held;
    let tag = download.tag_path();
    match validator(response.headers()) {
        Some(validator) => fs::write(&tag, validator).map_err(FetchError::io("write", &tag))?,
        None => drop(fs::remove_file(&tag)),
    }
    let length = response.body().content_length();
    let of = length.map(|length| start + length).or(download.size);
    let mut options = OpenOptions::new();
    if start > 0 {
        options.append(true)
    } else {
        options.create(true).write(true).truncate(true)
    };
    let mut file = options.open(path).map_err(FetchError::io("open", path))?;
    let mut reader = response.into_body().into_with_config().limit(u64::MAX).reader();
    let mut buffer = vec![0; 256 << 10];
    let mut done = start;
    let mut told = (start, Instant::now());
    progress(done, of.unwrap_or(0)).map_err(FetchError::Stopped)?;
    loop {
        if done - told.0 >= TELL_BYTES || (done > told.0 && told.1.elapsed() >= TELL_AFTER) {
            told = (done, Instant::now());
            progress(done, of.unwrap_or(0)).map_err(FetchError::Stopped)?;
        }
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                file.write_all(&buffer[..n]).map_err(FetchError::io("write", path))?;
                done += n as u64;
            }
            Err(error) => return Ok(Outcome::Cut(error.to_string())),
        }
    }
    progress(done, of.unwrap_or(0)).map_err(FetchError::Stopped)?;
    match of {
        Some(of) if done < of => Ok(Outcome::Cut(format!("the connection was closed after {done} of {of} bytes"))),
        _ => Ok(Outcome::Done),
    }
}

/// Compares what came with what an index promised.
fn verify(download: &Download) -> Result<(), FetchError> {
    let Some(expected) = &download.sha256 else { return Ok(()) };
    let mut file = File::open(&download.held).map_err(FetchError::io("open", &download.held))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(FetchError::io("read", &download.held))? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    let found = hex(&hasher.finalize());
    if found != *expected {
        download.forget();
        return Err(FetchError::Mismatch { what: shown(&download.url), expected: expected.clone(), found });
    }
    Ok(())
}

fn certificates(path: &Path) -> Result<RootCerts, FetchError> {
    let pem = fs::read(path).map_err(FetchError::io("read the certificates", path))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => {
                let error = std::io::Error::other(error.to_string());
                return Err(FetchError::io("read the certificates", path)(error));
            }
        }
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

/// What names the version of a file well enough to join its parts: a strong entity tag, or else a date.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(String::from);
    text("etag").filter(|tag| !tag.starts_with("W/")).or_else(|| text("last-modified"))
}

/// The first byte of `Content-Range: bytes 5-9/10`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// The size in `Content-Range: bytes */10`.
fn whole_size(headers: &HeaderMap) -> Option<u64> {
    headers.get("content-range")?.to_str().ok()?.rsplit('/').next()?.trim().parse().ok()
}

fn is_busy(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

fn is_transient(error: &ureq::Error) -> bool {
    matches!(
        error,
        ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_)
            | ureq::Error::BodyStalled
    )
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => ": it wants credentials (`HF_TOKEN` for hf://, `user:password@` in pip's index URL)",
        404 | 410 => ": there is no such file",
        _ => "",
    }
}

fn pause(attempt: u32) -> Duration {
    Duration::from_millis(250 << attempt.min(4))
}

/// A URL without the credentials in it.
pub(super) fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_string() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}
