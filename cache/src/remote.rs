//! A store far away: `s3://bucket/prefix`, `gs://…`, `az://…` or `file:DIR`, laid out like the store on disk.
//!
//! | object | what |
//! |---|---|
//! | `version` | the layout's version |
//! | `tables/8c/2f….parquet` | a table, named by its content |
//! | `answers/51/ab….json` | what a recipe gave; written after its tables, so that whoever finds it finds them |
//! | `rows/<operator>/<digest>.rows` | a segment of remembered rows, named by its bytes |
//!
//! This is the only place with async code: it ends at this file's edge. Trouble on the way (5xx, a cut connection, a timeout) is
//! tried again with growing pauses; a body that broke off goes on where it ended. Settings are those of `object_store`, and are
//! handed in: no environment is looked at here.

mod survey;
mod through;
mod travel;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::runtime::Runtime;

use crate::adopt::Incoming;
use crate::disk::sharded;
use crate::{Answer, ContentId, Digest, RecipeId, StoreError};

pub use survey::Survey;
pub use through::ReadThrough;
pub use travel::{Freight, Moved, Progress, freight_of, pull, push};

/// The version of a remote store's layout.
const VERSION: &str = "1";
/// Files longer than this go up in parts of this size.
const PART: u64 = 8 << 20;
/// Answers are read into memory, up to this size.
const MAX_ANSWER: u64 = 64 << 20;
/// What is said when a store refuses.
const CREDENTIALS: &str = "the credentials are taken from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT, …; GOOGLE_…; AZURE_…)";

/// A store far away.
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    url: String,
    runtime: Runtime,
}

/// What lies in a remote store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// The layout's version.
    Version,
    /// A table.
    Table(ContentId),
    /// What a recipe gave.
    Answer(RecipeId),
    /// Remembered rows of an operator, by the digest of the bytes.
    Rows(RecipeId, Digest),
}

impl Object {
    /// Its path below the store's prefix.
    pub fn path(self) -> String {
        match self {
            Object::Version => "version".into(),
            Object::Table(content) => format!("tables/{}", sharded(&content.to_string(), "parquet")),
            Object::Answer(recipe) => format!("answers/{}", sharded(&recipe.to_string(), "json")),
            Object::Rows(op, digest) => format!("rows/{op}/{}.rows", digest.hex()),
        }
    }

    /// What a path below the prefix names; nothing, if it is nothing of ours.
    pub fn of_path(path: &str) -> Option<Self> {
        let digest = |folder: &str, name: &str, extension: &str| {
            Digest::from_hex(&format!("{folder}{}", name.strip_suffix(extension)?))
        };
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            ["tables", folder, name] => digest(folder, name, ".parquet").map(|id| Object::Table(ContentId(id))),
            ["answers", folder, name] => digest(folder, name, ".json").map(|id| Object::Answer(RecipeId(id))),
            ["rows", op, name] => Some(Object::Rows(RecipeId(Digest::from_hex(op)?), digest("", name, ".rows")?)),
            _ => None,
        }
    }
}

impl Remote {
    /// Names a remote store; nothing is sent yet. `settings` are names and values as they stand in the environment:
    /// `AWS_…`, `GOOGLE_…`, `AZURE_…`. Names that mean nothing are passed over.
    pub fn open(url: &str, settings: &[(String, String)]) -> Result<Self, StoreError> {
        let url = url.trim_end_matches('/');
        let wrong = |why: &str| StoreError::Remote {
            verb: "use",
            url: url.into(),
            source: why.into(),
            hint: Some(
                "a remote store is `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or `file:DIR`",
            ),
        };
        let (scheme, rest) = url.split_once(':').ok_or_else(|| wrong("it is no URL"))?;
        if scheme == "file" {
            return Remote::of_folder(url, rest.strip_prefix("//").unwrap_or(rest));
        }
        let rest = rest.strip_prefix("//").ok_or_else(|| wrong("it is no URL"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(wrong("it names no bucket"));
        }
        let prefix = Path::parse(prefix).map_err(|error| wrong(&error.to_string()))?;
        let built: Result<Arc<dyn ObjectStore>, object_store::Error> = match scheme {
            "s3" | "s3a" => s3(bucket, settings),
            "gs" => google(bucket, settings),
            "az" | "azure" | "abfs" | "abfss" => azure(&format!("{scheme}://{bucket}"), settings),
            _ => return Err(wrong(&format!("`{scheme}:` is not known"))),
        };
        let store = built.map_err(|error| failed("use", url, &error))?;
        Ok(Remote { store, prefix, url: url.into(), runtime: runtime(url)? })
    }

    fn of_folder(url: &str, folder: &str) -> Result<Self, StoreError> {
        let folder = FilePath::new(if folder.is_empty() { "/" } else { folder });
        std::fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| failed("use", url, &error))?;
        Ok(Remote { store: Arc::new(store), prefix: Path::default(), url: url.into(), runtime: runtime(url)? })
    }

    /// How the user named it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Looks whether there is a store that can be read; gives `false` where there is none yet.
    pub fn look(&self) -> Result<bool, StoreError> {
        let Some(text) = self.get(Object::Version)? else { return Ok(false) };
        let found = String::from_utf8_lossy(&text).trim().to_string();
        // A local store's file says more than the number.
        if crate::version::read(&text).is_some_and(|number| number.to_string() == VERSION) {
            return Ok(true);
        }
        Err(StoreError::Version {
            path: self.url_of(Object::Version),
            found: found.chars().take(20).collect(),
            expected: VERSION.parse().expect("it is a number"),
        })
    }

    /// Begins a store where there is none yet.
    pub(crate) fn begin(&self) -> Result<(), StoreError> {
        if self.look()? {
            return Ok(());
        }
        let (path, version) = (self.path(Object::Version), format!("{VERSION}\n"));
        let put = self.runtime.block_on(self.store.put(&path, version.into_bytes().into()));
        put.map(|_| ()).map_err(|error| failed("put", &self.url_of(Object::Version), &error))
    }

    /// The answer to a recipe, if it is there. One that is not what its name promises is an error.
    pub(crate) fn answer(&self, recipe: RecipeId) -> Result<Option<(Answer, u64)>, StoreError> {
        let Some(text) = self.get(Object::Answer(recipe))? else { return Ok(None) };
        match crate::adopt::true_answer(recipe, &text) {
            Some(answer) => Ok(Some((answer, text.len() as u64))),
            None => Err(StoreError::Untrue { what: self.url_of(Object::Answer(recipe)) }),
        }
    }

    /// A small object's bytes, if it is there.
    pub(crate) fn get(&self, object: Object) -> Result<Option<Bytes>, StoreError> {
        let path = self.path(object);
        let got = self.runtime.block_on(async {
            let result = self.store.get(&path).await?;
            if result.meta.size > MAX_ANSWER {
                let source = format!("it has {} bytes, which is too many", result.meta.size).into();
                return Err(object_store::Error::Generic { store: "remote", source });
            }
            result.bytes().await
        });
        self.found("get", object, got)
    }

    /// Writes an object to a file; gives its bytes, `None` where it is not there.
    pub(crate) fn fetch(&self, object: Object, to: &mut Incoming) -> Result<Option<u64>, StoreError> {
        let path = self.path(object);
        let begun = self.runtime.block_on(self.store.get(&path));
        let Some(result) = self.found("get", object, begun)? else { return Ok(None) };
        let mut stream = result.into_stream();
        let mut n = 0;
        while let Some(bytes) = self.runtime.block_on(stream.next()) {
            let bytes = bytes.map_err(|error| failed("get", &self.url_of(object), &error))?;
            to.write_all(&bytes).map_err(StoreError::io("write", to.path()))?;
            n += bytes.len() as u64;
        }
        Ok(Some(n))
    }

    /// Sends the first `length` bytes of a file.
    pub(crate) fn put(&self, object: Object, path: &FilePath, length: u64) -> Result<(), StoreError> {
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        let mut reader = file.take(length);
        let mut next = move || -> Result<Vec<u8>, StoreError> {
            let mut part = Vec::new();
            (&mut reader).take(PART).read_to_end(&mut part).map_err(StoreError::io("read", path))?;
            Ok(part)
        };
        let failed = |error: object_store::Error| failed("put", &self.url_of(object), &error);
        let to = self.path(object);
        if length <= PART {
            let bytes = next()?;
            return self.runtime.block_on(self.store.put(&to, bytes.into())).map(|_| ()).map_err(failed);
        }
        let mut upload = self.runtime.block_on(self.store.put_multipart(&to)).map_err(failed)?;
        let mut send = || -> Result<(), StoreError> {
            loop {
                let part = next()?;
                if part.is_empty() {
                    return self.runtime.block_on(upload.complete()).map(|_| ()).map_err(failed);
                }
                self.runtime.block_on(upload.put_part(part.into())).map_err(failed)?;
            }
        };
        let sent = send();
        if sent.is_err() {
            // The store may be gone; then its owner's clean-up takes the parts.
            let _ = self.runtime.block_on(upload.abort());
        }
        sent
    }

    /// The bytes of an object, if it is there.
    pub(crate) fn size(&self, object: Object) -> Result<Option<u64>, StoreError> {
        let path = self.path(object);
        let meta = self.runtime.block_on(self.store.head(&path));
        Ok(self.found("look at", object, meta)?.map(|meta| meta.size))
    }

    /// All objects below a folder (`tables`, `rows/<operator>`), with their bytes.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<(Object, u64)>, StoreError> {
        let below = self.below(folder);
        let listed = self.runtime.block_on(async {
            let mut stream = self.store.list(Some(&below));
            let mut found = Vec::new();
            while let Some(meta) = stream.next().await {
                let meta = meta?;
                let path = meta.location.as_ref().strip_prefix(self.prefix.as_ref()).unwrap_or_default();
                found.extend(Object::of_path(path.trim_start_matches('/')).map(|object| (object, meta.size)));
            }
            Ok(found)
        });
        let mut found = listed.map_err(|error| failed("list", &format!("{}/{folder}", self.url), &error))?;
        found.sort_unstable();
        Ok(found)
    }

    /// How an object is named to people.
    pub(crate) fn url_of(&self, object: Object) -> String {
        format!("{}/{}", self.url, object.path())
    }

    fn path(&self, object: Object) -> Path {
        self.below(&object.path())
    }

    fn below(&self, path: &str) -> Path {
        self.prefix.parts().chain(Path::from(path).parts()).collect()
    }

    /// That an object is not there is no error.
    fn found<T>(
        &self,
        verb: &'static str,
        object: Object,
        result: Result<T, object_store::Error>,
    ) -> Result<Option<T>, StoreError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(object_store::Error::NotFound { source, .. }) if !chain(source.as_ref()).contains("NoSuchBucket") => {
                Ok(None)
            }
            Err(error) => Err(failed(verb, &self.url_of(object), &error)),
        }
    }
}

fn runtime(url: &str) -> Result<Runtime, StoreError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| StoreError::Remote { verb: "use", url: url.into(), source: error.into(), hint: None })
}

fn retry() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(4), base: 2.0 };
    RetryConfig { backoff, max_retries: 6, retry_timeout: Duration::from_mins(10) }
}

fn s3(bucket: &str, settings: &[(String, String)]) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in of_cloud(settings, &["AWS_"]) {
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    Ok(Arc::new(builder.with_bucket_name(bucket).with_retry(retry()).build()?))
}

fn google(bucket: &str, settings: &[(String, String)]) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let mut builder = GoogleCloudStorageBuilder::new();
    for (name, value) in of_cloud(settings, &["GOOGLE_", "SERVICE_ACCOUNT"]) {
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    Ok(Arc::new(builder.with_bucket_name(bucket).with_retry(retry()).build()?))
}

fn azure(url: &str, settings: &[(String, String)]) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value) in of_cloud(settings, &["AZURE_"]) {
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    Ok(Arc::new(builder.with_url(url).with_retry(retry()).build()?))
}

/// The settings of one cloud, with names as `object_store` reads them.
fn of_cloud<'a>(settings: &'a [(String, String)], prefixes: &'a [&str]) -> impl Iterator<Item = (String, &'a String)> {
    let of_it = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    settings.iter().filter(move |(name, _)| of_it(name)).map(|(name, value)| (name.to_ascii_lowercase(), value))
}

/// An error in few words: what the innermost cause says, on one line.
fn failed(verb: &'static str, url: &str, error: &object_store::Error) -> StoreError {
    use object_store::Error;
    let text = chain(error);
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect();
    let refused = matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. });
    let hint = (refused || text.contains("credential") || text.contains("169.254.169.254")).then_some(CREDENTIALS);
    StoreError::Remote { verb, url: url.into(), source: text.into(), hint }
}

/// The innermost cause of an error.
fn chain(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
    }

    #[test]
    fn a_path_names_what_it_is_the_path_of() {
        let digest = |n: u8| Digest::from_bytes([n; 32]);
        for object in [
            Object::Table(ContentId(digest(1))),
            Object::Answer(RecipeId(digest(2))),
            Object::Rows(RecipeId(digest(3)), digest(4)),
        ] {
            assert_eq!(Object::of_path(&object.path()), Some(object), "{}", object.path());
        }
        for other in ["version", "tables/x", "tables/8c/../x.parquet", "rows/a/b.rows", "other/8c/2f.parquet"] {
            assert_eq!(Object::of_path(other), None, "{other}");
        }
    }

    #[test]
    fn urls_of_each_kind_are_understood() {
        let aws = settings(&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_NONSENSE", "c")]);
        let remote = Remote::open("s3://bucket/some/prefix/", &aws).unwrap();
        assert_eq!(remote.path(Object::Version).as_ref(), "some/prefix/version");
        assert_eq!(remote.url_of(Object::Version), "s3://bucket/some/prefix/version");
        assert_eq!(Remote::open("s3://bucket", &aws).unwrap().path(Object::Version).as_ref(), "version");
        let google = settings(&[("GOOGLE_SKIP_SIGNATURE", "true")]);
        let remote = Remote::open("gs://bucket/prefix", &google).unwrap();
        assert!(format!("{}", remote.store).contains("bucket"), "{}", remote.store);
        let azure = settings(&[("AZURE_STORAGE_ACCOUNT_NAME", "account"), ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")]);
        let remote = Remote::open("az://container/prefix", &azure).unwrap();
        assert!(format!("{}", remote.store).contains("container"), "{}", remote.store);
        assert_eq!(remote.path(Object::Version).as_ref(), "prefix/version");
        for wrong in ["bucket/prefix", "s3:bucket", "s3://", "ftp://host/x", ""] {
            let error = Remote::open(wrong, &[]).err().unwrap();
            assert!(error.hint().is_some_and(|hint| hint.contains("s3://BUCKET/PREFIX")), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_folder_can_be_a_remote_store() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().join("far/away").display());
        let remote = Remote::open(&url, &[]).unwrap();
        assert!(!remote.look().unwrap());
        remote.begin().unwrap();
        assert!(Remote::open(&url, &[]).unwrap().look().unwrap());
        assert_eq!(remote.size(Object::Version).unwrap(), Some(2));
        std::fs::write(folder.path().join("far/away/version"), "7\n").unwrap();
        let error = remote.look().unwrap_err().to_string();
        assert!(error.contains("store format 7"), "{error}");
    }

    #[test]
    fn a_long_file_goes_up_in_parts_and_comes_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file:{}", folder.path().join("far").display());
        let remote = Remote::open(&url, &[]).unwrap();
        let bytes: Vec<u8> = (0..2 * PART as u32 + 12_345).map(|n| (n % 251) as u8).collect();
        let path = folder.path().join("file");
        std::fs::write(&path, &bytes).unwrap();
        let object = Object::Table(ContentId(Digest::from_bytes([9; 32])));
        remote.put(object, &path, bytes.len() as u64).unwrap();
        let store = crate::Disk::open(folder.path().join("here")).unwrap();
        let mut incoming = store.incoming_table().unwrap();
        assert_eq!(remote.fetch(object, &mut incoming).unwrap(), Some(bytes.len() as u64));
        assert_eq!(std::fs::read(incoming.path()).unwrap(), bytes);
    }
}
