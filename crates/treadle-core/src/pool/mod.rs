//! Pools of workers.
