//! The request: what is to be compared, as the command line and the library ask for it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::ChoiceError;
use super::laboratory::Launch;

/// What is to be compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// `module:function` or `file.py:function`; not needed with `pickled`.
    #[serde(default)]
    pub target: Option<String>,
    /// Where the inputs come from; not needed with `pickled`.
    #[serde(default)]
    pub items: Option<String>,
    /// A file with the pickled function and its items.
    #[serde(default)]
    pub pickled: Option<String>,
    /// Whether a tuple is the list of arguments.
    #[serde(default)]
    pub star: bool,
    /// At most so many items are read.
    #[serde(default = "default_limit")]
    pub limit: u64,
    /// Seconds for the whole race.
    #[serde(default = "default_budget")]
    pub budget_s: f64,
    /// Race exactly these (and serial), as in `--plans`.
    #[serde(default)]
    pub plans: Option<String>,
    /// Requirements, as in `--target`.
    #[serde(default)]
    pub targets: Option<String>,
    /// Stop after the bounds.
    #[serde(default)]
    pub profile_only: bool,
    /// Run no input twice, over all processes: the sample's inputs are used up, the race splits the others.
    #[serde(default)]
    pub once: bool,
    /// Decide however noisy the machine is; the output says so.
    #[serde(default)]
    pub ignore_noise: bool,
    /// Seed of the race; drawn from the clock when absent.
    #[serde(default)]
    pub seed: Option<u64>,
    /// The Python interpreter whose `treadle._laboratory` measures; `python3` when neither this nor `laboratory` is given.
    #[serde(default)]
    pub python: Option<String>,
    /// Program and arguments of the measuring process, instead of `python`.
    #[serde(default)]
    pub laboratory: Option<Vec<String>>,
    /// The folder that names and files are looked for from, if not the current one.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// Whether the comparison takes the fingerprint that a record needs.
    #[serde(default)]
    pub fingerprint: bool,
}

pub(super) fn default_limit() -> u64 {
    10_000
}

fn default_budget() -> f64 {
    30.0
}

impl Request {
    /// A request with every option at its default.
    pub fn new(target: &str, items: &str) -> Self {
        Self {
            target: Some(target.to_owned()),
            items: Some(items.to_owned()),
            pickled: None,
            star: false,
            limit: default_limit(),
            budget_s: default_budget(),
            plans: None,
            targets: None,
            profile_only: false,
            once: false,
            ignore_noise: false,
            seed: None,
            python: None,
            laboratory: None,
            directory: None,
            fingerprint: false,
        }
    }

    /// Takes what the environment says: `TREADLE_NOISE=ignore` decides on a noisy machine all the same.
    pub fn heed(
        &mut self,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), ChoiceError> {
        match environment("TREADLE_NOISE").as_deref() {
            None | Some("") => Ok(()),
            Some("ignore") => {
                self.ignore_noise = true;
                Ok(())
            }
            Some(other) => Err(ChoiceError::usage(
                format!("TREADLE_NOISE is `{other}`, which means nothing"),
                "set it to `ignore` to decide on a noisy machine all the same, or unset it",
            )),
        }
    }

    /// How the measuring process is started.
    pub(super) fn launch(&self) -> Launch {
        let command = self.laboratory.clone().unwrap_or_else(|| {
            let python = self.python.as_deref().unwrap_or("python3");
            [python, "-m", "treadle._laboratory"]
                .map(str::to_owned)
                .to_vec()
        });
        Launch {
            command,
            directory: self.directory.clone(),
        }
    }
}
