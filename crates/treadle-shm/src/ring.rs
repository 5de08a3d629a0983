//! The result ring of one worker: a single-producer, single-consumer sequence of records over shared words.
//!
//! A record is `task`, `length | kind`, then its bytes padded to eight; it may wrap anywhere. Head and tail count
//! bytes and never wrap.
//!
//! *Guarantees*: a record exists from the store of the tail on (the commit point) and not before; the reader touches
//! nothing outside the ring and hands out private copies, whatever the writer does.
//! *Assumes*: one writer (the worker) and one reader (the parent, serialised).
#![allow(unreachable_pub)] // the loom tests, an outside crate, reach these

use crate::error::{RingFull, ShmError};
use crate::fault::point;
use crate::sync::{AtomicU64, Ordering};

/// Bytes before a record's own bytes.
const RECORD_HEADER: u64 = 16;

/// One record as it was committed; the bytes are the reader's private copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The task the record belongs to.
    pub task: u64,
    /// What the bytes are, as the worker said.
    pub kind: u32,
    /// The record's bytes.
    pub bytes: &'a [u8],
}

/// The ring's shared words, wherever they lie.
#[derive(Clone, Copy, Debug)]
pub struct RingView<'a> {
    /// The storage; a power of two of words.
    pub words: &'a [AtomicU64],
    /// Bytes ever committed; written by the worker.
    pub tail: &'a AtomicU64,
    /// Bytes ever read; written by the parent.
    pub head: &'a AtomicU64,
}

impl RingView<'_> {
    /// Bytes the ring holds.
    pub fn capacity(&self) -> u64 {
        self.words.len() as u64 * 8
    }

    fn word(&self, position: u64) -> &AtomicU64 {
        &self.words[(position / 8) as usize & (self.words.len() - 1)]
    }
}

/// Bytes a record of `len` bytes takes in a ring.
pub fn record_size(len: usize) -> u64 {
    RECORD_HEADER + (len as u64).next_multiple_of(8)
}

/// The largest record a ring of `capacity` bytes takes: half of it, so that one slow reader never blocks it alone.
pub fn max_record(capacity: u64) -> usize {
    (capacity / 2 - RECORD_HEADER) as usize
}

/// The writer's private side.
#[derive(Debug)]
pub struct RingWriter {
    tail: u64,
    head_seen: u64,
}

impl RingWriter {
    /// Takes up the ring where it stands.
    pub fn new(ring: RingView<'_>) -> RingWriter {
        RingWriter { tail: ring.tail.load(Ordering::Acquire), head_seen: ring.head.load(Ordering::Acquire) }
    }

    /// Bytes free, looking at the reader's head only when the remembered one leaves less than `enough`.
    pub fn room(&mut self, ring: RingView<'_>, enough: u64) -> u64 {
        let mut room = ring.capacity().saturating_sub(self.tail.wrapping_sub(self.head_seen));
        if room < enough {
            // [ring-read] Acquire: the reader's loads of the freed words are over.
            self.head_seen = ring.head.load(Ordering::Acquire);
            room = ring.capacity().saturating_sub(self.tail.wrapping_sub(self.head_seen));
        }
        room
    }

    /// Whether more than half of the ring waits to be read, as last seen.
    pub fn over_half(&self, ring: RingView<'_>) -> bool {
        self.tail.wrapping_sub(self.head_seen) > ring.capacity() / 2
    }

    /// Writes one record and commits it.
    pub fn push(
        &mut self,
        ring: RingView<'_>,
        task: u64,
        kind: u32,
        parts: &[&[u8]],
    ) -> Result<(), RingFull> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let size = record_size(len);
        let room = self.room(ring, size);
        if size > room || len > max_record(ring.capacity()) {
            return Err(RingFull { needed: size as usize, room: room as usize });
        }
        point("before-record");
        ring.word(self.tail).store(task, Ordering::Relaxed);
        point("mid-record");
        ring.word(self.tail + 8).store(len as u64 | (u64::from(kind) << 32), Ordering::Relaxed);
        let mut sink = WordSink { ring, position: self.tail + RECORD_HEADER, pending: [0; 8], filled: 0 };
        parts.iter().for_each(|part| sink.write(part));
        sink.finish();
        point("before-tail");
        self.tail += size;
        // [ring-commit] Release, the commit point: the record's words come before it.
        ring.tail.store(self.tail, Ordering::Release);
        point("after-tail");
        Ok(())
    }
}

/// Gathers bytes into the ring's words.
struct WordSink<'a> {
    ring: RingView<'a>,
    position: u64,
    pending: [u8; 8],
    filled: usize,
}

impl WordSink<'_> {
    fn put(&mut self, word: [u8; 8]) {
        self.ring.word(self.position).store(u64::from_ne_bytes(word), Ordering::Relaxed);
        self.position += 8;
    }

    fn write(&mut self, mut bytes: &[u8]) {
        if self.filled > 0 {
            let taken = bytes.len().min(8 - self.filled);
            self.pending[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < 8 {
                return;
            }
            self.put(self.pending);
        }
        let mut chunks = bytes.chunks_exact(8);
        for chunk in chunks.by_ref() {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.put(word);
        }
        self.filled = chunks.remainder().len();
        self.pending = [0; 8];
        self.pending[..self.filled].copy_from_slice(chunks.remainder());
    }

    fn finish(mut self) {
        if self.filled > 0 {
            self.put(self.pending);
        }
    }
}

/// Reads every committed record from the private position `place` on, hands each to `each`, and frees their room.
///
/// `place` is the reader's own memory: the shared head could be overwritten by the other side. `scratch` is where records are copied to; it is kept by the caller so that its memory stays warm.
/// Returns the number of records. On `Corrupt` nothing more can be read from this ring.
pub fn read(
    ring: RingView<'_>,
    place: &AtomicU64,
    scratch: &mut Vec<u8>,
    each: &mut dyn FnMut(Record<'_>),
) -> Result<usize, ShmError> {
    let mut head = place.load(Ordering::Relaxed);
    // [ring-commit] Acquire: every record below this tail is whole.
    let tail = ring.tail.load(Ordering::Acquire);
    let waiting = tail.wrapping_sub(head);
    if waiting == 0 {
        return Ok(0);
    }
    if waiting > ring.capacity() || !waiting.is_multiple_of(8) {
        return Err(ShmError::Corrupt(format!("a result ring of {} bytes claims {waiting}", ring.capacity())));
    }
    let mut count = 0;
    while head != tail {
        let left = tail.wrapping_sub(head);
        let task = ring.word(head).load(Ordering::Relaxed);
        let measure = ring.word(head.wrapping_add(8)).load(Ordering::Relaxed);
        let len = (measure & 0xffff_ffff) as usize;
        let size = record_size(len);
        if size > left || len > max_record(ring.capacity()) {
            return Err(ShmError::Corrupt(format!("a record says {len} bytes where at most {left} can be")));
        }
        scratch.clear();
        let mut position = head.wrapping_add(RECORD_HEADER);
        let mut missing = len;
        scratch.reserve(len.next_multiple_of(8));
        while missing > 0 {
            scratch.extend_from_slice(&ring.word(position).load(Ordering::Relaxed).to_ne_bytes());
            position = position.wrapping_add(8);
            missing = missing.saturating_sub(8);
        }
        scratch.truncate(len);
        head = head.wrapping_add(size);
        place.store(head, Ordering::Relaxed);
        count += 1;
        // [ring-read] Release: our loads come before the writer's next stores there. After every record, and before
        // `each` runs, so that a panic in it neither repeats nor loses one.
        ring.head.store(head, Ordering::Release);
        each(Record { task, kind: (measure >> 32) as u32, bytes: scratch });
    }
    Ok(count)
}
