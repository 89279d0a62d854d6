//! Quantities, such as `500Gi` or `250m`.

/// In thousandths, so that those of a processor are whole numbers; nothing when it is no quantity.
pub fn parse(text: &str) -> Option<i128> {
    let end =
        text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-' || c == '+')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let factor: i128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        "Pi" => 1_000 << 50,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole: i128 = whole.parse().ok()?;
    if part.is_empty() {
        return Some(whole * factor);
    }
    let scale = 10_i128.checked_pow(part.len().try_into().ok()?)?;
    let part: i128 = part.parse().ok()?;
    Some(whole * factor + part * factor / scale)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_compared_by_what_they_mean() {
        assert_eq!(parse("1Gi"), parse("1024Mi"));
        assert_eq!(parse("1.5Gi"), parse("1536Mi"));
        assert_eq!(parse("500m"), parse("0.5"));
        assert!(parse("1Gi") > parse("1G"));
        assert_eq!((parse(""), parse("x"), parse("1Xi")), (None, None, None));
    }
}
