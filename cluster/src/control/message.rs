//! Calls between controllers, and their answers. `docs/format/control-state.md` draws them.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::event::NodeReport;
use super::health::{Beat, COPIES_MAX, Copies, Heard, Sighting, Tidings};
use crate::bootstrap::CopyProgress;
use crate::jobs::Outlook;
use crate::placement::NodeId;
use crate::state::{Outcome, Refusal, Request, codec};
use crate::view::Health;
use crate::wire::{Malformed, Reader, Writer};

const VERSION: u8 = 1;

/// What a node asks another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The leader shall propose this. To join is to propose oneself.
    Propose(Request),
    /// For the leader: how the node is, and what it knows.
    Heartbeat(Beat, Tidings),
    /// To which cluster does the one who is asked belong?
    Whose,
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The proposal was agreed on and this came of it. A node that joins or has started gets the state, too.
    Taken {
        /// Everything up to this place was applied by then.
        index: u64,
        /// What came of it.
        result: Result<Outcome, Refusal>,
        /// A [`crate::state::State`].
        state: Option<Vec<u8>>,
    },
    /// Ask the leader.
    NotLeader(Option<(NodeId, String)>),
    /// Ask again.
    Busy,
    /// A heartbeat was heard. How everybody is, and how far everything.
    Health(Vec<(NodeId, Sighting)>, Outlook),
    /// A heartbeat of a process that must stop.
    Stop(Refusal),
    /// Who was asked belongs to this other cluster.
    Foreign(u128),
    /// Who was asked belongs to this cluster.
    Cluster(u128),
}

impl Call {
    /// The call's bytes. `cluster` is the caller's, 0 if it belongs to none yet.
    pub fn encode(&self, cluster: u128) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u128(cluster);
        match self {
            Call::Propose(request) => {
                out.u8(1);
                out.0.extend_from_slice(&request.encode());
            }
            Call::Heartbeat(beat, Tidings { copies: Copies { complete, progress }, sees }) => {
                out.u8(2);
                put_beat(&mut out, beat);
                out.count(complete.len());
                for (shard, since) in complete {
                    out.varint(u64::from(shard.0));
                    out.varint(*since);
                }
                let told = progress.get(..COPIES_MAX).unwrap_or(progress);
                out.count(told.len());
                told.iter().for_each(|copy| put_copy(&mut out, copy));
                out.count(sees.len());
                sees.iter().for_each(|node| out.u128(node.0));
            }
            Call::Whose => out.u8(3),
        }
        out.0
    }

    /// Reads what [`Call::encode`] wrote.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn decode(bytes: &[u8]) -> Result<(u128, Call), Malformed> {
        let mut reader = Reader::new(bytes, "call of a controller");
        if reader.u8()? != VERSION {
            return Err(reader.malformed());
        }
        let cluster = reader.u128()?;
        let call = match reader.u8()? {
            1 => Call::Propose(Request::decode(reader.rest())?),
            2 => {
                let beat = take_beat(&mut reader)?;
                let one = |reader: &mut Reader<'_>| Ok((codec::take_shard(reader)?, reader.varint()?));
                let (complete, progress) = (reader.list(one)?, reader.list(take_copy)?);
                if progress.len() > COPIES_MAX {
                    return Err(reader.malformed());
                }
                let sees = reader.list(|reader| Ok(NodeId(reader.u128()?)))?;
                Call::Heartbeat(beat, Tidings { copies: Copies { complete, progress }, sees })
            }
            3 => Call::Whose,
            _ => return Err(reader.malformed()),
        };
        reader.end()?;
        Ok((cluster, call))
    }
}

impl Answer {
    /// The answer's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        match self {
            Answer::Taken { index, result, state } => {
                out.u8(1);
                out.varint(*index);
                codec::put_answer(&mut out, result);
                out.u8(u8::from(state.is_some()));
                out.0.extend_from_slice(state.as_deref().unwrap_or_default());
            }
            Answer::NotLeader(leader) => {
                out.u8(2);
                out.u8(u8::from(leader.is_some()));
                if let Some((node, address)) = leader {
                    out.u128(node.0);
                    out.bytes(address.as_bytes());
                }
            }
            Answer::Busy => out.u8(3),
            Answer::Health(table, outlook) => {
                out.u8(4);
                out.count(table.len());
                for (node, sighting) in table {
                    out.u128(node.0);
                    out.u8(match sighting.health {
                        Health::Up => 0,
                        Health::Suspect => 1,
                        Health::Down => 2,
                    });
                    out.varint(sighting.age_ms);
                    put_beat(&mut out, &sighting.beat);
                    out.varint(u64::from(sighting.heard.by));
                    out.varint(u64::from(sighting.heard.of));
                }
                outlook.put(&mut out);
            }
            Answer::Stop(refusal) => {
                out.u8(5);
                codec::put_answer(&mut out, &Err(refusal.clone()));
            }
            Answer::Foreign(cluster) => {
                out.u8(6);
                out.u128(*cluster);
            }
            Answer::Cluster(cluster) => {
                out.u8(7);
                out.u128(*cluster);
            }
        }
        out.0
    }

    /// Reads what [`Answer::encode`] wrote.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn decode(bytes: &[u8]) -> Result<Answer, Malformed> {
        let mut reader = Reader::new(bytes, "answer of a controller");
        if reader.u8()? != VERSION {
            return Err(reader.malformed());
        }
        let answer = match reader.u8()? {
            1 => {
                let (index, result) = (reader.varint()?, codec::take_answer(&mut reader)?);
                let state = codec::flag(&mut reader)?.then(|| reader.rest().to_vec());
                Answer::Taken { index, result, state }
            }
            2 => Answer::NotLeader(match codec::flag(&mut reader)? {
                true => Some((NodeId(reader.u128()?), codec::text(&mut reader)?)),
                false => None,
            }),
            3 => Answer::Busy,
            4 => {
                let table = reader.list(|reader| {
                    let node = NodeId(reader.u128()?);
                    let health = match reader.u8()? {
                        0 => Health::Up,
                        1 => Health::Suspect,
                        2 => Health::Down,
                        _ => return Err(reader.malformed()),
                    };
                    let (age_ms, beat) = (reader.varint()?, take_beat(reader)?);
                    let heard = Heard { by: codec::narrow(reader)?, of: codec::narrow(reader)? };
                    Ok((node, Sighting { health, age_ms, beat, heard }))
                })?;
                Answer::Health(table, Outlook::take(&mut reader)?)
            }
            5 => match codec::take_answer(&mut reader)? {
                Err(refusal) => Answer::Stop(refusal),
                Ok(_) => return Err(reader.malformed()),
            },
            6 => Answer::Foreign(reader.u128()?),
            7 => Answer::Cluster(reader.u128()?),
            _ => return Err(reader.malformed()),
        };
        reader.end()?;
        Ok(answer)
    }
}

fn put_copy(out: &mut Writer, copy: &CopyProgress) {
    let CopyProgress { shard, bytes_done, bytes_total } = copy;
    out.varint(u64::from(shard.0));
    out.varint(*bytes_done);
    out.u8(u8::from(bytes_total.is_some()));
    bytes_total.iter().for_each(|total| out.varint(*total));
}

fn take_copy(reader: &mut Reader<'_>) -> Result<CopyProgress, Malformed> {
    let (shard, bytes_done) = (codec::take_shard(reader)?, reader.varint()?);
    let bytes_total = if codec::flag(reader)? { Some(reader.varint()?) } else { None };
    Ok(CopyProgress { shard, bytes_done, bytes_total })
}

fn put_beat(out: &mut Writer, beat: &Beat) {
    let Beat { starts, boot, applied, epoch, leaving, report } = beat;
    out.varint(*starts);
    out.u128(*boot);
    out.varint(*applied);
    out.varint(*epoch);
    out.u8(u8::from(*leaving));
    let NodeReport { disk_free, disk_total, series, load_permille, damage, data_bytes, has_data } = report;
    let counts = [u64::from(*load_permille), u64::from(*damage)];
    let numbers = [*disk_free, *disk_total, *series, counts[0], counts[1], *data_bytes];
    numbers.into_iter().for_each(|number| out.varint(number));
    out.u8(u8::from(*has_data));
}

fn take_beat(reader: &mut Reader<'_>) -> Result<Beat, Malformed> {
    Ok(Beat {
        starts: reader.varint()?,
        boot: reader.u128()?,
        applied: reader.varint()?,
        epoch: reader.varint()?,
        leaving: codec::flag(reader)?,
        report: NodeReport {
            disk_free: reader.varint()?,
            disk_total: reader.varint()?,
            series: reader.varint()?,
            load_permille: codec::narrow(reader)?,
            damage: codec::narrow(reader)?,
            data_bytes: reader.varint()?,
            has_data: codec::flag(reader)?,
        },
    })
}
