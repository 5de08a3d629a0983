//! The parent's end of a zygote: the process that forks this program's workers.
//!
//! A zygote is an interpreter with one thread that has imported the user's main module once; each worker is a fork of it.
//! It is reached over a socket that carries whole messages; fields are separated by NUL bytes:
//!
//! ```text
//! parent → zygote   prepare, field…                       once, first
//!                   spawn, tag, field…  + descriptors     one worker
//! zygote → parent   ready
//!                   failed, text                          the main module could not be imported; the zygote leaves
//!                   spawned, tag, pid  + pidfd
//!                   exited, pid, status                   exit code, or minus the signal, or `?`
//! ```
//!
//! *Guarantees*: when this process ends for any reason the zygote sees it, leaves, and the kernel kills every worker with it
//! (`PR_SET_PDEATHSIG`, which is tied to the zygote's only thread).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::outcome::Ending;

/// How to start a zygote. Two pools whose launches are equal share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The interpreter.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables set over this process's own.
    pub environment: Vec<(String, String)>,
    /// The fields of the `prepare` message.
    pub preparation: Vec<Vec<u8>>,
}

/// What a zygote says.
#[derive(Debug)]
pub(super) enum Message {
    Ready,
    Failed(String),
    Spawned {
        tag: u64,
        pid: i32,
        pidfd: Option<OwnedFd>,
    },
    Exited {
        pid: i32,
        ending: Ending,
    },
    /// The socket is closed: the zygote is gone.
    Gone,
}

/// One running zygote.
#[derive(Debug)]
pub(super) struct Zygote {
    pub(super) launch: Launch,
    socket: OwnedFd,
    process: Child,
    message: Vec<u8>,
}

pub(super) const LARGEST_MESSAGE: usize = 128 * 1024;

/// Most descriptors in one message: a worker's own four, and what its initializer takes along.
pub(super) const MOST_DESCRIPTORS: usize = 64;

/// Whether a message could not be sent because the zygote has ended (reset: with messages that it had not read).
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

fn join(fields: &[&[u8]]) -> Vec<u8> {
    fields.join(&0)
}

impl Zygote {
    pub(super) fn start(launch: &Launch) -> io::Result<Zygote> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let process = Command::new(&launch.program)
            .args(&launch.arguments)
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::from(theirs))
            .spawn()?;
        let zygote = Zygote {
            launch: launch.clone(),
            socket: ours,
            process,
            message: vec![0; LARGEST_MESSAGE],
        };
        let mut fields: Vec<&[u8]> = vec![b"prepare"];
        fields.extend(launch.preparation.iter().map(Vec::as_slice));
        match zygote.send(&fields, &[]) {
            // Killed as soon as it was born: its socket says so next, and whoever waits for its workers hears of it there.
            Err(error) if is_gone(&error) => Ok(zygote),
            Err(error) => Err(error),
            Ok(()) => Ok(zygote),
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    fn send(&self, fields: &[&[u8]], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let message = join(fields);
        if message.len() > LARGEST_MESSAGE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a message of {} bytes to the zygote; {LARGEST_MESSAGE} is the most",
                    message.len()
                ),
            ));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
        {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                &self.socket,
                &[io::IoSlice::new(&message)],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )
        })?;
        Ok(())
    }

    pub(super) fn spawn(
        &self,
        tag: u64,
        fields: &[Vec<u8>],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let tag = tag.to_string();
        let mut all: Vec<&[u8]> = vec![b"spawn", tag.as_bytes()];
        all.extend(fields.iter().map(Vec::as_slice));
        self.send(&all, descriptors)
    }

    /// The next message, or `None` when none has come yet.
    pub(super) fn receive(&mut self) -> Option<Message> {
        // Taken once: where memory is short, the news of a death must not need any.
        self.message.resize(LARGEST_MESSAGE, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut receive = || {
            rustix::io::retry_on_intr(|| {
                rustix::net::recvmsg(
                    &self.socket,
                    &mut [io::IoSliceMut::new(&mut self.message)],
                    &mut ancillary,
                    RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
                )
            })
        };
        let received = match receive() {
            // It ended with messages unread. The kernel says so before it gives what was said last, and says it once.
            Err(Errno::CONNRESET) => receive(),
            received => received,
        };
        let length = match received {
            Ok(received) => received.bytes,
            Err(Errno::AGAIN) => return None,
            Err(_) => 0,
        };
        let pidfd = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        if length == 0 {
            return Some(Message::Gone);
        }
        Some(read_message(&self.message[..length], pidfd).unwrap_or(Message::Gone))
    }

    /// Ends the zygote, and with it every worker that it forked.
    pub(super) fn kill(&mut self) {
        // An error means that it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether bytes are a message of a zygote; what the fuzzer asks, for the messages themselves are private.
pub fn reads_message(bytes: &[u8]) -> bool {
    read_message(bytes, None).is_some()
}

fn read_message(bytes: &[u8], pidfd: Option<OwnedFd>) -> Option<Message> {
    let mut fields = bytes.split(|byte| *byte == 0);
    let mut text = || {
        fields
            .next()
            .map(|field| String::from_utf8_lossy(field).into_owned())
    };
    Some(match text()?.as_str() {
        "ready" => Message::Ready,
        "failed" => Message::Failed(text()?),
        "spawned" => Message::Spawned {
            tag: text()?.parse().ok()?,
            pid: text()?.parse().ok()?,
            pidfd,
        },
        "exited" => {
            let pid = text()?.parse().ok()?;
            let ending = match text()?.parse::<i32>() {
                Ok(status) if status < 0 => Ending::Signalled(-status),
                Ok(status) => Ending::Exited(status),
                Err(_) => Ending::Unknown,
            };
            Message::Exited { pid, ending }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags};

    use super::*;

    #[test]
    fn the_last_words_of_a_zygote_that_read_nothing_are_heard() {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let mut zygote = Zygote {
            launch: Launch {
                program: String::new(),
                arguments: Vec::new(),
                environment: Vec::new(),
                preparation: Vec::new(),
            },
            socket: ours,
            process: Command::new("true").spawn().unwrap(),
            message: Vec::new(),
        };
        zygote.spawn(1, &[], &[]).unwrap();
        rustix::net::send(&theirs, b"failed\0why", SendFlags::NOSIGNAL).unwrap();
        drop(theirs);
        // A child that another test has just forked may still have a copy.
        let mut closed = [PollFd::new(&zygote.socket, PollFlags::empty())];
        rustix::event::poll(&mut closed, None).unwrap();
        assert!(matches!(zygote.receive(), Some(Message::Failed(text)) if text == "why"));
        assert!(matches!(zygote.receive(), Some(Message::Gone)));
    }

    #[test]
    fn messages_are_read_and_nonsense_is_refused() {
        assert!(matches!(read_message(b"ready", None), Some(Message::Ready)));
        assert!(matches!(
            read_message(b"exited\x0012\x00-9", None),
            Some(Message::Exited {
                pid: 12,
                ending: Ending::Signalled(9)
            })
        ));
        assert!(matches!(
            read_message(b"exited\x0012\x00?", None),
            Some(Message::Exited {
                pid: 12,
                ending: Ending::Unknown
            })
        ));
        assert!(matches!(
            read_message(b"spawned\x007\x0012", None),
            Some(Message::Spawned {
                tag: 7,
                pid: 12,
                pidfd: None
            })
        ));
        assert!(read_message(b"spawned\x00seven", None).is_none());
        assert!(read_message(b"", None).is_none());
    }
}
