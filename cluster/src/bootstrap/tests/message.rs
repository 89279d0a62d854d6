//! Messages as bytes.

use super::super::message::PAGE_BLOCKS;
use super::super::*;
use bytes::Bytes;
use model::{Digest, SealedBlock, Shard, TimeRange};
use proptest::prelude::*;

fn block() -> impl Strategy<Value = SealedBlock> {
    let times = prop::collection::vec(any::<i64>(), 4);
    let sizes = (1..PIECE_BYTES_MAX, 1u64..1 << 39);
    (any::<u128>(), times, any::<u64>(), sizes, any::<u64>(), prop::option::of(any::<u128>())).prop_map(
        |(id, mut times, samples, (tail_bytes, body), seal, digest)| {
            times.sort_unstable();
            SealedBlock {
                id,
                range: TimeRange::new(times[0], times[3]),
                span: TimeRange::new(times[1], times[2]),
                samples,
                bytes: body + tail_bytes,
                tail_bytes,
                seal,
                digest: digest.map(Digest),
            }
        },
    )
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        prop::option::of(any::<u128>()).prop_map(|after| Ask::Blocks { after }),
        (any::<u128>(), any::<u64>(), 1..=PIECE_BYTES_MAX).prop_map(|(id, at, len)| Ask::Piece {
            id,
            at,
            len
        }),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        (prop::collection::btree_map(any::<u128>(), block(), 1..9), any::<bool>()).prop_map(
            |(blocks, more)| {
                let blocks = blocks.into_iter().map(|(id, block)| SealedBlock { id, ..block }).collect();
                Reply::Blocks { blocks, more }
            }
        ),
        prop::collection::vec(any::<u8>(), 1..99).prop_map(|bytes| Reply::Piece(bytes.into())),
        Just(Reply::Gone),
        Just(Reply::Damaged),
        any::<u64>().prop_map(|epoch| Reply::Stale { epoch }),
        any::<u64>().prop_map(|epoch| Reply::Behind { epoch }),
        any::<u16>().prop_map(|shard| Reply::NotHeld { shard: Shard(shard) }),
        "[a-z ]{0,99}".prop_map(|why| Reply::Failed { why }),
    ]
}

proptest! {
    #[test]
    fn messages_round_trip(epoch: u64, shard: u16, ask in ask(), reply in reply()) {
        let request = Request { epoch, shard: Shard(shard), ask };
        prop_assert_eq!(Request::decode(&request.encode()).unwrap(), request);
        prop_assert_eq!(Reply::decode(reply.encode().into()).unwrap(), reply);
    }

    #[test]
    fn whatever_the_bytes_are_they_are_refused_or_the_only_form_of_a_message(
        reply in reply(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>(), junk: Vec<u8>
    ) {
        let mut bytes = reply.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())], &junk] {
            match Reply::decode(Bytes::copy_from_slice(bytes)) {
                Ok(Reply::Failed { .. }) | Err(_) => {}
                Ok(reply) => prop_assert_eq!(reply.encode(), bytes),
            }
            if let Ok(request) = Request::decode(bytes) {
                prop_assert_eq!(request.encode(), bytes);
            }
        }
    }
}

#[test]
fn a_block_that_is_longer_than_any_or_all_tail_is_refused() {
    let block = SealedBlock {
        id: 1,
        range: TimeRange::new(0, 9),
        span: TimeRange::new(1, 8),
        samples: 1,
        bytes: 100,
        tail_bytes: 10,
        seal: 2,
        digest: None,
    };
    let decoded = |block| Reply::decode(Reply::Blocks { blocks: vec![block], more: false }.encode().into());
    assert!(decoded(block).is_ok());
    for wrong in [
        SealedBlock { bytes: (1 << 40) + 1, ..block },
        SealedBlock { tail_bytes: 100, ..block },
        SealedBlock { tail_bytes: 0, ..block },
        SealedBlock { bytes: 1 << 30, tail_bytes: PIECE_BYTES_MAX + 1, ..block },
        SealedBlock { span: TimeRange::new(0, 10), ..block },
        SealedBlock { range: TimeRange::new(9, 0), ..block },
    ] {
        assert!(decoded(wrong).is_err(), "{wrong:?}");
    }
    assert!(Reply::decode(Reply::Blocks { blocks: vec![], more: true }.encode().into()).is_err());
    assert!(
        Reply::decode(Reply::Blocks { blocks: vec![block, block], more: false }.encode().into()).is_err()
    );
    let many = (0..=PAGE_BLOCKS as u128).map(|id| SealedBlock { id, ..block }).collect();
    assert!(Reply::decode(Reply::Blocks { blocks: many, more: false }.encode().into()).is_err());
}

#[test]
fn the_format_page_shows_the_bytes_that_are_written() {
    let page = include_str!("../../../../docs/format/bootstrap.md");
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let request = |ask| hex(Request { epoch: 3, shard: Shard(5), ask }.encode());
    let block = SealedBlock {
        id: 9,
        range: TimeRange::new(-1, 7_199_999),
        span: TimeRange::new(0, 7_185_000),
        samples: 480,
        bytes: 40_204,
        tail_bytes: 208,
        seal: 7,
        digest: Some(Digest(1)),
    };
    for example in [
        request(Ask::Blocks { after: None }),
        request(Ask::Blocks { after: Some(9) }),
        request(Ask::Piece { id: 9, at: 32_768, len: 7_228 }),
        hex(Reply::Blocks { blocks: vec![block], more: false }.encode()),
        hex(Reply::Piece(Bytes::from_static(b"hi")).encode()),
        hex(Reply::Gone.encode()),
        hex(Reply::Damaged.encode()),
        hex(Reply::Stale { epoch: 3 }.encode()),
        hex(Reply::Behind { epoch: 3 }.encode()),
        hex(Reply::NotHeld { shard: Shard(5) }.encode()),
        hex(Reply::Failed { why: "why".into() }.encode()),
    ] {
        assert!(page.contains(&example), "docs/format/bootstrap.md does not show {example}");
    }
    for number in [PAGE_BLOCKS as u64, PIECE_BYTES_MAX] {
        assert!(page.contains(&number.to_string()), "docs/format/bootstrap.md does not say {number}");
    }
}
