//! Which layers an adapter sits on, as a pipeline says it: a word for several, a list of names, or a pattern of whole names.

use std::borrow::Cow;
use std::fmt;

use retort_lm::lora::{LoraConfig, Target};
use schemars::{JsonSchema, json_schema};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// Which layers are adapted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// These of each block, in a block's order.
    Named(Vec<Target>),
    /// Those whose whole name, such as `model.layers.3.mlp.up_proj`, matches a regular expression.
    Pattern(String),
}

impl Default for Targets {
    /// All linear layers of the blocks.
    fn default() -> Self {
        Self::Named(Target::ALL.to_vec())
    }
}

/// The names, so that a word and the list that it stands for are the same fact.
impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(targets) => serializer.collect_seq(targets.iter().map(|target| target.name())),
            Self::Pattern(regex) => serializer.collect_map([("regex", regex)]),
        }
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Words)
    }
}

struct Words;

impl<'de> Visitor<'de> for Words {
    type Value = Targets;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`all-linear`, `attention`, `mlp`, a list of layers, or `{regex: …}`")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Targets, E> {
        let (attention, mlp) = Target::ALL.split_at(4);
        match word {
            "all-linear" => Ok(Targets::default()),
            "attention" => Ok(Targets::Named(attention.to_vec())),
            "mlp" => Ok(Targets::Named(mlp.to_vec())),
            other => Ok(Targets::Named(vec![layer(other)?])),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Targets, A::Error> {
        let mut targets = Vec::new();
        while let Some(name) = names.next_element::<String>()? {
            targets.push(layer(&name)?);
        }
        targets.sort_unstable();
        targets.dedup();
        if targets.is_empty() {
            return Err(A::Error::custom("an adapter sits on at least one layer"));
        }
        Ok(Targets::Named(targets))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Targets, A::Error> {
        let Some((key, regex)) = map.next_entry::<String, String>()? else {
            return Err(A::Error::missing_field("regex"));
        };
        if key != "regex" {
            return Err(A::Error::unknown_field(&key, &["regex"]));
        }
        if let Some(other) = map.next_key::<String>()? {
            return Err(A::Error::unknown_field(&other, &["regex"]));
        }
        LoraConfig::check_pattern(&regex).map_err(A::Error::custom)?;
        Ok(Targets::Pattern(regex))
    }
}

fn layer<E: Error>(name: &str) -> Result<Target, E> {
    let names = Target::ALL.map(Target::name);
    let near = || match retort_engine::nearest(name, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are `{}`", names.join("`, `")),
    };
    Target::by_name(name).ok_or_else(|| E::custom(format!("no layer is called `{name}`; {}", near())))
}

impl JsonSchema for Targets {
    fn schema_name() -> Cow<'static, str> {
        "Targets".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let names = Target::ALL.map(Target::name);
        json_schema!({
            "description": "Layers, by name, several by a word, or by a pattern of whole names.",
            "anyOf": [
                {"type": "string", "enum": ["all-linear", "attention", "mlp"]},
                {"type": "array", "items": {"type": "string", "enum": names}, "minItems": 1},
                {"type": "object", "properties": {"regex": {"type": "string"}}, "required": ["regex"], "additionalProperties": false},
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_word_stands_for_a_list() {
        let read = |value| serde_json::from_value::<Targets>(value);
        assert_eq!(read(json!("all-linear")).unwrap(), Targets::default());
        assert_eq!(read(json!("attention")).unwrap(), read(json!(["o_proj", "k_proj", "q_proj", "v_proj"])).unwrap());
        assert_eq!(
            serde_json::to_value(read(json!("mlp")).unwrap()).unwrap(),
            json!(["gate_proj", "up_proj", "down_proj"])
        );
        assert!(read(json!(["q_prj"])).unwrap_err().to_string().contains("did you mean `q_proj`?"));
        assert_eq!(read(json!({"regex": "a.b"})).unwrap(), Targets::Pattern("a.b".into()));
        assert!(read(json!({"regex": "("})).unwrap_err().to_string().contains("no pattern"));
        assert!(read(json!({"regx": "a"})).unwrap_err().to_string().contains("regx"));
        assert!(read(json!([])).unwrap_err().to_string().contains("at least one"));
    }
}
