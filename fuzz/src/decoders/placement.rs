//! A placement: refused, or the only form of what it says.

use cluster::placement::Placement;

pub fn check(bytes: &[u8]) -> bool {
    let Ok(placement) = Placement::decode(bytes) else { return false };
    assert_eq!(placement.encode(), bytes);
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let view = super::view(1);
    vec![view.placement.encode(), Placement::empty(4).expect("a power of two").encode()]
}
