//! Questions and answers of repair, from a peer that may say anything.

use cluster::repair::{Reply, Request};

pub fn check(bytes: &[u8]) -> bool {
    // What is taken has one form, so it is written as it was read.
    let request = Request::decode(bytes);
    if let Ok(request) = &request {
        assert_eq!(&request.encode(), bytes);
    }
    let reply = Reply::decode(bytes);
    if let Ok(reply) = &reply
        && !matches!(reply, Reply::Failed { .. })
    {
        assert_eq!(reply.encode(), bytes);
    }
    request.is_ok() || reply.is_ok()
}

/// Those of the page: a test holds them against the code.
pub fn seeds() -> Vec<Vec<u8>> {
    let page = include_str!("../../../docs/format/repair.md");
    let hex = |line: &str| -> Option<Vec<u8>> {
        let digits = line.strip_prefix("    ")?.as_bytes().chunks(2);
        digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
    };
    page.lines().filter_map(hex).collect()
}
