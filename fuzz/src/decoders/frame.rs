//! Frames between nodes: refused, or the only form of what they say.

use cluster::transport::Kind;
use cluster::transport::frame::{Answer, Frame, Request, Status};

fn one<F: Frame>(bytes: &[u8]) -> bool {
    let Ok(frame) = F::decode(&mut &bytes[..]) else { return false };
    let mut again = Vec::new();
    frame.encode(&mut again);
    assert_eq!(again, bytes);
    assert_eq!(frame.wire_bytes(), bytes.len() + 5);
    true
}

pub fn check(bytes: &[u8]) -> bool {
    one::<Request>(bytes) | one::<Answer>(bytes)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let bytes_of = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        bytes
    };
    let request = |kind| Request { kind, id: 300, timeout_ms: 5_000, body: Vec::from(*b"body").into() };
    let answer = |status| Answer { status, id: 300, body: Vec::from(*b"body").into() };
    let requests = Kind::ALL.map(|kind| bytes_of(&|out| request(kind).encode(out)));
    let answers =
        [Status::Done, Status::Busy, Status::Failed].map(|s| bytes_of(&|out| answer(s).encode(out)));
    requests.into_iter().chain(answers).collect()
}
