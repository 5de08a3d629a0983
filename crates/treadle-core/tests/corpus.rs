//! The fuzzer's inputs again, without the fuzzer: every one that it kept, and some thousand random ones.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout)]

#[path = "../fuzz/bodies/live.rs"]
mod live;
#[path = "../fuzz/bodies/session.rs"]
mod session;
#[path = "../fuzz/bodies/wire.rs"]
mod wire;
#[path = "../fuzz/bodies/zygote.rs"]
mod zygote;

use std::path::Path;

/// Runs the kept inputs of `name`, then `count` random ones.
fn replay(name: &str, run: fn(&[u8]), count: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut kept = 0;
    for entry in folder.read_dir().unwrap() {
        run(&std::fs::read(entry.unwrap().path()).unwrap());
        kept += 1;
    }
    assert!(kept > 0, "no inputs in {}", folder.display());
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64
        | 1;
    println!("seed {seed}");
    let mut state = seed;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    for turn in 0..count {
        let input: Vec<u8> = (0..turn % 300).map(|_| byte()).collect();
        run(&input);
    }
}

#[test]
fn sessions() {
    replay("session", session::run, 1000);
}

#[test]
fn packets_and_records() {
    replay("wire", wire::run, 20_000);
}

#[test]
fn messages_of_a_zygote() {
    replay("zygote", zygote::run, 20_000);
}

#[test]
fn requests_and_replies_of_the_live_view() {
    replay("live", live::run, 20_000);
}
