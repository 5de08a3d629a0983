//! Makes `cfg(Py_GIL_DISABLED)` and the version flags of the interpreter known to the compiler, and the place of a worker's code to the linker.

use std::env;
use std::path::Path;

/// Linkers that do not read a script like ours; a part of the names by which they are asked for.
const WITHOUT_SCRIPTS: [&str; 3] = ["gold", "mold", "wild"];

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    place_worker_code();
}

/// GNU ld and LLVM's read `worker.ld`. Others leave the code where it is, which costs memory and nothing else.
fn place_worker_code() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("worker.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    let said = |name| env::var(name).unwrap_or_default();
    let linker = said("CARGO_ENCODED_RUSTFLAGS") + &said("RUSTC_LINKER");
    let reads_scripts = !WITHOUT_SCRIPTS.iter().any(|other| linker.contains(other));
    if said("CARGO_CFG_TARGET_OS") == "linux" && reads_scripts {
        println!("cargo::rustc-link-arg-cdylib=-Wl,-T,{}", script.display());
    }
}
