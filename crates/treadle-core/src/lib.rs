#![forbid(unsafe_code)]
//! Pools, meters, and the choice of a plan.
pub mod choice;
pub mod pool;
