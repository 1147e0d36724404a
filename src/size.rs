//! Sizes as people write them: `4096`, `64M`, `10G`, `1.5T`; units are powers of 1024.

/// Units and their shifts.
const UNITS: &[(char, u32)] = &[('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50)];

/// Bytes of a written size; for clap.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size; write bytes or a number with K, M, G, T or P, such as 10G");
    let trimmed = text.trim().trim_end_matches("iB").trim_end_matches('B');
    let unit = trimmed.chars().last().map(|c| c.to_ascii_uppercase());
    let Some((_, shift)) = UNITS.iter().find(|(name, _)| Some(*name) == unit) else {
        return trimmed.parse().map_err(|_| wrong());
    };
    let number = trimmed[..trimmed.len() - 1].trim();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(wrong);
    }
    let fraction: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = fraction * (1u64 << shift) as f64;
    if (0.0..9e18).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// Bytes for people: at most one digit after the point.
pub fn human(bytes: u64) -> String {
    let Some((unit, shift)) = UNITS.iter().rev().find(|(_, shift)| bytes >> shift > 0) else {
        return format!("{bytes} B");
    };
    let value = bytes as f64 / (1u64 << shift) as f64;
    match bytes % (1 << shift) {
        0 => format!("{value:.0} {unit}iB"),
        _ => format!("{value:.1} {unit}iB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let cases =
            [("4096", 4096), ("64M", 64 << 20), ("10GiB", 10 << 30), ("1.5T", 3 << 39), ("512B", 512), ("2 k", 2048)];
        for (text, bytes) in cases {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_hint() {
        for text in ["", "G", "-1G", "12Q", "99999999P", "1e400G", "NaNG"] {
            assert!(parse(text).is_err_and(|error| error.contains("such as 10G")), "{text}");
        }
    }

    #[test]
    fn sizes_are_written() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1 << 30), "1 GiB");
        assert_eq!(human(1536 << 20), "1.5 GiB");
    }
}
