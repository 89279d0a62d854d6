//! How far everything is. The leader's belief, told to all nodes with the answers to their heartbeats; not agreed on.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::job::short;
use super::{ACTIVE_MAX, TEXT_BYTES_MAX};
use crate::placement::NodeId;
use crate::wire::{Malformed, Reader, Writer};

/// What is left to be copied, in all and by job, and what that waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Copies that are still to be made.
    pub copies: u64,
    /// Bytes of these, roughly.
    pub bytes: u64,
    /// Of these, what was copied a second lately; 0 if that is not known.
    pub bytes_per_s: u64,
    /// The jobs that are not over.
    pub jobs: Vec<Progress>,
    /// What stands in the way, with what would help.
    pub waits: Vec<String>,
    /// Why no node is taken for lost although one has been away for too long; empty if there is none.
    pub held: String,
    /// The nodes that get copies.
    pub filling: Vec<Filling>,
}

/// What is left to be copied to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filling {
    /// Which.
    pub node: NodeId,
    /// Copies that are still to be made there.
    pub copies: u64,
    /// Bytes of these, roughly.
    pub bytes: u64,
    /// When nothing will be left, as it goes now.
    pub eta_s: Option<u64>,
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Which.
    pub id: u64,
    /// Copies that are still to be made.
    pub copies: u64,
    /// Bytes of these, roughly.
    pub bytes: u64,
    /// Done, in thousandths.
    pub permille: u32,
    /// What was copied a second lately; 0 if that is not known.
    pub bytes_per_s: u64,
    /// When nothing will be left, as it goes now.
    pub eta_s: Option<u64>,
    /// What it waits for, with what would help; empty if it goes on.
    pub waits: String,
}

impl Outlook {
    /// Reasons for waiting that are told.
    pub const WAITS_MAX: usize = 8;
    /// Nodes that get copies.
    pub const FILLING_MAX: usize = 1024;

    /// What is left to be copied to a node; nothing if it gets none.
    pub fn to(&self, node: NodeId) -> Option<&Filling> {
        self.filling.iter().find(|filling| filling.node == node)
    }

    /// Of a job, if it is not over.
    pub fn of(&self, id: u64) -> Option<&Progress> {
        self.jobs.iter().find(|progress| progress.id == id)
    }

    pub(crate) fn put(&self, out: &mut Writer) {
        let Outlook { copies, bytes, bytes_per_s, jobs, waits, held, filling } = self;
        [*copies, *bytes, *bytes_per_s].into_iter().for_each(|number| out.varint(number));
        out.count(jobs.len());
        for Progress { id, copies, bytes, permille, bytes_per_s, eta_s, waits } in jobs {
            let eta = eta_s.map_or(0, |eta| eta.saturating_add(1));
            let numbers = [*id, *copies, *bytes, u64::from(*permille), *bytes_per_s, eta];
            numbers.into_iter().for_each(|number| out.varint(number));
            out.bytes(waits.as_bytes());
        }
        out.count(waits.len());
        waits.iter().for_each(|text| out.bytes(text.as_bytes()));
        out.bytes(held.as_bytes());
        out.count(filling.len());
        for Filling { node, copies, bytes, eta_s } in filling {
            out.u128(node.0);
            let eta = eta_s.map_or(0, |eta| eta.saturating_add(1));
            [*copies, *bytes, eta].into_iter().for_each(|number| out.varint(number));
        }
    }

    pub(crate) fn take(reader: &mut Reader<'_>) -> Result<Outlook, Malformed> {
        let (copies, bytes, bytes_per_s) = (reader.varint()?, reader.varint()?, reader.varint()?);
        let jobs = reader.list(|reader| {
            Ok(Progress {
                id: reader.varint()?,
                copies: reader.varint()?,
                bytes: reader.varint()?,
                permille: crate::state::codec::narrow(reader)?,
                bytes_per_s: reader.varint()?,
                eta_s: reader.varint()?.checked_sub(1),
                waits: short(reader)?,
            })
        })?;
        let (waits, held) = (reader.list(short)?, short(reader)?);
        let filling = reader.list(|reader| {
            let (node, copies, bytes) = (NodeId(reader.u128()?), reader.varint()?, reader.varint()?);
            Ok(Filling { node, copies, bytes, eta_s: reader.varint()?.checked_sub(1) })
        })?;
        if jobs.len() > ACTIVE_MAX || waits.len() > Outlook::WAITS_MAX || filling.len() > Outlook::FILLING_MAX
        {
            return Err(reader.malformed());
        }
        Ok(Outlook { copies, bytes, bytes_per_s, jobs, waits, held, filling })
    }
}

/// As much of a text as fits.
pub(crate) fn cut(mut text: String) -> String {
    while text.len() > TEXT_BYTES_MAX {
        text.pop();
    }
    text
}
