//! What functions are called, found without running Python where it was found before: the live view shows what a thread calls, and a thread
//! that has begun a call cannot be asked any more.
//!
//! *Guarantees*: a name is found in some nanoseconds for the function that this thread called last, and no more names are kept than
//! [`MOST_NAMES`] of each kind. No function is kept alive but the built-in ones of modules; of others the two texts that make the name are.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, OnceLock};

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyFunction, PyModule, PyType};

use crate::future::lock;
use crate::pickling;

/// A program that makes functions for ever, each with a name of its own, must not fill the memory with their names.
const MOST_NAMES: usize = 4096;
/// Partial objects and bound methods that are looked through, as `treadle._payload.name_of` does.
const MOST_LAYERS: usize = 8;
/// What a function is called when there is no room for its name, or it has none.
const NAMELESS: &str = "a function";
/// Its number.
const NAMELESS_NUMBER: u32 = 0;

/// What a name is known by: the addresses of two objects that are kept alive.
type Key = (usize, usize);

#[derive(Default)]
struct Names {
    known: HashMap<Key, u32>,
    /// What keeps the addresses of the keys from being used again.
    kept: Vec<Py<PyAny>>,
    /// The numbers of the texts.
    numbers: HashMap<&'static str, u32>,
}

/// Texts in a block: few, because a program has few names, and most blocks are never made.
const BLOCK: usize = 64;
type Block = [OnceLock<Box<str>>; BLOCK];
/// The texts of the numbers from 1 on.
static BLOCKS: [OnceLock<Box<Block>>; MOST_NAMES / BLOCK + 1] =
    [const { OnceLock::new() }; MOST_NAMES / BLOCK + 1];

/// Taken by threads that hold the interpreter's lock, as who forks does, and by no other.
static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

thread_local! {
    /// The last name of this thread.
    static LAST: Cell<(Key, u32)> = const { Cell::new(((0, 0), NAMELESS_NUMBER)) };
}

/// The text of a name. Takes no lock: who asks may be a thread that is not there in a forked child.
pub(crate) fn text(number: u32) -> &'static str {
    let number = number as usize;
    let block = BLOCKS.get(number / BLOCK).and_then(OnceLock::get);
    let text = block.and_then(|block| block[number % BLOCK].get());
    text.map_or(NAMELESS, |text| text)
}

/// The number of a function's name: its module and qualified name, or those of what it calls.
pub(crate) fn name_of(function: &Bound<'_, PyAny>) -> u32 {
    let mut inner = function.clone();
    for _ in 0..MOST_LAYERS {
        if let Some((key, kept)) = key_of(&inner) {
            let (last, name) = LAST.get();
            if last == key {
                return name;
            }
            let (name, is_kept) = find(&inner, key, kept);
            if is_kept {
                LAST.set((key, name));
            }
            return name;
        }
        match beneath(&inner) {
            Some(next) => inner = next,
            None => break,
        }
    }
    asked(&inner).map_or(NAMELESS_NUMBER, |name| number_of(&name))
}

/// What a function's name is known by, and what has to be kept alive for that.
#[allow(unsafe_code)]
fn key_of<'py>(function: &Bound<'py, PyAny>) -> Option<(Key, [Option<Bound<'py, PyAny>>; 2])> {
    if function.is_exact_instance_of::<PyFunction>() {
        #[cfg(not(Py_GIL_DISABLED))]
        {
            let py = function.py();
            // SAFETY: it is a function, whose fields only change under the interpreter's lock, which is held; both are objects or null.
            let (name, module) = unsafe {
                let function = function.as_ptr().cast::<ffi::PyFunctionObject>();
                ((*function).func_qualname, (*function).func_module)
            };
            let key = (name as usize, module as usize);
            if LAST.get().0 == key {
                return Some((key, [None, None]));
            }
            // SAFETY: as above; the references are counted up here.
            let kept = unsafe {
                [
                    Bound::from_borrowed_ptr_or_opt(py, name),
                    Bound::from_borrowed_ptr_or_opt(py, module),
                ]
            };
            return Some((key, kept));
        }
        #[cfg(Py_GIL_DISABLED)]
        {
            let py = function.py();
            let name = function.getattr(intern!(py, "__qualname__")).ok()?;
            let module = function.getattr(intern!(py, "__module__")).ok()?;
            let key = (name.as_ptr() as usize, module.as_ptr() as usize);
            return Some((key, [Some(name), Some(module)]));
        }
    }
    if function.is_exact_instance_of::<PyCFunction>() {
        let key = (function.as_ptr() as usize, 0);
        if LAST.get().0 == key {
            return Some((key, [None, None]));
        }
        // A method of an object would keep the object alive; what belongs to a module lives as long as that.
        let of_module = function
            .getattr(intern!(function.py(), "__self__"))
            .is_ok_and(|owner| owner.is_exact_instance_of::<PyModule>());
        return of_module.then(|| (key, [Some(function.clone()), None]));
    }
    None
}

/// The number of its name, and whether its key will not be used again for another.
fn find(function: &Bound<'_, PyAny>, key: Key, kept: [Option<Bound<'_, PyAny>>; 2]) -> (u32, bool) {
    if let Some(number) = lock(&NAMES).known.get(&key) {
        return (*number, true);
    }
    // Not under the lock: this runs Python, which may hand the interpreter's lock on to one who comes here.
    let Some(name) = asked(function) else {
        return (NAMELESS_NUMBER, false);
    };
    let number = number_of(&name);
    let mut names = lock(&NAMES);
    if names.known.len() >= MOST_NAMES {
        return (number, false);
    }
    if names.known.insert(key, number).is_none() {
        names
            .kept
            .extend(kept.into_iter().flatten().map(Bound::unbind));
    }
    (number, true)
}

/// The number of a text, the same for the same text.
fn number_of(name: &str) -> u32 {
    let mut names = lock(&NAMES);
    if let Some(number) = names.numbers.get(name) {
        return *number;
    }
    let number = names.numbers.len() + 1;
    if number > MOST_NAMES {
        return NAMELESS_NUMBER;
    }
    let block = BLOCKS[number / BLOCK].get_or_init(|| Box::new([const { OnceLock::new() }; BLOCK]));
    let text: &'static str = block[number % BLOCK].get_or_init(|| name.into());
    names.numbers.insert(text, number as u32);
    number as u32
}

/// What a bound method or a partial object calls.
fn beneath<'py>(function: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    static PARTIAL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static METHOD: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = function.py();
    let method = METHOD.import(py, "types", "MethodType").ok()?;
    if function.is_exact_instance(method) {
        return function.getattr(intern!(py, "__func__")).ok();
    }
    let partial = PARTIAL.import(py, "functools", "partial").ok()?;
    if function.is_exact_instance(partial) {
        return function.getattr(intern!(py, "func")).ok();
    }
    None
}

/// The name as an error would tell it; of an object that answers to any attribute, what its class is called.
fn asked(function: &Bound<'_, PyAny>) -> Option<String> {
    let py = function.py();
    let class = function.get_type();
    let invents = class.hasattr(intern!(py, "__getattr__")).unwrap_or(true);
    let named = if invents { class.as_any() } else { function };
    pickling::payload(py, "name_of")
        .and_then(|name_of| name_of.call1((named,)))
        .and_then(|name| name.extract())
        .ok()
}
