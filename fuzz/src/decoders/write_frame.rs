//! What a node says about writes: frames, replies, metadata. A reply that is read is written as it was understood.

use cluster::write::{Header, Refused, Reply, Session, decode_metadata, encode_metadata};
use model::{Metadata, MetricType, RejectReason, Shard};

pub fn check(bytes: &[u8]) -> bool {
    let header = Header::decode(bytes);
    if let Ok((header, sections)) = &header {
        let mut again = Vec::new();
        header.encode(&mut again);
        again.extend_from_slice(sections);
        assert_eq!(again, bytes);
    }
    let reply = Reply::decode(bytes);
    if let Ok((round, reply)) = &reply {
        let ordered = match reply {
            Reply::Appended { missing, unknown, .. } => missing.is_sorted() && unknown.is_sorted(),
            _ => true,
        };
        assert!(ordered);
        let again = Reply::decode(&reply.encode(*round)).expect("what was encoded decodes");
        assert_eq!((again.0, &again.1), (*round, reply));
    }
    let metadata = decode_metadata(bytes);
    if let Ok(metadata) = &metadata {
        assert_eq!(&decode_metadata(&encode_metadata(metadata)).expect("what was encoded decodes"), metadata);
    }
    header.is_ok() || reply.is_ok() || metadata.is_ok()
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut header = Vec::new();
    Header { epoch: 5, timeout_ms: 10_000, session: Session::new(2, 7), round: 1 }.encode(&mut header);
    let refused = Refused { position: 6, reason: RejectReason::SeriesLimit, timestamp: -1000, rows: 1 };
    let appended = Reply::Appended { missing: vec![3, 4], unknown: vec![5, 300], refused: vec![refused] };
    let others = [
        Reply::StaleEpoch { epoch: 5 },
        Reply::BehindEpoch { epoch: 5 },
        Reply::NotHeld { shard: Shard(300) },
        Reply::Failed { why: "the disk is full".to_owned() },
    ];
    let metadata = Metadata {
        family: "requests".to_owned(),
        metric_type: MetricType::Counter,
        help: "how many".to_owned(),
        unit: String::new(),
    };
    let replies = others.iter().chain([&appended]).map(|reply| reply.encode(1));
    replies.chain([header, encode_metadata(&[metadata.clone(), metadata])]).collect()
}
