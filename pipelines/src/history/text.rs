//! How two texts differ, line by line, or in the part of one line that is not the same.

/// Around what differs in a line, so many characters are shown.
const AROUND: usize = 24;
/// Texts whose lines make a table larger than this are not compared line by line.
const LARGEST: usize = 1_000_000;

/// A line of two texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit<'a> {
    /// In the old text only.
    Out(&'a str),
    /// In the new text only.
    In(&'a str),
    /// In both.
    Same,
}

/// The lines of two texts: the fewest that must be taken out and put in.
pub(super) fn lines<'a>(old: &'a str, new: &'a str) -> Vec<Edit<'a>> {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let begin = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let end = old[begin..].iter().rev().zip(new[begin..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&old[begin..old.len() - end], &new[begin..new.len() - end]);
    let mut edits = vec![Edit::Same; begin];
    if a.len() * b.len() > LARGEST {
        edits.extend(a.iter().map(|line| Edit::Out(line)).chain(b.iter().map(|line| Edit::In(line))));
    } else {
        middle(a, b, &mut edits);
    }
    edits.extend(vec![Edit::Same; end]);
    edits
}

/// The longest common subsequence, walked from the front.
fn middle<'a>(a: &[&'a str], b: &[&'a str], edits: &mut Vec<Edit<'a>>) {
    let width = b.len() + 1;
    let mut longest = vec![0u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i * width + j] = if a[i] == b[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        let of = |i: usize, j: usize| longest[i * width + j];
        if i < a.len() && j < b.len() && a[i] == b[j] {
            edits.push(Edit::Same);
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || i < a.len() && of(i + 1, j) >= of(i, j + 1) {
            edits.push(Edit::Out(a[i]));
            i += 1;
        } else {
            edits.push(Edit::In(b[j]));
            j += 1;
        }
    }
}

/// The parts of two texts that differ, on one line each, with what stands around them: `…at least 3 question…`.
pub fn parts(old: &str, new: &str) -> (String, String) {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (flat_old, flat_new) = (one_line(old), one_line(new));
    // Where only blanks differ, they are what must be seen.
    let (old, new) = if flat_old == flat_new { (escaped(old), escaped(new)) } else { (flat_old, flat_new) };
    let (a, b): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
    let begin = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let end = a[begin..].iter().rev().zip(b[begin..].iter().rev()).take_while(|(x, y)| x == y).count();
    let cut = |text: &[char]| {
        let (from, to) = (begin.saturating_sub(AROUND), (text.len() - end + AROUND).min(text.len()));
        let before = if from > 0 { "…" } else { "" };
        let after = if to < text.len() { "…" } else { "" };
        format!("{before}{}{after}", text[from..to].iter().collect::<String>())
    };
    (cut(&a), cut(&b))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_stay_are_not_said() {
        let edits = lines("a\nb\nc\nd\ne", "a\nc\nx\nd\ne");
        assert_eq!(edits, [Edit::Same, Edit::Out("b"), Edit::Same, Edit::In("x"), Edit::Same, Edit::Same]);
        assert_eq!(lines("", "a"), [Edit::In("a")]);
        assert!(lines("a\nb", "a\nb").iter().all(|edit| *edit == Edit::Same));
        let (old, new) = ("old\n".repeat(1100), "new\n".repeat(1100));
        assert_eq!(lines(&old, &new).len(), 2200);
    }

    #[test]
    fn the_part_that_differs_is_shown() {
        let text =
            |n: &str| format!("You write pairs for a dataset. Write {n} question and answer pairs about the text.");
        let (old, new) = parts(&text("3"), &text("at least five"));
        assert_eq!(old, "…rs for a dataset. Write 3 question and answer pai…");
        assert_eq!(new, "…rs for a dataset. Write at least five question and answer pai…");
        assert_eq!(parts("a b", "a\nb"), ("a b".into(), "a\\nb".into()));
        assert_eq!(parts("", "x"), (String::new(), "x".into()));
    }
}
