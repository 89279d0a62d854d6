//! Compressed answers for those who ask.

use axum::http::{HeaderMap, header};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

/// Below this compressing costs more than it saves.
const BYTES_MIN: usize = 1024;

/// Whether `Accept-Encoding` names gzip without refusing it (`q=0`).
pub fn accepted(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).any(|v| {
        v.split(',').any(|item| {
            let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
            let refused = matches!(weight.trim().strip_prefix("q="), Some(q) if q.parse() == Ok(0.0));
            coding.trim().eq_ignore_ascii_case("gzip") && !refused
        })
    })
}

/// The body, compressed if it is long enough, and whether it is.
pub fn compress(body: Vec<u8>) -> (Vec<u8>, bool) {
    if body.len() < BYTES_MIN {
        return (body, false);
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
    encoder.write_all(&body).expect("BUG: writing to memory failed");
    (encoder.finish().expect("BUG: writing to memory failed"), true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn gzip_is_used_only_when_asked_for() {
        let accepts = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            accepted(&headers)
        };
        assert!(accepts("gzip"));
        assert!(accepts("deflate, gzip;q=0.5"));
        assert!(!accepts("gzip;q=0"));
        assert!(!accepts("br, identity"));
        assert!(!accepted(&HeaderMap::new()));
    }

    #[test]
    fn long_bodies_shrink_and_read_back() {
        let body = b"abc".repeat(1000);
        let (small, compressed) = compress(body.clone());
        assert!(compressed && small.len() < 100);
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&small[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, body);
        assert_eq!(compress(b"short".to_vec()), (b"short".to_vec(), false));
    }
}
