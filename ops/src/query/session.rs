//! DataFusion as it is set up here: one partition, no files, names as they are written, memory bounded.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::BATCH;

/// A session that holds at most `max_bytes` of rows at a time.
pub(crate) fn context(max_bytes: usize) -> Result<SessionContext> {
    let mut config =
        SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH).with_information_schema(false);
    let options = config.options_mut();
    options.execution.planning_concurrency = 1;
    // Whether pieces are sorted one by one or joined first must not depend on how much memory they happen to take.
    options.execution.sort_in_place_threshold_bytes = 0;
    // `Question` is a column of that name, and not `question`: names come from the tables and are written as they are there.
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    // Rows that spilled would come back in another order.
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(max_bytes, 1.0).with_disk_manager_builder(disk);
    Ok(SessionContext::new_with_config_rt(config, Arc::new(runtime.build()?)))
}

/// The type under which a column is stored: views and dictionaries are plain text and bytes, lists are lists. `None` where tables have no such type.
pub(super) fn stored(kind: &DataType) -> Option<DataType> {
    use arrow::datatypes::Field;
    let inside = |field: &Field| Some(field.clone().with_data_type(stored(field.data_type())?));
    Some(match kind {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, values) => stored(values)?,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(inside(item)?))
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| inside(field)).collect::<Option<Vec<_>>>()?.into())
        }
        DataType::Float16 => DataType::Float32,
        DataType::Boolean | DataType::FixedSizeBinary(_) | DataType::Float32 | DataType::Float64 => kind.clone(),
        other if other.is_integer() => other.clone(),
        _ => return None,
    })
}
