//! How an operator names a model and gets it: weights by digest, or a server.
//!
//! A pipeline writes `model: NAME`; before the config is parsed the name is replaced by the entry of `models:`. What an
//! answer depends on becomes facts: of weights the digest (the fact `asset.model`, wherever they come from), of a server its
//! address and the model's name there. Where weights lie, the key, and how many requests run side by side are no facts.

mod terms;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use retort_engine::{Asset, Cx, Env, Failure, Problem};
use retort_lm::embed::Encoder;
use retort_lm::model::{Keep, Model};
use retort_lm::template::ChatTemplate;
use retort_lm::tokenizer::Tokenizer;
use retort_lm::{LmError, kernels};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use terms::{Price, Terms};

/// An entry of `models:`: weights in a file, or a server that speaks OpenAI's chat completions.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// Where the weights come from: `pypi://package/version/path`, `hf://org/repo@rev/path`, `https://…` or `file:path`
    /// (relative to the pipeline); a list when they come in parts that are joined.
    #[serde(default)]
    pub weights: Option<Sources>,
    /// The SHA-256 of the weights, 64 hexadecimal digits.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The address of a server, up to and with `/v1`, in place of `weights`.
    #[serde(default)]
    pub server: Option<String>,
    /// What the server calls the model.
    #[serde(default)]
    pub name: Option<String>,
    /// The server's key, as `${env.NAME}`. It is used, and never stored or printed.
    #[serde(default)]
    pub api_key: Option<Secret>,
    /// Requests to the server side by side; default 8. The answers do not depend on it.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub parallel: Option<usize>,
    /// Seconds after which a request to the server is given up; default 600.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub timeout: Option<u64>,
    /// Has the server send answers as they are written: `timeout` is then how long it may be silent, and answers may take as long as they need. The answers do
    /// not depend on it; default false.
    #[serde(default)]
    pub stream: Option<bool>,
    /// Requests to the server in a minute, at most. Default: as many as it takes.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub requests_per_minute: Option<u64>,
    /// Tokens in a minute, of prompts and answers, at most. Default: as many as it takes.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub tokens_per_minute: Option<u64>,
    /// What the server's tokens cost: the summary of a run then says what was spent.
    #[serde(default)]
    pub price: Option<Price>,
    /// What a run may spend on this server, in the money of `price`. A request that could go beyond is not made: the node fails, and what was paid for is kept.
    #[serde(default)]
    pub max_cost: Option<f64>,
    /// Tokens of prompts and answers that a run may spend on this server. As with `max_cost`.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_tokens_total: Option<u64>,
}

/// The `model` of an operator's config: in the file a name, here the entry of that name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct ModelRef(pub ModelEntry);

/// One source or several parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources(pub Vec<String>);

/// Text that is used and never shown.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

/// A model that is ready: weights, tokenizer and chat template.
pub struct LoadedModel {
    /// The decoder.
    pub model: Model,
    /// Its vocabulary.
    pub tokenizer: Arc<Tokenizer>,
    /// How it is spoken to.
    pub template: ChatTemplate,
}

/// What a model that runs here computes in.
///
/// As a fact the default is left out, as it was before there was a choice: rows are seeded by their facts, so a new fact would have every drawn answer be another.
/// The fact of eight bits says which kind, as there was one before it: its answers are not these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(description = "What a model that runs here computes in.")]
pub enum Precision {
    /// Weights as half floats, everything else in single floats.
    #[default]
    F16,
    /// Weights and the inputs of every layer rounded to eight bits, in blocks of 32 (weights that a file has in four or five stay so), keys and values to half floats, as
    /// llama.cpp does: several times as fast, half the memory and less, and now and then another word.
    Int8,
}

impl Serialize for Precision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::F16 => serializer.serialize_none(),
            Self::Int8 => serializer.serialize_str("int8, levels"),
        }
    }
}

impl From<Precision> for Keep {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F16 => kernels::Precision::F16.into(),
            Precision::Int8 => kernels::Precision::Int8.into(),
        }
    }
}

/// A server and what it calls the model.
#[derive(Clone, Debug)]
pub struct ServerModel {
    /// The address, up to and with `/v1`, without a slash at the end.
    pub url: String,
    /// The model's name there.
    pub name: String,
    /// The key, if it wants one.
    pub api_key: Option<Secret>,
    /// Requests side by side.
    pub parallel: usize,
    /// Seconds after which a request is given up.
    pub timeout: u64,
    /// Whether answers come as they are written; the timeout is then that of each silence.
    pub stream: bool,
    /// How fast it may be asked, and what may be spent.
    pub terms: Terms,
}

impl ModelRef {
    /// Checks that the entry is one kind of model and whole; `field` is where it stands in the config.
    ///
    /// # Errors
    /// The entry is both kinds or neither, or a part is missing or malformed.
    pub fn check(&self, field: &str) -> Result<(), Problem> {
        let entry = &self.0;
        let problem = |message: &str| Err(Problem::at_field(field, message));
        match (&entry.weights, &entry.server) {
            (None, None) => problem("a model needs `weights`, or a `server` and a `name`"),
            (Some(_), Some(_)) => problem("a model has `weights` or a `server`, not both"),
            (Some(sources), None) if sources.0.is_empty() => problem("`weights` names no source"),
            (Some(_), None) if entry.name.is_some() || entry.api_key.is_some() => {
                problem("`name` and `api_key` belong to a `server`, not to `weights`")
            }
            (Some(_), None) if entry.terms() != Terms::default() => {
                problem("rates, `price` and budgets belong to a `server`: weights cost nothing")
            }
            (Some(_), None) => match &entry.sha256 {
                Some(digest) if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                    problem("`sha256` has 64 hexadecimal digits")
                }
                _ => Ok(()),
            },
            (None, Some(url)) if !url.starts_with("http://") && !url.starts_with("https://") => {
                problem("`server` begins with `http://` or `https://`")
            }
            (None, Some(_)) if entry.name.is_none() => problem("a `server` needs the model's `name` there"),
            (None, Some(_)) if entry.max_cost.is_some() && entry.price.is_none() => {
                problem("`max_cost` needs the `price` of tokens")
            }
            (None, Some(_)) if [entry.requests_per_minute, entry.tokens_per_minute].contains(&Some(0)) => {
                problem("a rate is at least 1 a minute")
            }
            (None, Some(_)) => Ok(()),
        }
    }

    /// As [`ModelRef::check`], for operators that run the model themselves.
    ///
    /// # Errors
    /// As [`ModelRef::check`], and for a server.
    pub fn check_local(&self, field: &str) -> Result<(), Problem> {
        self.check(field)?;
        if self.0.server.is_some() {
            return Err(Problem::at_field(
                field,
                "a model behind a `server` cannot be used here: its `weights` are needed",
            ));
        }
        Ok(())
    }

    /// The weights, pinned if they are; nothing for a server.
    pub fn assets(&self, env: &Env<'_>) -> Vec<Asset> {
        self.asset(env).into_iter().collect()
    }

    /// The weights as an asset, to be asked for when the operator runs.
    pub fn asset(&self, env: &Env<'_>) -> Option<Asset> {
        self.asset_called("model", env)
    }

    /// As [`ModelRef::asset`], under another name: so that an operator can have two.
    pub fn asset_called(&self, name: &str, env: &Env<'_>) -> Option<Asset> {
        let sources = self.0.weights.clone()?.0;
        let sha256 = self.0.sha256.as_ref().map(|digest| digest.to_ascii_lowercase());
        Some(Asset { name: name.into(), sources, sha256, base: env.base.to_path_buf() })
    }

    /// The server, where the model is one.
    pub fn server(&self) -> Option<ServerModel> {
        Some(ServerModel {
            url: self.0.server.as_ref()?.trim_end_matches('/').to_owned(),
            name: self.0.name.clone()?,
            api_key: self.0.api_key.clone(),
            parallel: self.0.parallel.unwrap_or(8).max(1),
            timeout: self.0.timeout.unwrap_or(600).max(1),
            stream: self.0.stream.unwrap_or(false),
            terms: self.0.terms(),
        })
    }
}

impl ModelEntry {
    fn terms(&self) -> Terms {
        Terms {
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            price: self.price,
            max_cost: self.max_cost,
            max_tokens_total: self.max_tokens_total,
        }
    }
}

/// Fetches the weights if need be and loads them; a model that is loaded already is shared.
///
/// # Errors
/// The asset cannot be had, or is not a model that is known here.
pub fn load(asset: &Asset, keep: impl Into<Keep>, cx: &Cx<'_>) -> Result<Arc<LoadedModel>, Failure> {
    load_file(&cx.asset(asset)?, keep).map_err(Failure::op)
}

/// As [`load`], the tokenizer only: no weights are read.
///
/// # Errors
/// As [`load`].
pub fn tokenizer(asset: &Asset, cx: &Cx<'_>) -> Result<Arc<Tokenizer>, Failure> {
    tokenizer_file(&cx.asset(asset)?).map_err(Failure::op)
}

/// Loads a model from a local path, or shares it while somebody has it.
///
/// # Errors
/// It cannot be read, or is not a model that is known here.
pub fn load_file(path: &Path, keep: impl Into<Keep>) -> Result<Arc<LoadedModel>, LmError> {
    static LOADED: Shared<(PathBuf, Keep), LoadedModel> = Shared::new();
    let keep = keep.into();
    LOADED.get(&(path.to_owned(), keep), || {
        // Each takes about as long as the other.
        let (tokenizer, model) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| tokenizer_file(path));
            let model = Model::load_in(keep, path);
            (tokenizer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), model)
        });
        let (tokenizer, model) = (tokenizer?, model?);
        Ok(LoadedModel { model, template: ChatTemplate::of(&tokenizer)?, tokenizer })
    })
}

/// Loads a tokenizer from a model's local path, or shares it while somebody has it.
///
/// # Errors
/// As [`Tokenizer::open`].
pub fn tokenizer_file(path: &Path) -> Result<Arc<Tokenizer>, LmError> {
    static LOADED: Shared<PathBuf, Tokenizer> = Shared::new();
    LOADED.get(&path.to_owned(), || Tokenizer::open(path))
}

/// Fetches a sentence encoder if need be and loads it, or shares it while somebody has it.
///
/// # Errors
/// The asset cannot be had, or is no encoder.
pub fn encoder(asset: &Asset, cx: &Cx<'_>) -> Result<Arc<Encoder>, Failure> {
    static LOADED: Shared<PathBuf, Encoder> = Shared::new();
    let path = cx.asset(asset)?;
    LOADED.get_or_load(&path, || Encoder::open(&path)).map_err(Failure::op)
}

/// What is loaded, by name, as long as somebody holds it.
struct Shared<K, T>(Mutex<BTreeMap<K, Weak<T>>>);

impl<K: Clone + Ord, T> Shared<K, T> {
    const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// The lock is not held while `load` runs, for operators whose batches come on rayon's threads: a parallel loop in `load` may take up another
    /// batch, which may ask for the same. Two may load it; the first is kept.
    fn get_or_load(&self, name: &K, load: impl FnOnce() -> Result<T, LmError>) -> Result<Arc<T>, LmError> {
        let lock = || self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(shared) = lock().get(name).and_then(Weak::upgrade) {
            return Ok(shared);
        }
        let fresh = Arc::new(load()?);
        let mut loaded = lock();
        if let Some(shared) = loaded.get(name).and_then(Weak::upgrade) {
            return Ok(shared);
        }
        loaded.retain(|_, weak| weak.strong_count() > 0);
        loaded.insert(name.clone(), Arc::downgrade(&fresh));
        Ok(fresh)
    }

    /// The lock is held while `load` runs: who asks for the same model meanwhile waits for it, and does not load it twice.
    fn get(&self, name: &K, load: impl FnOnce() -> Result<T, LmError>) -> Result<Arc<T>, LmError> {
        let mut loaded = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(shared) = loaded.get(name).and_then(Weak::upgrade) {
            return Ok(shared);
        }
        loaded.retain(|_, weak| weak.strong_count() > 0);
        let fresh = Arc::new(load()?);
        loaded.insert(name.clone(), Arc::downgrade(&fresh));
        Ok(fresh)
    }
}

/// Only what answers depend on: nothing of weights, whose digest is a fact of its own; address and name of a server.
impl Serialize for ModelRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(server) = self.server() else { return serializer.serialize_none() };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("server", &server.url)?;
        map.serialize_entry("name", &server.name)?;
        map.end()
    }
}

impl JsonSchema for ModelRef {
    fn schema_name() -> Cow<'static, str> {
        "Model".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let entry = generator.subschema_for::<ModelEntry>();
        json_schema!({
            "description": "The name of an entry of `models:`.",
            "anyOf": [{"type": "string"}, entry],
        })
    }
}

impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SourcesVisitor)
    }
}

struct SourcesVisitor;

impl<'de> Visitor<'de> for SourcesVisitor {
    type Value = Sources;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a source or a list of sources")
    }

    fn visit_str<E>(self, source: &str) -> Result<Sources, E> {
        Ok(Sources(vec![source.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Sources, A::Error> {
        let mut sources = Vec::new();
        while let Some(source) = parts.next_element()? {
            sources.push(source);
        }
        Ok(Sources(sources))
    }
}

impl JsonSchema for Sources {
    fn schema_name() -> Cow<'static, str> {
        "Sources".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
    }
}

impl Secret {
    /// The text, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests;
