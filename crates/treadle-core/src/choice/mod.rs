//! The choice of a plan: profile → model → race → decide → record.
//!
//! `compare` tells the story from top to bottom; each step is a file:
//!
//! ```text
//! laboratory   a process of its own in which the function is loaded and measured
//! asking       what it is asked before a race, and its failures in words
//! sample       what it replies
//! profile      what one task costs, measured serially, and the class of the work
//! split        where its time goes: with the interpreter lock or without, computing or blocked
//! histogram    how the durations of the tasks are spread
//! model        what each plan of a strategy and size will do, by simulation, and what binds it
//! contenders   which plans are worth racing
//! race         the best few, measured in interleaved blocks until the answer is clear
//! sequential   how sure a race may be after each look
//! disturbance  what others took from a block
//! driver       runs the race on a field of candidates, a laboratory each
//! once         which candidate gets which inputs when none may be run twice
//! gate         the machine's readings before, during and after
//! noise        was the machine quiet enough to tell?
//! target       what the user requires
//! decide       the simplest plan within five percent of the best that meets the targets
//! confidence   what must hold for a decision to be sure
//! reason       the decision in words
//! portrait     the task and the machine in words
//! fingerprint  source and environment of a function, comparable without measuring
//! ranking      the model's order of plans, calibrated by the race of a record
//! record       the decision in `treadle.toml` and `docs/decisions/`
//! check        is a recorded decision still right?
//! ```
//!
//! *Guarantees*: measured, modelled and unknown numbers are never mixed; what is unknown is `None`.
//! *Assumes*: the function may be run several times on the same inputs, unless the request says `once`.

mod asking;
pub mod check;
pub mod compare;
pub mod comparison;
pub mod confidence;
pub mod contenders;
pub mod decide;
pub mod disturbance;
mod driver;
pub mod error;
mod field;
pub mod fingerprint;
mod gate;
pub mod histogram;
pub mod laboratory;
pub mod model;
pub mod noise;
mod once;
pub mod plan;
pub mod portrait;
pub mod profile;
pub mod race;
pub mod ranking;
mod reason;
pub mod record;
pub mod request;
pub mod sample;
pub mod sequential;
pub mod split;
pub mod statistics;
pub mod target;
pub mod wording;

pub use compare::{Observer, Progress, compare, compare_json};
pub use comparison::Comparison;
pub use error::ChoiceError;
pub use plan::{Plan, Strategy};
pub use record::load_decision;
pub use request::Request;
