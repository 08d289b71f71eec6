//! Sends folders to the Hugging Face Hub, with the Hub's own client.
//!
//! Who sends is told by the environment, as with the Hub's other tools: `HF_TOKEN`, the file of `HF_TOKEN_PATH`, or what `hf auth login` wrote; where to, by
//! `HF_ENDPOINT`. Weights and tables travel in pieces of which the Hub takes only those that it lacks; all of a folder becomes one commit, or none of it.

use std::path::{Path, PathBuf};

use hf_hub::progress::{ProgressEvent, ProgressHandler, UploadEvent};
use hf_hub::repository::{CommitOperation, RepoType, RepoTypeDataset, RepoTypeModel};
use hf_hub::{HFClient, HFClientSync, HFError, split_id};

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Weights.
    Model,
    /// Tables.
    Dataset,
}

/// Files of one folder, for one repository.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// What it holds.
    pub kind: Kind,
    /// The repository, `owner/name`. It is made where there is none.
    pub name: &'a str,
    /// Whether only its owner may see a repository that is made.
    pub private: bool,
    /// The folder that stands for the repository's root.
    pub folder: &'a Path,
    /// Files in it.
    pub files: &'a [PathBuf],
    /// What the commit says of itself.
    pub message: &'a str,
}

/// Why something could not be sent.
#[derive(Debug, thiserror::Error)]
#[error("cannot send to `{name}`")]
pub struct HubError {
    name: String,
    #[source]
    source: Box<HFError>,
}

impl HubError {
    /// A way out, if one is known.
    pub fn hint(&self) -> Option<&'static str> {
        match *self.source {
            HFError::AuthRequired { .. } => Some(
                "a token with the right to write must be in HF_TOKEN, or put where `hf auth login` puts it: https://huggingface.co/settings/tokens",
            ),
            HFError::Forbidden { .. } => {
                Some("the token has no right to write there: see https://huggingface.co/settings/tokens")
            }
            HFError::RateLimited { .. } => Some("the Hub asks for a pause: what it has already is not sent again"),
            _ => None,
        }
    }
}

/// Sends a parcel as one commit. Gives the commit's address, or the repository's.
///
/// `progress` is told how many bytes of how many are done, from another thread.
///
/// # Errors
/// The Hub cannot be reached, does not know or want the sender, or a file cannot be read.
pub fn send(parcel: Parcel<'_>, progress: impl Fn(u64, u64) + Send + Sync + 'static) -> Result<String, HubError> {
    let sent = match parcel.kind {
        Kind::Model => send_as(RepoTypeModel, parcel, progress),
        Kind::Dataset => send_as(RepoTypeDataset, parcel, progress),
    };
    sent.map_err(|error| HubError { name: parcel.name.to_owned(), source: Box::new(error) })
}

fn send_as(
    kind: impl RepoType,
    parcel: Parcel<'_>,
    progress: impl Fn(u64, u64) + Send + Sync + 'static,
) -> Result<String, HFError> {
    let client = HFClient::builder().user_agent(concat!("retort/", env!("CARGO_PKG_VERSION"))).build()?;
    let endpoint = client.endpoint().to_owned();
    let client = HFClientSync::from_inner(client)?;
    let (owner, name) = split_id(parcel.name);
    let repository = client.repository(kind, owner, name);
    let made =
        client.create_repository().repo_id(parcel.name).repo_type(kind).private(parcel.private).exist_ok(true).send();
    let address = match made {
        Ok(made) => made.url,
        // A token may be good for this repository alone, and for making none.
        Err(HFError::Forbidden { .. }) if repository.exists().send()? => {
            format!("{endpoint}/{}{}", kind.url_prefix(), parcel.name)
        }
        Err(error) => return Err(error),
    };
    let operations = parcel.files.iter().map(|file| {
        let inside = file.strip_prefix(parcel.folder).unwrap_or(file);
        let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
        CommitOperation::add_file(parts.join("/"), file.clone())
    });
    let commit = repository.create_commit().operations(operations.collect()).commit_message(parcel.message);
    let sent = commit.progress(Told(progress)).send()?;
    Ok(sent.commit_url.unwrap_or(address))
}

/// A listener to what the client says of its progress.
struct Told<F>(F);

impl<F: Fn(u64, u64) + Send + Sync> ProgressHandler for Told<F> {
    fn on_progress(&self, event: &ProgressEvent) {
        if let ProgressEvent::Upload(UploadEvent::Progress { bytes_completed, total_bytes, .. }) = event {
            (self.0)(*bytes_completed, *total_bytes);
        }
    }
}
