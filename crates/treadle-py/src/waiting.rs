//! Waiting for a future with the interpreter's lock released.

use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use treadle_core::pool::cell::Phase;
use treadle_core::pool::processes::{SubmitError, Waited};
use treadle_shm::Woken;

use crate::future::{FutureBase, Local, LocalOutcome, Source};
use crate::outcome::{standard_error, submit_error};
use crate::threads;

/// The moment a time-out in seconds ends.
pub(crate) fn deadline_after(timeout: Option<f64>) -> PyResult<Option<Instant>> {
    let Some(seconds) = timeout else {
        return Ok(None);
    };
    if seconds.is_nan() {
        return Err(PyValueError::new_err(
            "a time-out must be a number of seconds, not NaN",
        ));
    }
    let duration = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    Ok(Instant::now().checked_add(duration))
}

pub(crate) fn wait_local(local: &Local, deadline: Option<Instant>) -> Waited {
    loop {
        let seen = local.parking.seen();
        if matches!(local.cell.mark_waited(), Phase::Finished | Phase::Cancelled) {
            return Waited::Done;
        }
        let left = match deadline {
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => Some(left),
                _ => return Waited::TimedOut,
            },
            None => None,
        };
        if local.parking.sleep(seen, left) == Woken::Interrupted {
            return Waited::Interrupted;
        }
    }
}

impl FutureBase {
    /// The outcome, waited for; `TimeoutError` or `CancelledError` of `concurrent.futures` when there is none.
    pub(crate) fn awaited(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<LocalOutcome> {
        let py = slf.py();
        if !slf.get().settled() && !FutureBase::wait(slf, timeout)? {
            return Err(standard_error(py, "TimeoutError")?);
        }
        // A cancelled call has no outcome.
        match FutureBase::outcome(slf)? {
            Some(outcome) => Ok(outcome),
            None => Err(standard_error(py, "CancelledError")?),
        }
    }

    /// Sleeps until the future is settled; false when the time was over.
    pub(crate) fn wait(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<bool> {
        let this = slf.get();
        let py = slf.py();
        let deadline = deadline_after(timeout)?;
        if this.local().is_some() {
            threads::run_awaited(py, slf)?;
        }
        loop {
            if matches!(this.phase(), Phase::Finished | Phase::Cancelled) {
                if this.by_hand() {
                    // Whoever ends it holds the condition until the outcome is there.
                    let condition = FutureBase::condition(slf)?;
                    condition.call_method0(intern!(py, "acquire"))?;
                    condition.call_method0(intern!(py, "release"))?;
                } else if !this.settled() {
                    FutureBase::announce(slf)?;
                }
                return Ok(true);
            }
            if let Source::Process { pool, .. } = this.source()
                && !pool.is_mine()
            {
                return Err(submit_error(py, &SubmitError::Forked));
            }
            let waited = match this.source() {
                Source::Process { pool, id, cell, .. } => {
                    py.detach(|| pool.wait(*id, cell, deadline))
                }
                Source::Local(local) => py.detach(|| wait_local(local, deadline)),
            };
            match waited {
                Waited::Done => {}
                Waited::Interrupted => py.check_signals()?,
                Waited::TimedOut => return Ok(false),
            }
        }
    }
}
