//! What a node says about writes: frames, replies, metadata. A reply that is read is written as it was understood.
#![no_main]

use cluster::write::{Header, Reply, decode_metadata, encode_metadata};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok((header, sections)) = Header::decode(bytes) {
        let mut again = Vec::new();
        header.encode(&mut again);
        again.extend_from_slice(sections);
        assert_eq!(again, bytes);
    }
    if let Ok((round, reply)) = Reply::decode(bytes) {
        let ordered = match &reply {
            Reply::Appended { missing, unknown, .. } => missing.is_sorted() && unknown.is_sorted(),
            _ => true,
        };
        assert!(ordered);
        assert_eq!(Reply::decode(&reply.encode(round)).expect("what was encoded decodes"), (round, reply));
    }
    if let Ok(metadata) = decode_metadata(bytes) {
        assert_eq!(decode_metadata(&encode_metadata(&metadata)).expect("what was encoded decodes"), metadata);
    }
});
