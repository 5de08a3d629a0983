//! The plan: strategy and sizes as data, and its line of code.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::ChoiceError;

/// Ways to run tasks, ordered from the simplest to the most involved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// One task after the other in the calling thread.
    Serial,
    /// Threads of this process.
    Threads,
    /// Coroutines on one event loop.
    Coroutines,
    /// Worker processes.
    Processes,
    /// Sub-interpreters with a lock each.
    Interpreters,
    /// Threads or coroutines inside processes.
    Hybrid,
}

impl Strategy {
    /// The word that users know.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Threads => "threads",
            Self::Coroutines => "coroutines",
            Self::Processes => "processes",
            Self::Interpreters => "interpreters",
            Self::Hybrid => "hybrid",
        }
    }
}

/// A strategy with its sizes; nothing set means serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Threads, or threads in each process of a hybrid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// Worker processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Coroutines at once, or in each process of a hybrid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coroutines: Option<u32>,
    /// Sub-interpreters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreters: Option<u32>,
    /// Tasks that travel together; not a worker count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<u32>,
}

impl Plan {
    /// One task after the other.
    pub const SERIAL: Self = Self {
        threads: None,
        processes: None,
        coroutines: None,
        interpreters: None,
        chunk: None,
    };

    /// Whether its workers are processes or interpreters: they have a start of their own, and tasks are pickled.
    pub fn apart(&self) -> bool {
        self.processes.is_some() || self.interpreters.is_some()
    }

    /// `threads` threads.
    pub fn threads(threads: u32) -> Self {
        Self {
            threads: Some(threads),
            ..Self::SERIAL
        }
    }

    /// `processes` worker processes.
    pub fn processes(processes: u32) -> Self {
        Self {
            processes: Some(processes),
            ..Self::SERIAL
        }
    }

    /// `coroutines` coroutines on one loop.
    pub fn coroutines(coroutines: u32) -> Self {
        Self {
            coroutines: Some(coroutines),
            ..Self::SERIAL
        }
    }

    /// The strategy that the sizes describe.
    pub fn strategy(&self) -> Strategy {
        match (
            self.threads,
            self.processes,
            self.coroutines,
            self.interpreters,
        ) {
            (None, None, None, None) => Strategy::Serial,
            (Some(_), None, None, None) => Strategy::Threads,
            (None, None, Some(_), None) => Strategy::Coroutines,
            (None, Some(_), None, None) => Strategy::Processes,
            (None, None, None, Some(_)) => Strategy::Interpreters,
            _ => Strategy::Hybrid,
        }
    }

    /// Tasks that can run at once.
    pub fn workers(&self) -> u32 {
        let outer = self.processes.or(self.interpreters).unwrap_or(1);
        let inner = self.threads.or(self.coroutines).unwrap_or(1);
        outer.saturating_mul(inner)
    }

    /// Sorts plans from the simplest: by strategy, then by how many workers they need.
    pub fn simplicity(&self) -> (Strategy, u32) {
        (self.strategy(), self.workers())
    }

    /// Short name for tables: `serial`, `threads=8`, `processes=4+threads=16`.
    pub fn label(&self) -> String {
        let parts = self.parts();
        if parts.is_empty() {
            return Strategy::Serial.name().to_owned();
        }
        let sizes: Vec<String> = parts
            .iter()
            .map(|(name, size)| format!("{name}={size}"))
            .collect();
        sizes.join("+")
    }

    /// The line of code that runs `function` over its inputs under this plan.
    pub fn code(&self, function: &str) -> String {
        if self.strategy() == Strategy::Serial {
            format!("results = [{function}(item) for item in items]")
        } else {
            format!("with {self} as executor: results = list(executor.map({function}, items))")
        }
    }

    /// Checks the sizes: all positive, and one way of being inside another at most.
    pub fn check(&self) -> Result<(), ChoiceError> {
        for (name, size) in self.parts() {
            if size == 0 {
                return Err(ChoiceError::usage(
                    format!("the plan has {name}=0, but a pool needs at least one worker"),
                    format!("give {name} a size from 1 up, or leave it out"),
                ));
            }
        }
        let outer =
            usize::from(self.processes.is_some()) + usize::from(self.interpreters.is_some());
        let inner = usize::from(self.threads.is_some()) + usize::from(self.coroutines.is_some());
        if outer > 1 || inner > 1 {
            return Err(ChoiceError::usage(
                format!(
                    "the plan {} mixes ways of running that cannot be nested",
                    self.label()
                ),
                "a hybrid is processes with threads, or processes with coroutines",
            ));
        }
        Ok(())
    }

    fn parts(&self) -> Vec<(&'static str, u32)> {
        [
            ("processes", self.processes),
            ("interpreters", self.interpreters),
            ("threads", self.threads),
            ("coroutines", self.coroutines),
            ("chunk", self.chunk),
        ]
        .into_iter()
        .filter_map(|(name, size)| Some((name, size?)))
        .collect()
    }

    /// Reads `threads=1,2,4;processes=2;processes=4+threads=16;serial` into plans, in the order given.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ChoiceError> {
        let mut plans: Vec<Self> = Vec::new();
        for group in text
            .split(';')
            .map(str::trim)
            .filter(|group| !group.is_empty())
        {
            for plan in Self::parse_group(group)? {
                plan.check()?;
                if !plans.contains(&plan) {
                    plans.push(plan);
                }
            }
        }
        if plans.is_empty() {
            return Err(plans_error(text, "it names no plan"));
        }
        Ok(plans)
    }

    fn parse_group(group: &str) -> Result<Vec<Self>, ChoiceError> {
        if group == "serial" {
            return Ok(vec![Self::SERIAL]);
        }
        let mut plans = vec![Self::SERIAL];
        for part in group.split('+') {
            let (name, sizes) = part
                .split_once('=')
                .ok_or_else(|| plans_error(group, "a strategy needs sizes"))?;
            let mut sized = Vec::new();
            for size in sizes.split(',') {
                let size: u32 = size.trim().parse().map_err(|_| {
                    plans_error(group, &format!("`{}` is not a whole number", size.trim()))
                })?;
                for plan in &plans {
                    let mut plan = *plan;
                    match name.trim() {
                        "threads" => plan.threads = Some(size),
                        "processes" => plan.processes = Some(size),
                        "coroutines" => plan.coroutines = Some(size),
                        "interpreters" => plan.interpreters = Some(size),
                        "chunk" => plan.chunk = Some(size),
                        other => {
                            return Err(plans_error(
                                group,
                                &format!("`{other}` is not a strategy"),
                            ));
                        }
                    }
                    sized.push(plan);
                }
            }
            plans = sized;
        }
        Ok(plans)
    }
}

fn plans_error(text: &str, why: &str) -> ChoiceError {
    ChoiceError::usage(
        format!("cannot read the plans `{text}`: {why}"),
        "write them as --plans 'threads=2,8;processes=2;coroutines=100', hybrids with a plus: 'processes=2+threads=8'",
    )
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.strategy() == Strategy::Serial {
            return formatter.write_str("a plain loop");
        }
        let arguments: Vec<String> = self
            .parts()
            .iter()
            .map(|(name, size)| format!("{name}={size}"))
            .collect();
        if self.chunk.is_some() {
            write!(
                formatter,
                "treadle.Executor(treadle.Plan({}))",
                arguments.join(", ")
            )
        } else {
            write!(formatter, "treadle.Executor({})", arguments.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_code() {
        assert_eq!(
            Plan::processes(8).to_string(),
            "treadle.Executor(processes=8)"
        );
        assert_eq!(Plan::SERIAL.to_string(), "a plain loop");
        let plan = Plan {
            chunk: Some(16),
            ..Plan::processes(8)
        };
        assert_eq!(
            plan.to_string(),
            "treadle.Executor(treadle.Plan(processes=8, chunk=16))"
        );
    }

    #[test]
    fn serial_is_the_empty_object() {
        assert_eq!(serde_json::to_string(&Plan::SERIAL).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<Plan>("{}").unwrap(), Plan::SERIAL);
        assert!(serde_json::from_str::<Plan>(r#"{"fibers": 2}"#).is_err());
    }

    #[test]
    fn simplicity_follows_the_strategies() {
        let mut plans = [
            Plan {
                threads: Some(4),
                ..Plan::processes(2)
            },
            Plan::processes(2),
            Plan::coroutines(1000),
            Plan::threads(8),
            Plan::threads(2),
            Plan::SERIAL,
        ];
        plans.sort_by_key(Plan::simplicity);
        let labels: Vec<String> = plans.iter().map(Plan::label).collect();
        assert_eq!(
            labels,
            [
                "serial",
                "threads=2",
                "threads=8",
                "coroutines=1000",
                "processes=2",
                "processes=2+threads=4"
            ]
        );
    }

    #[test]
    fn lists_of_plans() {
        let plans =
            Plan::parse_list("threads=1,2; processes=2+threads=4,8;serial;threads=2").unwrap();
        let labels: Vec<String> = plans.iter().map(Plan::label).collect();
        assert_eq!(
            labels,
            [
                "threads=1",
                "threads=2",
                "processes=2+threads=4",
                "processes=2+threads=8",
                "serial"
            ]
        );
        for wrong in [
            "",
            "threads",
            "fibers=2",
            "threads=two",
            "threads=0",
            "threads=2+coroutines=2",
        ] {
            assert_eq!(
                Plan::parse_list(wrong).unwrap_err().exit_code(),
                2,
                "{wrong}"
            );
        }
    }
}
