#![forbid(unsafe_code)]
//! Pools, meters, what they tell to watchers, and the choice of a plan.
pub mod choice;
pub mod live;
pub mod pool;
