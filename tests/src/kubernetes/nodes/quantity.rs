//! Amounts as Kubernetes writes them: `250m`, `8Gi`, `1e3`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The amount in thousandths; `None` for what is no quantity.
pub fn thousandths(quantity: &Quantity) -> Option<i128> {
    const UNITS: [(&str, f64); 14] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
    ];
    let text = quantity.0.as_str();
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1.0));
    let number: f64 = number.parse().ok()?;
    // Rounded up, as the real ones are.
    Some((number * factor * 1000.0).ceil() as i128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_of_both_kinds_are_understood() {
        let parse = |text: &str| thousandths(&Quantity(text.into()));
        assert_eq!(parse("2"), Some(2000));
        assert_eq!(parse("250m"), Some(250));
        assert_eq!(parse("1Gi"), Some(1024 * 1024 * 1024 * 1000));
        assert_eq!(parse("1G"), Some(1_000_000_000_000));
        assert_eq!(parse("1e3"), Some(1_000_000));
        assert_eq!(parse("much"), None);
    }
}
