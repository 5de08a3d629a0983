//! Bytes shared between the processes of one pool: task slots, result rings, arenas, doorbells, recovery.
//!
//! *Guarantees*: no lock lives in shared memory; every shared word has one writer, or changes only by a
//! compare-and-swap that names its owner; a process killed at any instruction leaves its task named in a slot, in
//! its lane or in a committed record, and [`Board::recover`] finds it; every number read from shared memory is
//! checked before it is used.
//!
//! *Assumes*: a dead worker is recovered by the parent after its death was observed (a pidfd) and after its ring was
//! drained; one process plays the parent.
//!
//! The protocol, its states, feared races and kill points are told in this crate's `README.md`.
//! The engine is for Linux; elsewhere only the error types exist.

pub mod error;
#[cfg(target_os = "linux")]
pub mod fault;

/// Declares the modules of the protocol, which loom also runs, and those that need a real segment.
macro_rules! modules {
    (protocol: $($protocol:ident),*; engine: $($engine:ident),*) => {
        $(
            #[cfg(all(target_os = "linux", loom))]
            pub mod $protocol;
            #[cfg(all(target_os = "linux", not(loom)))]
            mod $protocol;
        )*
        $(
            #[cfg(all(target_os = "linux", not(loom)))]
            mod $engine;
        )*
    };
}
modules! {
    protocol: park, recover, ring, slots, span, sync;
    engine: arena, block, board, clock, copy, draft, extents, layout, pace, peer, publisher, reader, segment, thread, worker
}

pub use error::{RingFull, ShmError};
#[cfg(all(target_os = "linux", not(loom)))]
pub use {
    arena::Arena,
    block::{Block, BlockRef},
    board::{Board, Ticket, Woken},
    clock::{monotonic_nanoseconds, page_bytes},
    draft::{Draft, REFERENCE_BYTES},
    layout::{MAX_HANDS, MAX_WORKERS, Shape},
    peer::{Mapped, PeerArena},
    publisher::Publisher,
    reader::RingReader,
    recover::Recovered,
    ring::Record,
    segment::check_address_space,
    slots::{Claimed, SLOT_PAYLOAD},
    span::MOST_ITEMS,
    thread::{Parking, signal_process, spawn_quiet, spawn_quiet_sized},
    worker::{Caller, Place, Waited, WorkerEnd},
};
