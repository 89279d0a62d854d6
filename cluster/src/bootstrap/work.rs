//! What bootstrap does with a replica's files: here, and for peers that ask. Blocking.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::message::{self, Ask, PAGE_BLOCKS, Reply, Request};
use crate::view::View;
use crate::wire::Malformed;
use bytes::Bytes;
use model::{Digest, Error, Import, Replica, SealedBlock, SealedBlocks, Shard, TimeRange};

/// Something to be done with this node's own data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// What is here already: the blocks, and the digests of these windows.
    Survey {
        /// Of which shard.
        shard: Shard,
        /// When.
        windows: Vec<TimeRange>,
    },
    /// Begin to import a block.
    Begin {
        /// Of which shard.
        shard: Shard,
        /// Which.
        block: SealedBlock,
        /// As it came.
        tail: Bytes,
    },
    /// Take a piece of it.
    Write {
        /// Of which shard.
        shard: Shard,
        /// Of which block.
        id: u128,
        /// Where it begins.
        at: u64,
        /// As it came.
        piece: Bytes,
    },
    /// Make a block visible of which everything is there.
    Finish {
        /// Of which shard.
        shard: Shard,
        /// Which.
        id: u128,
    },
    /// Remove what is left of imports that are not finished.
    Abandon {
        /// Of these shards.
        shards: Vec<Shard>,
        /// Of one block only.
        only: Option<u128>,
    },
}

/// What came of a [`Local`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// To [`Local::Survey`].
    Surveyed {
        /// The blocks, ascending.
        ids: Vec<u128>,
        /// In the order of the windows.
        digests: Vec<Digest>,
    },
    /// To [`Local::Begin`].
    Begun(Import),
    /// To [`Local::Write`], [`Local::Finish`] and [`Local::Abandon`].
    Finished,
    /// What the peer sent is not what the block is. Nothing was changed.
    Refused(String),
    /// It could not be done here.
    Failed(String),
}

/// Does it.
pub fn perform(replica: &dyn Replica, local: Local) -> Done {
    match try_perform(replica, local) {
        Ok(done) => done,
        Err(error @ Error::Corrupt { .. }) => Done::Refused(error.to_string()),
        Err(error) => Done::Failed(error.to_string()),
    }
}

fn try_perform(replica: &dyn Replica, local: Local) -> Result<Done, Error> {
    let sealed = files(replica)?;
    match local {
        Local::Survey { shard, windows } => {
            let mut ids: Vec<u128> = sealed.list(shard)?.iter().map(|block| block.id).collect();
            ids.sort_unstable();
            let digests = windows.into_iter().map(|window| replica.digest(shard, window));
            return Ok(Done::Surveyed { ids, digests: digests.collect::<Result<_, _>>()? });
        }
        Local::Begin { shard, block, tail } => {
            return Ok(Done::Begun(sealed.begin_import(shard, &block, &tail)?));
        }
        Local::Write { shard, id, at, piece } => sealed.import(shard, id, at, &piece)?,
        Local::Finish { shard, id } => sealed.finish_import(shard, id)?,
        Local::Abandon { shards, only } => {
            shards.into_iter().try_for_each(|shard| sealed.abandon_imports(shard, only))?;
        }
    }
    Ok(Done::Finished)
}

fn files(replica: &dyn Replica) -> Result<&dyn SealedBlocks, Error> {
    replica.sealed().ok_or_else(|| Error::ReadOnly { reason: "this replica has no files".to_owned() })
}

/// Answers a peer's question. The transport has proved who asks; which shards a replica holds, and under which placement, is checked here. A
/// question that makes no sense is an error, for the connection to end.
pub fn serve(view: &View, replica: &dyn Replica, request: &[u8]) -> Result<Vec<u8>, Malformed> {
    let Request { epoch, shard, ask } = Request::decode(request)?;
    let known = view.epoch();
    let refusal = if epoch < known {
        Reply::Stale { epoch: known }
    } else if epoch > known {
        Reply::Behind { epoch: known }
    } else if !view.readable_at(view.me).contains(shard) {
        Reply::NotHeld { shard }
    } else {
        return Ok(match look(replica, shard, ask) {
            Ok(reply) => reply,
            Err(Error::Corrupt { .. }) => Reply::Damaged.encode(),
            Err(error) => Reply::Failed { why: error.to_string() }.encode(),
        });
    };
    Ok(refusal.encode())
}

fn look(replica: &dyn Replica, shard: Shard, ask: Ask) -> Result<Vec<u8>, Error> {
    let sealed = files(replica)?;
    match ask {
        Ask::Blocks { after } => {
            let mut blocks = sealed.list(shard)?;
            blocks.retain(|block| after.is_none_or(|after| block.id > after));
            blocks.sort_unstable_by_key(|block| block.id);
            let more = blocks.len() > PAGE_BLOCKS;
            blocks.truncate(PAGE_BLOCKS);
            Ok(Reply::Blocks { blocks, more }.encode())
        }
        Ask::Piece { id, at, len } => {
            let piece = message::piece(len, |into| sealed.read(shard, id, at, into))?;
            Ok(piece.unwrap_or_else(|| Reply::Gone.encode()))
        }
    }
}
