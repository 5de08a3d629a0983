//! Into the pool: a call becomes a payload, a payload a task, a task a slot.

use std::cell::{Cell as Local, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use treadle_shm::{BlockRef, SLOT_PAYLOAD, ShmError};

use super::cell::Cell;
use super::lock;
use super::outcome::{Bytes, Outcome};
use super::processes::{Call, Life, ProcessPool, State, SubmitError};
use super::supervisor::Order;
use super::tasks::{Held, Task, TaskId, TaskOptions};
use super::transfer::Outgoing;
use super::wire::{self, BufferRef};

thread_local! {
    /// Where a thread puts its payloads together.
    static PAYLOAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Nanoseconds for which the call that this thread submits has waited for room.
    static WAITED: Local<u64> = const { Local::new(0) };
}

impl ProcessPool {
    /// Enters a pickled function into the table; tasks then name it by the returned number and block.
    ///
    /// # Errors
    /// When the arena has no room for it.
    pub fn add_function(&self, pickle: &[u8], label: &str) -> Result<(u32, BlockRef), SubmitError> {
        if !self.is_mine() {
            return Err(SubmitError::Forked);
        }
        let id = lock(&self.state).labels.add(label);
        let mut block = lock(&self.arena).allocate(pickle.len())?;
        block.write_at(0, pickle);
        Ok((id, block.reference()))
    }

    /// The number of the name of a function that travels with its calls.
    pub fn label(&self, name: &str) -> u32 {
        if !self.is_mine() {
            return u32::MAX;
        }
        lock(&self.state).labels.number_of(name)
    }

    /// Puts bytes into the parent's arena for every worker to read, until the pool is dropped.
    ///
    /// # Errors
    /// When the arena has no room for them.
    pub fn share(&self, bytes: &[u8]) -> Result<BlockRef, SubmitError> {
        Ok(self.allocate(&[bytes], true)?.block)
    }

    /// The instant at which a call's pickling begins, for [`Call::began_ns`]; `None` when nothing is counted.
    pub fn begin_call(&self) -> Option<u64> {
        self.settings.metered.then(|| {
            WAITED.set(0);
            treadle_shm::monotonic_nanoseconds()
        })
    }

    /// Submits one call. Sleeps while the pool's limits on pending tasks or payload bytes are reached, if the call says so.
    ///
    /// # Errors
    /// See [`SubmitError`]. [`SubmitError::Interrupted`] means that a signal came while it waited: look at it and call again.
    pub fn submit(&self, call: &Call<'_>) -> Result<(TaskId, Arc<Cell<Outcome>>), SubmitError> {
        if !self.is_mine() {
            return Err(SubmitError::Forked);
        }
        if let Some(limit) = self.settings.max_pending {
            let room = || self.unfinished.load(Ordering::SeqCst) < limit.max(1);
            if call.wait {
                self.wait_for_room(room)?;
            } else if !room() {
                // What has ended and was not read yet counts no more.
                self.drain();
                if !room() {
                    return Err(SubmitError::Full);
                }
            }
        }
        PAYLOAD.with_borrow_mut(|payload| {
            let mut blocks = Vec::new();
            match self.place(call, payload, &mut blocks) {
                Ok(kind) => {
                    let outgoing = Outgoing {
                        in_band: call.body.len(),
                        out_of_band: call.buffers.iter().map(|(bytes, _)| bytes.len()).sum(),
                        began_ns: call.began_ns,
                    };
                    self.enter((kind, payload), blocks, call.label, call.options, outgoing)
                }
                Err(error) => {
                    self.give_back(&blocks);
                    Err(error)
                }
            }
        })
    }

    pub(super) fn enter(
        &self,
        (kind, payload): (u32, &[u8]),
        blocks: Vec<Held>,
        label: u32,
        options: TaskOptions,
        outgoing: Outgoing,
    ) -> Result<(TaskId, Arc<Cell<Outcome>>), SubmitError> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        let refusal = match (&state.broken, &state.life) {
            (Some(reason), _) => Some(SubmitError::Broken(reason.clone())),
            (None, Life::Open) => {
                let room = state.tasks.make_room().and(state.backlog.try_reserve(1));
                room.is_err().then_some(SubmitError::NoMemory)
            }
            (None, _) => Some(SubmitError::ShutDown),
        };
        if let Some(refusal) = refusal {
            drop(guard);
            self.give_back(&blocks);
            return Err(refusal);
        }
        let cell: Arc<Cell<Outcome>> = Arc::default();
        let submitted_ns = if self.settings.metered {
            treadle_shm::monotonic_nanoseconds()
        } else {
            0
        };
        let task = Task {
            cell: cell.clone(),
            kind,
            submitted_ns,
            payload: Bytes::default(),
            blocks,
            position: None,
            options,
            retries_left: options.retries,
            deaths: 0,
            number: state.counts.submitted + 1,
            label,
            parts: Vec::new(),
        };
        let mut look = false;
        if let Some(timeout) = options.timeout {
            state.timed += 1;
            if timeout < state.shortest_timeout || state.timed == 1 {
                state.shortest_timeout = state.shortest_timeout.min(timeout);
                look = true;
            }
        }
        state.counts.submitted += 1;
        if self.settings.metered {
            let took = |began| {
                submitted_ns
                    .saturating_sub(began)
                    .saturating_sub(WAITED.get())
            };
            state.arguments.add(
                outgoing.in_band,
                outgoing.out_of_band,
                outgoing.began_ns.map(took),
            );
        }
        self.unfinished.fetch_add(1, Ordering::SeqCst);
        let id = state.tasks.insert(task);
        let position = if state.backlog.is_empty() {
            state.publisher.publish(id, kind, payload)
        } else {
            None
        };
        let published = position.is_some();
        let first_waiting = !published && state.backlog.is_empty();
        if !published {
            state.backlog.push_back(id);
        }
        if let Some(task) = state.tasks.get(id) {
            task.position = position;
            // A payload is kept only where it may be needed again.
            if !published || options.retries > 0 {
                task.payload = Bytes::copy_of(payload);
            }
        }
        let start = !std::mem::replace(&mut state.started, true);
        drop(guard);
        if start {
            for worker in 0..self.places.workers() {
                self.start_worker(worker);
            }
        } else if published {
            self.board.wake_for_work();
        }
        if first_waiting || self.collector_sleeps.load(Ordering::SeqCst) {
            self.wake_collector();
        }
        if look {
            self.supervisor.order(Order::Look);
        }
        Ok((id, cell))
    }

    /// Writes what stands in the slot: the payload itself when it fits, else the reference of the block that holds it. Returns the kind.
    pub(super) fn place(
        &self,
        call: &Call<'_>,
        payload: &mut Vec<u8>,
        blocks: &mut Vec<Held>,
    ) -> Result<u32, SubmitError> {
        let mut kind = call.kind;
        let mut buffers = Vec::with_capacity(call.buffers.len());
        for (bytes, read_only) in call.buffers {
            let held = self.allocate(&[bytes], call.wait)?;
            blocks.push(held);
            buffers.push(
                BufferRef {
                    block: held.block,
                    read_only: *read_only,
                }
                .to_bytes(),
            );
        }
        payload.clear();
        if let Some((id, block)) = call.function {
            kind |= wire::HAS_FUNCTION;
            wire::write_function(payload, id, block);
        }
        wire::write_buffers(payload, &buffers);
        if call.options.retries > 0 {
            kind |= wire::COPY_BUFFERS;
        }
        if payload.len() + call.body.len() <= SLOT_PAYLOAD {
            payload.extend_from_slice(call.body);
            return Ok(kind);
        }
        let held = self.allocate(&[payload, call.body], call.wait)?;
        blocks.push(held);
        payload.clear();
        payload.extend_from_slice(&held.block.to_bytes());
        Ok(kind | wire::IN_ARENA)
    }

    /// Takes a block of the parent's arena and fills it; waits for room, if asked to, when tasks in flight hold it.
    pub(super) fn allocate(&self, parts: &[&[u8]], wait: bool) -> Result<Held, SubmitError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        loop {
            let taken = match parts {
                [whole] => lock(&self.arena).allocate_copy(whole),
                _ => lock(&self.arena).allocate(length),
            };
            match taken {
                Ok(mut block) => {
                    let mut offset = 0;
                    for part in parts {
                        block.write_at(offset, part);
                        offset += part.len();
                    }
                    return Ok(Held {
                        block: block.reference(),
                        serial: block.serial(),
                    });
                }
                Err(ShmError::Full { .. }) => {
                    if length as u64 > self.settings.arena_limit {
                        return Err(SubmitError::TooLarge {
                            bytes: length as u64,
                            limit: self.settings.arena_limit,
                        });
                    }
                    let before = self.unfinished.load(Ordering::SeqCst);
                    if before == 0 {
                        // Nothing in flight will give memory back: only views that workers keep hold it.
                        return Err(SubmitError::TooLarge {
                            bytes: length as u64,
                            limit: self.settings.arena_limit,
                        });
                    }
                    if !wait {
                        return Err(SubmitError::Full);
                    }
                    self.wait_for_room(|| self.unfinished.load(Ordering::SeqCst) < before)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits, and notes for how long: that is no part of a payload's way.
    fn wait_for_room(&self, holds: impl Fn() -> bool) -> Result<(), SubmitError> {
        if holds() {
            return Ok(());
        }
        let began = treadle_shm::monotonic_nanoseconds();
        let waited = self.wait_until(holds);
        let took = treadle_shm::monotonic_nanoseconds().saturating_sub(began);
        WAITED.set(WAITED.get().saturating_add(took));
        waited
    }

    pub(super) fn give_back(&self, blocks: &[Held]) {
        if !blocks.is_empty() {
            let mut arena = lock(&self.arena);
            for block in blocks {
                arena.free_serial(block.block, block.serial);
            }
        }
    }
}

/// Publishes a task of the table; false when the queue is full.
fn publish(state: &mut State, id: TaskId) -> bool {
    let Some(task) = state.tasks.get(id) else {
        return true;
    };
    task.position = state
        .publisher
        .publish(id, task.kind, task.payload.as_slice());
    task.position.is_some()
}

/// Moves tasks from the backlog into free slots.
pub(super) fn refill(state: &mut State) -> bool {
    let mut any = false;
    while state.publisher.has_room()
        && let Some(id) = state.backlog.pop_front()
    {
        if !publish(state, id) {
            state.backlog.push_front(id);
            break;
        }
        any = true;
    }
    any
}
