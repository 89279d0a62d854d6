//! Amounts as Kubernetes writes them: `250m`, `8Gi`, `1e3`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Units, in thousandths.
const UNITS: [(&str, u128); 13] = [
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000_000),
    ("Ki", 1000 << 10),
    ("Mi", 1000 << 20),
    ("Gi", 1000 << 30),
    ("Ti", 1000 << 40),
    ("Pi", 1000 << 50),
    ("Ei", 1000 << 60),
];

/// The amount in thousandths, rounded up. `None`: it is no amount.
pub fn thousandths(quantity: &Quantity) -> Option<u128> {
    let text = quantity.0.as_str();
    let unit = UNITS.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
    let (number, size) = unit.unwrap_or((text, 1000));
    if let Ok(whole) = number.parse::<u64>() {
        return u128::from(whole).checked_mul(size);
    }
    let (number, size) = match number.strip_suffix('u').or(number.strip_suffix('n')) {
        Some(small) if size == 1000 => (small, if number.ends_with('u') { 1e-3 } else { 1e-6 }),
        _ => (number, size as f64),
    };
    // Rust reads words for what is no number, too.
    if !number.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    Some((number * size).ceil() as u128)
}

/// The amount in bytes, rounded up. `None`: it is none, or too much.
pub fn bytes(quantity: &Quantity) -> Option<u64> {
    thousandths(quantity)?.div_ceil(1000).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_does() {
        for (text, expected) in [
            ("2", Some(2_000)),
            ("250m", Some(250)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("1Gi", Some(1_073_741_824_000)),
            ("1G", Some(1_000_000_000_000)),
            ("1e3", Some(1_000_000)),
            ("12E", Some(12_000_000_000_000_000_000_000)),
            ("1500u", Some(2)),
            ("1n", Some(1)),
            ("0", Some(0)),
            ("", None),
            ("much", None),
            ("inf", None),
            ("NaN", None),
            ("-1", None),
            ("1Xi", None),
            ("1 Gi", None),
        ] {
            assert_eq!(thousandths(&Quantity(text.into())), expected, "{text}");
        }
        assert_eq!(bytes(&Quantity("100m".into())), Some(1));
        assert_eq!(bytes(&Quantity("16Ei".into())), None);
        assert_eq!(bytes(&Quantity("8Gi".into())), Some(8 << 30));
    }
}
