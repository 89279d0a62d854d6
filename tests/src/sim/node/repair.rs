//! Repair's shell.

use super::super::network::Machine;
use super::super::world::Out;
use super::Process;
use super::calls::For;
use cluster::placement::NodeId;
use cluster::repair::{Effect, Event, Local, Now, Options, Repair, Reply, Request, perform, serve};
use model::Timestamp;
use std::sync::Arc;

/// The repair of a process.
pub struct Repairs {
    repair: Repair,
}

impl Repairs {
    pub fn new(out: &Out<'_>) -> Repairs {
        let options = Options {
            recent_interval_ms: 10_000,
            old_interval_ms: 30_000,
            settle_ms: 2_000,
            timeout_ms: 5_000,
            ..Options::default()
        };
        Repairs { repair: Repair::new(options, out.run << 32) }
    }
}

impl Process {
    pub(super) fn step_repair(&mut self, out: &mut Out<'_>, event: Event) {
        let now = Now { ms: out.now_ms(), wall: Timestamp(out.clock.shown()) };
        let mut effects = Vec::new();
        self.repair.repair.step(now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Ask { token, peer, request, timeout_ms } => match self.machine_of(peer) {
                    Some(machine) => {
                        let what = For::Repair { token };
                        self.call(out, 0, (machine, Some(peer)), request, u64::from(timeout_ms), what);
                    }
                    None => self.step_repair(out, Event::Failed { token, why: "no address".into() }),
                },
                Effect::Work { token, local } => {
                    let Some(engine) = &self.engine else { continue };
                    let what = match &local {
                        Local::Digests { .. } => "digests",
                        Local::Differ { .. } => "what differs",
                        Local::Apply { .. } => "rows that came",
                        Local::Sync => "sync",
                        Local::Damage => "damage",
                        Local::Mend { .. } => "mending",
                    };
                    out.note(format_args!("repair: {what}"));
                    let done = perform(&*engine.ghosted, local);
                    out.disk.settle(out.disk.position());
                    self.step_repair(out, Event::Done { token, done });
                }
                Effect::Copied(copied) => {
                    out.note(format_args!("repair: has copied {copied:?}"));
                    self.step_control(out, cluster::control::Event::Copied(copied));
                }
                Effect::Log { level, text } => out.note(format_args!("repair {level:?}: {text}")),
            }
        }
    }

    /// A question of another node.
    pub(super) fn repair_arrived(
        &mut self,
        out: &mut Out<'_>,
        machine: Machine,
        from: NodeId,
        call: u64,
        body: &[u8],
    ) {
        let (Some(view), Some(engine)) = (&self.view, &self.engine) else { return };
        let mut chunks = Vec::new();
        match serve(view, &*engine.ghosted, from, body, &mut |chunk| chunks.push(chunk)) {
            Ok(suspect) => {
                let refused = |reply: &Reply| matches!(reply, Reply::Stale { .. } | Reply::Behind { .. });
                let told = Request::decode(body).map(|request| request.epoch).ok();
                let answers =
                    chunks.first().and_then(|chunk| Reply::decode(chunk).ok()).is_some_and(|r| !refused(&r));
                if answers && told != Some(view.epoch()) {
                    let (me, own) = (out.me, view.epoch());
                    out.env.violated(format!(
                        "{me} knows epoch {own} and answers a question of repair that was asked under {told:?}"
                    ));
                }
                self.reply(out, machine, call, chunks);
                if let Some(suspect) = suspect {
                    self.step_repair(out, suspect);
                }
            }
            Err(e) => out.env.violated(format!("a question of repair makes no sense: {e}")),
        }
    }

    pub(super) fn repair_ended(
        &mut self,
        out: &mut Out<'_>,
        token: u64,
        end: Result<Arc<[Vec<u8>]>, String>,
    ) {
        let event = match end {
            Ok(chunks) => Event::Answer { token, reply: chunks.concat() },
            Err(why) => Event::Failed { token, why },
        };
        self.step_repair(out, event);
    }
}
