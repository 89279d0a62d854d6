//! Short hashes of objects: whether something is still what would be made now.

use super::map;
use highway::{HighwayHash, HighwayHasher, Key};
use kube::api::DynamicObject;
use serde::Serialize;

/// On what is applied as a whole: the hash of it as it was made. Equal: nothing to apply, and no need to know what the API server has filled in.
pub const APPLIED_HASH: &str = "sarsen.dev/applied-hash";

/// 48 bits in hexadecimal digits. They are written into names and labels: the function must stay the same for ever, or all pods are restarted.
pub fn of(value: &impl Serialize) -> String {
    // By way of a `Value`, whose keys are sorted: the order of a struct's fields, which its crate may change, plays no part.
    let value = serde_json::to_value(value).expect("BUG: an object that is no JSON");
    let hash = HighwayHasher::new(Key([0; 4])).hash64(value.to_string().as_bytes());
    format!("{hash:016x}")[..12].to_owned()
}

/// The object with its own hash as an annotation.
pub fn stamped(object: &impl Serialize) -> DynamicObject {
    let hash = of(object);
    let value = serde_json::to_value(object).expect("BUG: an object that is no JSON");
    let mut object: DynamicObject = serde_json::from_value(value).expect("BUG: no object");
    object.metadata.annotations.get_or_insert_default().extend(map([(APPLIED_HASH, &hash)]));
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_hash_depends_on_the_content_and_stays_the_same_for_ever() {
        assert_eq!(of(&json!({"b": 1, "a": [2]})), of(&json!({"a": [2], "b": 1})));
        assert_ne!(of(&json!({"a": [2, 3]})), of(&json!({"a": [3, 2]})));
        assert_eq!(of(&json!({"a": 1})), "6719845a50a2");
    }
}
