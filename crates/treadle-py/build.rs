//! Makes `cfg(Py_GIL_DISABLED)` and the version flags of the interpreter known to the compiler, and the place of a worker's code to the linker.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    place_worker_code();
}

/// GNU ld and LLVM's read `worker.ld`. With others the code lies where it lies, which costs memory and nothing else.
fn place_worker_code() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("worker.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    let script = script.display().to_string();
    let arguments = ["-Xlinker", "-T", "-Xlinker", &script];
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") && links(&arguments) {
        for argument in arguments {
            println!("cargo::rustc-link-arg-cdylib={argument}");
        }
    }
}

/// Whether an empty library can be linked with these arguments, by the linker and with the flags of this build.
fn links(arguments: &[&str]) -> bool {
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(compiler), Some(folder)) = (set("RUSTC"), set("OUT_DIR")) else {
        return false;
    };
    let source = PathBuf::from(&folder).join("empty.rs");
    if fs::write(&source, "").is_err() {
        return false;
    }
    let mut command = Command::new(compiler);
    command
        .args(["--crate-type=cdylib", "--out-dir", &folder])
        .arg(source);
    if let Some(target) = set("TARGET") {
        command.args(["--target", &target]);
    }
    if let Some(flags) = set("CARGO_ENCODED_RUSTFLAGS") {
        command.args(flags.split('\x1f'));
    }
    if let Some(linker) = set("RUSTC_LINKER") {
        command.arg(format!("-Clinker={linker}"));
    }
    for argument in arguments {
        command.arg(format!("-Clink-arg={argument}"));
    }
    let ended = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    ended.is_ok_and(|status| status.success())
}
