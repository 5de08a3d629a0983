//! Makes `cfg(Py_GIL_DISABLED)` and the version flags of the interpreter known to the compiler.
fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
