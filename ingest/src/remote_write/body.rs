//! The snappy block around the message.

use crate::limits::{DECODED_RATIO_MAX, over};
use crate::{Limits, Refusal};

/// Replaces the content of `into` with the decompressed `body`.
///
/// The length that the body declares is checked before memory for it is taken. Snappy cannot pack more than some 20
/// bytes into one, so the ratio refuses only bodies that lie.
pub fn decompress(body: &[u8], into: &mut Vec<u8>, limits: &Limits) -> Result<(), Refusal> {
    limits.check_body(body.len())?;
    let corrupt = |why: &dyn std::fmt::Display| Refusal::bad(format!("snappy: corrupt input ({why})"));
    if body.is_empty() {
        return Err(corrupt(&"the body is empty"));
    }
    let declared = snap::raw::decompress_len(body).map_err(|e| corrupt(&e))?;
    limits.check_decoded(declared, 400)?;
    let ratio = declared / body.len();
    if ratio > limits.decoded_ratio_max {
        let what = "decoded bytes for each byte received";
        return Err(over(400, what, ratio, limits.decoded_ratio_max, DECODED_RATIO_MAX));
    }
    // Old bytes are overwritten, so only the growth has to be zeroed.
    into.resize(declared, 0);
    match snap::raw::Decoder::new().decompress(body, into) {
        Ok(len) => {
            into.truncate(len);
            Ok(())
        }
        Err(error) => {
            into.clear();
            Err(corrupt(&error))
        }
    }
}
