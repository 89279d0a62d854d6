//! The encoding: canonical, bounded, and as its page draws it.

use super::*;
use proptest::prelude::*;

const PAGE: &str = include_str!("../../../../docs/placement.md");

fn replica(id: u128, state: ReplicaState) -> Replica {
    Replica { node: NodeId(id), state }
}

fn placement() -> impl Strategy<Value = Placement> {
    let shard = (prop::collection::btree_set(1..300u128, 0..6), 0..6u8, any::<u64>()).prop_map(
        |(nodes, kind, since)| {
            let mut replicas: Vec<Replica> =
                nodes.iter().map(|&id| replica(id << 90, ReplicaState::Available)).collect();
            match (&mut replicas[..], kind) {
                ([first, ..], 1) => first.state = ReplicaState::Initializing { source: None },
                ([first, ..], 3) => first.state = ReplicaState::Leaving,
                ([first, .., last], 4) => {
                    (first.state, last.state) = (ReplicaState::Leaving, ReplicaState::Arrived);
                }
                ([first, .., last], 2) => {
                    first.state = ReplicaState::Initializing { source: Some(last.node) };
                    last.state = ReplicaState::Leaving;
                }
                _ => {}
            }
            (replicas, since)
        },
    );
    let shards = (0..5u32).prop_flat_map(move |bits| prop::collection::vec(shard.clone(), 1 << bits));
    (any::<u64>(), shards).prop_map(|(epoch, shards)| {
        let (shards, changed): (Vec<_>, Vec<u64>) = shards.into_iter().unzip();
        Placement::from_parts(epoch, shards, changed.into_iter().map(|since| since.min(epoch)).collect())
    })
}

proptest! {
    #[test]
    fn a_placement_survives_its_bytes(placement in placement()) {
        prop_assert_eq!(Placement::decode(&placement.encode()).unwrap(), placement);
    }

    #[test]
    fn bytes_that_no_encoder_writes_are_refused(
        placement in placement(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let good = placement.encode();
        let mut bytes = good.clone();
        bytes[at.index(good.len())] = byte;
        if let Ok(read) = Placement::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes, "what is read has one encoding");
        }
        prop_assert!(Placement::decode(&good[..cut.index(good.len())]).is_err());
        let longer = [good.as_slice(), &[byte]].concat();
        prop_assert!(Placement::decode(&longer).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0..3u8], 0..80)) {
        if let Ok(read) = Placement::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }
}

#[test]
fn the_page_shows_the_bytes() {
    let shards = vec![
        vec![replica(7, ReplicaState::Available)],
        vec![
            replica(7, ReplicaState::Leaving),
            replica(9, ReplicaState::Initializing { source: Some(NodeId(7)) }),
        ],
    ];
    let bytes = Placement::from_parts(300, shards, vec![1, 300]).encode();
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let example: Vec<&str> = PAGE
        .lines()
        .skip_while(|line| !line.starts_with("epoch 300"))
        .filter_map(|line| line.split_once("= "))
        .flat_map(|(_, bytes)| bytes.split_whitespace())
        .collect();
    assert_eq!(hex, example, "docs/placement.md and the encoder differ");
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let mut bytes = Placement::empty(1).unwrap().encode();
    bytes[0] = 3;
    assert_eq!(Placement::decode(&bytes), Err(Error::Version { got: 3, known: 2 }));
}

#[test]
fn states_that_cannot_be_are_refused() {
    let node = |id: u128| id.to_le_bytes();
    let table = [&[2, 9, 2][..], &node(1), &node(2), &[0]].concat();
    let refused = |shard: &[u8]| Placement::decode(&[table.as_slice(), shard].concat()).is_err();
    assert!(!refused(&[9, 2, 0, 4]), "two available");
    assert!(!refused(&[9, 2, 2, 5]), "one leaves for the other");
    assert!(!refused(&[9, 2, 2, 7]), "one has arrived and the other leaves");
    assert!(!refused(&[9, 2, 2, 4]), "one leaves and none comes");
    assert!(refused(&[9, 2, 1, 5]), "two initialize");
    assert!(refused(&[9, 2, 1, 7]), "one initializes and one has arrived");
    assert!(refused(&[9, 2, 2, 6]), "two leave");
    assert!(refused(&[10, 2, 0, 4]), "changed in an epoch to come");
    assert!(refused(&[9, 2, 4, 0]), "not in order");
    assert!(refused(&[9, 2, 0, 0]), "a node twice");
    assert!(refused(&[9, 1, 0]), "a node of the table without a replica");
    assert!(refused(&[9, 2, 0, 8]), "a node that is not in the table");
    assert!(refused(&[9, 2, 0, 0x84, 0]), "a varint that is longer than need be");
}
