//! One lookup of labels or series as a state machine: the union of what enough copies of every shard have.

use super::answer::{Incoming, Taken};
use super::coordinator::{self, Ask, Coordinator, Mode, Outcome, Plan, Why};
use super::select::{Bounds, Effect, Event, over_bytes};
use super::wire::{Body, Chunk, Request, What};
use crate::faults::{Mistake, planted};
use crate::view::View;
use model::{Error, LabelQuery, Labels, Limited, ShardSet, labels};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A lookup under way. The node's own replica is asked like the others: by a request that [`super::serve`] answers.
pub struct Lookup {
    view: Arc<View>,
    what: What,
    query: LabelQuery,
    plan: Plan,
    bounds: Bounds,
    coordinator: Coordinator,
    received: u64,
    incoming: BTreeMap<u32, (Incoming, Got)>,
    end: Option<Result<Limited<Vec<u8>>, Error>>,
}

/// What one replica answered.
#[derive(Default)]
struct Got {
    items: Vec<Vec<u8>>,
    truncated: bool,
    warnings: Vec<String>,
}

impl Lookup {
    /// A lookup under a view; begins with [`Event::Tick`].
    pub fn new(view: Arc<View>, what: What, query: LabelQuery, plan: Plan, bounds: Bounds) -> Lookup {
        let all = ShardSet::all(view.shards());
        let shards = query.shards.as_ref().unwrap_or(&all);
        let plan = Plan { digests: false, ..plan };
        let coordinator = Coordinator::new(&view, shards, plan.clone());
        let incoming = BTreeMap::new();
        Lookup { view, what, query, plan, bounds, coordinator, received: 0, incoming, end: None }
    }

    /// Takes what happened and gives what is to be done.
    pub fn step(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        if self.end.is_some() {
            return Vec::new();
        }
        let event = match event {
            Event::Own { .. } => unreachable!("BUG: a lookup does not read the own replica apart"),
            Event::Chunk { number, bytes } => match self.chunk(number, &bytes) {
                Some(event) => event,
                None => return Vec::new(),
            },
            Event::Failed { number, why } => match self.incoming.get(&number) {
                Some((incoming, _)) if incoming.open => self.failed(number, Why::Failed(why)),
                _ => return Vec::new(),
            },
            Event::Tick => coordinator::Event::Tick,
        };
        let asks = self.coordinator.step(now_ms, event);
        let effects = asks.into_iter().map(|ask| self.begin(now_ms, ask)).collect();
        self.end = match self.coordinator.outcome() {
            None => None,
            Some(Outcome::Unavailable(error)) => Some(Err(error)),
            Some(Outcome::Done { answers, warnings }) => {
                let used: BTreeSet<u32> = answers.values().flatten().map(|answer| answer.number).collect();
                Some(Ok(self.union(&used, warnings)))
            }
        };
        effects
    }

    /// When the next [`Event::Tick`] is due.
    pub fn wake_at_ms(&self) -> u64 {
        self.coordinator.wake_at_ms().unwrap_or(u64::MAX).min(self.plan.deadline_ms)
    }

    /// Whether [`Lookup::finish`] can be called.
    pub fn is_done(&self) -> bool {
        self.end.is_some()
    }

    /// Whether it failed for a reason that passes when a change of the placement has reached everybody.
    pub fn is_behind(&self) -> bool {
        matches!(self.end, Some(Err(Error::Unavailable { .. }))) && self.coordinator.is_behind()
    }

    /// The answer of a lookup of series.
    pub fn series(self) -> Result<Limited<Labels>, Error> {
        self.finish(Labels::from_canonical)
    }

    /// The answer of a lookup of names or values.
    pub fn texts(self) -> Result<Limited<String>, Error> {
        self.finish(|item| String::from_utf8_lossy(item).into_owned())
    }

    /// Every replica gives its first items; of their union the first ones are right.
    fn finish<T: Ord>(self, one: impl Fn(&[u8]) -> T) -> Result<Limited<T>, Error> {
        let found = self.end.expect("BUG: the lookup is not done")?;
        let mut items: Vec<T> = found.items.iter().map(|item| one(item)).collect();
        items.sort_unstable();
        let limit = self.query.limit.unwrap_or(usize::MAX);
        let truncated = found.truncated || items.len() > limit;
        items.truncate(limit);
        Ok(Limited { items, truncated, warnings: found.warnings })
    }

    fn begin(&mut self, now_ms: u64, ask: Ask) -> Effect {
        let Ask { number, node: to, shards, mode, damaged } = ask;
        debug_assert_eq!(mode, Mode::Whole);
        self.incoming.insert(number, (Incoming::new(shards.clone()), Got::default()));
        let query = LabelQuery { shards: Some(shards), ..self.query.clone() };
        let timeout_ms = self.plan.deadline_ms.saturating_sub(now_ms);
        let body = Body::Lookup { what: self.what.clone(), query, damaged };
        let request = Request { epoch: self.view.epoch(), timeout_ms, body }.encode();
        Effect::Send { number, to, request, timeout_ms }
    }

    fn failed(&mut self, number: u32, why: Why) -> coordinator::Event {
        if let Some((incoming, got)) = self.incoming.get_mut(&number) {
            incoming.open = false;
            *got = Got::default();
        }
        coordinator::Event::Failed { number, why }
    }

    fn chunk(&mut self, number: u32, bytes: &[u8]) -> Option<coordinator::Event> {
        self.received += bytes.len() as u64;
        let max = self.bounds.fetch_bytes_max;
        if self.received > max {
            self.end = Some(Err(over_bytes(max, self.received)));
            return None;
        }
        let (incoming, got) = self.incoming.get_mut(&number).filter(|(incoming, _)| incoming.open)?;
        let why = match incoming.take(bytes) {
            Taken::Begun => return Some(coordinator::Event::Heard { number }),
            Taken::Content(Chunk::Items(items)) => {
                let is_series = self.what == What::Series;
                let is_right = |item: &&[u8]| match is_series {
                    true => {
                        labels::is_canonical(item)
                            && incoming.covers(self.view.key.id(item).shard(self.view.shards()))
                    }
                    false => std::str::from_utf8(item).is_ok(),
                };
                if items.iter().all(is_right) {
                    incoming.add(items.len() as u64);
                    got.items.extend(items.into_iter().map(<[u8]>::to_vec));
                    return Some(coordinator::Event::Heard { number });
                }
                Why::Malformed("it gives what was not asked for".into())
            }
            Taken::Content(_) => Why::Malformed("it gives what was not asked for".into()),
            Taken::Complete { shards, refused, truncated, warnings } => {
                incoming.open = false;
                (got.truncated, got.warnings) = (truncated, warnings);
                return Some(coordinator::Event::Answered { number, shards, refused });
            }
            Taken::Limit { max, got } => {
                let (what, key) = ("series looked at", "limits.query_series_max");
                self.end = Some(Err(Error::Limit { what, key, max, got }));
                return None;
            }
            Taken::Failed(why) => why,
        };
        Some(self.failed(number, why))
    }

    fn union(&mut self, used: &BTreeSet<u32>, mut warnings: Vec<String>) -> Limited<Vec<u8>> {
        let (mut items, mut truncated) = (BTreeSet::new(), false);
        for (_, (_, got)) in self.incoming.iter_mut().filter(|(number, _)| used.contains(number)) {
            if planted(Mistake::LookUpOne) && !items.is_empty() {
                break;
            }
            items.extend(std::mem::take(&mut got.items));
            truncated |= got.truncated;
            warnings.append(&mut got.warnings);
        }
        Limited { items: items.into_iter().collect(), truncated, warnings }
    }
}
