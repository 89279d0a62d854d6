//! What was done to a disk, and what can be left of it.

use super::CrashVfs;
use super::image::{Content, Image, Link, Node, NodeId};
use crate::lots::Lots;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// An operation that changes what is on disk, or what is sure to be there.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Write {
        node: NodeId,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    SetLen {
        node: NodeId,
        len: u64,
    },
    SyncFile {
        node: NodeId,
    },
    /// The un-synced writes of this file were thrown away.
    Dropped {
        node: NodeId,
    },
    /// Names change, all or none. A name that leads to a node of which nothing is known makes an empty file.
    Links(Arc<[Link]>),
    /// A folder was made, durably.
    Folder(Link),
    SyncFolder {
        node: NodeId,
    },
}

impl Op {
    /// Does to a file's bytes what the operation says.
    pub fn apply_data(&self, content: &mut Content) {
        match self {
            Op::Write { offset, bytes, .. } => content.write(bytes, *offset),
            Op::SetLen { len, .. } => content.set_len(*len),
            _ => {}
        }
    }

    fn is_data_of(&self, file: NodeId) -> bool {
        matches!(self, Op::Write { node, .. } | Op::SetLen { node, .. } if *node == file)
    }
}

/// Everything that happened to a [`CrashVfs`], in order.
#[derive(Clone)]
pub struct Journal {
    base: Image,
    ops: Arc<[Op]>,
}

/// How far to look at each crash point.
#[derive(Clone, Copy, Debug)]
pub struct Exploration {
    /// Try every subset of the un-synced operations as long as there are no more than this many; else prefixes, 64 at most.
    pub subsets_max: u64,
    /// How many further disks to draw by lot, with torn writes and all.
    pub samples: u64,
    /// What the lots depend on.
    pub seed: u64,
}

impl Default for Exploration {
    fn default() -> Exploration {
        Exploration { subsets_max: 64, samples: 16, seed: 0 }
    }
}

/// Which un-synced operations are found on the disk after the crash.
///
/// Its text (`prefix:3`) can be parsed again, to repeat a crash with [`Journal::crash`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// None.
    Nothing,
    /// All.
    Everything,
    /// The first so many.
    Prefix(u32),
    /// Those whose bit is set, the oldest in the lowest.
    Subset(u64),
    /// Names and lengths, but not a byte of data.
    NamesOnly,
    /// Data and lengths, but no name.
    DataOnly,
    /// All but the last write, of which only so many 512-byte sectors are there; behind them is what was before.
    Torn(u32),
    /// As `Torn`, but garbage where the file had never been durable.
    TornGarbage(u32),
    /// A lot for every operation, sector, name and length.
    Lots(u64),
}

impl fmt::Display for Survivors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Survivors::Nothing => f.write_str("nothing"),
            Survivors::Everything => f.write_str("everything"),
            Survivors::Prefix(n) => write!(f, "prefix:{n}"),
            Survivors::Subset(bits) => write!(f, "subset:{bits}"),
            Survivors::NamesOnly => f.write_str("names-only"),
            Survivors::DataOnly => f.write_str("data-only"),
            Survivors::Torn(sectors) => write!(f, "torn:{sectors}"),
            Survivors::TornGarbage(sectors) => write!(f, "torn-garbage:{sectors}"),
            Survivors::Lots(seed) => write!(f, "lots:{seed}"),
        }
    }
}

impl FromStr for Survivors {
    type Err = String;
    fn from_str(text: &str) -> Result<Survivors, String> {
        let (name, number) = text.split_once(':').unwrap_or((text, "0"));
        let wrong = || format!("{text:?} names no survivors of a crash");
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let small = u32::try_from(number).map_err(|_| wrong());
        Ok(match name {
            "nothing" => Survivors::Nothing,
            "everything" => Survivors::Everything,
            "prefix" => Survivors::Prefix(small?),
            "subset" => Survivors::Subset(number),
            "names-only" => Survivors::NamesOnly,
            "data-only" => Survivors::DataOnly,
            "torn" => Survivors::Torn(small?),
            "torn-garbage" => Survivors::TornGarbage(small?),
            "lots" => Survivors::Lots(number),
            _ => return Err(wrong()),
        })
    }
}

/// A disk after a crash. Its text tells how to make it again.
pub struct Crash {
    /// How many operations had been done.
    pub after: usize,
    /// What of the un-synced ones is left.
    pub survivors: Survivors,
    /// The disk.
    pub vfs: CrashVfs,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crash after operation {} with survivors {}", self.after, self.survivors)
    }
}

impl Journal {
    pub(super) fn new(base: Image, ops: Vec<Op>) -> Journal {
        Journal { base, ops: ops.into() }
    }

    /// How many operations there were.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The disks that can be found after a crash at any point, made one by one. The first crash comes before the first
    /// operation, the last one after the last.
    pub fn states(&self, exploration: &Exploration) -> impl Iterator<Item = Crash> {
        let exploration = *exploration;
        self.points().flat_map(move |point| {
            let point = Arc::new(point);
            point.survivors(&exploration).into_iter().map(move |survivors| Crash {
                after: point.after,
                survivors,
                vfs: point.crash(survivors),
            })
        })
    }

    /// One disk, to repeat what a failure printed.
    pub fn crash(&self, after: usize, survivors: Survivors) -> Crash {
        let vfs = self.point(after).crash(survivors);
        Crash { after, survivors, vfs }
    }

    /// The un-synced operations at a crash point, one a line, for reading a failure.
    pub fn pending(&self, after: usize) -> String {
        let point = self.point(after);
        let line = |(index, op): &(usize, Op)| match op {
            Op::Write { node, offset, bytes } => {
                format!("{index}: write {} bytes at {offset} of file {node}\n", bytes.len())
            }
            Op::SetLen { node, len } => format!("{index}: set length {len} of file {node}\n"),
            Op::Links(links) => format!("{index}: names {links:?}\n"),
            other => format!("{index}: {other:?}\n"),
        };
        point.pending.iter().map(line).collect()
    }

    pub(super) fn durable_content(&self, node: NodeId) -> Content {
        let point = self.point(self.len());
        point.durable.file(node).map(|content| (**content).clone()).unwrap_or_default()
    }

    fn point(&self, after: usize) -> Point {
        let mut point = Point::new(self.base.clone());
        self.ops.iter().take(after).for_each(|op| point.advance(op));
        point
    }

    fn points(&self) -> impl Iterator<Item = Point> {
        let ops = self.ops.clone();
        let mut next = Some(Point::new(self.base.clone()));
        std::iter::from_fn(move || {
            let point = next.take()?;
            if let Some(op) = ops.get(point.after) {
                let mut following = point.clone();
                following.advance(op);
                next = Some(following);
            }
            Some(point)
        })
    }
}

/// A moment in which the power may fail.
#[derive(Clone)]
struct Point {
    after: usize,
    /// What is there for certain.
    durable: Image,
    /// What may be there as well, with its number in the journal.
    pending: Vec<(usize, Op)>,
}

impl Point {
    fn new(durable: Image) -> Point {
        Point { after: 0, durable, pending: Vec::new() }
    }

    fn advance(&mut self, op: &Op) {
        let index = self.after;
        self.after += 1;
        match op {
            Op::Write { .. } | Op::SetLen { .. } => self.pending.push((index, op.clone())),
            Op::Links(links) => {
                for (_, _, node) in links.iter() {
                    if let Some(node) = *node
                        && self.durable.file(node).is_none()
                        && self.durable.folder(node).is_none()
                    {
                        self.durable.insert(node, Node::File(Arc::default()));
                    }
                }
                self.pending.push((index, op.clone()));
            }
            Op::Folder(link) => {
                if let (_, _, Some(node)) = link {
                    self.durable.insert(*node, Node::Folder(Arc::default()));
                }
                self.durable.link(link);
                self.sync_folder(link.0);
            }
            Op::SyncFile { node } => {
                let durable = &mut self.durable;
                self.pending.retain(|(_, op)| {
                    let synced = op.is_data_of(*node);
                    if synced {
                        op.apply_data(durable.content(*node));
                    }
                    !synced
                });
            }
            Op::Dropped { node } => {
                // The length is in the inode, which is a matter of the journal and not of the pages.
                let mut len = self.durable.file(*node).map_or(0, |content| content.len());
                for (_, op) in &mut self.pending {
                    match op {
                        Op::SetLen { node: of, len: new } if of == node => len = *new,
                        Op::Write { node: of, offset, bytes } if of == node => {
                            len = len.max(*offset + bytes.len() as u64);
                            *op = Op::SetLen { node: *node, len };
                        }
                        _ => {}
                    }
                }
            }
            Op::SyncFolder { node } => self.sync_folder(*node),
        }
    }

    fn sync_folder(&mut self, node: NodeId) {
        let durable = &mut self.durable;
        self.pending.retain(|(_, op)| match op {
            Op::Links(links) if links.iter().any(|(folder, ..)| *folder == node) => {
                links.iter().for_each(|link| durable.link(link));
                false
            }
            _ => true,
        });
        // What became of files that no name can lead to any more makes no difference.
        let names = self.pending.iter().filter_map(|(_, op)| match op {
            Op::Links(links) => Some(links.iter().filter_map(|(.., node)| *node)),
            _ => None,
        });
        let reachable = self.durable.reachable(names.flatten());
        self.pending.retain(|(_, op)| match op {
            Op::Write { node, .. } | Op::SetLen { node, .. } => reachable.contains(node),
            _ => true,
        });
    }

    /// What to try here.
    fn survivors(&self, exploration: &Exploration) -> Vec<Survivors> {
        let pending = self.pending.len();
        let mut all = vec![Survivors::Nothing];
        if pending == 0 {
            return all;
        }
        all.push(Survivors::Everything);
        let subsets = 1u64.checked_shl(pending as u32).unwrap_or(u64::MAX);
        if subsets <= exploration.subsets_max {
            all.extend((1..subsets - 1).map(Survivors::Subset));
        } else {
            let step = pending.div_ceil(64);
            all.extend((1..pending as u32).step_by(step).map(Survivors::Prefix));
        }
        let names = self.pending.iter().filter(|(_, op)| matches!(op, Op::Links(_))).count();
        let writes = self.pending.iter().filter(|(_, op)| matches!(op, Op::Write { .. })).count();
        if writes > 0 {
            all.push(Survivors::NamesOnly);
        }
        if names > 0 && writes > 0 {
            all.push(Survivors::DataOnly);
        }
        if let Some((_, Op::Write { offset, bytes, .. })) =
            self.pending.iter().rev().find(|(_, op)| matches!(op, Op::Write { .. }))
        {
            let sectors = sectors(*offset, bytes.len(), SECTOR_BYTES).count();
            // A long write is cut at its ends and at some places between.
            let step = sectors.div_ceil(16).max(1);
            for cut in (1..sectors).step_by(step) {
                all.extend([Survivors::Torn(cut as u32), Survivors::TornGarbage(cut as u32)]);
            }
        }
        let mut lots = Lots(exploration.seed ^ (self.after as u64).wrapping_mul(0x9e37_79b9));
        all.extend((0..exploration.samples).map(|_| Survivors::Lots(lots.next())));
        all
    }

    fn crash(&self, survivors: Survivors) -> CrashVfs {
        let mut image = self.durable.clone();
        let fates = self.fates(survivors);
        let mut files: BTreeMap<NodeId, Vec<(&Op, Fate)>> = BTreeMap::new();
        for ((_, op), fate) in self.pending.iter().zip(fates) {
            match op {
                Op::Write { node, .. } | Op::SetLen { node, .. } => {
                    files.entry(*node).or_default().push((op, fate));
                }
                Op::Links(links) if fate.data != Data::Lost => links.iter().for_each(|link| image.link(link)),
                _ => {}
            }
        }
        for (node, ops) in files {
            settle(image.content(node), &ops);
        }
        image.sweep();
        CrashVfs::from_image(image)
    }

    /// What becomes of each pending operation.
    fn fates(&self, survivors: Survivors) -> Vec<Fate> {
        let last_write = self.pending.iter().rposition(|(_, op)| matches!(op, Op::Write { .. }));
        let mut lots = Lots(match survivors {
            Survivors::Lots(seed) => seed,
            _ => self.after as u64,
        });
        // Each lot first draws how this crash treats operations, so that unlike crashes are tried.
        let keep = [10, 50, 90][lots.below(3)];
        let tear = [0, 20, 60][lots.below(3)];
        let sector = [SECTOR_BYTES, 4096][lots.below(2)];
        let garbage_share = [0, 50][lots.below(2)];
        let fate = |(n, (_, op)): (usize, &(usize, Op))| {
            let whole = |kept| match kept {
                true => Fate { data: Data::Whole, length: true, garbage: None },
                false => Fate { data: Data::Lost, length: false, garbage: None },
            };
            let is_name = matches!(op, Op::Links(_));
            let torn = |sectors, garbage| match last_write == Some(n) {
                true => Fate { data: Data::First(sectors), length: true, garbage },
                false => whole(true),
            };
            match survivors {
                Survivors::Nothing => whole(false),
                Survivors::Everything => whole(true),
                Survivors::Prefix(kept) => whole(n < kept as usize),
                Survivors::Subset(bits) => whole(n < 64 && bits >> n & 1 == 1),
                Survivors::NamesOnly if is_name => whole(true),
                Survivors::NamesOnly => Fate { data: Data::Lost, length: true, garbage: None },
                Survivors::DataOnly => whole(!is_name),
                Survivors::Torn(sectors) => torn(sectors, None),
                Survivors::TornGarbage(sectors) => torn(sectors, Some(self.after as u64)),
                Survivors::Lots(_) => {
                    let data = match (lots.percent(tear), lots.percent(keep)) {
                        (true, _) if !is_name => Data::Some { seed: lots.next(), sector },
                        (_, true) => Data::Whole,
                        (_, false) => Data::Lost,
                    };
                    let garbage = lots.percent(garbage_share).then(|| lots.next());
                    Fate { data, length: lots.percent(keep), garbage }
                }
            }
        };
        self.pending.iter().enumerate().map(fate).collect()
    }
}

const SECTOR_BYTES: u64 = 512;

#[derive(Clone, Copy)]
struct Fate {
    data: Data,
    /// Whether the file is at least as new in length as this operation made it.
    length: bool,
    /// Put garbage instead of zeros where lost bytes lie beyond what was durable.
    garbage: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Data {
    Lost,
    Whole,
    /// Only the first so many sectors.
    First(u32),
    /// Every sector by lot.
    Some {
        seed: u64,
        sector: u64,
    },
}

/// Brings a file's durable bytes to what the crash left of it.
fn settle(content: &mut Content, ops: &[(&Op, Fate)]) {
    let durable_len = content.len();
    // The length is that after the last operation whose length counts; shortenings after it did not happen.
    let lengths = ops.iter().rposition(|(_, fate)| fate.length).map_or(0, |last| last + 1);
    let mut len = durable_len;
    for (n, (op, fate)) in ops.iter().enumerate() {
        match op {
            Op::SetLen { len: new, .. } if n < lengths => {
                content.set_len(*new);
                len = *new;
            }
            Op::Write { offset, bytes, .. } => {
                write_survivors(content, *offset, bytes, *fate, durable_len);
                if n < lengths {
                    len = len.max(offset + bytes.len() as u64);
                }
            }
            _ => {}
        }
    }
    content.set_len(len);
}

fn write_survivors(content: &mut Content, offset: u64, bytes: &[u8], fate: Fate, durable_len: u64) {
    let mut lots = Lots(fate.garbage.unwrap_or_default());
    let (sector, mut chosen) = match fate.data {
        Data::Some { seed, sector } => (sector, Lots(seed)),
        _ => (SECTOR_BYTES, Lots(0)),
    };
    for (n, (from, to)) in sectors(offset, bytes.len(), sector).enumerate() {
        let kept = match fate.data {
            Data::Lost => false,
            Data::Whole => true,
            Data::First(sectors) => n < sectors as usize,
            Data::Some { .. } => chosen.percent(50),
        };
        let part = &bytes[(from - offset) as usize..(to - offset) as usize];
        if kept {
            content.write(part, from);
        } else if fate.garbage.is_some() && from >= durable_len {
            let garbage: Vec<u8> = part.iter().map(|_| lots.next() as u8).collect();
            content.write(&garbage, from);
        }
    }
}

/// The parts of a write that lie in different sectors of the file.
fn sectors(offset: u64, len: usize, sector: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = offset + len as u64;
    let mut from = offset;
    std::iter::from_fn(move || {
        let start = from;
        from = (start / sector + 1).saturating_mul(sector).min(end);
        (start < end).then_some((start, from))
    })
}
