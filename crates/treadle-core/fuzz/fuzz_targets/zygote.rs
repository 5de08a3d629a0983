//! libFuzzer's entry to `bodies/zygote.rs`.
#![no_main]

#[path = "../bodies/zygote.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
