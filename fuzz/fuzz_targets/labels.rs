//! Canonical label bytes: what passes the check can be walked, and there is no other spelling of it.
#![no_main]

use model::Labels;
use model::labels::{Iter, is_canonical};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if !is_canonical(bytes) {
        return;
    }
    let pairs: Vec<(&str, &str)> = Iter::new(bytes).collect();
    assert!(pairs.is_sorted_by(|a, b| a.0 < b.0), "names are sorted and unique");
    assert!(pairs.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()));
    let again = Labels::from_pairs(pairs).expect("what is canonical can be built");
    assert_eq!(again.as_bytes(), bytes);
});
