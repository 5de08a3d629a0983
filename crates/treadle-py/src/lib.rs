#![deny(unsafe_code)]
//! The extension module `treadle._core`.
use pyo3::prelude::*;

/// The native half of treadle.
#[pymodule]
mod _core {}
