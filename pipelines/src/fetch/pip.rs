//! The user's own settings for pip: which indexes, which certificates, which proxy (pip.pypa.io, Configuration).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where packages come from when nothing says otherwise.
const PYPI: &str = "https://pypi.org/simple";

/// What matters of pip's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pip {
    /// `index-url`, then `extra-index-url`, without a slash at the end.
    pub(super) indexes: Vec<String>,
    /// `cert`: a file of certificates in place of the system's.
    pub(super) cert: Option<PathBuf>,
    /// `proxy`, in place of the environment's.
    pub(super) proxy: Option<String>,
}

impl Pip {
    /// The settings of the environment and of pip's files; `env` gives a variable.
    pub(super) fn of_user(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut settings = BTreeMap::new();
        for path in files(env) {
            if let Ok(text) = std::fs::read_to_string(path) {
                read(&text, &mut settings);
            }
        }
        for name in ["index-url", "extra-index-url", "cert", "proxy"] {
            if let Some(value) = env(&format!("PIP_{}", name.to_uppercase().replace('-', "_"))) {
                settings.insert(name.to_string(), value);
            }
        }
        let urls = |name: &str| -> Vec<String> {
            let value = settings.get(name).map(String::as_str).unwrap_or_default();
            value.split_whitespace().map(|url| url.trim_end_matches('/').to_string()).collect()
        };
        let mut indexes = urls("index-url");
        if indexes.is_empty() {
            indexes.push(PYPI.into());
        }
        indexes.truncate(1);
        indexes.extend(urls("extra-index-url"));
        Pip { indexes, cert: settings.get("cert").map(PathBuf::from), proxy: settings.get("proxy").cloned() }
    }
}

/// Pip's files, those that count less first.
fn files(env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let config_file = env("PIP_CONFIG_FILE");
    if config_file.as_deref() == Some("/dev/null") {
        return files;
    }
    let dirs = env("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".into());
    files.extend(dirs.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join("pip/pip.conf")));
    files.push("/etc/pip.conf".into());
    files.push("/Library/Application Support/pip/pip.conf".into());
    if let Some(home) = env("HOME").map(PathBuf::from) {
        files.push(home.join(".pip/pip.conf"));
        files.push(home.join("Library/Application Support/pip/pip.conf"));
        let config = env("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
        files.push(config.join("pip/pip.conf"));
    }
    files.extend(env("APPDATA").map(|folder| Path::new(&folder).join("pip/pip.ini")));
    files.extend(env("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("pip.conf")));
    files.extend(config_file.map(PathBuf::from));
    files
}

/// Reads the sections `[global]`, and `[install]`, which counts more, of an INI file. A line that is indented goes on with the one before.
fn read(text: &str, settings: &mut BTreeMap<String, String>) {
    for wanted in ["global", "install"] {
        let mut section = String::new();
        let mut key = None;
        for line in text.lines() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.trim().to_lowercase();
                key = None;
                continue;
            }
            if section != wanted {
                continue;
            }
            if line.starts_with([' ', '\t'])
                && let Some(value) = key.as_ref().and_then(|key| settings.get_mut(key))
            {
                value.push(' ');
                value.push_str(trimmed);
            } else if let Some((name, value)) = trimmed.split_once(['=', ':']) {
                let name = name.trim().to_lowercase().replace('_', "-");
                settings.insert(name.clone(), value.trim().to_string());
                key = Some(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_counts_more_than_files() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(".config/pip")).unwrap();
        let text = "[global]\nindex_url = https://a.org/simple/\nextra-index-url =\n  https://b.org\n  https://c.org\ncert=/x.pem\n[install]\nproxy: http://p:3128\n[list]\ncert = no\n";
        std::fs::write(home.path().join(".config/pip/pip.conf"), text).unwrap();
        let pip = |variables: &[(&str, &str)]| {
            Pip::of_user(&|name| match name {
                "HOME" => Some(home.path().to_string_lossy().into_owned()),
                "XDG_CONFIG_DIRS" => Some("/nowhere".into()),
                _ => variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_string()),
            })
        };
        let of_file = pip(&[]);
        assert_eq!(of_file.indexes, ["https://a.org/simple", "https://b.org", "https://c.org"]);
        assert_eq!((of_file.cert, of_file.proxy.as_deref()), (Some("/x.pem".into()), Some("http://p:3128")));
        let of_both = pip(&[("PIP_INDEX_URL", "https://d.org"), ("PIP_EXTRA_INDEX_URL", "https://e.org")]);
        assert_eq!(of_both.indexes, ["https://d.org", "https://e.org"]);
        assert_eq!(pip(&[("PIP_CONFIG_FILE", "/dev/null")]).indexes, [PYPI]);
    }
}
