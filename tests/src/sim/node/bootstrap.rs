//! Bootstrap's shell.

use super::super::clients::PATIENCE_MS;
use super::super::network::Machine;
use super::super::values::rows;
use super::super::world::Out;
use super::calls::For;
use super::{Process, Timer, dice};
use crate::random::{Random, mix};
use cluster::bootstrap::{
    Bootstrap, CopyProgress, Done, Effect, Event, Filled, Local, Options, is_given_up, perform, serve,
};
use cluster::repair;
use model::{Forgotten, Replica, Samples, Shard, Sink, TimeRange};
use std::sync::Arc;
use storage::block::Reader;

/// Of a hundred answers, how many have a wrong bit, where anything is wrong with the memory of machines.
const SPOILED: u64 = 5;

/// The bootstrap of a process.
pub struct Bootstraps {
    bootstrap: Bootstrap,
    lots: Random,
    /// Whether some answers of this process have a wrong bit.
    spoils: bool,
}

impl Bootstraps {
    pub fn new(out: &Out<'_>) -> Bootstraps {
        let options = Options {
            timeout_ms: 5_000,
            piece_bytes: model::BLOCK_PAGE,
            forget_after_ms: PATIENCE_MS,
            ..Options::default()
        };
        let spoils = mix(out.env.swarm.seed ^ mix(7)) % 100 < 30;
        Bootstraps { bootstrap: Bootstrap::new(options, out.run << 32), lots: dice(out, 3), spoils }
    }

    /// How far each copy is.
    pub fn copies(&self) -> Vec<CopyProgress> {
        self.bootstrap.copies()
    }
}

impl Process {
    pub(super) fn step_bootstrap(&mut self, out: &mut Out<'_>, event: Event) {
        let mut effects = Vec::new();
        self.bootstrap.bootstrap.step(out.now_ms(), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Ask { token, peer, request, timeout_ms } => match self.machine_of(peer) {
                    Some(machine) => {
                        let what = For::Bootstrap { token };
                        self.call(out, 0, (machine, Some(peer)), request, u64::from(timeout_ms), what);
                    }
                    None => self.step_bootstrap(out, Event::Failed { token, why: "no address".into() }),
                },
                Effect::Work { token, local } => {
                    let Some(engine) = &self.engine else { continue };
                    let finishes = if let Local::Finish { id, .. } = local { Some(id) } else { None };
                    let done = perform(&*engine.ghosted, local);
                    if let (Some(id), Done::Finished) = (finishes, &done) {
                        self.imported(out, id);
                    }
                    self.step_bootstrap(out, Event::Done { token, done });
                }
                Effect::Forget(shards) => {
                    // A thread does it, when it comes to it.
                    for (shard, since) in shards {
                        let after = self.bootstrap.lots.between(0, 2_000);
                        out.timer(after, Timer::Forget { shard, since });
                    }
                }
                Effect::Filled(filled) => {
                    out.note(format_args!("bootstrap: {filled:?}"));
                    let Filled { shard, since, .. } = filled;
                    self.step_repair(out, repair::Event::Filled { shard, since });
                }
                Effect::Log { level, text } => out.note(format_args!("bootstrap {level:?}: {text}")),
            }
        }
    }

    pub(super) fn forget(&self, out: &mut Out<'_>, shard: Shard, since: u64) {
        let (Some(view), Some(engine)) = (&self.view, &self.engine) else { return };
        if is_given_up(view, shard, since) {
            match engine.ghosted.forget(shard) {
                Ok(forgotten) if forgotten == Forgotten::default() => {}
                outcome => out.note(format_args!("forgets {shard:?}: {outcome:?}")),
            }
        }
    }

    /// A block of another node is visible: it is whole, and durable from now on.
    fn imported(&mut self, out: &mut Out<'_>, id: u128) {
        out.disk.settle(out.disk.position());
        let Some(engine) = &self.engine else { return };
        let Some(meta) = engine.replica.blocks().into_iter().find(|block| block.id == id) else { return };
        out.env.imported += 1;
        out.note(format_args!("imports {}", meta.path.display()));
        let (vfs, key) = (out.disk.vfs(), engine.replica.key());
        let content = || {
            let block = Reader::open(&*vfs, &meta.path)?;
            block.verify(&*vfs, key)?;
            let (mut samples, mut all) = (Samples::default(), Vec::new());
            for series in 0..block.series_count() {
                let id = key.id(block.labels(series)?.as_bytes());
                samples.clear();
                block.read(series, TimeRange::ALL, &mut samples)?;
                all.extend(rows(&samples).into_iter().map(|(t, value)| (id, t, value)));
            }
            Ok::<_, storage::Error>(all)
        };
        match content() {
            Ok(rows) => engine.ghosted.came(rows),
            Err(e) => {
                let me = out.me;
                out.env.violated(format!("{me} shows a block of another node that is not whole: {e}"));
            }
        }
    }

    /// A question of another node.
    pub(super) fn bootstrap_arrived(&mut self, out: &mut Out<'_>, machine: Machine, call: u64, body: &[u8]) {
        let (Some(view), Some(engine)) = (&self.view, &self.engine) else { return };
        match serve(view, &*engine.ghosted, body) {
            Ok(mut reply) => {
                let goes_wrong = self.bootstrap.spoils && out.now_ms() < out.env.swarm.faults_ms;
                let lots = &mut self.bootstrap.lots;
                if goes_wrong && lots.percent(SPOILED) {
                    let at = lots.below(reply.len() as u64) as usize;
                    reply[at] ^= 1 << lots.below(8);
                    out.note(format_args!("spoils byte {at} of its answer"));
                }
                self.reply(out, machine, call, vec![reply]);
            }
            Err(e) => out.env.violated(format!("a question of bootstrap makes no sense: {e}")),
        }
    }

    pub(super) fn bootstrap_ended(
        &mut self,
        out: &mut Out<'_>,
        token: u64,
        end: Result<Arc<[Vec<u8>]>, String>,
    ) {
        let event = match end {
            Ok(chunks) => Event::Answer { token, reply: chunks.concat().into() },
            Err(why) => Event::Failed { token, why },
        };
        self.step_bootstrap(out, event);
    }
}
