//! libFuzzer's entry to `bodies/ring.rs`.
#![no_main]

#[path = "../bodies/ring.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
