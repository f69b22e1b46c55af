//! Sizes and spans for people.

/// Bytes for people: `14.2 MB`, in powers of 1000 as disks and networks are sold.
pub fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// A span for people: `4.2 s`, `3 min 20 s`, `2 h 5 min`.
pub fn span(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans() {
        assert_eq!([0, 999, 1000, 14_200_000, 999_960_000].map(size), ["0 B", "999 B", "1.0 kB", "14.2 MB", "1.0 GB"]);
        assert_eq!([0.0, 4.23, 200.0, 7500.0].map(span), ["0.0 s", "4.2 s", "3 min 20 s", "2 h 5 min"]);
    }
}
