//! The fingerprint: what a decision rests on that can be compared without measuring, as the laboratory tells it.
//!
//! *Guarantees*: hashes are of normalised source, so that comments, docstrings and formatting do not change them.
//! *Assumes*: calls that names alone do not lead to are not followed; the laboratory's `source` says which those are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::ChoiceError;
use super::laboratory::{CallError, Laboratory, Refusal, Surroundings};

/// Seconds that loading a module and reading its project's source may take: imports of large packages take ten.
const TIMEOUT_S: f64 = 60.0;

/// Source and environment of a measured function.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Its source.
    #[serde(default)]
    pub source: Source,
    /// Where it ran.
    #[serde(default)]
    pub environment: Environment,
}

/// Hashes of normalised source; `None` where Python has no source of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// The function.
    pub function: Option<String>,
    /// What it uses of its own project: `module:name` and hash.
    pub callees: BTreeMap<String, String>,
    /// The callable that makes the inputs, with what it uses; `None` for files and ranges.
    pub items: Option<String>,
}

/// The interpreter and what is installed with it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Exact version of Python.
    pub python: String,
    /// `cpython` and the like.
    pub implementation: String,
    /// Whether there is an interpreter lock.
    pub gil: bool,
    /// How it was built.
    pub build: BTreeMap<String, String>,
    /// How `multiprocessing` starts processes by default.
    pub start_method: Option<String>,
    /// Versions of the packages that the function imports; `None` is not installed.
    pub distributions: BTreeMap<String, Option<String>>,
    /// Extension modules that it imports.
    pub extensions: Vec<String>,
    /// Sizes of native thread pools, by variable or library.
    pub native_pools: BTreeMap<String, String>,
}

/// A place where a function that is gone may be now.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Place {
    /// `file.py:function`.
    pub target: String,
    /// Whether its source is the recorded one.
    pub same: bool,
}

/// What asking gave.
pub(super) enum Asked {
    /// The fingerprint.
    Found(Box<Fingerprint>),
    /// The function or its module cannot be loaded.
    Refused(Refusal),
}

/// Asks for the fingerprint of `target`; with `distributions`, for the versions of exactly these.
pub(super) fn ask(
    laboratory: &mut Laboratory,
    target: Option<&str>,
    items: Option<&str>,
    distributions: Option<&[String]>,
    surroundings: Surroundings<'_>,
) -> Result<Asked, ChoiceError> {
    let request = json!({
        "do": "fingerprint", "target": target, "items": items, "distributions": distributions,
    });
    match laboratory.call(&request, TIMEOUT_S, surroundings, &mut |_| {}) {
        Ok(value) => Fingerprint::deserialize(&value)
            .map(|found| Asked::Found(Box::new(found)))
            .map_err(|error| super::asking::broken(&error.to_string())),
        Err(CallError::Refused(refusal)) => Ok(Asked::Refused(refusal)),
        Err(CallError::Interrupted) => Err(ChoiceError::Interrupted),
        Err(CallError::Broken(why)) => Err(super::asking::broken(&why)),
        Err(CallError::Died { how, stderr, .. }) => Ok(Asked::Refused(Refusal {
            kind: "target-raised".to_owned(),
            message: format!("loading the function ended its process with {how}"),
            hint: Some("what runs when a module is imported must not end the process".to_owned()),
            detail: (!stderr.is_empty()).then_some(stderr),
        })),
        Err(CallError::Late { after_s, .. }) => Ok(Asked::Refused(Refusal {
            kind: "target-raised".to_owned(),
            message: format!(
                "loading the function did not end within {}",
                super::wording::seconds(after_s)
            ),
            hint: Some("move work out of the module's top level".to_owned()),
            detail: None,
        })),
    }
}

/// Asks where a function called `target` is defined now; nothing when the laboratory cannot tell.
pub(super) fn locate(
    laboratory: &mut Laboratory,
    target: &str,
    hash: Option<&str>,
    surroundings: Surroundings<'_>,
) -> Vec<Place> {
    let request = json!({"do": "locate", "target": target, "hash": hash});
    laboratory
        .call(&request, TIMEOUT_S, surroundings, &mut |_| {})
        .ok()
        .and_then(|value| Vec::<Place>::deserialize(value.get("found")?).ok())
        .unwrap_or_default()
}
