#![forbid(unsafe_code)]
//! The command line.
