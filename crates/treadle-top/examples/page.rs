//! The page of a comparison that `treadle compare --json FILE` wrote: `page FILE`, the page to standard output.

use std::io::Write;

use treadle_top::html::{Origin, page, today};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("name a file of JSON")?;
    let comparison = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let origin = Origin {
        command: None,
        date: today(),
    };
    std::io::stdout().write_all(page(&comparison, &origin).as_bytes())?;
    Ok(())
}
