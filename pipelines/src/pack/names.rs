//! Which names a member of a pack may have: those that lead nowhere else, on any machine, and are one file there.

use std::collections::BTreeMap;

/// Names that Windows gives to devices, with any extension.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];
/// Folders whose files are obeyed by a program, or vouched for by the store.
const RESERVED: [&str; 4] = [".retort", ".git", ".hg", ".svn"];
/// A path is at most so many bytes.
const MAX_PATH: usize = 2048;

/// Says what is wrong with a relative path, if anything is.
pub(super) fn check(path: &str) -> Result<(), String> {
    if path.is_empty() || path.len() > MAX_PATH {
        return Err("its name is empty or too long".into());
    }
    if path.chars().any(char::is_control) {
        return Err("its name has a control character".into());
    }
    if path.contains('\\') {
        return Err("its name has a backslash".into());
    }
    if path.starts_with('/') {
        return Err("its name is an absolute path".into());
    }
    let mut first = path.chars();
    if first.next().is_some_and(|c| c.is_ascii_alphabetic()) && first.next() == Some(':') {
        return Err("its name begins with a drive".into());
    }
    path.split('/').try_for_each(check_part)
}

fn check_part(part: &str) -> Result<(), String> {
    let folded = part.to_lowercase();
    let stem = folded.split('.').next().unwrap_or_default();
    let numbered =
        |name: &str| stem.strip_prefix(name).is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit());
    if part.is_empty() || part == "." || part == ".." {
        Err("its name has a part that is empty, `.` or `..`".into())
    } else if part.len() > 255 {
        Err("a part of its name is too long".into())
    } else if part.ends_with(['.', ' ']) {
        Err("a part of its name ends with a dot or a blank".into())
    } else if RESERVED.contains(&folded.as_str()) {
        Err(format!("`{part}` is not for files of a project"))
    } else if DEVICES.contains(&stem) || numbered("com") || numbered("lpt") {
        Err(format!("`{part}` is the name of a device"))
    } else {
        Ok(())
    }
}

/// Names that are taken, so that no two are one file, or a file and a folder, where case does not count.
#[derive(Default)]
pub(super) struct Taken(BTreeMap<String, (String, bool)>);

impl Taken {
    /// Takes a path and the folders above it; says why that can't be.
    pub(super) fn take(&mut self, path: &str) -> Result<(), String> {
        for (at, _) in path.match_indices('/') {
            self.one(&path[..at], true)?;
        }
        self.one(path, false)
    }

    fn one(&mut self, path: &str, is_folder: bool) -> Result<(), String> {
        let taken = (path.to_string(), is_folder);
        match self.0.get(&path.to_lowercase()) {
            None => drop(self.0.insert(path.to_lowercase(), taken)),
            Some(other) if is_folder && *other == taken => {}
            Some((other, _)) if other == path => return Err("it is there twice".into()),
            Some((other, _)) => return Err(format!("it and `{other}` are one where case does not count")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for good in ["a.md", "docs/a b/ç.md", "docs/.hidden/x", "a..b", "...x", "console.md", "docs/com10"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = format!("{}/x", "a".repeat(256));
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../x",
            "a//b",
            "./a",
            "a/",
            "C:x",
            "c:/x",
            "a\\b",
            "a\0b",
            "a\nb",
            ".git/config",
            "docs/.GIT/hooks/x",
            ".Retort/version",
            "a./b",
            "a ",
            "nul",
            "docs/CON.md",
            "lpt1.txt",
            &long,
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn two_names_are_two_files_everywhere() {
        let take = |paths: &[&str]| {
            let mut taken = Taken::default();
            paths.iter().try_for_each(|path| taken.take(path))
        };
        assert_eq!(take(&["a/b", "a/c", "d"]), Ok(()));
        for bad in [["a", "a"], ["a", "A"], ["docs/a", "Docs/b"], ["a", "a/b"], ["a/b", "a"], ["É", "é"]] {
            assert!(take(&bad).is_err(), "{bad:?}");
        }
    }
}
