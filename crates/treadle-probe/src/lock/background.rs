//! The thread of a sampler: started by name, ended by a flag, left alone in a forked child, where it does not exist.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

/// A sampling thread and the process that it belongs to.
#[derive(Debug)]
pub(super) struct Background {
    thread: Option<JoinHandle<()>>,
    process: u32,
}

impl Background {
    /// Starts it.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub(super) fn start(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        Ok(Self {
            thread: Some(Builder::new().name(name.to_owned()).spawn(body)?),
            process: std::process::id(),
        })
    }

    /// Whether this is the process that it runs in.
    pub(super) fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    /// Sets `stop`, wakes it and waits for its end.
    pub(super) fn end(&mut self, stop: &AtomicBool) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        if !self.is_here() {
            // Forked: the thread stayed with the parent, and waiting for it would never end.
            std::mem::forget(thread);
            return;
        }
        stop.store(true, Ordering::Release);
        thread.thread().unpark();
        // A panic of it has been printed by then; what it counted stays.
        let _ = thread.join();
    }
}
