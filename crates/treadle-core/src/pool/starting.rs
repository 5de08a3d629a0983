//! Starting workers: what each of them is handed.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use treadle_shm::{Arena, PeerArena};

use super::lock;
use super::processes::{ProcessPool, Seat, SubmitError};
use super::supervisor::{Order, SpawnRequest};

/// Numbers every start of a worker, in all pools of this process: the supervisor knows workers by it.
static NEXT_TAG: AtomicU64 = AtomicU64::new(1);

impl ProcessPool {
    /// Starts a worker in this place.
    pub(super) fn start_worker(&self, worker: u32) {
        let tag = NEXT_TAG.fetch_add(1, Ordering::Relaxed);
        match self.spawn_request(worker, tag) {
            Ok(request) => self.supervisor.order(Order::Spawn(tag, request)),
            Err(error) => {
                self.break_down(&format!("a worker could not be started: {error}"));
                self.worker_absent(worker);
            }
        }
    }

    pub(super) fn spawn_request(&self, worker: u32, tag: u64) -> Result<SpawnRequest, SubmitError> {
        let theirs = Arena::create(self.settings.arena_limit)?;
        let dump = rustix::fs::memfd_create("treadle-dump", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(io::Error::from);
        let copy = |descriptor: std::os::fd::BorrowedFd<'_>| {
            descriptor
                .try_clone_to_owned()
                .map_err(SubmitError::Descriptor)
        };
        let dump = dump.map_err(SubmitError::Descriptor)?;
        let mut descriptors = vec![
            copy(self.board.fd())?,
            copy(lock(&self.arena).fd())?,
            copy(theirs.fd())?,
            copy(dump.as_fd())?,
        ];
        for inherited in &self.settings.inherited {
            descriptors.push(copy(inherited.as_fd())?);
        }
        let arena = PeerArena::open(copy(theirs.fd())?)?;
        let initializer = {
            let mut state = lock(&self.state);
            let seat = &mut state.seats[worker as usize];
            let starts = seat.starts + 1;
            *seat = Seat {
                tag,
                arena: Some(Arc::new(arena)),
                dump: Some(dump),
                starts,
                ..Seat::default()
            };
            state.initializer
        };
        let mut fields = vec![worker.to_string().into_bytes()];
        fields.push(
            initializer
                .map(|block| hexadecimal(&block.to_bytes()))
                .unwrap_or_default()
                .into_bytes(),
        );
        fields.extend(self.settings.worker_fields.iter().cloned());
        Ok(SpawnRequest {
            pool: self.this.clone(),
            worker,
            launch: self.launch.clone(),
            fields,
            descriptors,
        })
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
