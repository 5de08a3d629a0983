//! Quantities in words: rates, seconds, bytes and ratios as people read them.

/// `1,234/s`, `12.3/s`, `0.045/s`.
pub fn rate(per_second: f64) -> String {
    format!("{}/s", number(per_second))
}

/// A number with three meaningful digits, thousands separated.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let magnitude = value.abs();
    if magnitude >= 999.5 {
        let digits = format!("{:.0}", magnitude);
        let mut grouped = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        if value < 0.0 {
            format!("-{grouped}")
        } else {
            grouped
        }
    } else if magnitude >= 99.95 {
        format!("{value:.0}")
    } else if magnitude >= 9.995 {
        format!("{value:.1}")
    } else if magnitude >= 1.0 || magnitude == 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// `1.5 s`, `12.0 ms`, `3.4 µs`.
pub fn seconds(value: f64) -> String {
    if value >= 1.0 {
        format!("{} s", number(value))
    } else if value >= 1e-3 {
        format!("{} ms", number(value * 1e3))
    } else if value > 0.0 {
        format!("{} µs", number(value * 1e6))
    } else {
        "0 s".to_owned()
    }
}

/// `512 B`, `1.5 KiB`, `2.0 GiB`.
pub fn bytes(value: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = value;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{value:.0} B")
    } else if value >= 100.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// `2` for 2.0 and `1.5` for 1.5: a count of cores.
pub fn cores(value: f64) -> String {
    if (value - value.round()).abs() < 0.005 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

/// `12` or `1,234`: a count.
pub fn count(value: u64) -> String {
    if value < 1000 {
        value.to_string()
    } else {
        number(value as f64)
    }
}

/// `38 %`.
pub fn percent(share: f64) -> String {
    let value = share * 100.0;
    // Close to nothing and close to all, the digit after the point is what matters.
    if value != 0.0 && (value.abs() < 1.0 || (99.0..100.0).contains(&value)) {
        format!("{value:.1} %")
    } else {
        format!("{value:.0} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        assert_eq!(rate(1234.4), "1,234/s");
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(rate(999.7), "1,000/s");
        assert_eq!(rate(9.999), "10.0/s");
        assert_eq!(rate(0.0451), "0.045/s");
        assert_eq!(seconds(0.0012), "1.20 ms");
        assert_eq!(seconds(3.4e-6), "3.40 µs");
        assert_eq!(bytes(1536.0), "1.5 KiB");
        assert_eq!(cores(2.0), "2");
        assert_eq!(cores(1.5), "1.5");
        assert_eq!(percent(0.384), "38 %");
        assert_eq!(percent(0.004), "0.4 %");
        assert_eq!(
            (percent(0.997), percent(1.0)),
            ("99.7 %".to_owned(), "100 %".to_owned())
        );
    }
}
