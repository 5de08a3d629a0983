//! A zygote's own end: it waits for the orders of its program, and tells of the workers that it forked. The messages: [`zygote`](super::zygote).
//!
//! What runs here between two forks writes to memory that the workers share with the zygote, and the page is then in memory once more for each
//! of them. So all of it is here: the interpreter has nothing to do but to fork.
//!
//! *Guarantees*: it sees when the program ends or closes the socket; each worker's end is told once, also those whose pidfd could not be opened
//! and those that somebody else in this process has waited for (with `?` for the status).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::process::{Pid, PidfdFlags, WaitOptions};

use super::zygote::{LARGEST_MESSAGE, MOST_DESCRIPTORS};

/// How long a worker's end may go unseen that has no pidfd.
const LOOK_AGAIN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// The zygote's end of the socket, and its workers.
#[derive(Debug)]
pub struct ZygoteEnd {
    socket: OwnedFd,
    parent: Option<OwnedFd>,
    workers: Vec<Forked>,
    message: Vec<u8>,
}

/// A worker to fork.
#[derive(Debug)]
pub struct Order {
    /// What the program calls this start.
    pub tag: Vec<u8>,
    /// What the worker is told.
    pub fields: Vec<Vec<u8>>,
    /// What it gets.
    pub descriptors: Vec<OwnedFd>,
}

/// What a wait ended with.
#[derive(Debug)]
pub enum Event {
    /// A worker is to be forked.
    Order(Order),
    /// A signal came, and its handler has not run yet.
    Interrupted,
    /// The program has ended, or closed the socket.
    Gone,
    /// Nothing can be waited for.
    Failed(io::Error),
}

#[derive(Debug)]
struct Forked {
    pid: Pid,
    /// None where it could not be opened: its end is looked for from time to time.
    pidfd: Option<OwnedFd>,
}

impl ZygoteEnd {
    /// Over a socket that the program holds the other end of.
    pub fn new(socket: OwnedFd) -> ZygoteEnd {
        ZygoteEnd {
            socket,
            parent: None,
            workers: Vec::new(),
            message: vec![0; LARGEST_MESSAGE],
        }
    }

    /// Waits for the first message, which says what to prepare; none when the program is gone.
    pub fn preparation(&mut self) -> Option<Vec<Vec<u8>>> {
        let (mut fields, _) = self.receive().ok()?;
        (fields.remove(0) == b"prepare").then_some(fields)
    }

    /// Watches the program beside the socket, whose other end a fork of the program may hold; false when it has ended already.
    pub fn watch_parent(&mut self, parent: i32) -> bool {
        match Pid::from_raw(parent)
            .map(|parent| rustix::process::pidfd_open(parent, PidfdFlags::empty()))
        {
            Some(Ok(pidfd)) => {
                self.parent = Some(pidfd);
                true
            }
            _ => rustix::process::getppid().map(Pid::as_raw_pid) == Some(parent),
        }
    }

    /// Tells that workers can be forked now.
    pub fn say_ready(&self) {
        self.say(&[b"ready"], None);
    }

    /// Tells why none will be, in UTF-8.
    pub fn say_failed(&self, reason: &[u8]) {
        let room = LARGEST_MESSAGE - 64;
        let reason: Vec<u8> = reason
            .iter()
            .take(room)
            .map(|byte| if *byte == 0 { b'?' } else { *byte })
            .collect();
        self.say(&[b"failed", &reason], None);
    }

    /// Waits for an order, and meanwhile tells of workers that ended.
    pub fn next_event(&mut self) -> Event {
        loop {
            let mut watched = vec![PollFd::new(&self.socket, PollFlags::IN)];
            watched.extend(
                self.parent
                    .iter()
                    .map(|parent| PollFd::new(parent, PollFlags::IN)),
            );
            let others = watched.len();
            let pidfds = self
                .workers
                .iter()
                .filter_map(|worker| worker.pidfd.as_ref());
            watched.extend(pidfds.map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
            let unseen = self.workers.iter().any(|worker| worker.pidfd.is_none());
            match rustix::event::poll(&mut watched, unseen.then_some(&LOOK_AGAIN)) {
                Ok(_) => {}
                Err(Errno::INTR) => return Event::Interrupted,
                Err(error) => return Event::Failed(error.into()),
            }
            let said = |watched: &PollFd<'_>| !watched.revents().is_empty();
            let order = said(&watched[0]);
            let parent_ended = watched[1..others].iter().any(said);
            let ended = unseen || watched[others..].iter().any(said);
            drop(watched);
            if ended {
                self.bury();
            }
            if order {
                return self.read_order();
            }
            if parent_ended {
                return Event::Gone;
            }
        }
    }

    /// In the zygote, after a fork: tells of the worker.
    pub fn say_forked(&mut self, tag: &[u8], pid: i32) {
        let Some(pid) = Pid::from_raw(pid) else {
            return;
        };
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
        let number = pid.as_raw_nonzero().to_string();
        self.say(&[b"spawned", tag, number.as_bytes()], pidfd.as_ref());
        self.workers.push(Forked { pid, pidfd });
    }

    /// Tells of a worker that could not be forked, as of one that could not live: the program bounds how often it tries.
    pub fn say_not_forked(&self, tag: &[u8]) {
        self.say(&[b"spawned", tag, b"0"], None);
        self.say(&[b"exited", b"0", b"71"], None);
    }

    fn read_order(&mut self) -> Event {
        match self.receive() {
            Ok((mut fields, descriptors)) if fields.len() > 1 && fields[0] == b"spawn" => {
                let told = fields.split_off(2);
                Event::Order(Order {
                    tag: fields.swap_remove(1),
                    fields: told,
                    descriptors,
                })
            }
            // Also reset: it ended with messages of ours that it had not read.
            _ => Event::Gone,
        }
    }

    /// The fields of the next message, at least one.
    fn receive(&mut self) -> io::Result<(Vec<Vec<u8>>, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.socket,
                &mut [io::IoSliceMut::new(&mut self.message)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        let descriptors = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let fields = self.message[..received.bytes].split(|byte| *byte == 0);
        Ok((fields.map(<[u8]>::to_vec).collect(), descriptors))
    }

    /// Takes leave of the workers that have ended.
    fn bury(&mut self) {
        let mut ended = Vec::new();
        self.workers.retain(|worker| {
            match rustix::process::waitpid(Some(worker.pid), WaitOptions::NOHANG) {
                Ok(None) => true,
                Ok(Some((_, status))) => {
                    let code = status
                        .exit_status()
                        .or_else(|| status.terminating_signal().map(|signal| -signal));
                    ended.push((worker.pid, code));
                    false
                }
                Err(Errno::INTR) => true,
                // Somebody else in this process has waited for it.
                Err(_) => {
                    ended.push((worker.pid, None));
                    false
                }
            }
        });
        for (pid, code) in ended {
            let pid = pid.as_raw_nonzero().to_string();
            let status = code.map_or_else(|| String::from("?"), |code| code.to_string());
            self.say(&[b"exited", pid.as_bytes(), status.as_bytes()], None);
        }
    }

    fn say(&self, fields: &[&[u8]], descriptor: Option<&OwnedFd>) {
        let message = fields.join(&0);
        let descriptors: Vec<_> = descriptor
            .iter()
            .map(|descriptor| descriptor.as_fd())
            .collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        // An error means that the program is gone; the next wait sees it.
        let _ = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                &self.socket,
                &[io::IoSlice::new(&message)],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Command;
    use std::thread;

    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    use super::*;

    fn pair() -> (ZygoteEnd, OwnedFd) {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        (ZygoteEnd::new(ours), theirs)
    }

    fn send(program: &OwnedFd, message: &[u8]) {
        rustix::net::send(program, message, SendFlags::NOSIGNAL).unwrap();
    }

    fn read(program: &OwnedFd) -> String {
        let mut message = [0; 4096];
        let (length, _) = rustix::net::recv(program, &mut message, RecvFlags::empty()).unwrap();
        String::from_utf8_lossy(&message[..length]).replace('\0', " ")
    }

    #[test]
    fn an_order_comes_with_its_fields_and_descriptors() {
        let (mut end, program) = pair();
        send(&program, b"prepare\0fork\x0012");
        assert_eq!(
            end.preparation(),
            Some(vec![b"fork".to_vec(), b"12".to_vec()])
        );
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [pipe.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        rustix::net::sendmsg(
            &program,
            &[io::IoSlice::new(b"spawn\x007\0a\0\0b")],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
        .unwrap();
        let Event::Order(order) = end.next_event() else {
            panic!("no order");
        };
        assert_eq!(order.tag, b"7");
        assert_eq!(order.fields, [b"a".to_vec(), b"".to_vec(), b"b".to_vec()]);
        assert_eq!(order.descriptors.len(), 1);
        assert_ne!(order.descriptors[0].as_raw_fd(), pipe.as_raw_fd());
    }

    #[test]
    // The zygote's end waits for them.
    #[allow(clippy::zombie_processes)]
    fn each_worker_is_told_of_as_it_comes_and_as_it_ends() {
        for seen in [true, false] {
            let (mut end, program) = pair();
            let ends = [("exit 7", "7"), ("kill -9 $$", "-9")];
            let workers = ends.map(|(script, code)| {
                let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
                (i32::try_from(child.id()).unwrap(), code)
            });
            for (pid, _) in workers {
                end.say_forked(b"1", pid);
                assert_eq!(read(&program), format!("spawned 1 {pid}"));
            }
            if !seen {
                end.workers
                    .iter_mut()
                    .for_each(|worker| worker.pidfd = None);
            }
            thread::scope(|scope| {
                let waiting = scope.spawn(|| matches!(end.next_event(), Event::Order(_)));
                let mut told = [read(&program), read(&program)];
                let mut expected = workers.map(|(pid, code)| format!("exited {pid} {code}"));
                told.sort();
                expected.sort();
                assert_eq!(told, expected);
                send(&program, b"spawn\x002");
                assert!(waiting.join().unwrap());
            });
            assert!(end.workers.is_empty());
        }
    }

    #[test]
    fn a_worker_that_somebody_else_has_waited_for_is_told_of() {
        let (mut end, program) = pair();
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        end.say_forked(b"1", i32::try_from(pid).unwrap());
        assert_eq!(read(&program), format!("spawned 1 {pid}"));
        child.wait().unwrap();
        send(&program, b"spawn\x002");
        assert!(matches!(end.next_event(), Event::Order(_)));
        assert_eq!(read(&program), format!("exited {pid} ?"));
        assert!(end.workers.is_empty());
    }

    #[test]
    fn a_program_that_is_gone_is_noticed() {
        let (mut end, program) = pair();
        // Words that nobody will read make the kernel report a reset.
        end.say_ready();
        drop(program);
        assert!(matches!(end.next_event(), Event::Gone));
        assert!(end.preparation().is_none());
        // A fork of it holds its end of the socket.
        let (mut end, _program) = pair();
        let mut parent = Command::new("sleep").arg("100").spawn().unwrap();
        assert!(end.watch_parent(i32::try_from(parent.id()).unwrap()));
        parent.kill().unwrap();
        assert!(matches!(end.next_event(), Event::Gone));
        parent.wait().unwrap();
    }

    #[test]
    fn a_reason_of_any_length_fits_a_message() {
        let (end, program) = pair();
        end.say_failed(&[b"why\0".as_slice(), &[b'x'; 2 * LARGEST_MESSAGE]].concat());
        let mut message = vec![0; 2 * LARGEST_MESSAGE];
        let (length, _) = rustix::net::recv(&program, &mut message, RecvFlags::empty()).unwrap();
        assert_eq!(&message[..15], b"failed\0why?xxxx");
        assert!(length <= LARGEST_MESSAGE);
        end.say_not_forked(b"3");
        assert_eq!(read(&program), "spawned 3 0");
        assert_eq!(read(&program), "exited 0 71");
    }
}
