//! Where sentences begin: Unicode's rules (UAX #29), mended where they cut after an abbreviation.

use unicode_segmentation::UnicodeSegmentation;

/// The bytes at which the sentences of a paragraph begin; the first is 0. Empty for an empty text.
pub fn starts(paragraph: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut goes_on = false;
    for (at, piece) in paragraph.split_sentence_bound_indices() {
        let blank = piece.trim().is_empty();
        if !goes_on && !blank {
            starts.push(at);
        }
        goes_on = blank && goes_on || ends_in_abbreviation(piece.trim_end());
    }
    if let Some(first) = starts.first_mut() {
        *first = 0;
    }
    starts
}

/// `e.g.`, `Mr.`, `J.`, `fig.`: a full stop that ends no sentence.
fn ends_in_abbreviation(sentence: &str) -> bool {
    let Some(rest) = sentence.strip_suffix('.') else { return false };
    let word = rest.rsplit(|char: char| char.is_whitespace() || "([{\"'“‘".contains(char)).next().unwrap_or(rest);
    let mut chars = word.chars();
    let single = chars.next().is_some_and(char::is_uppercase) && chars.next().is_none();
    let inner = word.contains('.') && word.split('.').all(|part| part.chars().count() == 1);
    single
        || inner
        || matches!(
            word.to_lowercase().as_str(),
            "mr" | "mrs"
                | "ms"
                | "dr"
                | "prof"
                | "st"
                | "fig"
                | "figs"
                | "no"
                | "nos"
                | "vol"
                | "ch"
                | "sec"
                | "sect"
                | "cf"
                | "vs"
                | "approx"
                | "e.g"
                | "i.e"
                | "eq"
                | "pp"
                | "ed"
                | "eds"
                | "al"
                | "viz"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        let starts = starts(text);
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        starts.iter().zip(ends).map(|(start, end)| text[*start..end].trim_end()).collect()
    }

    #[test]
    fn sentences() {
        assert_eq!(split("Boot it. Then log in! Done?"), ["Boot it.", "Then log in!", "Done?"]);
        assert_eq!(
            split("Use a tool, e.g. NetInfoManager. See fig. 3 by J. Smith."),
            ["Use a tool, e.g. NetInfoManager.", "See fig. 3 by J. Smith."]
        );
        assert_eq!(
            split("Edit /etc/hosts.equiv now. Version 3.3 works."),
            ["Edit /etc/hosts.equiv now.", "Version 3.3 works."]
        );
        assert_eq!(split(""), Vec::<&str>::new());
    }
}
