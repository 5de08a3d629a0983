//! The model: what each plan will do, from the profile, and what limits it, in words.
//!
//! ```text
//! profile ─► demands (one task for each sampled input; hopeful, likely and wary readings of what is uncertain)
//! plan ────► route (who hands a task over, where it runs, what that costs beside it)
//!                 ├─► bounds      what no schedule exceeds, and the name of the smallest
//!                 └─► simulation  the recorded tasks replayed through lock, cores, loop and parent
//! ```
//!
//! *Guarantees*: a prediction never exceeds its bound; the same profile and setting give the same prediction on every machine.
//! *Assumes*: tasks are independent; the outside bears as many requests as we make (the race finds out).

mod bounds;
mod demands;
mod forecast;
#[cfg(test)]
mod queueing;
mod route;
mod script;
mod setting;
mod simulation;

pub(super) use demands::most_under_lock;
pub(super) use forecast::KNEE_SHARE;
pub use forecast::{Curve, Model, Prediction};
pub use setting::{Cost, Form, Handover, LoopCost, Setting, has_interpreters};

#[cfg(test)]
pub(crate) mod tests;
