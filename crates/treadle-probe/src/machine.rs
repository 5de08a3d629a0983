//! The machine's name plate: processor model and kernel.

use std::fs;

/// The processor's model from a `/proc/cpuinfo` text; the fields differ by architecture.
pub fn parse_model(text: &str) -> Option<String> {
    ["model name", "Model", "cpu model", "Hardware", "CPU part"]
        .iter()
        .find_map(|key| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                let value = value.trim();
                (name.trim() == *key && !value.is_empty()).then(|| value.to_owned())
            })
        })
}

/// The processor's model; `None` where it is not told.
pub fn processor_model() -> Option<String> {
    parse_model(&fs::read_to_string("/proc/cpuinfo").ok()?)
}

/// The kernel's name and release, such as `Linux 6.18.0`.
pub fn kernel() -> Option<String> {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok();
    Some(format!(
        "{} {}",
        read("ostype")?.trim(),
        read("osrelease")?.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_two_architectures() {
        assert_eq!(
            parse_model("processor : 0\nmodel\t\t: 85\nmodel name\t: Some Processor\n").as_deref(),
            Some("Some Processor")
        );
        assert_eq!(
            parse_model("processor : 0\nCPU part\t: 0xd0c\n").as_deref(),
            Some("0xd0c")
        );
        assert_eq!(parse_model(""), None);
    }
}
