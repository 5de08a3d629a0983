//! The command without Python around it: `PYTHON` names the interpreter that has `treadle._laboratory` on its path.

use std::io::IsTerminal;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rewrite = std::io::stderr().is_terminal();
    let mut world = treadle_top::World {
        stdout: &mut std::io::stdout(),
        stderr: &mut std::io::stderr(),
        python: std::env::var_os("PYTHON")
            .unwrap_or_else(|| "python3".into())
            .into(),
        interrupted: &|| false,
        // How large it is the view finds out by itself.
        terminal: std::io::stdout().is_terminal().then_some((80, 24)),
        rewrite,
        directory: std::env::current_dir().unwrap_or_default(),
        environment: &|name| std::env::var(name).ok(),
        laboratory: None,
    };
    std::process::exit(treadle_top::run(&arguments, &mut world));
}
