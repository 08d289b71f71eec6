//! What plain scalars mean: what serde_yaml says. `yes` is text, and so is a number with leading zeros, so that a version or an
//! id keeps its digits.

use serde_json::Number;

use super::Data;

/// What a plain scalar means. Its text is kept: a param inside a longer text is written as it was.
pub(super) fn plain(text: &str) -> Data {
    if is_word(text) {
        return Data::Text(text.to_string());
    }
    if let Some(number) = digits(text) {
        return Data::Number(number.into(), text.to_string());
    }
    by_serde_yaml(text)
}

/// Whether a text is so plainly text that nobody need be asked: most keys and names are.
fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    // `true`, `Null`, `FALSE` mean something else. Asked a little too often is no harm.
    let special = || ["true", "false", "null"].iter().any(|word| word.eq_ignore_ascii_case(text));
    bytes.first().is_some_and(u8::is_ascii_alphabetic) && bytes.iter().all(word) && !special()
}

/// A whole number without a sign, a leading zero, or so many digits that it might not fit.
fn digits(text: &str) -> Option<u64> {
    let plain = text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn by_serde_yaml(text: &str) -> Data {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_what_serde_yaml_takes_for_text() {
        let letters = ["t", "T", "f", "F", "n", "N", "y", "Y", "o", "e", "x", "i", "I"];
        let tails = [
            "", "rue", "RUE", "alse", "ALSE", "ull", "ULL", "es", "o", "n", "ff", "an", "nf", "e5", "0x1", "_1", "-2",
            "1234567",
        ];
        for text in letters.iter().flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}"))) {
            assert_eq!(plain(&text), by_serde_yaml(&text), "{text}");
        }
        for text in [
            "",
            "0",
            "7",
            "007",
            "384",
            "999999999999999999",
            "9999999999999999999",
            "1_0",
            "1.0",
            "a b",
            "1a",
            "-1",
            "a: b",
            "~",
            "a.b",
            "é",
            "0x1f",
            ".inf",
            "infinity",
            "nan",
        ] {
            assert_eq!(plain(text), by_serde_yaml(text), "{text}");
        }
        for word in ["extract", "from", "n1", "nulls", "t"] {
            assert!(is_word(word), "{word} is not asked about");
        }
        assert!(!is_word("null") && !is_word("12") && !is_word("TRUE"));
    }
}
