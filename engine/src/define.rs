//! How an operator comes to be: its config struct, parsed, defaulted, and turned into facts.

use std::path::Path;

use retort_cache::Fact;
use schemars::{JsonSchema, Schema};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Asset, Lane, Operator, Problem, TableOp};

/// Implemented by an operator's config struct. The struct's doc comment is its manual page, the fields' doc comments describe the keys.
pub trait Define: Serialize + DeserializeOwned + JsonSchema + 'static {
    /// The name in `op:`.
    const NAME: &'static str;
    /// Raise it when the same config and rows would give another answer.
    const VERSION: u32;
    /// Fields that say where the input is (`paths`) or how the machine is used (`parallel`), and not what is done. They are no facts: what they lead to is.
    const PLACES: &'static [&'static str] = &[];

    /// Where the node waits its turn.
    fn lane(&self) -> Lane {
        Lane::Cpu
    }
    /// Files whose contents are part of the question: weights, tokenizers.
    fn assets(&self, env: &Env<'_>) -> Vec<Asset> {
        let _ = env;
        Vec::new()
    }
    /// What must fit into the context of its model, the first of its assets, by its config alone.
    fn budget(&self) -> Option<TokenBudget> {
        None
    }
    /// What lists the node's input when it has no `from`: an operator without inputs, asked on every run.
    fn source(&self, env: &Env<'_>) -> Option<Box<dyn TableOp>> {
        let _ = env;
        None
    }
    /// The operator itself. Config that parses but makes no sense is a problem here.
    fn build(self, env: &Env<'_>) -> Result<Operator, Problem>;
}

/// The most tokens of the texts that an operator writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBudget {
    /// The field of the config that says so.
    pub field: &'static str,
    /// How many.
    pub tokens: usize,
    /// The column that holds the texts.
    pub column: &'static str,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug)]
pub struct Env<'a> {
    /// The folder of the file that names the node: paths are relative to it. Never a fact.
    pub base: &'a Path,
}

/// An entry of the registry.
#[derive(Clone, Copy)]
pub struct OpInfo {
    /// The name in `op:`.
    pub name: &'static str,
    /// The operator's version.
    pub version: u32,
    /// The JSON Schema of its config, with the manual page as description.
    pub schema: fn() -> Schema,
    /// Turns config into an operator.
    pub make: fn(Value, &Env<'_>) -> Result<Made, Problem>,
}

impl OpInfo {
    /// The entry of an operator.
    pub const fn of<T: Define>() -> Self {
        OpInfo { name: T::NAME, version: T::VERSION, schema: schema::<T>, make: make::<T> }
    }
}

/// An operator that is ready to run.
pub struct Made {
    /// It.
    pub operator: Operator,
    /// What lists its input when it has no `from`.
    pub source: Option<Box<dyn TableOp>>,
    /// Where it waits its turn.
    pub lane: Lane,
    /// `op.name`, `op.version` and `with.…` of the parsed config: comments, key order and spelled-out defaults do not show.
    pub facts: Vec<Fact>,
    /// Files whose contents are part of the question.
    pub assets: Vec<Asset>,
    /// What must fit into the context of the first of them.
    pub budget: Option<TokenBudget>,
}

fn schema<T: Define>() -> Schema {
    schemars::schema_for!(T)
}

fn make<T: Define>(with: Value, env: &Env<'_>) -> Result<Made, Problem> {
    let with = if with.is_null() { Value::Object(serde_json::Map::new()) } else { with };
    let config: T = serde_path_to_error::deserialize(with)
        .map_err(|error| Problem::at_field(error.path().to_string(), error.into_inner().to_string()))?;
    let mut value = serde_json::to_value(&config).expect("configs are plain data");
    if let Value::Object(fields) = &mut value {
        for place in T::PLACES {
            fields.shift_remove(*place);
        }
    }
    let mut facts = vec![Fact::new("op.name", T::NAME), Fact::new("op.version", T::VERSION.to_string())];
    flatten("with", &value, &mut facts);
    Ok(Made {
        source: config.source(env),
        lane: config.lane(),
        facts,
        assets: config.assets(env),
        budget: config.budget(),
        operator: config.build(env)?,
    })
}

/// A fact a leaf, named by its path, in the order of the names.
fn flatten(name: &str, value: &Value, facts: &mut Vec<Fact>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| key.as_str());
            for (key, value) in fields {
                flatten(&format!("{name}.{key}"), value, facts);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                flatten(&format!("{name}[{i}]"), item, facts);
            }
        }
        Value::String(text) => facts.push(Fact::new(name, text)),
        // A key that is left out and one that is null are the same.
        Value::Null => {}
        other => facts.push(Fact::new(name, other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_leaves_in_order_of_their_names() {
        let mut facts = Vec::new();
        flatten("with", &serde_json::json!({"b": [1, {"c": "x"}], "a": null, "e": []}), &mut facts);
        let facts: Vec<_> = facts.iter().map(|fact| format!("{}={}", fact.name, fact.value)).collect();
        assert_eq!(facts, ["with.b[0]=1", "with.b[1].c=x", "with.e=[]"]);
    }
}
