//! libFuzzer's entry to `bodies/blocks.rs`.
#![no_main]

#[path = "../bodies/blocks.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
