//! Arbitrary bytes as a message of a zygote.

use treadle_core::pool::zygote::reads_message;

/// The input is the message.
pub(crate) fn run(bytes: &[u8]) {
    let read = reads_message(bytes);
    let first = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    assert!(!read || [&b"ready"[..], b"failed", b"spawned", b"exited"].contains(&first));
}
