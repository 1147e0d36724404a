//! Sizes on the command line: `4096`, `64M`, `10G`; units are powers of 1024.

/// Bytes of a written size.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size; write bytes, or a whole number with K, M, G or T, such as 10G");
    let unit = text.chars().last().map(|c| c.to_ascii_uppercase());
    let shift = match unit {
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        _ => return text.parse().map_err(|_| wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes() {
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("10G"), Ok(10 << 30));
        assert_eq!(parse("128k"), Ok(128 << 10));
        for wrong in ["", "G", "-1", "1.5G", "10GB", "99999999T", "K10"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
