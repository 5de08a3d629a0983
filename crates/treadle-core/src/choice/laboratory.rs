//! The laboratory: a process of its own in which the function is loaded and measured, and that may crash or hang.
//!
//! *Guarantees*: dropping a laboratory leaves no process behind: it kills the process group, then every process that carries
//! its mark in the environment, so also descendants that left the group. A crash or a hang is attributed to an
//! input by the position file, which the process maps and writes before each input. Waiting looks at `interrupted` every
//! 50 ms at least.
//! *Assumes*: one JSON object a line each way (the measuring protocol); descendants keep the environment that they inherit.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::Deserialize;
use serde_json::Value;

/// Name of the environment variable that marks everything a laboratory started.
const MARK: &str = "TREADLE_LABORATORY_MARK";
/// How much of standard error is kept for messages.
const STDERR_TAIL: usize = 4096;
/// The longest time between two looks at `interrupted`: a person does not notice it.
const LOOK_S: f64 = 0.05;
/// How long a laboratory may take to leave when asked, so that its pools can give back what they hold.
const LEAVE_S: f64 = 2.0;

/// Time and the user's wish to stop, passed in by the caller.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Monotonic seconds.
    pub clock: &'a dyn Fn() -> f64,
    /// Whether the user interrupted.
    pub interrupted: &'a dyn Fn() -> bool,
}

/// How the laboratory's process is started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program and its arguments; the position file's path is added as the last one.
    pub command: Vec<String>,
    /// The folder that it runs in, if not the current one.
    pub directory: Option<PathBuf>,
}

/// A request that the laboratory understood and refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// Stable name of the reason.
    pub kind: String,
    /// What happened, to what.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// A short traceback of the user's own code.
    pub detail: Option<String>,
}

/// Why a call gave no result.
#[derive(Debug, Clone, PartialEq)]
pub enum CallError {
    /// The laboratory refused the request.
    Refused(Refusal),
    /// The process ended.
    Died {
        /// `exit code 3` or `signal 11 (SIGSEGV)`.
        how: String,
        /// Whether it ended itself with an exit code, rather than by a signal.
        exited: bool,
        /// The input that was running, if one was.
        input: Option<u64>,
        /// The end of its standard error.
        stderr: String,
    },
    /// It did not answer in time.
    Late {
        /// Seconds that were waited.
        after_s: f64,
        /// The input that was running, if one was.
        input: Option<u64>,
        /// The end of its standard error.
        stderr: String,
    },
    /// The user interrupted.
    Interrupted,
    /// What it said is not the protocol.
    Broken(String),
}

/// A running laboratory.
#[derive(Debug)]
pub struct Laboratory {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    pending: Vec<u8>,
    stderr_tail: Vec<u8>,
    position: File,
    mark: String,
    exited: bool,
}

impl Laboratory {
    /// Starts the process.
    pub fn start(launch: &Launch) -> std::io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{number}", unique());
        let (position, position_path) = position_file(&mark)?;
        let (program, arguments) = launch
            .command
            .split_first()
            .ok_or_else(|| std::io::Error::new(ErrorKind::InvalidInput, "no command"))?;
        let mut command = Command::new(program);
        if let Some(directory) = &launch.directory {
            command.current_dir(directory);
        }
        let mut child = command
            .args(arguments)
            .arg(&position_path)
            .env(MARK, &mark)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(std::io::Error::other("the process has no pipes"));
        };
        Ok(Self {
            child,
            stdin: Some(stdin),
            stdout,
            stderr: Some(stderr),
            pending: Vec::new(),
            stderr_tail: Vec::new(),
            position,
            mark,
            exited: false,
        })
    }

    /// Process id, for readings.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request and waits at most `timeout_s` for its reply; progress lines go to `progress`.
    pub fn call(
        &mut self,
        request: &Value,
        timeout_s: f64,
        surroundings: Surroundings<'_>,
        progress: &mut dyn FnMut(&Value),
    ) -> Result<Value, CallError> {
        self.send(request)?;
        self.receive(timeout_s, surroundings, progress)
    }

    /// Sends a request whose reply is to be received later, so that several processes can work at the same time.
    pub fn send(&mut self, request: &Value) -> Result<(), CallError> {
        let mut line = request.to_string();
        line.push('\n');
        let sent = self.stdin.as_mut().map_or(Ok(()), |stdin| {
            stdin
                .write_all(line.as_bytes())
                .and_then(|()| stdin.flush())
        });
        // A process that is gone is told below, with how it ended.
        if let Err(error) = sent
            && error.kind() != ErrorKind::BrokenPipe
        {
            return Err(CallError::Broken(error.to_string()));
        }
        Ok(())
    }

    /// Waits at most `timeout_s` for the reply to what was sent; progress lines go to `progress`.
    pub fn receive(
        &mut self,
        timeout_s: f64,
        surroundings: Surroundings<'_>,
        progress: &mut dyn FnMut(&Value),
    ) -> Result<Value, CallError> {
        let start = (surroundings.clock)();
        loop {
            while let Some(reply) = self.next_line() {
                if let Some(result) = interpret(&reply, progress)? {
                    return result.map_err(CallError::Refused);
                }
            }
            if (surroundings.interrupted)() {
                return Err(CallError::Interrupted);
            }
            let waited = (surroundings.clock)() - start;
            if waited >= timeout_s {
                return Err(CallError::Late {
                    after_s: waited,
                    input: self.input(),
                    stderr: self.stderr_text(),
                });
            }
            let ended = self.exit_status();
            let stdout_open = self.read(LOOK_S.min(timeout_s - waited));
            if let Some(status) = ended.or_else(|| {
                (!stdout_open)
                    .then(|| self.end(LEAVE_S, surroundings))
                    .flatten()
            }) {
                // What it said before it ended still counts.
                while self.read(0.0) && self.readable() {}
                while let Some(reply) = self.next_line() {
                    if let Some(result) = interpret(&reply, progress)? {
                        return result.map_err(CallError::Refused);
                    }
                }
                return Err(CallError::Died {
                    how: describe(status),
                    exited: status.code().is_some(),
                    input: self.input(),
                    stderr: self.stderr_text(),
                });
            }
            if !stdout_open {
                return Err(CallError::Broken(
                    "it closed its output and went on running".to_owned(),
                ));
            }
        }
    }

    /// Asks the process to leave, without waiting, so that several can leave at the same time.
    pub fn dismiss(&mut self) {
        if let Some(mut stdin) = self.stdin.take() {
            let _ = stdin.write_all(b"{\"do\":\"quit\"}\n");
        }
    }

    /// Asks the process to leave and waits a little for it, so that its pools give back what they hold.
    pub fn leave(mut self, surroundings: Surroundings<'_>) {
        self.dismiss();
        self.end(LEAVE_S, surroundings);
    }

    /// The input that is being processed, if one is.
    fn input(&mut self) -> Option<u64> {
        let mut bytes = [0; 8];
        self.position.seek(SeekFrom::Start(0)).ok()?;
        self.position.read_exact(&mut bytes).ok()?;
        u64::from_le_bytes(bytes).checked_sub(1)
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        self.exited |= status.is_some();
        status
    }

    /// Waits up to `timeout_s` for the process to end, reading what it still says.
    fn end(&mut self, timeout_s: f64, surroundings: Surroundings<'_>) -> Option<ExitStatus> {
        let start = (surroundings.clock)();
        loop {
            if let Some(status) = self.exit_status() {
                return Some(status);
            }
            if (surroundings.clock)() - start >= timeout_s || (surroundings.interrupted)() {
                return None;
            }
            if !self.read(0.01) {
                // Both pipes are closed, so there is nothing to wait on but the end itself.
                let _ = poll(&mut [], Some(&timespec(0.005)));
            }
        }
    }

    fn readable(&self) -> bool {
        let mut descriptors = [PollFd::new(&self.stdout, PollFlags::IN)];
        matches!(poll(&mut descriptors, Some(&timespec(0.0))), Ok(ready) if ready > 0)
    }

    /// Waits up to `seconds` for output and takes it; false once standard output is closed.
    fn read(&mut self, seconds: f64) -> bool {
        let stdout = self.stdout.as_fd();
        let mut descriptors = vec![PollFd::from_borrowed_fd(stdout, PollFlags::IN)];
        if let Some(stderr) = &self.stderr {
            descriptors.push(PollFd::new(stderr, PollFlags::IN));
        }
        if poll(&mut descriptors, Some(&timespec(seconds))).is_err() {
            return true;
        }
        let ready: Vec<bool> = descriptors
            .iter()
            .map(|one| !one.revents().is_empty())
            .collect();
        let mut chunk = [0; 16384];
        if ready.get(1) == Some(&true)
            && let Some(stderr) = &mut self.stderr
        {
            match stderr.read(&mut chunk) {
                Ok(0) => self.stderr = None,
                Ok(count) => {
                    self.stderr_tail.extend_from_slice(&chunk[..count]);
                    let surplus = self.stderr_tail.len().saturating_sub(STDERR_TAIL);
                    self.stderr_tail.drain(..surplus);
                }
                Err(_) => {}
            }
        }
        if ready[0] {
            match self.stdout.read(&mut chunk) {
                Ok(0) => return false,
                Ok(count) => self.pending.extend_from_slice(&chunk[..count]),
                Err(error) => return error.kind() == ErrorKind::Interrupted,
            }
        }
        true
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.pending.iter().position(|byte| *byte == b'\n')?;
        let mut line: Vec<u8> = self.pending.drain(..=end).collect();
        line.pop();
        Some(line)
    }

    fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr_tail).trim().to_owned()
    }
}

impl Drop for Laboratory {
    fn drop(&mut self) {
        // Once it has been waited for, its number may belong to somebody else; the mark below finds what is left.
        if !self.exited
            && let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process_group(group, Signal::KILL);
            let _ = kill_process(group, Signal::KILL);
        }
        let _ = self.child.wait();
        // Descendants may start others while they are being killed: repeat until none is left. The bound is against
        // processes that cannot be killed (stuck in the kernel), which nothing here can help.
        let mark = format!("{MARK}={}", self.mark);
        for _ in 0..200 {
            let left = treadle_probe::process::with_environment(&mark);
            if left.is_empty() {
                break;
            }
            for process in left {
                if let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw) {
                    let _ = kill_process(process, Signal::KILL);
                }
            }
            let _ = poll(&mut [], Some(&timespec(0.005)));
        }
    }
}

/// Reads one line of the protocol; `None` for a progress line.
fn interpret(
    line: &[u8],
    progress: &mut dyn FnMut(&Value),
) -> Result<Option<Result<Value, Refusal>>, CallError> {
    let reply: Value = serde_json::from_slice(line).map_err(|error| {
        CallError::Broken(format!("{error} in `{}`", String::from_utf8_lossy(line)))
    })?;
    if let Some(what) = reply.get("progress") {
        progress(what);
        return Ok(None);
    }
    if let Some(ok) = reply.get("ok") {
        return Ok(Some(Ok(ok.clone())));
    }
    if let Some(error) = reply.get("error") {
        let refusal =
            Refusal::deserialize(error).map_err(|error| CallError::Broken(error.to_string()))?;
        return Ok(Some(Err(refusal)));
    }
    Err(CallError::Broken(format!(
        "neither ok nor error in `{}`",
        String::from_utf8_lossy(line)
    )))
}

fn describe(status: ExitStatus) -> String {
    const NAMES: [(i32, &str); 8] = [
        (4, "SIGILL"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL, perhaps for want of memory"),
        (11, "SIGSEGV"),
        (15, "SIGTERM"),
        (24, "SIGXCPU"),
    ];
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => NAMES
            .iter()
            .find(|(number, _)| *number == signal)
            .map_or_else(
                || format!("signal {signal}"),
                |(_, name)| format!("signal {signal} ({name})"),
            ),
        (None, None) => "an unknown end".to_owned(),
    }
}

fn timespec(seconds: f64) -> Timespec {
    let seconds = seconds.max(0.0);
    Timespec {
        tv_sec: seconds as i64,
        tv_nsec: (seconds.fract() * 1e9) as _,
    }
}

/// A word that no other process uses now: process id and boot-time nanoseconds.
fn unique() -> String {
    let nanoseconds = (treadle_probe::clock::monotonic() * 1e9) as u64;
    format!("{}-{nanoseconds:x}", std::process::id())
}

/// Sixteen bytes in memory that other processes open by a path, gone with us however we end.
#[cfg(target_os = "linux")]
fn position_file(_mark: &str) -> std::io::Result<(File, PathBuf)> {
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::os::fd::AsRawFd;

    let file = File::from(memfd_create("treadle-position", MemfdFlags::CLOEXEC)?);
    file.set_len(16)?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    Ok((file, PathBuf::from(path)))
}

/// Sixteen bytes in the temporary folder; the system clears it.
#[cfg(not(target_os = "linux"))]
fn position_file(mark: &str) -> std::io::Result<(File, PathBuf)> {
    let path = std::env::temp_dir().join(format!("treadle-position-{mark}"));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    file.set_len(16)?;
    Ok((file, path))
}
