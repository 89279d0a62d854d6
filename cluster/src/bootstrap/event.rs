//! What goes into a [`super::Bootstrap`] and what comes out.

use super::work::{Done, Local};
use crate::placement::NodeId;
use crate::repair::Level;
use crate::view::View;
use bytes::Bytes;
use model::Shard;
use std::sync::Arc;

/// How bootstrap is paced.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes a second of this node, whatever the cluster allows besides ([`View::move_bytes_per_second`]); 0 for no limit.
    pub bytes_per_s: u64,
    /// Bytes of one piece: at least a page, at most [`super::PIECE_BYTES_MAX`].
    pub piece_bytes: u64,
    /// Questions that one peer has at a time.
    pub peer_max: usize,
    /// Pieces that are asked for or being written.
    pub under_way_max: usize,
    /// Blocks that are begun and not finished.
    pub imports_max: usize,
    /// How long a peer may take for an answer.
    pub timeout_ms: u32,
    /// What this node has of a shard that it has given up is forgotten after so long. Longer than a query takes that began before.
    pub forget_after_ms: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            bytes_per_s: 256 << 20,
            piece_bytes: (1 << 20) - (32 << 10),
            peer_max: 8,
            under_way_max: 16,
            imports_max: 32,
            timeout_ms: 15_000,
            forget_after_ms: 600_000,
        }
    }
}

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed. Several times a second.
    Tick,
    /// There is a new view; the first event. The copies that this node makes under it are filled, those that it makes no more are not.
    View(Arc<View>),
    /// Another [`Options::bytes_per_s`].
    Rate {
        /// 0 for no limit.
        bytes_per_s: u64,
    },
    /// Nothing more is asked for, until it goes on: moves to this node stand still, passes included.
    Pause(bool),
    /// How long clients wait, and how long they do when nothing is copied. At most once a second counts.
    Foreground {
        /// Of late.
        latency_us: u64,
        /// As a rule.
        usual_us: u64,
    },
    /// A peer has answered [`Effect::Ask`].
    Answer {
        /// Of the question.
        token: u64,
        /// The reply's bytes.
        reply: Bytes,
    },
    /// A peer could not be asked, or did not answer in time.
    Failed {
        /// Of the question.
        token: u64,
        /// For people.
        why: String,
    },
    /// [`Effect::Work`] has been done.
    Done {
        /// Of the work.
        token: u64,
        /// What came of it.
        done: Done,
    },
}

/// Something is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a question; what comes of it is [`Event::Answer`] or [`Event::Failed`].
    Ask {
        /// Names it.
        token: u64,
        /// To whom.
        peer: NodeId,
        /// For [`super::serve`] over there.
        request: Vec<u8>,
        /// How long to wait.
        timeout_ms: u32,
    },
    /// Do [`super::perform`] where blocking is allowed; what comes of it is [`Event::Done`].
    Work {
        /// Names it.
        token: u64,
        /// What.
        local: Local,
    },
    /// A shard has as much as blocks could bring: the passes of its copy may begin, for [`crate::repair::Event::Filled`].
    Filled(Filled),
    /// Do [`model::Replica::forget`] with those of these shards that are [`super::is_given_up`] at that moment, and accept no view in between; what
    /// comes of it is nobody's concern. Each with [`crate::placement::Placement::changed`].
    Forget(Vec<(Shard, u64)>),
    /// Tell people.
    Log {
        /// How loud.
        level: Level,
        /// What.
        text: String,
    },
}

/// What came of filling a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Which.
    pub shard: Shard,
    /// When the move began for which it was: [`crate::placement::Placement::changed`].
    pub since: u64,
    /// Blocks that came.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Windows of time that could not be brought from anybody. None: all that was offered is here.
    pub missed: u64,
    /// Why it ended early: this node could not, or no other copy answered.
    pub failure: Option<String>,
}

/// How far one copy is that this node makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyProgress {
    /// Of which shard.
    pub shard: Shard,
    /// Bytes of blocks that are here.
    pub bytes_done: u64,
    /// Bytes of blocks that there are to be; `None` until the others have said what they have.
    pub bytes_total: Option<u64>,
}

/// How far bootstrap is, since it last had nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Shards that wait.
    pub waiting: u64,
    /// Shards under way.
    pub running: u64,
    /// Shards that are filled.
    pub filled: u64,
    /// Bytes of the blocks that are to come, and came, as far as is known: of shards that wait it is not.
    pub bytes_total: u64,
    /// Bytes that are here.
    pub bytes_done: u64,
    /// Blocks that are here.
    pub blocks: u64,
    /// Bytes a second, of late.
    pub bytes_per_s: u64,
    /// When the bytes are here at this rate, in milliseconds; `None`: nothing comes.
    pub eta_ms: Option<u64>,
    /// What peers sent that was not what they had said.
    pub refused: u64,
    /// Questions that came to nothing.
    pub failed: u64,
}
