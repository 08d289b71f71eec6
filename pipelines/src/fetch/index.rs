//! Finds the file of a package's version in simple indexes (PEP 503: HTML; PEP 691: JSON).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::FetchError;
use super::archive::is_wheel;
use super::http::{Http, shown};

/// What indexes are asked for.
const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// A file of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexFile {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) sha256: Option<String>,
    pub(super) size: Option<u64>,
}

/// Finds the file of a version in the first index that has it: a wheel for any machine, another wheel, or the source archive.
pub(super) fn find(http: &Http, indexes: &[String], package: &str, version: &str) -> Result<IndexFile, FetchError> {
    let mut versions: Vec<String> = Vec::new();
    for index in indexes {
        let page = format!("{index}/{}/", normalized(package));
        let Some((body, kind)) = http.page(&page, ACCEPT)? else { continue };
        let files = if kind.ends_with("json") { json(&body, &page)? } else { html(&body, &page) };
        if let Some(file) = choose(&files, package, version) {
            return Ok(file.clone());
        }
        for found in files.iter().filter_map(|file| version_of(&file.name, package)) {
            if !versions.iter().any(|version| version == found) {
                versions.push(found.to_string());
            }
        }
    }
    let places: Vec<_> = indexes.iter().map(|index| format!("`{}`", shown(index))).collect();
    let message = if versions.is_empty() {
        format!("no package `{package}` at {}", places.join(", "))
    } else {
        let names: Vec<_> = versions.iter().rev().take(8).map(|version| format!("`{version}`")).collect();
        format!("the package `{package}` has no version `{version}`; it has {}", names.join(", "))
    };
    Err(FetchError::Index(message))
}

#[derive(Deserialize)]
struct Page {
    files: Vec<PageFile>,
}

#[derive(Deserialize)]
struct PageFile {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
    #[serde(default)]
    size: Option<u64>,
}

fn json(body: &str, page: &str) -> Result<Vec<IndexFile>, FetchError> {
    let parsed: Page = serde_json::from_str(body)
        .map_err(|error| FetchError::Index(format!("failed to read the index `{}`: {error}", shown(page))))?;
    let file = |file: PageFile| IndexFile {
        name: file.filename,
        url: joined(page, &file.url),
        sha256: file.hashes.get("sha256").map(|digest| digest.to_lowercase()),
        size: file.size,
    };
    Ok(parsed.files.into_iter().map(file).collect())
}

/// The links of a page: `<a href="…/name.whl#sha256=…">name.whl</a>`.
fn html(body: &str, page: &str) -> Vec<IndexFile> {
    let mut files = Vec::new();
    for tag in body.split("<a").skip(1).filter(|tag| tag.starts_with(char::is_whitespace)) {
        let attributes = tag.split('>').next().unwrap_or(tag);
        let Some(value) = attributes.split("href=").nth(1) else { continue };
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let href = match quote {
            Some(quote) => value[1..].split(quote).next(),
            None => value.split_whitespace().next(),
        };
        let href = href.unwrap_or_default().replace("&amp;", "&");
        let (url, fragment) = href.split_once('#').unwrap_or((&href, ""));
        let name = url.split('?').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        files.push(IndexFile {
            name: name.replace("%2B", "+").replace("%21", "!"),
            url: joined(page, url),
            sha256: fragment.strip_prefix("sha256=").map(str::to_lowercase),
            size: None,
        });
    }
    files
}

fn choose<'a>(files: &'a [IndexFile], package: &str, version: &str) -> Option<&'a IndexFile> {
    let rank = |file: &IndexFile| {
        if file.name.ends_with("-py3-none-any.whl") {
            0
        } else if file.name.ends_with("-none-any.whl") {
            1
        } else if is_wheel(&file.name) {
            2
        } else {
            3
        }
    };
    let of_version = |file: &&IndexFile| version_of(&file.name, package) == Some(version);
    files.iter().filter(of_version).min_by_key(|file| rank(file))
}

/// The version in the name of a wheel or a source archive, if it is the package's.
fn version_of<'a>(name: &'a str, package: &str) -> Option<&'a str> {
    let (name, version) = if let Some(stem) = name.strip_suffix(".whl") {
        let mut parts = stem.split('-');
        (parts.next()?, parts.next()?)
    } else {
        let stem = [".tar.gz", ".zip"].iter().find_map(|suffix| name.strip_suffix(suffix))?;
        stem.rsplit_once('-')?
    };
    (normalized(name) == normalized(package)).then_some(version)
}

/// A package's name as indexes write it (PEP 503): runs of `-`, `_` and `.` become one `-`.
fn normalized(name: &str) -> String {
    let words = name.split(['-', '_', '.']).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("-")
}

/// A link as seen from a page (RFC 3986, 5, without its rarest cases).
fn joined(page: &str, link: &str) -> String {
    if link.contains("://") {
        return link.to_string();
    }
    let Some((scheme, rest)) = page.split_once("://") else { return link.to_string() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if let Some(other) = link.strip_prefix("//") {
        return format!("{scheme}://{other}");
    }
    if link.starts_with('/') {
        return format!("{scheme}://{host}{link}");
    }
    let mut folders: Vec<&str> = path.split('/').collect();
    folders.pop();
    for part in link.split('/') {
        match part {
            "." => {}
            ".." if folders.len() > 1 => drop(folders.pop()),
            ".." => {}
            part => folders.push(part),
        }
    }
    format!("{scheme}://{host}{}", folders.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_for_any_machine_is_chosen() {
        let names = [
            "a_b-1.0.tar.gz",
            "a_b-1.0-cp311-cp311-linux_x86_64.whl",
            "a_b-1.0-py3-none-any.whl",
            "a_b-1.1-py3-none-any.whl",
        ];
        let file = |name: &&str| IndexFile { name: (*name).into(), url: String::new(), sha256: None, size: None };
        let files: Vec<_> = names.iter().map(file).collect();
        let chosen = |n: usize, version| choose(&files[..n], "A.b", version).map(|file| file.name.as_str());
        assert_eq!(chosen(4, "1.0"), Some(names[2]));
        assert_eq!(chosen(2, "1.0"), Some(names[1]));
        assert_eq!(chosen(1, "1.0"), Some(names[0]));
        assert_eq!(chosen(4, "2.0"), None);
        assert_eq!(version_of("a-b-c-1.0.tar.gz", "a_b_c"), Some("1.0"));
        assert_eq!(version_of("other-1.0.tar.gz", "a"), None);
    }

    #[test]
    fn links_are_read_from_html() {
        let page = "https://h.org/simple/a/";
        let body = "<!DOCTYPE html><a href=\"../../files/a-1.0-py3-none-any.whl#sha256=AB\" data-x='1'>a</a>\n<a\nhref='/f/a-1.0.tar.gz?x=1&amp;y=2'>b</a>";
        let files = html(body, page);
        assert_eq!(files[0].url, "https://h.org/files/a-1.0-py3-none-any.whl");
        assert_eq!((files[0].name.as_str(), files[0].sha256.as_deref()), ("a-1.0-py3-none-any.whl", Some("ab")));
        assert_eq!(
            (files[1].url.as_str(), files[1].name.as_str()),
            ("https://h.org/f/a-1.0.tar.gz?x=1&y=2", "a-1.0.tar.gz")
        );
        assert_eq!(joined(page, "//other.org/x"), "https://other.org/x");
    }
}
