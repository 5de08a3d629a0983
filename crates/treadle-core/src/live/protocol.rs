//! The words between a watcher and a program: one request, one reply, then the connection ends.
//!
//! ```text
//! watcher ─► {"protocol":1,"ask":"pools"}\n
//! program ─► 4 bytes: length, little-endian ─► that many bytes of JSON: {"protocol":1, "program":{…}, "stacks":[…]}
//! ```
//!
//! The protocol's number changes when a reader of the old one would be wrong; a key that is added does not change it, and a reader takes what
//! is missing for nothing.
//!
//! *Guarantees*: a message longer than its bound is refused before it is read; nothing that is received can make this side allocate more
//! than that bound and what it decodes to.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::picture::{Program, Stacks};

/// The number of the protocol that is spoken here.
pub const PROTOCOL: u32 = 1;

/// Bytes of a request, its line feed among them.
pub const MOST_REQUEST: usize = 1024;
/// Bytes of a reply: a worker takes about 200, so this is for some eighty thousand, or the stacks of as many threads as a program can have.
pub const MOST_REPLY: usize = 16 << 20;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// The pools now.
    Pools,
    /// The pools, and what each worker does, with stacks.
    Stacks,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The asking side's protocol.
    pub protocol: u32,
    /// What is asked for.
    pub ask: Ask,
}

/// A reply.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reply {
    /// The program's protocol.
    pub protocol: u32,
    /// Why there is nothing else.
    pub error: Option<String>,
    /// The program.
    pub program: Program,
    /// What its workers do, when that was asked for.
    pub stacks: Vec<Stacks>,
}

/// Only what every protocol has: read first.
#[derive(Debug, Deserialize)]
struct Opening {
    protocol: u32,
    #[serde(default)]
    program: Version,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Version {
    treadle: String,
}

/// Why a reply cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It speaks another protocol.
    #[error(
        "it speaks protocol {theirs} of the live view (treadle {version}), and this treadle speaks {PROTOCOL}"
    )]
    Protocol {
        /// Its number.
        theirs: u32,
        /// The program's version of treadle; empty if it did not say.
        version: String,
    },
    /// It said why not.
    #[error("it refused: {0}")]
    Refused(String),
    /// It is no reply.
    #[error("what it sent is no reply: {0}")]
    Garbage(String),
}

/// Reads a request: a line of JSON.
///
/// # Errors
/// When the line is too long, is none, or the other side is silent.
pub fn read_request(from: &mut impl Read) -> io::Result<Request> {
    let mut line = Vec::new();
    let mut letter = [0; 1];
    // The line is some thirty bytes, once a second: reading it by bytes costs nothing and never reads too far.
    loop {
        from.read_exact(&mut letter)?;
        if letter[0] == b'\n' {
            break;
        }
        line.push(letter[0]);
        if line.len() >= MOST_REQUEST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the request is too long",
            ));
        }
    }
    serde_json::from_slice(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes a request.
///
/// # Errors
/// When the other side is gone.
pub fn write_request(to: &mut impl Write, ask: Ask) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Request {
        protocol: PROTOCOL,
        ask,
    })?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Writes a reply; one that is too long becomes an error that says so.
///
/// # Errors
/// When the other side is gone.
pub fn write_reply(to: &mut impl Write, reply: &Reply) -> io::Result<()> {
    let mut body = serde_json::to_vec(reply)?;
    if body.len() > MOST_REPLY {
        body = serde_json::to_vec(&Reply {
            protocol: PROTOCOL,
            error: Some(format!(
                "the reply would be {} bytes, and {MOST_REPLY} are allowed",
                body.len()
            )),
            ..Reply::default()
        })?;
    }
    let mut message = (body.len() as u32).to_le_bytes().to_vec();
    message.append(&mut body);
    to.write_all(&message)
}

/// Reads a reply's bytes.
///
/// # Errors
/// When the other side is gone or silent, or announces more than [`MOST_REPLY`] bytes.
pub fn read_reply(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MOST_REPLY {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it announces a reply of {length} bytes"),
        ));
    }
    let mut body = Vec::new();
    from.take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

/// Decodes a reply, and makes it fit to be shown.
///
/// # Errors
/// When it is of another protocol, a refusal, or garbage.
pub fn decode_reply(body: &[u8]) -> Result<Reply, Unreadable> {
    let garbage = |error: serde_json::Error| Unreadable::Garbage(error.to_string());
    let opening: Opening = serde_json::from_slice(body).map_err(garbage)?;
    if opening.protocol != PROTOCOL {
        let mut named = Program {
            treadle: opening.program.treadle,
            ..Program::default()
        };
        named.tidy();
        return Err(Unreadable::Protocol {
            theirs: opening.protocol,
            version: named.treadle,
        });
    }
    let mut reply: Reply = serde_json::from_slice(body).map_err(garbage)?;
    reply.program.tidy();
    reply.stacks.iter_mut().for_each(Stacks::tidy);
    match reply.error {
        Some(error) => {
            let mut told = Stacks {
                pool: 0,
                text: error,
            };
            told.tidy();
            Err(Unreadable::Refused(told.text))
        }
        None => Ok(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::picture::Pool;

    #[test]
    fn a_request_and_a_reply_arrive_as_sent() {
        let mut bytes = Vec::new();
        write_request(&mut bytes, Ask::Stacks).unwrap();
        let request = read_request(&mut bytes.as_slice()).unwrap();
        assert_eq!(
            request,
            Request {
                protocol: PROTOCOL,
                ask: Ask::Stacks
            }
        );
        let reply = Reply {
            protocol: PROTOCOL,
            program: Program {
                pid: 7,
                pools: vec![Pool {
                    number: 3,
                    oldest_s: Some(1.5),
                    ..Pool::default()
                }],
                ..Program::default()
            },
            stacks: vec![Stacks {
                pool: 3,
                text: "a\nb\n".to_owned(),
            }],
            ..Reply::default()
        };
        let mut bytes = Vec::new();
        write_reply(&mut bytes, &reply).unwrap();
        let body = read_reply(&mut bytes.as_slice()).unwrap();
        assert_eq!(decode_reply(&body).unwrap(), reply);
    }

    #[test]
    fn a_key_that_is_missing_or_new_does_no_harm() {
        let reply =
            decode_reply(br#"{"protocol":1,"program":{"pid":4,"new":[1],"pools":[{"name":"a"}]}}"#)
                .unwrap();
        assert_eq!((reply.program.pid, reply.program.pools[0].queued), (4, 0));
    }

    #[test]
    fn another_protocol_is_told_with_its_version() {
        let found =
            decode_reply(br#"{"protocol":9,"program":{"treadle":"3.1.0\u001b[0m","pid":[]}}"#);
        assert_eq!(
            found,
            Err(Unreadable::Protocol {
                theirs: 9,
                version: "3.1.0\u{fffd}[0m".to_owned()
            })
        );
    }

    #[test]
    fn garbage_is_refused_and_takes_no_memory() {
        assert!(
            read_reply(&mut [0xff; 64].as_slice()).is_err(),
            "4 GiB are announced"
        );
        assert!(
            read_reply(&mut [9, 0, 0, 0, 1].as_slice()).is_err(),
            "it ends too early"
        );
        assert!(read_request(&mut [b'x'; 5000].as_slice()).is_err());
        assert!(read_request(&mut b"{}\n".as_slice()).is_err());
        let mut deep = br#"{"protocol":1,"program":{"pools":"#.to_vec();
        deep.extend(std::iter::repeat_n(b'[', 100_000));
        for body in [
            b"".as_slice(),
            b"{}",
            b"[]",
            b"\xff\xfe",
            br#"{"protocol":-1}"#,
            &deep,
        ] {
            assert!(matches!(decode_reply(body), Err(Unreadable::Garbage(_))));
        }
        // Any prefix, and any byte changed, is decoded or refused, and never more than that.
        let mut bytes = Vec::new();
        write_reply(
            &mut bytes,
            &Reply {
                protocol: PROTOCOL,
                ..Reply::default()
            },
        )
        .unwrap();
        for place in 0..bytes.len() {
            let _ = read_reply(&mut &bytes[..place]);
            let mut changed = bytes.clone();
            changed[place] ^= 0x5a;
            if let Ok(body) = read_reply(&mut changed.as_slice()) {
                let _ = decode_reply(&body);
            }
        }
    }
}
