//! Readings of the machine and of a process: clocks, `/proc`, cgroups, pressure, cores that really come, and who holds the
//! interpreter lock.
//!
//! *Guarantees*: nothing here writes, takes a lock of the interpreter, or fails: what cannot be read is `None`, or says why. No
//! part of Python is linked.
//! *Assumes*: Linux for everything but the clocks; elsewhere the readings are absent.
#![warn(missing_docs)]

pub mod cgroup;
pub mod clock;
pub mod cores;
pub mod lock;
pub mod machine;
pub mod memory;
pub mod pressure;
pub mod process;
pub mod spin;

pub use cores::{UsableCores, usable_cores};
