//! Decoders of bytes that come from other nodes, or from a disk that may have changed them.
//!
//! A module each: `check` says what must be so whatever the bytes are, and whether they were taken; `seeds` gives real encodings to begin
//! with. `fuzz_targets/` runs them for as long as one likes, the tests of the whole system for a moment with every build
//! (`tests/tests/it/decoders.rs`), without a nightly compiler.

pub mod control_message;
pub mod control_state;
pub mod damage_file;
pub mod frame;
pub mod handshake;
pub mod hints;
pub mod identity;
pub mod node_file;
pub mod placement;
pub mod raft_log;
pub mod raft_message;
pub mod read;
pub mod repair;
pub mod rows;
pub mod write_frame;

/// A decoder.
pub struct Decoder {
    /// That of its module and of its fuzz target.
    pub name: &'static str,
    /// Panics if something is not as it must be; whether the bytes were taken.
    pub check: fn(&[u8]) -> bool,
    /// Bytes that are taken.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! all {
    ($($name:ident)*) => {
        /// All of them.
        pub const ALL: &[Decoder] =
            &[$(Decoder { name: stringify!($name), check: $name::check, seeds: $name::seeds }),*];
    };
}

all! {
    control_message control_state damage_file frame handshake hints identity node_file placement raft_log raft_message
    read repair rows write_frame
}

/// What a list of byte strings is in one input: a length of two bytes before each.
fn join(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let mut all = Vec::new();
    for part in parts {
        let part = part.as_ref();
        all.extend_from_slice(&(part.len() as u16).to_le_bytes());
        all.extend_from_slice(part);
    }
    all
}

/// The list again. What is announced and not there is what is left.
fn parts(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk()?;
        let (part, behind) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*len))));
        bytes = behind;
        Some(part)
    })
}

/// A text with the checksum line that ends every small file of the data directory, so that changes get to what is behind it.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut text = body.to_vec();
    text.extend_from_slice(format!("crc32 = {:08x}\n", crc32fast::hash(body)).as_bytes());
    text
}

/// The same without that line.
fn unsealed(text: &[u8]) -> Vec<u8> {
    let end = text.len() - "crc32 = 00000000\n".len();
    text[..end].to_vec()
}

/// Two nodes that have two shards each at two copies, as the node `me` sees them.
fn view(me: u128) -> cluster::view::View {
    use cluster::placement::{Node, NodeId, NodeState, Placement, Policy, compute};
    use cluster::view::View;
    use std::num::{NonZeroU8, NonZeroU32};

    let node = |id| Node {
        id: NodeId(id),
        domain: format!("z{id}").parse().expect("a path"),
        capacity: NonZeroU32::MIN,
        state: NodeState::Up,
    };
    let nodes = [node(1), node(2)];
    let policy = Policy { replication_factor: NonZeroU8::new(2).expect("not zero"), shards: 2 };
    let empty = Placement::empty(2).expect("a power of two");
    let placement = empty.adopt(&compute(&empty, &nodes, &policy).expect("there is room"));
    View { leader: Some(NodeId(1)), ..View::at_rest(CLUSTER, NodeId(me), &nodes, 2, placement) }
}

/// The cluster of [`view`].
const CLUSTER: u128 = 7;
