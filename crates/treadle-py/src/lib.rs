#![deny(unsafe_code)]
//! The extension module `treadle._core`: it converts, releases the interpreter's lock, converts back. No algorithm lives here.

use pyo3::prelude::*;

mod calling;
mod choice;
mod codec;
mod completion;
mod condition;
mod definitions;
mod future;
mod lease;
mod live;
mod lock_watch;
mod meter;
mod names;
mod outcome;
mod pickling;
mod process;
mod processes;
mod station;
mod submitter;
mod task_meters;
mod threads;
mod waiting;
mod worker;
mod zygote;

/// What is small can be had when memory is out: the call at hand ends with an error then, not the program.
#[global_allocator]
static HEAP: treadle_heap::Reserving = treadle_heap::Reserving::new();

/// The native half of treadle.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::choice::{
        available_memory, check, command, compare, limit_cores, list_decisions, load_decision,
        page, usable_cores,
    };
    #[pymodule_export]
    use crate::codec::{decode_scalars, encode_scalars};
    #[pymodule_export]
    use crate::definitions::make_definitions_immortal;
    #[pymodule_export]
    use crate::future::{FutureBase, pending_future, register_future};
    #[pymodule_export]
    use crate::lease::Lease;
    #[pymodule_export]
    use crate::live::{close_desk, next_pool_number, open_desk, show};
    #[pymodule_export]
    use crate::lock_watch::{LockWatch, thread_state};
    #[pymodule_export]
    use crate::meter::Meter;
    #[pymodule_export]
    use crate::pickling::send_main_by_value;
    #[pymodule_export]
    use crate::process::{
        die_with_parent, keep_freed_memory, note_fork, set_holes_aside, trim_heap,
    };
    #[pymodule_export]
    use crate::processes::ProcessPool;
    #[pymodule_export]
    use crate::submitter::Submitter;
    #[pymodule_export]
    use crate::task_meters::{TaskMeters, empty_histogram, meter_cost};
    #[pymodule_export]
    use crate::threads::{ThreadPool, run_if_waiting};
    #[pymodule_export]
    use crate::worker::Worker;
    #[pymodule_export]
    use crate::zygote::ZygoteEnd;
}
