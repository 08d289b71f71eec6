//! Which layers an adapter sits on, with which rank and scale.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::Target;
use crate::LmError;
use crate::config::Config;

/// What an adapter is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank of the update.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f32,
    /// Share of the inputs to `A` that training drops, 0 to 1.
    pub dropout: f32,
    /// Scale by `alpha / √rank` instead of `alpha / rank`.
    pub rslora: bool,
    /// Learn the length of each output's weights apart from their direction (Liu et al., arXiv 2402.09353).
    pub dora: bool,
    /// The layers, in any order, each once.
    pub targets: Vec<Target>,
    /// Of these only those whose whole name (`model.layers.3.mlp.up_proj`) matches.
    pub only: Option<String>,
    /// Other ranks, by a pattern of the name's end, as PEFT has it: `q_proj`, `layers.0.mlp.up_proj`, `(k|v)_proj`. Of several that match the
    /// longest counts, then the first of the alphabet.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other alphas, in the same way.
    pub alpha_pattern: BTreeMap<String, f32>,
}

impl Default for LoraConfig {
    /// Rank 16 and alpha 32 on all linear layers.
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            dropout: 0.0,
            rslora: false,
            dora: false,
            targets: Target::ALL.to_vec(),
            only: None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
        }
    }
}

/// A layer with an adapter on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The block.
    pub layer: usize,
    /// The layer in it.
    pub target: Target,
    /// Its whole name, such as `model.layers.3.mlp.up_proj`.
    pub path: String,
    /// Rank of the update.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f32,
}

impl Place {
    /// What the update is multiplied with.
    pub fn scaling(&self, rslora: bool) -> f32 {
        let rank = self.rank as f32;
        if rslora { self.alpha / rank.sqrt() } else { self.alpha / rank }
    }
}

impl LoraConfig {
    /// The layers of a model of this shape that get an adapter, block by block.
    ///
    /// # Errors
    ///
    /// If a rank is zero, the dropout not in `[0, 1)`, a pattern no regular expression or one that matches nothing, or there
    /// are no targets or a target comes twice.
    pub fn places(&self, model: &Config) -> Result<Vec<Place>, LmError> {
        self.check().map_err(LmError::Argument)?;
        let only = self.only.as_ref().map(|only| whole(only).map(|regex| (only, regex))).transpose()?;
        let (mut ranks, mut alphas) = (Patterns::new(&self.rank_pattern)?, Patterns::new(&self.alpha_pattern)?);
        let mut targets = self.targets.clone();
        targets.sort_unstable();
        let mut places = Vec::new();
        for layer in 0..model.num_hidden_layers {
            for &target in &targets {
                let Some(path) = target.path(model, layer) else { continue };
                if only.as_ref().is_some_and(|(_, only)| !only.is_match(&path)) {
                    continue;
                }
                let rank = ranks.of(&path).unwrap_or(self.rank);
                let alpha = alphas.of(&path).unwrap_or(self.alpha);
                places.push(Place { layer, target, path, rank, alpha });
            }
        }
        let unused = ranks.unused().or_else(|| alphas.unused());
        let unused = only.map(|(only, _)| only.as_str()).filter(|_| places.is_empty()).or(unused);
        match unused {
            Some(pattern) => Err(LmError::Argument(format!("no adapted layer matches `{pattern}`"))),
            None if places.is_empty() => {
                Err(LmError::Argument("the model has none of the layers that an adapter is asked for".to_owned()))
            }
            None => Ok(places),
        }
    }

    fn check(&self) -> Result<(), String> {
        let mut targets = self.targets.clone();
        targets.sort_unstable();
        if self.rank == 0 || self.rank_pattern.values().any(|&rank| rank == 0) {
            Err("an adapter's rank is at least 1".to_owned())
        } else if !(0.0..1.0).contains(&self.dropout) {
            Err(format!("an adapter's dropout is from 0 to below 1, not {}", self.dropout))
        } else if self.targets.is_empty() {
            Err("an adapter has at least one target".to_owned())
        } else if let Some(twice) = targets.windows(2).find(|pair| pair[0] == pair[1]) {
            Err(format!("target `{}` is given twice", twice[0].name()))
        } else {
            Ok(())
        }
    }

    /// Whether a pattern of names is a regular expression.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check_pattern(pattern: &str) -> Result<(), LmError> {
        whole(pattern).map(|_| ())
    }
}

/// Values by patterns of the names' ends.
struct Patterns<'a, T> {
    /// The longest pattern first; and whether it was ever of use.
    all: Vec<(&'a str, Regex, T, bool)>,
}

impl<'a, T: Copy> Patterns<'a, T> {
    fn new(patterns: &'a BTreeMap<String, T>) -> Result<Self, LmError> {
        let compile = |(pattern, &value): (&'a String, &T)| -> Result<_, LmError> {
            Ok((pattern.as_str(), whole(&format!(r"(?:.*\.)?(?:{pattern})"))?, value, false))
        };
        let mut all = patterns.iter().map(compile).collect::<Result<Vec<_>, _>>()?;
        all.sort_by_key(|(pattern, ..)| std::cmp::Reverse(pattern.len()));
        Ok(Self { all })
    }

    fn of(&mut self, path: &str) -> Option<T> {
        let found = self.all.iter_mut().find(|(_, regex, ..)| regex.is_match(path))?;
        found.3 = true;
        Some(found.2)
    }

    fn unused(&self) -> Option<&'a str> {
        self.all.iter().find(|(.., used)| !used).map(|(pattern, ..)| *pattern)
    }
}

/// A pattern of whole names.
fn whole(pattern: &str) -> Result<Regex, LmError> {
    let bad = |error: regex::Error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        LmError::Argument(format!("`{pattern}` is no pattern: {reason}"))
    };
    Regex::new(&format!("^(?:{pattern})$")).map_err(bad)
}
