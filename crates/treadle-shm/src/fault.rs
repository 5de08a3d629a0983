//! Named kill points: where crash tests make a process end, at the very step that is feared.
//!
//! *Guarantees*: without the cargo feature `fault` (and outside loom) a point is no code at all.
//! With it, `TREADLE_FAULT=name[:nth]` makes the process send itself SIGKILL on the nth passing (1 = the first), and `TREADLE_FAULT_MARK=path`
//! leaves the file `path-pid` there first.
//! Under loom a thread that called `die_at` stops there by unwinding instead.

/// Every kill point, in the order in which a task meets them.
pub const POINTS: &[&str] = &[
    "after-idle-armed",
    "in-wait",
    "after-claim-cas",
    "after-current",
    "after-slot-free",
    "idle-bit-taken",
    "arena-allocated",
    "before-drafted",
    "after-drafted",
    "before-record",
    "mid-record",
    "before-tail",
    "after-tail",
    "after-current-cleared",
    "parent-disarmed",
    "before-wake",
];

/// Passes the point `name`.
#[cfg(not(any(loom, feature = "fault")))]
#[inline(always)]
pub(crate) fn point(_name: &'static str) {}

/// Passes the point `name`; ends the process if `TREADLE_FAULT` says so.
#[cfg(all(feature = "fault", not(loom)))]
pub(crate) fn point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static CHOSEN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    debug_assert!(
        POINTS.contains(&name),
        "the kill point {name} is not in POINTS"
    );
    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var("TREADLE_FAULT").ok()?;
        let (name, nth) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), nth.parse().unwrap_or(1)))
    });
    if let Some((chosen, nth)) = chosen
        && chosen == name
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *nth
    {
        if let Ok(path) = std::env::var("TREADLE_FAULT_MARK") {
            let _ = std::fs::File::create(format!("{path}-{}", std::process::id()));
        }
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(loom)]
mod model {
    use std::cell::Cell;

    loom::thread_local! {
        static DYING_AT: Cell<Option<&'static str>> = Cell::new(None);
    }

    /// What a thread of a loom model unwinds with at its kill point.
    #[derive(Debug)]
    pub struct Killed;

    /// Makes the calling thread of a loom model stop at `name`.
    pub fn die_at(name: Option<&'static str>) {
        DYING_AT.with(|cell| cell.set(name));
    }

    pub(crate) fn point(name: &'static str) {
        if DYING_AT.with(|cell| cell.get()) == Some(name) {
            std::panic::resume_unwind(Box::new(Killed));
        }
    }
}
#[cfg(loom)]
pub(crate) use model::point;
#[cfg(loom)]
pub use model::{Killed, die_at};
