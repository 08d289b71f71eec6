//! `profiles:`: named sets of overrides, and how one is laid over the file.

use super::{Document, PROFILE_KEYS, map, unknown_key};
use crate::diagnostics::Diagnostic;
use crate::yaml::{Data, Entry, Yaml};

impl Document {
    /// Lays a profile over the document.
    pub(crate) fn apply(&mut self, profile: &str, problems: &mut Vec<Diagnostic>) {
        let Some(entry) = self.profiles.iter().find(|entry| entry.key == profile).cloned() else {
            let names = self.profiles.iter().map(|entry| entry.key.as_str());
            let problem = Diagnostic::nowhere("unknown-profile", format!("unknown profile `{profile}`"));
            problems.push(if self.profiles.is_empty() {
                problem.hint("the pipeline has no `profiles:`")
            } else {
                problem.did_you_mean(profile, names)
            });
            return;
        };
        for section in entry.value.entries() {
            let target = match section.key.as_str() {
                "params" => &mut self.params,
                "models" => &mut self.models,
                "matrix" => &mut self.matrix,
                "nodes" => &mut self.nodes,
                _ => continue,
            };
            for over in section.value.entries() {
                if let Some(entry) = find(target, &over.key) {
                    entry.value.merge(&over.value);
                }
            }
        }
    }

    /// Finds what is wrong with the profiles, the one that is used and the others.
    pub(crate) fn check_profiles(&self, problems: &mut Vec<Diagnostic>) {
        for profile in &self.profiles {
            for section in map(&profile.value, &format!("the profile `{}`", profile.key), problems) {
                let known = match section.key.as_str() {
                    "params" => &self.params,
                    "models" => &self.models,
                    "matrix" => &self.matrix,
                    "nodes" => &self.nodes,
                    key => {
                        let problem = unknown_key(section, &PROFILE_KEYS);
                        let is_param = self.params.iter().any(|param| param.key == key);
                        problems.push(if is_param {
                            problem.hint(format!("a param stands under `params:`: `params: {{{key}: …}}`"))
                        } else {
                            problem
                        });
                        continue;
                    }
                };
                for over in map(&section.value, &format!("`{}`", section.key), problems) {
                    let mut entries = known.iter().chain(known.iter().flat_map(in_group));
                    if !entries.any(|entry| entry.key == over.key) {
                        let kind = section.key.trim_end_matches('s');
                        let message = format!("the pipeline has no {kind} `{}` to override", over.key);
                        let problem = Diagnostic::at(over.key_span, "unknown-override", message);
                        problems.push(problem.did_you_mean(&over.key, known.iter().map(|entry| entry.key.as_str())));
                    }
                }
            }
        }
    }
}

/// Adds the profiles of an included file. Of one that is there already, what is there is laid over what comes.
pub(super) fn add(own: &mut Vec<Entry>, included: Vec<Entry>) {
    for mut profile in included {
        match own.iter_mut().find(|own| own.key == profile.key) {
            Some(own) => {
                profile.value.merge(&own.value);
                own.value = profile.value;
            }
            None => own.push(profile),
        }
    }
}

/// The nodes of a group, where an entry is one.
fn in_group(entry: &Entry) -> &[Entry] {
    if entry.value.get("foreach").is_some() { entry.value.get("nodes").map_or(&[], Yaml::entries) } else { &[] }
}

/// An entry of a section, or a node within one that is a group.
fn find<'a>(entries: &'a mut [Entry], key: &str) -> Option<&'a mut Entry> {
    if let Some(at) = entries.iter().position(|entry| entry.key == key) {
        return entries.get_mut(at);
    }
    let group = entries.iter_mut().find(|entry| in_group(entry).iter().any(|node| node.key == key))?;
    let Data::Map(nodes) = &mut group.value.get_mut("nodes")?.data else { return None };
    nodes.iter_mut().find(|node| node.key == key)
}
