//! Arbitrary bytes as what a watcher and a program say to each other, with and without the length before them.

use treadle_core::live::picture::Stacks;
use treadle_core::live::protocol::{decode_reply, read_reply, read_request, write_reply};

/// What is decoded must be fit to be shown (making it so again changes nothing), and can be sent on.
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
    let mut again = reply.clone();
    again.program.tidy();
    again.stacks.iter_mut().for_each(Stacks::tidy);
    assert_eq!(again, reply);
    let mut message = Vec::new();
    write_reply(&mut message, &reply).expect("a vector takes it");
    let body = read_reply(&mut message.as_slice()).expect("as it was written");
    // Not compared: the last digit of a real number may change on its way through text.
    decode_reply(&body).expect("it was decoded once");
}
