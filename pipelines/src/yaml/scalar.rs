//! What plain scalars mean: what serde_yaml says. `yes` is text, and so is a number with leading zeros, so that a version or an
//! id keeps its digits.

use serde_json::Number;

use super::Data;

/// What a plain scalar means. Its text is kept: a param inside a longer text is written as it was.
pub(super) fn plain(text: &str) -> Data {
    match serde_yaml::from_str(text) {
        Ok(serde_yaml::Value::Null) => Data::Null,
        Ok(serde_yaml::Value::Bool(value)) => Data::Bool(value),
        Ok(serde_yaml::Value::Number(value)) => match number(&value) {
            Some(number) => Data::Number(number, text.to_string()),
            None => Data::Text(text.to_string()),
        },
        // A sequence or a mapping can't stand in a plain scalar; what else looks like one is text.
        _ => Data::Text(text.to_string()),
    }
}

fn number(value: &serde_yaml::Number) -> Option<Number> {
    let whole = value.as_i64().map(Number::from).or_else(|| value.as_u64().map(Number::from));
    // JSON has no infinities; as text they are refused where a number is wanted.
    whole.or_else(|| Number::from_f64(value.as_f64()?))
}
