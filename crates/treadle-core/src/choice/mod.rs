//! The choice of a plan: profile → model → race → decide → record.
//!
//! `compare` tells the story from top to bottom; each step is a file:
//!
//! ```text
//! laboratory   a process of its own in which the function is loaded and measured
//! profile      what one task costs, measured serially, and the class of the work
//! model        the throughput that no plan of a strategy and size can exceed, and what binds it
//! race         the best few, measured in interleaved blocks until the answer is clear
//! noise        was the machine quiet enough to tell?
//! decide       the simplest plan within five percent of the best that meets the targets
//! record       the decision in `treadle.toml` and `docs/decisions/`
//! ```
//!
//! *Guarantees*: measured, modelled and unknown numbers are never mixed; what is unknown is `None`.
//! *Assumes*: the function may be run several times on the same inputs.

pub mod compare;
pub mod decide;
pub mod error;
mod field;
pub mod laboratory;
pub mod model;
pub mod noise;
pub mod plan;
pub mod profile;
pub mod race;
pub mod reason;
pub mod record;
pub mod statistics;
pub mod wording;

pub use compare::{Comparison, Observer, Progress, Request, compare};
pub use error::ChoiceError;
pub use plan::{Plan, Strategy};
pub use record::load_decision;
