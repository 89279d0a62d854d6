//! Who is pulled from, what, and when.

use super::copying::Copying;
use super::message::{Ask, Reply, Request};
use super::pair::{Pair, back_off};
use super::pull::{Cause, Fault, Next, Pull, Pulled, Rank, Tally};
use super::windows;
use super::work::{Done, Local};
use crate::faults::{Mistake, planted};
use crate::placement::{NodeId, Phase};
use crate::quorum::{Consistency, readers};
use crate::view::{Health, View};
use model::{Damage, Shard, TimeRange, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Differences that were reported and not yet looked at.
const SUSPECTS_MAX: usize = 1 << 10;
/// How often a reported difference is tried before the rounds have to find it.
const SUSPECT_TRIES: u32 = 4;
/// How long until a pull that failed is tried again, the first time.
const RETRY_MS: u64 = 5_000;
/// How long until one that met another placement is.
const PLACEMENT_MS: u64 = 1_000;
/// How long until a question of a pass is asked again that met another placement, and how often.
const AGAIN_MS: u64 = 100;
const AGAIN_MAX: u32 = 50;
/// How often this node looks for damage of its own.
const DAMAGE_MS: u64 = 5_000;
/// An answer that is so much later than asked for will not come.
const GRACE_MS: u64 = 2_000;
/// Pulls in a row with rows unlike their digests before a person is told: rows that arrive meanwhile explain one.
const UNLIKE_TOLD: u32 = 3;

/// How repair is paced.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often the recent windows of a shard are compared with each peer.
    pub recent_interval_ms: u64,
    /// How old windows are recent.
    pub recent_ms: i64,
    /// How often everything older is compared.
    pub old_interval_ms: u64,
    /// Rows younger than this may be under way to everybody, and are not compared.
    pub settle_ms: i64,
    /// How long a peer may take for an answer.
    pub timeout_ms: u32,
    /// Most pulls, each with one question, at a time.
    pub pulls_max: usize,
    /// Bytes of rows fetched a second.
    pub bytes_per_s: u64,
    /// How long samples are kept where the namespace does not say; 0 for ever. What is about to expire is not compared.
    pub retention_ms: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            recent_interval_ms: 600_000,
            recent_ms: 48 * 3_600_000,
            old_interval_ms: 24 * 3_600_000,
            settle_ms: 60_000,
            timeout_ms: 30_000,
            pulls_max: 4,
            bytes_per_s: 16 << 20,
            retention_ms: 0,
        }
    }
}

/// The time.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic.
    pub ms: u64,
    /// The wall clock: which windows there are to compare.
    pub wall: Timestamp,
}

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed. Several times a second.
    Tick,
    /// There is a new view; the first event.
    View(Arc<View>),
    /// A peer has answered [`Effect::Ask`].
    Answer {
        /// Of the question.
        token: u64,
        /// The reply's bytes.
        reply: Vec<u8>,
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
    /// What could come as files of a copy that this node makes has come: [`crate::bootstrap::Effect::Filled`]. Its passes may begin. The view with the
    /// move may be heard of before or after this.
    Filled {
        /// Of which shard.
        shard: Shard,
        /// When the move began.
        since: u64,
    },
    /// Somebody saw replicas differ.
    Suspect {
        /// Where.
        shard: Shard,
        /// When.
        range: TimeRange,
        /// Whose differs from the own one; `None` if that is not known.
        peer: Option<NodeId>,
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
    /// These copies are complete, of all that this node makes: each shard with [`crate::placement::Placement::changed`]. For
    /// [`crate::control::Event::Copied`].
    Copied(Vec<(Shard, u64)>),
    /// Tell people.
    Log {
        /// How loud.
        level: Level,
        /// What.
        text: String,
    },
}

/// How loud a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It went well.
    Info,
    /// Worth a look.
    Warn,
    /// A human must look.
    Error,
}

/// How far repair is, and what it has found since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Ranges of time whose digests were compared.
    pub compared: u64,
    /// Windows that differed.
    pub divergent: u64,
    /// Windows that differed when they were last looked at, in all shards.
    pub divergent_now: u64,
    /// Rows fetched: those of every series of which a window differed.
    pub rows: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Rows of these that were missing here, and were appended.
    pub appended: u64,
    /// Pulls that could not be finished.
    pub failed: u64,
    /// Answers that made no sense, or were not what was asked for.
    pub refused: u64,
    /// Pulls in which a peer's rows were not what its digests say.
    pub unlike: u64,
    /// Damages that are not yet mended.
    pub damages: u64,
    /// Damages mended.
    pub mended: u64,
    /// Of these, with no undamaged copy to bring them from.
    pub mended_best_effort: u64,
    /// Copies that this node makes of shards that move to it.
    pub copying: u64,
    /// Of these, those that are complete.
    pub copied: u64,
    /// Pulls under way.
    pub running: u64,
    /// Shards and peers that are due and wait.
    pub waiting: u64,
    /// When all of these are done, in milliseconds, at the pace so far.
    pub eta_ms: u64,
}

/// A damage of this node.
struct Wound {
    damage: Damage,
    /// Peers that were pulled from since it was noticed, and whether they were undamaged there.
    pulled: BTreeMap<NodeId, bool>,
    /// Being mended, or not to be tried before.
    mending: bool,
    not_before_ms: u64,
}

/// What a pull waits for.
enum Waiting {
    Peer {
        token: u64,
        until_ms: u64,
        /// What was asked, if it may be asked again.
        ask: Option<Ask>,
    },
    /// The placement that the peer knows, or this node.
    Placement {
        ask: Ask,
        at_ms: u64,
    },
    Here {
        token: u64,
    },
    /// The budget of bytes.
    Budget(Ask),
}

struct Running {
    pull: Pull,
    waiting: Waiting,
    /// How often the same question met another placement.
    again: u32,
}

/// A pull that stands aside for something more urgent, and what it will ask then.
struct Resting {
    pull: Pull,
    ask: Ask,
    since_ms: u64,
}

/// What could be begun.
enum Wish {
    Damage(Shard, NodeId),
    /// For the move that began at this epoch.
    Copy(Shard, NodeId, u64),
    /// Which of the suspects.
    Suspect(usize),
    Recent(Shard, NodeId),
    Old(Shard, NodeId),
}

impl Wish {
    fn rank(&self) -> Rank {
        match self {
            Wish::Damage(..) => Rank::Damage,
            Wish::Copy(..) => Rank::Copy,
            Wish::Suspect(_) => Rank::Suspect,
            Wish::Recent(..) => Rank::Recent,
            Wish::Old(..) => Rank::Old,
        }
    }
}

/// The repair of one node.
pub struct Repair {
    options: Options,
    view: Option<Arc<View>>,
    pairs: BTreeMap<(Shard, NodeId), Pair>,
    running: BTreeMap<Shard, Running>,
    /// One a pair and rank at most.
    resting: BTreeMap<(Shard, NodeId, Rank), Resting>,
    pulled: Pulled,
    pulled_since_ms: u64,
    copying: BTreeMap<Shard, Copying>,
    copied: Vec<(Shard, u64)>,
    /// Copies that have what comes as files: for which move, the last one of each shard.
    filled: BTreeMap<Shard, u64>,
    wounds: BTreeMap<u64, Wound>,
    /// The work that mends them.
    mending: BTreeMap<u64, u64>,
    damage_asked: Option<u64>,
    damage_due_ms: u64,
    suspects: VecDeque<(Shard, NodeId, TimeRange, u32)>,
    /// Bytes that may be fetched now; below zero after a large answer.
    allowance: i64,
    allowed_ms: u64,
    token: u64,
    finished: u64,
    finished_ms: u64,
    progress: Progress,
}

impl Repair {
    /// Of a node that has just started. `tokens_from` names the first question, so that late answers to an earlier life are not taken for
    /// answers of this one.
    pub fn new(options: Options, tokens_from: u64) -> Repair {
        Repair {
            options,
            view: None,
            pairs: BTreeMap::new(),
            running: BTreeMap::new(),
            resting: BTreeMap::new(),
            pulled: Pulled::default(),
            pulled_since_ms: 0,
            copying: BTreeMap::new(),
            copied: Vec::new(),
            filled: BTreeMap::new(),
            wounds: BTreeMap::new(),
            mending: BTreeMap::new(),
            damage_asked: None,
            damage_due_ms: 0,
            suspects: VecDeque::new(),
            allowance: 0,
            allowed_ms: 0,
            token: tokens_from,
            finished: 0,
            finished_ms: 0,
            progress: Progress::default(),
        }
    }

    /// Another budget, when the foreground needs more or less.
    pub fn set_bytes_per_s(&mut self, bytes_per_s: u64) {
        self.options.bytes_per_s = bytes_per_s;
    }

    /// How far it is.
    pub fn progress(&self, now: Now) -> Progress {
        let due = |pair: &&Pair| pair.recent_due_ms <= now.ms || pair.old_due_ms <= now.ms;
        let waiting = self.pairs.values().filter(due).count() as u64;
        let each_ms = self.finished_ms.checked_div(self.finished).unwrap_or(0);
        let running = self.running.values().map(|running| &running.pull);
        let begun: Vec<Tally> = running
            .chain(self.resting.values().map(|resting| &resting.pull))
            .map(|pull| pull.tally)
            .collect();
        let all = |before: u64, of: fn(&Tally) -> u64| before + begun.iter().map(of).sum::<u64>();
        Progress {
            compared: all(self.progress.compared, |tally| tally.compared),
            divergent: all(self.progress.divergent, |tally| tally.divergent),
            rows: all(self.progress.rows, |tally| tally.rows),
            appended: all(self.progress.appended, |tally| tally.appended),
            bytes: all(self.progress.bytes, |tally| tally.bytes),
            divergent_now: self.pairs.values().map(|pair| pair.divergent).sum(),
            damages: self.wounds.len() as u64,
            copying: self.copying.len() as u64,
            copied: self.copied.len() as u64,
            running: self.running.len() as u64,
            waiting,
            eta_ms: waiting * each_ms / self.options.pulls_max.max(1) as u64,
            ..self.progress
        }
    }

    /// The next step.
    pub fn step(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => self.tick(now, effects),
            Event::View(view) => self.see(now, view),
            Event::Answer { token, reply } => {
                let waits =
                    |waiting: &Waiting| matches!(waiting, Waiting::Peer { token: t, .. } if *t == token);
                if let Some(mut running) = self.take(waits) {
                    self.allowance -= i64::try_from(reply.len()).unwrap_or(i64::MAX);
                    let reply = Reply::decode(&reply);
                    let Some(reply) = self.put_off(now, &mut running, reply) else {
                        self.running.insert(running.pull.shard, running);
                        return self.end(now, effects);
                    };
                    let next = match reply {
                        Ok(reply) => running.pull.answered(reply),
                        Err(e) => Next::Failed(Fault::Lie(e.to_string())),
                    };
                    self.proceed(now, running.pull, next, effects);
                }
            }
            Event::Failed { token, why } => {
                let waits =
                    |waiting: &Waiting| matches!(waiting, Waiting::Peer { token: t, .. } if *t == token);
                if let Some(running) = self.take(waits) {
                    self.proceed(now, running.pull, Next::Failed(Fault::Away(why)), effects);
                }
            }
            Event::Done { token, done } => self.done(now, token, done, effects),
            Event::Filled { shard, since } => drop(self.filled.insert(shard, since)),
            Event::Suspect { shard, range, peer } => self.suspect(shard, range, peer),
        }
        self.end(now, effects);
    }

    /// Whether the passes of a copy may begin.
    fn is_filled(&self, shard: Shard, copying: &Copying) -> bool {
        // Whoever had a copy before gets no files.
        let stays = |view: &View| !matches!(view.placement.phase(shard), Phase::Copying(_));
        self.filled.get(&shard) == Some(&copying.since) || self.view.as_deref().is_some_and(stays)
    }

    /// What follows, whatever happened.
    fn end(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.begin(now, effects);
        let Some(view) = &self.view else { return };
        let whole = |shard: &Shard| self.wounds.values().all(|wound| wound.damage.shard != *shard);
        let is_complete = |shard: Shard, copying: &Copying| {
            let trusted = planted(Mistake::TrustFiles) && self.is_filled(shard, copying);
            trusted || copying.is_complete(view, shard)
        };
        let complete = self.copying.iter().filter(|(shard, copying)| is_complete(**shard, copying));
        let copied: Vec<(Shard, u64)> = complete
            .filter(|(shard, _)| whole(shard))
            .map(|(shard, copying)| (*shard, copying.since))
            .collect();
        if self.copied != copied {
            self.copied.clone_from(&copied);
            effects.push(Effect::Copied(copied));
        }
    }

    /// A pass that meets another placement is not over: the same is asked again, unless it has been for too long. Gives what is not put off.
    fn put_off<E>(
        &self,
        now: Now,
        running: &mut Running,
        reply: Result<Reply, E>,
    ) -> Option<Result<Reply, E>> {
        let meets =
            matches!(reply, Ok(Reply::Stale { .. } | Reply::Behind { .. })) && running.again < AGAIN_MAX;
        match &mut running.waiting {
            Waiting::Peer { ask, .. } if meets && ask.is_some() => {
                let ask = ask.take()?;
                running.again += 1;
                running.waiting = Waiting::Placement { ask, at_ms: now.ms + AGAIN_MS };
                None
            }
            _ => Some(reply),
        }
    }

    fn take(&mut self, waits: impl Fn(&Waiting) -> bool) -> Option<Running> {
        let shard = *self.running.iter().find(|(_, running)| waits(&running.waiting))?.0;
        self.running.remove(&shard)
    }

    fn next_token(&mut self) -> u64 {
        self.token = self.token.wrapping_add(1);
        self.token
    }

    fn see(&mut self, now: Now, view: Arc<View>) {
        let came_back = |peer: NodeId| {
            let health = |view: &View| view.nodes.get(&peer).map(|peer| peer.health);
            let before = self.view.as_deref().and_then(health);
            before == Some(Health::Down) && health(&view).is_some_and(|health| health != Health::Down)
        };
        let mut pairs = BTreeMap::new();
        for number in 0..view.shards() {
            let shard = Shard(number as u16);
            for peer in others(&view, shard) {
                let mut pair = self.pairs.get(&(shard, peer)).copied().unwrap_or_else(|| Pair {
                    recent_due_ms: now.ms,
                    old_due_ms: now.ms,
                    ..Pair::default()
                });
                if came_back(peer) {
                    (pair.recent_due_ms, pair.not_before_ms, pair.failures) = (now.ms, now.ms, 0);
                }
                pairs.insert((shard, peer), pair);
            }
        }
        let known = std::mem::take(&mut self.copying);
        for (shard, copying) in Copying::of(&view, known.clone()) {
            if known.get(&shard) != Some(&copying) {
                // What was here before may be gone.
                self.pulled.forget(shard);
            }
            self.copying.insert(shard, copying);
        }
        let copying =
            |shard: &Shard, since: u64| self.copying.get(shard).is_some_and(|copying| copying.since == since);
        self.running.retain(|shard, running| match running.pull.cause {
            Cause::Copy(since) => copying(shard, since),
            _ => pairs.contains_key(&(*shard, running.pull.peer)),
        });
        self.resting.retain(|(shard, peer, _), _| pairs.contains_key(&(*shard, *peer)));
        self.suspects.retain(|(shard, peer, ..)| pairs.contains_key(&(*shard, *peer)));
        self.filled.retain(|shard, since| view.placement.changed(*shard) <= *since);
        self.pairs = pairs;
        self.view = Some(view);
    }

    fn suspect(&mut self, shard: Shard, range: TimeRange, whose: Option<NodeId>) {
        let Some(view) = &self.view else { return };
        for peer in others(view, shard).into_iter().filter(|peer| whose.is_none_or(|whose| whose == *peer)) {
            let known = self.suspects.iter().any(|s| (s.0, s.1, s.2) == (shard, peer, range));
            if !known && self.suspects.len() < SUSPECTS_MAX {
                self.suspects.push_back((shard, peer, range, 0));
            }
        }
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        // No more than a second's worth is saved up.
        let limit = i64::try_from(self.options.bytes_per_s).unwrap_or(i64::MAX);
        let passed = now.ms.saturating_sub(self.allowed_ms).min(1_000);
        let earned = u128::from(self.options.bytes_per_s) * u128::from(passed) / 1_000;
        // What is too little to count is not forgotten.
        if earned > 0 || self.options.bytes_per_s == 0 {
            self.allowed_ms = now.ms;
            self.allowance = self.allowance.saturating_add(earned as i64).min(limit);
        }

        if now.ms.saturating_sub(self.pulled_since_ms) > self.options.old_interval_ms {
            self.pulled_since_ms = now.ms;
            self.pulled.clear();
        }
        let late =
            |waiting: &Waiting| matches!(waiting, Waiting::Peer { until_ms, .. } if *until_ms < now.ms);
        while let Some(running) = self.take(late) {
            let fault = Fault::Away("no answer in time".to_owned());
            self.proceed(now, running.pull, Next::Failed(fault), effects);
        }
        let due = |waiting: &Waiting| matches!(waiting, Waiting::Placement { at_ms, .. } if *at_ms <= now.ms);
        while let Some(Running { pull, waiting: Waiting::Placement { ask, .. }, again }) = self.take(due) {
            self.go_on(now, pull, Next::Ask(ask), again, effects);
        }
        while self.allowance > 0 {
            let Some(Running { pull, waiting: Waiting::Budget(ask), .. }) =
                self.take(|waiting| matches!(waiting, Waiting::Budget(_)))
            else {
                break;
            };
            self.proceed(now, pull, Next::Ask(ask), effects);
        }
        if self.damage_asked.is_none() && self.damage_due_ms <= now.ms && self.view.is_some() {
            self.damage_due_ms = now.ms + DAMAGE_MS;
            let token = self.next_token();
            self.damage_asked = Some(token);
            effects.push(Effect::Work { token, local: Local::Damage });
        }
        self.mend(now, effects);
    }

    /// Carries out what a pull wants.
    fn proceed(&mut self, now: Now, pull: Pull, next: Next, effects: &mut Vec<Effect>) {
        self.go_on(now, pull, next, 0, effects);
    }

    fn go_on(&mut self, now: Now, pull: Pull, next: Next, again: u32, effects: &mut Vec<Effect>) {
        let Some(view) = &self.view else { return };
        let shard = pull.shard;
        let waiting = match next {
            Next::Ask(ask) if Pull::may_rest(&ask) && self.is_outranked(now, &pull) => {
                let key = (shard, pull.peer, pull.cause.rank());
                self.resting.insert(key, Resting { pull, ask, since_ms: now.ms });
                return;
            }
            Next::Ask(ask @ Ask::Export { .. }) if self.allowance <= 0 => Waiting::Budget(ask),
            Next::Ask(ask) => {
                let timeout_ms = self.options.timeout_ms;
                let kept = matches!(pull.cause, Cause::Copy(_)).then(|| ask.clone());
                let request = Request { epoch: view.epoch(), timeout_ms, shard, ask }.encode();
                let token = self.next_token();
                effects.push(Effect::Ask { token, peer: pull.peer, request, timeout_ms });
                Waiting::Peer { token, until_ms: now.ms + u64::from(timeout_ms) + GRACE_MS, ask: kept }
            }
            Next::Work(local) => {
                let token = self.next_token();
                effects.push(Effect::Work { token, local });
                Waiting::Here { token }
            }
            Next::Finished => return self.finish(now, pull, effects),
            Next::Failed(fault) => return self.give_up(now, pull, fault, effects),
        };
        self.running.insert(shard, Running { pull, waiting, again });
    }

    fn done(&mut self, now: Now, token: u64, done: Done, effects: &mut Vec<Effect>) {
        if self.damage_asked == Some(token) {
            self.damage_asked = None;
            if let Done::Damage(damages) = done {
                self.wounded(damages);
            }
            return self.mend(now, effects);
        }
        if self.copying.values().any(|copying| copying.syncing.values().any(|work| *work == token)) {
            let well = done == Done::Synced;
            self.copying.values_mut().for_each(|copying| copying.synced(now.ms, token, well));
            return;
        }
        if let Some(number) = self.mending.remove(&token) {
            match done {
                Done::Mended => {
                    if self.wounds.remove(&number).is_some() {
                        self.progress.mended += 1;
                    }
                }
                other => {
                    if let Some(wound) = self.wounds.get_mut(&number) {
                        wound.mending = false;
                        wound.not_before_ms = now.ms + RETRY_MS;
                    }
                    let text = format!(
                        "damage {number} is repaired and could not be marked so: {other:?}; it is tried again"
                    );
                    effects.push(Effect::Log { level: Level::Warn, text });
                }
            }
            return;
        }
        if let Some(mut running) = self.take(|w| matches!(w, Waiting::Here { token: t } if *t == token)) {
            let next = running.pull.done(done, &mut self.pulled);
            self.proceed(now, running.pull, next, effects);
        }
    }

    /// Takes over what the replica says of its damage.
    fn wounded(&mut self, damages: Vec<Damage>) {
        self.wounds.retain(|_, wound| wound.mending || damages.contains(&wound.damage));
        for damage in damages {
            let known = self.wounds.get(&damage.number).is_some_and(|wound| wound.damage == damage);
            if !known {
                self.pulled.forget(damage.shard);
                if let Some(copying) = self.copying.get_mut(&damage.shard) {
                    copying.restart();
                }
                let wound = Wound { pulled: BTreeMap::new(), mending: false, not_before_ms: 0, damage };
                self.wounds.insert(wound.damage.number, wound);
            }
        }
    }

    /// Mends what can be mended.
    fn mend(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Some(view) = self.view.clone() else { return };
        let numbers: Vec<u64> = self.wounds.keys().copied().collect();
        for number in numbers {
            let wound = &self.wounds[&number];
            if wound.mending || wound.not_before_ms > now.ms {
                continue;
            }
            let Some(healing) = healing(&view, wound) else { continue };
            let Damage { shard, range, what, .. } = &wound.damage;
            let place = format!("shard {}, {} to {}: {what}", shard.0, range.min, range.max);
            let (level, text) = match healing {
                Healing::Whole => (Level::Info, format!("damage repaired from other replicas ({place})")),
                Healing::Partly => (
                    Level::Warn,
                    format!(
                        "damage repaired from the undamaged replicas; others are damaged there as well ({place})"
                    ),
                ),
                Healing::BestEffort => {
                    self.progress.mended_best_effort += 1;
                    (
                        Level::Error,
                        format!(
                            "every replica is damaged there: what is left of all of them was put together, and samples may be lost for good; restore them from a backup ({place})"
                        ),
                    )
                }
                Healing::NotHeld => (
                    Level::Info,
                    format!("damage in a shard that this node does not hold any more ({place})"),
                ),
            };
            effects.push(Effect::Log { level, text });
            let token = self.next_token();
            self.mending.insert(token, number);
            if let Some(wound) = self.wounds.get_mut(&number) {
                wound.mending = true;
            }
            effects.push(Effect::Work { token, local: Local::Mend { number } });
        }
    }

    fn finish(&mut self, now: Now, pull: Pull, effects: &mut Vec<Effect>) {
        self.count(now, &pull);
        let options = self.options;
        if let (Cause::Copy(_), Some(copying)) = (&pull.cause, self.copying.get_mut(&pull.shard)) {
            match pull.damaged.is_empty() && pull.unlike == 0 && pull.missing == 0 {
                true => {
                    self.token = self.token.wrapping_add(1);
                    copying.syncing.insert(pull.peer, self.token);
                    effects.push(Effect::Work { token: self.token, local: Local::Sync });
                }
                false => copying.ended(now.ms, pull.peer, false),
            }
        }
        let Some(pair) = self.pairs.get_mut(&(pull.shard, pull.peer)) else { return };
        pair.failures = 0;
        pair.unlike = if pull.unlike > 0 { pair.unlike + 1 } else { 0 };
        if pair.unlike > 0 {
            self.progress.unlike += 1;
            let first =
                if matches!(pull.cause, Cause::Damage(_)) { RETRY_MS } else { options.recent_interval_ms };
            pair.not_before_ms = now.ms + back_off(first, pair.unlike, options.old_interval_ms);
        }
        let told = pair.unlike == UNLIKE_TOLD;
        match pull.cause {
            Cause::Recent => {
                pair.recent_due_ms = now.ms + options.recent_interval_ms;
                pair.divergent = pull.tally.divergent;
            }
            Cause::Old => pair.old_due_ms = now.ms + options.old_interval_ms,
            Cause::Copy(_) | Cause::Suspect(..) => {}
            Cause::Damage(damages) if pull.unlike == 0 => {
                for damage in damages {
                    let complete = !pull.damaged.iter().any(|range| range.overlaps(&damage.range));
                    let wound = self.wounds.get_mut(&damage.number).filter(|wound| wound.damage == damage);
                    if let Some(wound) = wound {
                        wound.pulled.insert(pull.peer, complete);
                    }
                }
            }
            Cause::Damage(_) => {}
        }
        if told {
            let text = format!(
                "{} sends rows of shard {} that do not have the digests that it tells, {UNLIKE_TOLD} times in a row; it is asked less often",
                self.name(pull.peer),
                pull.shard.0
            );
            effects.push(Effect::Log { level: Level::Warn, text });
        }
        self.mend(now, effects);
    }

    fn give_up(&mut self, now: Now, pull: Pull, fault: Fault, effects: &mut Vec<Effect>) {
        self.count(now, &pull);
        let name = self.name(pull.peer);
        let longest = self.options.recent_interval_ms;
        if let (Cause::Copy(_), Some(copying)) = (&pull.cause, self.copying.get_mut(&pull.shard)) {
            copying.ended(now.ms, pull.peer, false);
        }
        let Some(pair) = self.pairs.get_mut(&(pull.shard, pull.peer)) else { return };
        if let Fault::Placement = fault {
            pair.not_before_ms = now.ms + PLACEMENT_MS;
        } else {
            pair.failures = pair.failures.saturating_add(1);
            pair.not_before_ms = now.ms + back_off(RETRY_MS, pair.failures, longest);
            self.progress.failed += 1;
        }
        let shard = pull.shard.0;
        let told = match fault {
            Fault::Lie(why) => {
                self.progress.refused += 1;
                pair.not_before_ms = now.ms + longest;
                Some(format!("{name} was asked to repair shard {shard} and its answer is refused: {why}"))
            }
            // Once, not every time.
            Fault::Own(why) if pair.failures == 1 => {
                Some(format!("repair of shard {shard} is put off: {why}"))
            }
            _ => None,
        };
        effects.extend(told.map(|text| Effect::Log { level: Level::Warn, text }));
        if let Cause::Suspect(range, tries) = pull.cause
            && tries + 1 < SUSPECT_TRIES
            && self.suspects.len() < SUSPECTS_MAX
        {
            self.suspects.push_back((pull.shard, pull.peer, range, tries + 1));
        }
    }

    fn count(&mut self, now: Now, pull: &Pull) {
        self.progress.compared += pull.tally.compared;
        self.progress.divergent += pull.tally.divergent;
        self.progress.rows += pull.tally.rows;
        self.progress.appended += pull.tally.appended;
        self.progress.bytes += pull.tally.bytes;
        self.finished += 1;
        self.finished_ms += now.ms.saturating_sub(pull.started_ms);
    }

    fn name(&self, peer: NodeId) -> String {
        let known = self.view.as_ref().and_then(|view| view.nodes.get(&peer));
        match known {
            Some(known) => format!("node {peer} at {}", known.address),
            None => format!("node {peer}"),
        }
    }

    /// Begins pulls while there is room for more.
    fn begin(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while self.running.len() < self.options.pulls_max {
            let Some((pull, next)) = self.most_urgent(now).and_then(|wish| self.take_up(now, wish)) else {
                return;
            };
            self.proceed(now, pull, next, effects);
        }
    }

    /// Whether something more urgent than this pull, which is not among those that run, could be done now.
    fn is_outranked(&self, now: Now, pull: &Pull) -> bool {
        // What nobody would take up again by itself does not rest.
        let rank = pull.cause.rank();
        rank >= Rank::Recent && self.most_urgent(now).is_some_and(|wish| wish.rank() < rank)
    }

    /// Whether a peer can be asked for a shard now. Before a copy has what comes as files, everything in it would differ.
    fn is_ready(&self, now: Now, shard: Shard, peer: NodeId) -> bool {
        let pair = self.pairs.get(&(shard, peer));
        let filled = self.copying.get(&shard).is_none_or(|copying| self.is_filled(shard, copying));
        filled
            && self.is_up(peer)
            && !self.running.contains_key(&shard)
            && pair.is_some_and(|pair| pair.not_before_ms <= now.ms)
    }

    fn is_up(&self, peer: NodeId) -> bool {
        let peer = self.view.as_ref().and_then(|view| view.nodes.get(&peer));
        peer.is_some_and(|peer| peer.health != Health::Down)
    }

    /// Damage, then copies of shards that move here, then what was reported, the newest first, then what is due for longest.
    fn most_urgent(&self, now: Now) -> Option<Wish> {
        let view = self.view.as_deref()?;
        for wound in self.wounds.values().filter(|wound| !wound.mending) {
            let shard = wound.damage.shard;
            let wanted = |peer: &NodeId| !wound.pulled.contains_key(peer) && self.is_ready(now, shard, *peer);
            if let Some(peer) = others(view, shard).into_iter().find(wanted) {
                return Some(Wish::Damage(shard, peer));
            }
        }
        let may = |shard: Shard, copying: &Copying| {
            self.is_filled(shard, copying) && !copying.is_complete(view, shard)
        };
        let making = self.copying.iter().filter(|(shard, copying)| may(**shard, copying));
        for (shard, copying) in making {
            let ready = |peer: &NodeId| self.is_up(*peer) && !self.running.contains_key(shard);
            if let Some(peer) = copying.sources(view, *shard, now.ms).into_iter().find(ready) {
                return Some(Wish::Copy(*shard, peer, copying.since));
            }
        }
        let ready = self.suspects.iter().enumerate().filter(|(_, s)| self.is_ready(now, s.0, s.1));
        // What has failed lets all others go before.
        if let Some((at, _)) = ready.min_by_key(|(_, (_, _, range, tries))| (*tries, Reverse(range.max))) {
            return Some(Wish::Suspect(at));
        }
        let due = |of: fn(&Pair) -> u64| {
            let due = self.pairs.iter().filter(|(_, pair)| of(pair) <= now.ms);
            due.filter(|((shard, peer), _)| self.is_ready(now, *shard, *peer))
                .min_by_key(|(_, pair)| of(pair))
                .map(|(key, _)| *key)
        };
        let recent = due(|pair| pair.recent_due_ms).map(|(shard, peer)| Wish::Recent(shard, peer));
        recent.or_else(|| due(|pair| pair.old_due_ms).map(|(shard, peer)| Wish::Old(shard, peer)))
    }

    /// The pull that a wish is, and what it does first.
    fn take_up(&mut self, now: Now, wish: Wish) -> Option<(Pull, Next)> {
        if let Wish::Recent(shard, peer) | Wish::Old(shard, peer) = wish
            && let Some(mut resting) = self.resting.remove(&(shard, peer, wish.rank()))
        {
            // It was not at work meanwhile.
            resting.pull.started_ms += now.ms.saturating_sub(resting.since_ms);
            return Some((resting.pull, Next::Ask(resting.ask)));
        }
        let view = self.view.as_deref()?;
        let retention_ms = match view.namespaces.get("default").map_or(0, |namespace| namespace.retention_ms)
        {
            0 => self.options.retention_ms,
            own => own,
        };
        let settled = now.wall.0.saturating_sub(self.options.settle_ms);
        let floor = windows::floor(now.wall.0, retention_ms);
        let kept = |range: TimeRange, until: i64| {
            let range =
                TimeRange { min: range.min.max(Timestamp(floor)), max: range.max.min(Timestamp(until)) };
            (range.min <= range.max).then_some(range)
        };
        let (shard, peer, cause, ranges) = match wish {
            Wish::Damage(shard, peer) => {
                // All that is damaged in the shard at once.
                let damages: Vec<Damage> = self
                    .wounds
                    .values()
                    .filter(|w| w.damage.shard == shard && !w.mending && !w.pulled.contains_key(&peer))
                    .map(|w| w.damage.clone())
                    .collect();
                let parts = damages.iter().filter_map(|d| kept(d.range, i64::MAX)).flat_map(windows::split);
                let mut ranges: Vec<TimeRange> = parts.collect();
                ranges.sort_unstable_by_key(|range| (range.min, range.max));
                ranges.dedup();
                (shard, peer, Cause::Damage(damages), ranges)
            }
            Wish::Copy(shard, peer, since) => {
                let all = kept(TimeRange::ALL, i64::MAX).map_or(Vec::new(), windows::split);
                // Rows arrive all the time, and whatever differs for that reason is no lie.
                let mut pull = Pull::new(shard, peer, Cause::Copy(since), all, i64::MIN, now.ms);
                let next = pull.onward();
                return Some((pull, next));
            }
            Wish::Suspect(at) => {
                let (shard, peer, range, tries) = self.suspects.remove(at)?;
                let ranges = kept(range, settled).map_or(Vec::new(), windows::split);
                (shard, peer, Cause::Suspect(range, tries), ranges)
            }
            Wish::Recent(shard, peer) => {
                let mut recent = windows::recent(settled, self.options.recent_ms, floor);
                if planted(Mistake::SkipRecentWindows) {
                    recent.clear();
                }
                (shard, peer, Cause::Recent, recent)
            }
            Wish::Old(shard, peer) => {
                let before = windows::recent_start(settled, self.options.recent_ms).saturating_sub(1);
                let old = kept(TimeRange::ALL, before).map_or(Vec::new(), windows::split);
                (shard, peer, Cause::Old, old)
            }
        };
        let mut pull = Pull::new(shard, peer, cause, ranges, settled, now.ms);
        let next = pull.onward();
        Some((pull, next))
    }
}

/// The other replicas of a shard that hold everything, if this node holds it.
fn others(view: &View, shard: Shard) -> Vec<NodeId> {
    let replicas = view.placement.replicas(shard);
    if !replicas.iter().any(|replica| replica.node == view.me) {
        return Vec::new();
    }
    let (mut may, _) = readers(replicas, Consistency::Majority);
    may.retain(|node| *node != view.me);
    may
}

/// How well a damage can be healed now.
enum Healing {
    Whole,
    Partly,
    BestEffort,
    NotHeld,
}

/// Whether enough was pulled. A row that was acknowledged with this replica's word is held by a majority less one of the others: among
/// a majority of the others there is one that has it.
fn healing(view: &View, wound: &Wound) -> Option<Healing> {
    let shard = wound.damage.shard;
    if !view.placement.replicas(shard).iter().any(|replica| replica.node == view.me) {
        return Some(Healing::NotHeld);
    }
    let others = others(view, shard);
    let pulled: Vec<bool> = others.iter().filter_map(|peer| wound.pulled.get(peer).copied()).collect();
    let complete = pulled.iter().filter(|complete| **complete).count();
    match () {
        // The only copy: nobody has anything to bring.
        () if others.is_empty() => None,
        () if planted(Mistake::MendAtOnce) => Some(Healing::Whole),
        () if complete >= Consistency::Majority.need(others.len()) => Some(Healing::Whole),
        () if pulled.len() < others.len() => None,
        () if complete > 0 => Some(Healing::Partly),
        () => Some(Healing::BestEffort),
    }
}
