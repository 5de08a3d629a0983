//! Definitions that no process of a family counts references to: what a program's modules define, before workers are forked.
//!
//! A fork shares memory that nobody writes, and CPython writes to an object whenever it counts a reference. PEP 683 (CPython 3.12) has objects
//! whose count is fixed, "immortal" ones, so that pages stay shared; it makes a few thousand of its own immortal, and leaves it to programs that
//! fork to do so with theirs.
//!
//! *Guarantees*: only definitions are touched: functions that enclose nothing, their code with its names and constants, classes, modules, built-in
//! functions that are bound to no instance, and the descriptors of classes. What an instance, a list, a closure or a bound method holds is given up
//! with its last reference, as ever; what a function holds as a default, or a class as an attribute, stays with it. Where the interpreter does not
//! know immortal objects, or does not treat ours so, nothing is done.

use count::{count_of, set_count};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBytes, PyCode, PyComplex, PyFloat, PyFrozenSet, PyInt, PyList, PyString, PyTuple,
};

/// Makes every definition immortal that the collector knows of, and what stands in its code.
///
/// Returns how many objects these were; 0 where the interpreter cannot do it (before CPython 3.12, and free-threaded).
///
/// For a process with one thread that is about to fork others of its kind. What was defined then stays in memory, in it and in its children, also
/// where the name is given to something else.
#[pyfunction]
pub(crate) fn make_definitions_immortal(py: Python<'_>) -> PyResult<usize> {
    let Some(stamp) = Stamp::of_this_interpreter(py) else {
        return Ok(0);
    };
    let objects = py.import("gc")?.call_method0("get_objects")?;
    let mut count = 0;
    for object in objects.cast::<PyList>()?.iter() {
        if is_function(&object) {
            let code = object.getattr(intern!(py, "__code__"))?;
            if object.getattr(intern!(py, "__closure__"))?.is_none()
                || is_free_of_outer_names(&code)?
            {
                count += stamp.put(&object);
            }
            count += stamp.put_code(&code)?;
        } else if is_definition(&object) {
            count += stamp.put(&object);
        }
    }
    Ok(count)
}

/// Whether the interpreter counts references to constants that are immortal.
///
/// CPython 3.14 has an instruction for constants that are not (`LOAD_CONST_MORTAL`). One takes the place of `LOAD_CONST` where that runs first, and
/// then counts up without another look. Who gives such a reference up looks, and does not count down; so the count of what is made immortal later
/// grows with every use, and after 2^30 of them is that of an object without owners.
const CONSTANTS_ARE_COUNTED: bool = cfg!(all(Py_3_14, not(Py_3_15)));

/// The flag of code that is a constant of a function's code (`inspect.CO_NESTED`).
const NESTED: u32 = 0x10;

/// What the count of an immortal object looks like here.
struct Stamp(u32);

impl Stamp {
    /// That of `None`, if the interpreter leaves the count of an object alone that bears it; none otherwise.
    #[allow(unsafe_code)]
    fn of_this_interpreter(py: Python<'_>) -> Option<Self> {
        let stamp = Self(count_of(py.None().bind(py))?);
        let probe = PyList::empty(py).into_any();
        // CPython takes what is negative as a number of 32 bits for immortal.
        if stamp.0 >> 31 == 0 || stamp.put(&probe) == 0 {
            return None;
        }
        // SAFETY: the probe is alive. A reference more: were the interpreter to count it, the probe would only live on.
        unsafe { ffi::Py_IncRef(probe.as_ptr()) };
        (count_of(&probe) == Some(stamp.0)).then_some(stamp)
    }

    /// Makes one object immortal; 0 if it was.
    fn put(&self, object: &Bound<'_, PyAny>) -> usize {
        match count_of(object) {
            Some(count) if count != self.0 => {
                set_count(object, self.0);
                1
            }
            _ => 0,
        }
    }

    /// A function's code with its names and its constants, those of the functions within it too.
    ///
    /// Where constants are counted, only code that is none. Equal names and constants are one object, so its names are left alone there as well.
    fn put_code(&self, code: &Bound<'_, PyAny>) -> PyResult<usize> {
        let py = code.py();
        if CONSTANTS_ARE_COUNTED {
            let flags: u32 = code.getattr(intern!(py, "co_flags"))?.extract()?;
            return Ok(if flags & NESTED == 0 {
                self.put(code)
            } else {
                0
            });
        }
        if self.put(code) == 0 {
            return Ok(0);
        }
        let mut count = 1;
        for part in [
            intern!(py, "co_names"),
            intern!(py, "co_consts"),
            intern!(py, "co_name"),
            intern!(py, "co_qualname"),
            intern!(py, "co_filename"),
        ] {
            count += self.put_constant(&code.getattr(part)?)?;
        }
        Ok(1 + count)
    }

    /// What the compiler makes of what stands in a source.
    fn put_constant(&self, value: &Bound<'_, PyAny>) -> PyResult<usize> {
        if let Ok(members) = value.cast_exact::<PyTuple>() {
            let mut count = self.put(value);
            for member in members.iter() {
                count += self.put_constant(&member)?;
            }
            return Ok(count);
        }
        if value.is_exact_instance_of::<PyCode>() {
            return self.put_code(value);
        }
        let plain = value.is_exact_instance_of::<PyString>()
            || value.is_exact_instance_of::<PyBytes>()
            || value.is_exact_instance_of::<PyInt>()
            || value.is_exact_instance_of::<PyFloat>()
            || value.is_exact_instance_of::<PyComplex>()
            || value.is_exact_instance_of::<PyFrozenSet>();
        Ok(if plain { self.put(value) } else { 0 })
    }
}

/// Whether an object is a Python function.
#[allow(unsafe_code)]
fn is_function(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: looks at the type of a live object.
    unsafe { ffi::PyFunction_Check(object.as_ptr()) != 0 }
}

/// Whether code that encloses something encloses no more than its own class (`super()`).
///
/// Asked of those alone: the interpreter keeps the answer with the code.
fn is_free_of_outer_names(code: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = code.py();
    let names = code.getattr(intern!(py, "co_freevars"))?;
    for name in names.cast::<PyTuple>()?.iter() {
        if !name.eq(intern!(py, "__class__"))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether an object is a class, a module, a built-in function of one of these or of nothing, or what stands for one in a class.
#[allow(unsafe_code)]
fn is_definition(object: &Bound<'_, PyAny>) -> bool {
    let object = object.as_ptr();
    // SAFETY: looks at the type of a live object, and takes the addresses of types that live as long as the interpreter.
    unsafe {
        ffi::PyType_Check(object) != 0
            || ffi::PyModule_Check(object) != 0
            || (ffi::PyCFunction_Check(object) != 0 && is_bound_to_no_instance(object))
            || [
                &raw mut ffi::PyMethodDescr_Type,
                &raw mut ffi::PyClassMethodDescr_Type,
                &raw mut ffi::PyWrapperDescr_Type,
                &raw mut ffi::PyGetSetDescr_Type,
                &raw mut ffi::PyMemberDescr_Type,
                &raw mut ffi::PyProperty_Type,
                &raw mut ffi::PyClassMethod_Type,
                &raw mut ffi::PyStaticMethod_Type,
            ]
            .contains(&ffi::Py_TYPE(object))
    }
}

/// Whether a built-in function is none that an instance has lent, such as `file.write`: that keeps its instance alive.
///
/// # Safety
/// The object is a live built-in function.
#[allow(unsafe_code)]
unsafe fn is_bound_to_no_instance(function: *mut ffi::PyObject) -> bool {
    // SAFETY: the caller's word; what the function is bound to lives as long as the function.
    unsafe {
        let owner = ffi::PyCFunction_GetSelf(function);
        owner.is_null() || ffi::PyModule_Check(owner) != 0 || ffi::PyType_Check(owner) != 0
    }
}

/// The half of an object's header that says whether it is immortal; none where the interpreter has no such half.
#[cfg(all(
    Py_3_12,
    not(Py_GIL_DISABLED),
    target_pointer_width = "64",
    target_endian = "little"
))]
#[allow(unsafe_code)]
mod count {
    use super::*;

    fn place(object: &Bound<'_, PyAny>) -> *mut u32 {
        let object = object.as_ptr();
        // SAFETY: a field of a live object, in the layout that PyO3 knows for this interpreter.
        unsafe {
            #[cfg(Py_3_14)]
            return &raw mut (*object).ob_refcnt.refcnt_and_flags.ob_refcnt;
            #[cfg(not(Py_3_14))]
            return (&raw mut (*object).ob_refcnt.ob_refcnt_split).cast();
        }
    }

    pub(super) fn count_of(object: &Bound<'_, PyAny>) -> Option<u32> {
        // SAFETY: only who holds the lock writes there, and we hold it.
        Some(unsafe { place(object).read() })
    }

    pub(super) fn set_count(object: &Bound<'_, PyAny>, count: u32) {
        // SAFETY: as above; the object stays alive for ever, which asks nothing of those who hold it.
        unsafe { place(object).write(count) }
    }
}

#[cfg(not(all(
    Py_3_12,
    not(Py_GIL_DISABLED),
    target_pointer_width = "64",
    target_endian = "little"
)))]
mod count {
    use super::*;

    pub(super) fn count_of(_object: &Bound<'_, PyAny>) -> Option<u32> {
        None
    }

    pub(super) fn set_count(_object: &Bound<'_, PyAny>, _count: u32) {}
}
