//! What can go wrong with shared memory, each with what to do next.

use std::io;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShmError {
    /// The operating system refused a new shared-memory file.
    #[error(
        "cannot create {what} of {bytes} bytes in shared memory: {source}\n\n\
         hint: check the memory limit of the container, `ulimit -n` and `ulimit -f`, or use fewer workers"
    )]
    Create {
        /// What was to be created.
        what: &'static str,
        /// Its size in bytes.
        bytes: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// A shared-memory file could not be mapped or its pages could not be had.
    #[error(
        "cannot map {bytes} bytes of {what}: {source}\n\n\
         hint: address space or memory ran out; check `ulimit -v` and the memory limit of the container"
    )]
    Map {
        /// What was to be mapped.
        what: &'static str,
        /// The bytes asked for.
        bytes: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// A shared-memory file could not be made larger.
    #[error(
        "cannot grow {what} by {bytes} bytes: {source}\n\n\
         hint: shared memory ran out; check the memory limit of the container, `ulimit -f` and the size of /dev/shm, \
         or send fewer big payloads at once"
    )]
    Grow {
        /// What was to grow.
        what: &'static str,
        /// The bytes asked for.
        bytes: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// This process has no memory for a copy.
    #[error(
        "no memory is left for a copy of {bytes} bytes\n\n\
         hint: check `ulimit -v` and the memory limit of the container, or send fewer big payloads at once"
    )]
    Memory {
        /// The bytes asked for.
        bytes: u64,
    },
    /// The file was laid out by another version, or is no segment of ours.
    #[error(
        "this shared-memory file is not a segment of layout {expected}: {found}\n\n\
         hint: parent and workers must run the same build of treadle"
    )]
    Layout {
        /// The layout version of this build.
        expected: u32,
        /// What stands in the file instead.
        found: String,
    },
    /// The requested sizes cannot be laid out.
    #[error("a board of this shape cannot be made: {0}")]
    Shape(String),
    /// Shared memory holds a number that the protocol cannot have written.
    #[error(
        "shared memory is damaged: {0}\n\n\
         hint: native code in a worker wrote where it should not; that worker must be replaced"
    )]
    Corrupt(String),
    /// An arena reached its limit.
    #[error(
        "the arena is full: {wanted} bytes wanted, {outstanding} of {limit} bytes in use\n\n\
         hint: keep fewer big results alive, submit fewer big payloads at once, or raise the limit"
    )]
    Full {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes in blocks not yet released.
        outstanding: u64,
        /// The arena's limit in bytes.
        limit: u64,
    },
}

/// The record does not fit into the result ring now.
///
/// When `needed` is above [`WorkerEnd::max_record`](crate::WorkerEnd::max_record) it never will: use an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the result ring has {room} bytes of room, the record needs {needed}")]
pub struct RingFull {
    /// Bytes the record takes in the ring.
    pub needed: usize,
    /// Bytes free in the ring as last seen.
    pub room: usize,
}
