//! `_core.show`, `_core.open_desk` and `_core.close_desk`: which pools a watcher sees, and what only the interpreter tells of them.

use std::sync::{Arc, Weak};
use std::time::Instant;

use pyo3::prelude::*;
use treadle_core::live::desk::{self, Interpreter, Source, Told};
use treadle_core::live::picture::{Pool, Stacks};

use crate::processes::ProcessPool;
use crate::threads::ThreadPool;

/// This interpreter, asked through `treadle._watching`.
struct Here;

impl Here {
    fn ask<T: for<'a> serde::Deserialize<'a>>(question: &'static str) -> Option<Told<T>> {
        let asked = Instant::now();
        Python::try_attach(|py| {
            let waited = asked.elapsed();
            let told: String = PyModule::import(py, "treadle._watching")
                .and_then(|module| module.call_method0(question))
                .and_then(|told| told.extract())
                .ok()?;
            Some(Told {
                found: serde_json::from_str(&told).ok()?,
                waited: has_lock(py).then_some(waited),
            })
        })?
    }
}

impl Interpreter for Here {
    fn pools(&self) -> Option<Told<Vec<Pool>>> {
        Here::ask("pools")
    }

    fn stacks(&self) -> Option<Told<Vec<Stacks>>> {
        Here::ask("stacks")
    }
}

/// Whether this interpreter has a lock: a free-threaded build has none unless an extension asked for it.
fn has_lock(py: Python<'_>) -> bool {
    cfg!(not(Py_GIL_DISABLED))
        || PyModule::import(py, "sys")
            .and_then(|sys| sys.call_method0("_is_gil_enabled"))
            .and_then(|enabled| enabled.extract())
            .unwrap_or(true)
}

/// A number for a pool of this program, counted from 1.
#[pyfunction]
pub(crate) fn next_pool_number() -> u64 {
    desk::next_number()
}

/// Opens the desk at which this program answers who watches it. An `OSError` where that cannot be.
#[pyfunction]
pub(crate) fn open_desk() -> PyResult<()> {
    Ok(desk::open(env!("CARGO_PKG_VERSION"), || Arc::new(Here))?)
}

/// Closes it for good: the interpreter is about to end.
#[pyfunction]
pub(crate) fn close_desk(py: Python<'_>) {
    py.detach(desk::close);
}

/// Has a pool of the engine told, without the interpreter's lock, from now on and until it ends.
#[pyfunction]
#[pyo3(signature = (pool, number, name, strategy, plan, concurrency, limit))]
pub(crate) fn show(
    pool: &Bound<'_, PyAny>,
    number: u64,
    name: String,
    strategy: String,
    plan: String,
    concurrency: u64,
    limit: Option<u64>,
) -> PyResult<()> {
    let source: Weak<dyn Source> = if let Ok(pool) = pool.cast::<ProcessPool>() {
        let source: Arc<dyn Source> = pool.get().core.clone();
        Arc::downgrade(&source)
    } else {
        let source: Arc<dyn Source> = pool.cast::<ThreadPool>()?.get().inner();
        Arc::downgrade(&source)
    };
    let described = Pool {
        number,
        name,
        strategy,
        plan,
        concurrency,
        limit,
        ..Pool::default()
    };
    desk::describe(described, source);
    Ok(())
}
