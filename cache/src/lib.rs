//! What a question and an answer are; keeps answers as Parquet tables named by their content.
//!
//! Leaves to others: which questions are asked (`retort-engine`), how they are answered (`retort-ops`).

pub mod adopt;
mod ahead;
mod answers;
pub mod claim;
pub mod content;
pub mod digest;
pub mod digests;
pub mod disk;
mod error;
pub mod files;
mod framed;
pub mod gc;
mod kept;
mod lengths;
pub mod memory;
pub mod parquet;
pub mod pins;
pub mod quarantine;
pub mod recipe;
pub mod remote;
pub mod rowlog;
mod seal;
mod stamp;
pub mod store;
mod table_file;
pub mod verify;
mod version;
pub mod work;

pub use answers::ANSWER_VERSION;
pub use claim::{Claim, Claimed, Holder};
pub use content::{content_id, row_digests, row_keys};
pub use digest::{ContentId, Digest, RecipeId, RowKey};
pub use disk::Disk;
pub use error::StoreError;
pub use kept::KeptRows;
pub use lengths::Lengths;
pub use memory::Memory;
pub use recipe::{Change, Fact, Recipe};
pub use store::{Answer, Batches, Output, RowAnswer, RowMemo, Store, Table, TableWriter};
