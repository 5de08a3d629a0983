//! libFuzzer's entry to `bodies/queue.rs`.
#![no_main]

#[path = "../bodies/queue.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
