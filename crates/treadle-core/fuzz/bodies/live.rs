//! Arbitrary bytes as what a watcher and a program say to each other, with and without the length before them.

use treadle_core::live::protocol::{Reply, decode_reply, read_reply, read_request, write_reply};

/// What is decoded must be fit to be shown: decoding it again changes nothing.
pub(crate) fn run(bytes: &[u8]) {
    let _ = read_request(&mut &bytes[..]);
    if let Ok(body) = read_reply(&mut &bytes[..]) {
        look(&body);
    }
    look(bytes);
}

fn look(body: &[u8]) {
    let Ok(reply) = decode_reply(body) else {
        return;
    };
    let mut again = Vec::new();
    write_reply(&mut again, &reply).expect("a vector takes it");
    let body = read_reply(&mut again.as_slice()).expect("as it was written");
    let found: Reply = decode_reply(&body).expect("it was decoded once");
    assert_eq!(found, reply);
}
