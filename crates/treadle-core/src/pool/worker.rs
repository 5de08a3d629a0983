//! A worker's side of a process pool: takes tasks from the board, writes records into its ring.
//!
//! A process has one [`Holdings`]: the board and both arenas. Each of its threads that runs tasks has a [`WorkerSession`] over a lane of its
//! own. Where a loop runs the tasks, one lane has many hands, and two sessions: one takes (and sleeps), one answers.
//!
//! *Guarantees*: a record is written whole or not at all; what a chunk has brought is kept from item to item; what does not fit the ring goes through this worker's own arena, and what does not fit
//! that is an error that the caller turns into the task's exception.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use treadle_shm::{
    Arena, BlockRef, Board, Caller, Claimed, MOST_ITEMS, Mapped, PeerArena, Place, REFERENCE_BYTES,
    SLOT_PAYLOAD, ShmError, Waited, WorkerEnd, monotonic_nanoseconds,
};

use super::lock;
use super::wire::{self, BufferRef, Packet, WireError};

/// Records up to this many bytes stand in the ring; a larger one is copied into the arena, whose blocks a page fault does not hit twice.
const LARGEST_IN_RING: usize = 16 * 1024;

/// A task that this worker has taken.
#[derive(Debug)]
pub struct Taken {
    /// Its id.
    pub task: u64,
    /// The parent asked for its interruption before it was named in the journal: the signal for that may have come and been taken for
    /// another task's.
    pub interrupted: bool,
    /// What its body is, from [`wire`], without flags.
    pub kind: u32,
    /// Its function: number and the block that holds its pickle.
    pub function: Option<(u32, BlockRef)>,
    /// Its out-of-band buffers and whether each is read-only.
    pub buffers: Vec<(Mapped, bool)>,
    /// Whether the function must get copies of them.
    pub copy_buffers: bool,
    /// Whether the items of a chunk are one argument each.
    pub single_argument: bool,
    body_at: usize,
}

impl Taken {
    /// The body of this task in its payload.
    pub fn body_of<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        payload.get(self.body_at..).unwrap_or_default()
    }
}

/// What went wrong on the worker's side.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Shared memory could not be had or read.
    #[error(transparent)]
    Memory(#[from] ShmError),
    /// The parent's bytes make no sense.
    #[error("the task's bytes are damaged: {0}")]
    Wire(#[from] WireError),
}

impl WorkerError {
    /// Whether memory or address space ran out.
    pub fn is_exhaustion(&self) -> bool {
        matches!(
            self,
            WorkerError::Memory(
                ShmError::Map { .. }
                    | ShmError::Memory { .. }
                    | ShmError::Grow { .. }
                    | ShmError::Full { .. }
            )
        )
    }
}

/// What the process of a worker holds of its pool, for all its threads.
#[derive(Debug)]
pub struct Holdings {
    board: Arc<Board>,
    parent: PeerArena,
    mine: Mutex<Arena>,
}

impl Holdings {
    /// Opens the board and both arenas.
    ///
    /// # Errors
    /// When a descriptor is not what the parent made.
    pub fn open(
        board: OwnedFd,
        parent: OwnedFd,
        mine: OwnedFd,
        arena_limit: u64,
    ) -> Result<Arc<Holdings>, WorkerError> {
        Ok(Arc::new(Holdings {
            board: Arc::new(Board::open(board)?),
            parent: PeerArena::open(parent)?,
            mine: Mutex::new(Arena::adopt(mine, arena_limit)?),
        }))
    }

    /// The bytes of a block of the parent: a function's pickle, the initializer.
    ///
    /// # Errors
    /// When the block is outside the parent's arena.
    pub fn read_block(&self, block: BlockRef) -> Result<Vec<u8>, WorkerError> {
        Ok(self.parent.view(block)?.copy_to_vec()?)
    }

    /// A block of the parent that every worker may read and none gives back.
    ///
    /// # Errors
    /// When the block is outside the parent's arena.
    pub fn view_block(&self, block: BlockRef) -> Result<Mapped, WorkerError> {
        Ok(self.parent.view(block)?)
    }

    fn arena(&self) -> MutexGuard<'_, Arena> {
        lock(&self.mine)
    }
}

/// One lane of the pool, as its worker uses it.
pub struct WorkerSession {
    end: WorkerEnd,
    holdings: Arc<Holdings>,
    slot: [u8; SLOT_PAYLOAD],
    head: Vec<u8>,
    value: Vec<u8>,
}

impl WorkerSession {
    /// Takes up a lane.
    ///
    /// # Panics
    /// When the board has no such lane.
    pub fn new(holdings: Arc<Holdings>, lane: u32) -> WorkerSession {
        WorkerSession {
            end: WorkerEnd::new(holdings.board.clone(), lane),
            holdings,
            slot: [0; SLOT_PAYLOAD],
            head: Vec::new(),
            value: Vec::new(),
        }
    }

    /// What the process holds of its pool.
    pub fn holdings(&self) -> &Arc<Holdings> {
        &self.holdings
    }

    /// Takes a task if one is waiting; `payload` then holds its payload.
    ///
    /// # Errors
    /// The task's id and what is wrong with its bytes.
    pub fn take(&mut self, payload: &mut Vec<u8>) -> Option<Result<Taken, (u64, WorkerError)>> {
        let claimed = self.end.claim(&mut self.slot)?;
        let called_for = self.end.interrupt_requested();
        Some(
            self.unpack(&claimed, called_for, payload)
                .map_err(|error| (claimed.task, error)),
        )
    }

    /// The same into one of several hands, which must be empty.
    ///
    /// # Errors
    /// As [`WorkerSession::take`].
    pub fn take_in(
        &mut self,
        hand: u32,
        payload: &mut Vec<u8>,
    ) -> Option<Result<Taken, (u64, WorkerError)>> {
        let claimed = self.end.claim_in(hand, &mut self.slot)?;
        let called_for = self.end.interrupt_requested_in(hand);
        Some(
            self.unpack(&claimed, called_for, payload)
                .map_err(|error| (claimed.task, error)),
        )
    }

    fn unpack(
        &self,
        claimed: &Claimed,
        called_for: u64,
        payload: &mut Vec<u8>,
    ) -> Result<Taken, WorkerError> {
        let Claimed { task, kind, len } = *claimed;
        let inline = self
            .slot
            .get(..len)
            .ok_or(WireError("a payload longer than its slot"))?;
        let copy_buffers = kind & wire::COPY_BUFFERS != 0;
        // What may be needed again is looked at only: its owner takes it back itself.
        let parent = &self.holdings.parent;
        let map = |block| {
            if copy_buffers {
                parent.view(block)
            } else {
                parent.map(block)
            }
        };
        payload.clear();
        if kind & wire::IN_ARENA != 0 {
            let whole = map(wire::read_reference(inline)?)?;
            if payload.capacity() < whole.len() {
                *payload = whole.copy_to_vec()?;
            } else {
                payload.resize(whole.len(), 0);
                whole.read_at(0, payload);
            }
        } else {
            payload.extend_from_slice(inline);
        }
        let mut rest: &[u8] = payload;
        let mut function = None;
        if kind & wire::HAS_FUNCTION != 0 {
            let (id, block, after) = wire::read_function(rest)?;
            function = Some((id, block));
            rest = after;
        }
        let packet = Packet::read(rest)?;
        let mut buffers = Vec::with_capacity(packet.buffers().len());
        for buffer in packet.buffers() {
            buffers.push((map(buffer.block)?, buffer.read_only));
        }
        let body_at = payload.len() - packet.body.len();
        Ok(Taken {
            task,
            interrupted: called_for == task,
            kind: kind & wire::BODY,
            function,
            buffers,
            copy_buffers,
            single_argument: kind & wire::SINGLE_ARGUMENT != 0,
            body_at,
        })
    }

    /// Sleeps until there may be a task.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Waited {
        self.end.wait_for_task(timeout)
    }

    /// What other threads of this process call the sleeping worker by.
    pub fn caller(&self) -> Caller {
        self.end.caller()
    }

    /// Whether the parent asked this worker to leave.
    pub fn stop_requested(&self) -> bool {
        self.end.stop_requested()
    }

    /// The task that the parent wants interrupted; 0 for none.
    pub fn interrupt_requested(&self) -> u64 {
        self.end.interrupt_requested()
    }

    /// The task in hand; 0 for none.
    pub fn current(&self) -> u64 {
        self.end.current()
    }

    /// How many tasks this lane's worker may have in hand.
    pub fn hands(&self) -> u32 {
        self.end.hands()
    }

    /// One of this lane's hands, for threads that do not have this session.
    pub fn place(&self, hand: u32) -> Place {
        self.end.place(hand)
    }

    /// Has another worker woken if tasks are waiting: this one does not come to them.
    pub fn pass_on(&self) {
        self.end.pass_on();
    }

    /// Ends a task with a record.
    ///
    /// # Errors
    /// When the arena has no room; nothing was written then, and the task is still in hand.
    pub fn reply(
        &mut self,
        task: u64,
        kind: u32,
        body: &[u8],
        buffers: &[(&[u8], bool)],
    ) -> Result<(), WorkerError> {
        self.reply_from(0, task, kind, body, buffers)
    }

    /// The same for the task in one of several hands.
    ///
    /// # Errors
    /// As [`WorkerSession::reply`].
    pub fn reply_from(
        &mut self,
        hand: u32,
        task: u64,
        kind: u32,
        body: &[u8],
        buffers: &[(&[u8], bool)],
    ) -> Result<(), WorkerError> {
        let references = self.lay_out(buffers)?;
        self.write(task, kind, [body, b""], &references, Some(hand))
    }

    /// Tells the parent of an event, which ends no task; it names the one in hand, if there is one. What is longer than a ring bears is cut.
    ///
    /// # Errors
    /// As [`WorkerSession::reply`].
    pub fn post(&mut self, kind: u32, body: &[u8]) -> Result<(), WorkerError> {
        self.post_for(self.end.current(), kind, body)
    }

    /// The same of an event that belongs to this task, or to none (0).
    ///
    /// # Errors
    /// As [`WorkerSession::reply`].
    pub fn post_for(&mut self, task: u64, kind: u32, body: &[u8]) -> Result<(), WorkerError> {
        let body = &body[..body.len().min(LARGEST_IN_RING.min(self.end.max_record()))];
        self.write(task, kind, [body, b""], &[], None)
    }

    /// Starts a chunk of so many items. A chunk has [`MOST_ITEMS`] at most, which the parent sees to.
    pub fn begin_chunk(&mut self, task: u64, items: usize) {
        let items = u32::try_from(items).unwrap_or(MOST_ITEMS).min(MOST_ITEMS);
        self.end.begin_chunk(task, items);
    }

    /// Takes the chunk's next item; false when none is left, or the parent gave the rest to others.
    pub fn next_item(&self) -> bool {
        self.end.next_item()
    }

    /// Keeps a finished item's result where it outlives this worker, and takes the next item; false as in [`WorkerSession::next_item`].
    /// `encode` writes the result, given the index of its first buffer; it may be called twice.
    ///
    /// # Errors
    /// When the arena has no room; the result is not kept then, and those before it are.
    pub fn keep(
        &mut self,
        task: u64,
        encode: &mut dyn FnMut(usize, &mut Vec<u8>),
        buffers: &[(&[u8], bool)],
    ) -> Result<bool, WorkerError> {
        let references = self.lay_out(buffers)?;
        let mut value = std::mem::take(&mut self.value);
        let mut fits = false;
        for _ in 0..2 {
            value.clear();
            encode(self.end.draft_references(), &mut value);
            fits = self.end.draft(&value, &references);
            if fits {
                break;
            }
            self.commit_part(task)?;
        }
        let written = if fits {
            Ok(())
        } else {
            // Larger than any draft: a part of its own.
            let written = self.write(task, wire::VALUES_PART, [&value, b""], &references, None);
            if written.is_ok() {
                self.end.next_part();
            }
            written
        };
        self.value = value;
        written.map(|()| self.end.next_item())
    }

    /// Commits what the chunk has brought so far.
    ///
    /// # Errors
    /// As [`WorkerSession::reply`].
    pub fn commit_part(&mut self, task: u64) -> Result<(), WorkerError> {
        let draft = self.end.read_draft();
        self.write(
            task,
            wire::VALUES_PART,
            [&draft.body, b""],
            &draft.references,
            None,
        )?;
        self.end.next_part();
        Ok(())
    }

    /// Ends a chunk: its record is `head` and what was not committed before. Leaves the items that were not taken.
    ///
    /// # Errors
    /// As [`WorkerSession::reply`].
    pub fn end_chunk(&mut self, task: u64, head: &[u8]) -> Result<(), WorkerError> {
        self.end.end_items();
        let draft = self.end.read_draft();
        self.write(
            task,
            wire::VALUES,
            [head, &draft.body],
            &draft.references,
            Some(0),
        )
    }

    /// Ends a chunk at an item that raised.
    ///
    /// # Errors
    /// As [`WorkerSession::reply`].
    pub fn cut_chunk(&mut self, task: u64) -> Result<(), WorkerError> {
        self.end.end_items();
        self.commit_part(task)
    }

    /// Copies buffers into blocks of this worker's arena.
    fn lay_out(
        &mut self,
        buffers: &[(&[u8], bool)],
    ) -> Result<Vec<[u8; REFERENCE_BYTES]>, WorkerError> {
        if buffers.is_empty() {
            return Ok(Vec::new());
        }
        let mut references: Vec<BufferRef> = Vec::with_capacity(buffers.len());
        let mut mine = self.holdings.arena();
        mine.collect();
        for (bytes, read_only) in buffers {
            match mine.allocate_copy(bytes) {
                Ok(mut block) => {
                    block.write_at(0, bytes);
                    references.push(BufferRef {
                        block: block.reference(),
                        read_only: *read_only,
                    });
                }
                Err(error) => {
                    for reference in references {
                        mine.free(reference.block);
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(references.into_iter().map(BufferRef::to_bytes).collect())
    }

    fn write(
        &mut self,
        task: u64,
        mut kind: u32,
        body: [&[u8]; 2],
        references: &[[u8; REFERENCE_BYTES]],
        ends: Option<u32>,
    ) -> Result<(), WorkerError> {
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        // Events are read as plain bytes.
        if kind < wire::READY {
            wire::write_buffers(&mut head, references);
        }
        let times = ends.map(|hand| {
            wire::Times {
                started_ns: self.end.started_in(hand),
                ended_ns: monotonic_nanoseconds(),
            }
            .to_bytes()
        });
        let times = times.as_ref().map_or(&[][..], |times| times.as_slice());
        let all = [times, head.as_slice(), body[0], body[1]];
        let length = all.iter().map(|part| part.len()).sum::<usize>();
        let mut parts = all.as_slice();
        let whole;
        let reference;
        if length > LARGEST_IN_RING.min(self.end.max_record()) {
            let mut mine = self.holdings.arena();
            mine.collect();
            match mine.allocate(length - times.len()) {
                Ok(mut block) => {
                    let mut offset = 0;
                    for part in &all[1..] {
                        block.write_at(offset, part);
                        offset += part.len();
                    }
                    whole = block.reference().to_bytes();
                    kind |= wire::IN_ARENA;
                }
                Err(error) => {
                    for reference in references {
                        mine.free(wire::block_of(reference));
                    }
                    self.head = head;
                    return Err(error.into());
                }
            }
            reference = [times, whole.as_slice()];
            parts = &reference;
        }
        loop {
            let written = match ends {
                Some(0) => self.end.commit(task, kind, parts),
                Some(hand) => self.end.commit_from(hand, task, kind, parts),
                None => self.end.post(task, kind, parts),
            };
            if written.is_ok() {
                break;
            }
            self.end
                .wait_for_room(parts.iter().map(|part| part.len()).sum(), None);
        }
        self.head = head;
        Ok(())
    }
}
