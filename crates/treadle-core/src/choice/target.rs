//! The targets: what the user requires of a plan, read from `throughput=200/s,p99=50ms,memory=2GiB,errors=0,cpu=4`.

use super::error::ChoiceError;

/// A quantity that a target bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantity {
    /// Tasks per second, at least.
    Throughput,
    /// A quantile of the seconds that a task takes in its worker, at most.
    Latency(f64),
    /// Peak bytes of all processes together, at most.
    Memory,
    /// Failed tasks, at most.
    Errors,
    /// Share of failed tasks, at most.
    ErrorShare,
    /// Cores in use, at most.
    Cores,
}

/// One requirement of the user.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// What is bounded.
    pub quantity: Quantity,
    /// The bound: tasks per second, seconds, bytes, tasks, a share, or cores.
    pub bound: f64,
    /// As the user wrote it, such as `p99=50ms`.
    pub text: String,
}

const TARGET_HINT: &str =
    "targets look like --target 'throughput=200/s,p50=5ms,p99=50ms,memory=2GiB,errors=0,cpu=4'";

fn unreadable(part: &str, why: &str) -> ChoiceError {
    ChoiceError::usage(
        format!("cannot read the target `{part}`: {why}"),
        TARGET_HINT,
    )
}

/// Reads `throughput=200/s,p99=50ms,memory=2GiB,errors=0,cpu=4`.
pub fn parse_targets(text: &str) -> Result<Vec<Target>, ChoiceError> {
    let mut targets: Vec<Target> = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| unreadable(part, "it has no `=`"))?;
        let (name, value) = (name.trim(), value.trim());
        let (quantity, bound) = match name {
            "throughput" => (Quantity::Throughput, rate(value)),
            "memory" => (Quantity::Memory, bytes(value)),
            "cpu" => (Quantity::Cores, value.parse().ok()),
            "errors" => match value.strip_suffix('%') {
                Some(share) => (
                    Quantity::ErrorShare,
                    share.trim().parse().ok().map(|share: f64| share / 100.0),
                ),
                None => (Quantity::Errors, value.parse().ok()),
            },
            _ => {
                let share = name
                    .strip_prefix('p')
                    .and_then(|digits| digits.parse::<f64>().ok())
                    .filter(|percent| (0.0..=100.0).contains(percent))
                    .ok_or_else(|| {
                        unreadable(part, &format!("`{name}` is not something that is measured"))
                    })?;
                (Quantity::Latency(share / 100.0), duration(value))
            }
        };
        let bound = bound
            .filter(|bound: &f64| bound.is_finite() && *bound >= 0.0)
            .ok_or_else(|| unreadable(part, &format!("`{value}` is not a quantity of it")))?;
        targets.push(Target {
            quantity,
            bound,
            text: format!("{name}={value}"),
        });
    }
    Ok(targets)
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}

fn rate(text: &str) -> Option<f64> {
    match split_unit(text)? {
        (value, "" | "/s") => Some(value),
        (value, "/min") => Some(value / 60.0),
        (value, "/h") => Some(value / 3600.0),
        _ => None,
    }
}

fn duration(text: &str) -> Option<f64> {
    match split_unit(text)? {
        (value, "s") => Some(value),
        (value, "ms") => Some(value * 1e-3),
        (value, "us" | "µs") => Some(value * 1e-6),
        (value, "min") => Some(value * 60.0),
        _ => None,
    }
}

fn bytes(text: &str) -> Option<f64> {
    let (value, unit) = split_unit(text)?;
    let factor = match unit {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(value * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_parse_and_mistakes_are_usage_errors() {
        let targets =
            parse_targets("throughput=120/min,p99.9=2s,memory=2GiB,errors=1%,errors=3,cpu=1.5")
                .unwrap();
        let bounds: Vec<f64> = targets.iter().map(|target| target.bound).collect();
        assert_eq!(bounds, [2.0, 2.0, 2147483648.0, 0.01, 3.0, 1.5]);
        for wrong in [
            "p99",
            "p99=fast",
            "p101=1s",
            "speed=3",
            "throughput=-1/s",
            "memory=2 elephants",
            "p99=50",
        ] {
            assert_eq!(parse_targets(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
