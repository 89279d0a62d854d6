//! Those who write and read, and what they are told.
//!
//! A writer behaves as Prometheus does: one request at a time, sent again to any node until it is taken or refused for good, the next one only
//! then. A reader asks any node for anything.

use super::ledger::Ledger;
use super::machine::EPOCH_MS;
use super::network::Machine;
use super::operator::Order;
use super::swarm::Work;
use super::values::{Row, VERSIONS, Values};
use crate::random::Random;
use cluster::quorum::Consistency;
use cluster::read::What;

/// How long a client waits for an answer.
pub const PATIENCE_MS: u64 = 15_000;
/// The oldest rows are this old at the beginning.
const PAST_MS: i64 = 10 * 3_600_000;

/// What a client asks a node for.
#[derive(Clone, Debug)]
pub enum Request {
    /// To keep rows.
    Write {
        /// Sorted by series.
        rows: Vec<Row>,
        /// How many replicas must have them; `None` for what the namespace says.
        consistency: Option<Consistency>,
    },
    /// The rows of some series in a range, both ends included.
    Read {
        /// For [`Values::matchers`].
        which: u64,
        /// From and to.
        range: (i64, i64),
        /// How many replicas must answer; `None` for what the namespace says.
        consistency: Option<Consistency>,
        /// Whether a part of it will do, if it says which.
        partial: bool,
    },
    /// Which series, or which names or values of labels, there are in a range.
    Look {
        /// What of them.
        what: What,
        /// For [`Values::matchers`].
        which: u64,
        /// From and to.
        range: (i64, i64),
        /// How many replicas must answer; `None` for what the namespace says.
        consistency: Option<Consistency>,
    },
    /// For an operation.
    Operate(Order),
    /// To set the retention of a namespace that nobody uses.
    Administer {
        /// Different each time.
        retention_ms: u64,
    },
}

/// What a node answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The rows are kept, except for some.
    Written {
        /// Rows that are.
        kept: usize,
        /// Rows that will never be accepted.
        rejected: usize,
    },
    /// It was read, and checked.
    Read {
        /// Rows, or what was looked up.
        rows: usize,
    },
    /// The change is agreed on.
    Administered,
    /// The change shall not be.
    Refused(String),
    /// Nothing is known of the request's fate; it can be sent again.
    Failed(String),
}

/// A request under way.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Which client.
    pub client: usize,
    /// Different for every try.
    pub number: u64,
    /// What is asked for.
    pub request: Request,
    /// When it was asked for.
    pub since_ms: u64,
}

/// One client.
pub struct Client {
    /// Whether it writes.
    writes: bool,
    /// What it has not been answered yet.
    pending: Option<Request>,
    /// The number of the try that counts.
    number: u64,
    since_ms: u64,
    /// Tries of this request.
    tries: u64,
}

/// All clients.
pub struct Clients {
    work: Work,
    lots: Random,
    all: Vec<Client>,
    operations: u64,
    /// Newest timestamp written, so that time goes on where wall clocks stand still.
    newest: i64,
    stopped: bool,
    /// Requests that were answered well, and tries that were not.
    pub done: u64,
    /// Tries that came to nothing.
    pub failed: u64,
}

impl Clients {
    /// As many as the work wants.
    pub fn new(work: Work, lots: Random) -> Clients {
        let client = |writes| Client { writes, pending: None, number: 0, since_ms: 0, tries: 0 };
        let all = (0..work.writers + work.readers).map(|n| client(n < work.writers)).collect();
        Clients { work, lots, all, operations: 0, newest: EPOCH_MS, stopped: false, done: 0, failed: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Until a client's next request.
    pub fn pause_ms(&mut self) -> u64 {
        self.lots.between(1, 2 * self.work.interval_ms)
    }

    /// No new requests; what is pending is still sent again.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Clients that still wait for an answer to what they want, and since when.
    pub fn waiting(&self) -> impl Iterator<Item = (usize, u64)> {
        self.all
            .iter()
            .enumerate()
            .filter(|(_, client)| client.pending.is_some())
            .map(|(n, client)| (n, client.since_ms))
    }

    /// What a client does next: which of these machines it asks for what. `None` if it wants nothing.
    pub fn next(
        &mut self,
        client: usize,
        now_ms: u64,
        machines: &[Machine],
        ledger: &Ledger,
        values: &Values,
    ) -> Option<(Machine, Operation)> {
        if self.all[client].pending.is_none() {
            if self.stopped {
                return None;
            }
            let request =
                if self.all[client].writes { self.write(now_ms, ledger, values) } else { self.read(now_ms) };
            let new = &mut self.all[client];
            (new.pending, new.since_ms, new.tries) = (Some(request), now_ms, 0);
        }
        self.operations += 1;
        let machine = *self.lots.pick(machines);
        let new = &mut self.all[client];
        new.number = self.operations;
        new.tries += 1;
        let request = new.pending.clone().expect("BUG: just set");
        Some((machine, Operation { client, number: new.number, request, since_ms: now_ms }))
    }

    /// An answer reaches its client, or its patience is at an end. `None` if it has given this try up before.
    pub fn answered(&mut self, client: usize, number: u64, answer: &Answer) -> Option<u64> {
        let client = &mut self.all[client];
        if client.number != number || client.pending.is_none() {
            return None;
        }
        client.number = 0;
        let failed = matches!(answer, Answer::Failed(_));
        if failed {
            self.failed += 1;
            // A reader tells its user; a writer may not drop what it has.
            if !client.writes && client.tries >= 3 {
                client.pending = None;
            }
            let most = (100 << client.tries.min(5)).min(2_000);
            return Some(self.lots.between(30, most));
        }
        self.done += 1;
        client.pending = None;
        Some(self.pause_ms())
    }

    fn write(&mut self, now_ms: u64, ledger: &Ledger, values: &Values) -> Request {
        let now = EPOCH_MS + now_ms as i64;
        if self.lots.percent(self.work.administration) {
            return Request::Administer { retention_ms: 3_600_000 * self.lots.between(1, 1_000) };
        }
        let mut rows = Vec::new();
        let first = self.lots.below(u64::from(values.len()));
        let count = self.lots.between(1, self.work.batch_series);
        for n in 0..count.min(u64::from(values.len())) {
            let series = ((first + n) % u64::from(values.len())) as u16;
            let t = match (self.lots.percent(self.work.old), self.lots.percent(self.work.conflicting)) {
                (true, _) => now - 1_000 * self.lots.between(1, PAST_MS as u64 / 1_000) as i64,
                (false, true) => ledger.some_of(series).unwrap_or(now),
                (false, false) => now - self.lots.below(50) as i64,
            };
            let version = self.lots.below(VERSIONS as u64) as u8;
            rows.push(Row { series, t, version });
            if self.lots.percent(20) {
                rows.push(Row { series, t: t + 7, version });
            }
        }
        rows.sort_unstable();
        rows.dedup_by_key(|row| (row.series, row.t));
        self.newest = self.newest.max(now);
        let consistency = match self.lots.below(20) {
            0 => Some(Consistency::One),
            1 => Some(Consistency::Majority),
            _ => None,
        };
        Request::Write { rows, consistency }
    }

    fn read(&mut self, now_ms: u64) -> Request {
        let now = EPOCH_MS + now_ms as i64;
        let range = match self.lots.below(3) {
            0 => (i64::MIN, i64::MAX),
            1 => (now - 30_000, now),
            _ => {
                let from = now - self.lots.below(PAST_MS as u64) as i64;
                (from, from + self.lots.below(7_200_000) as i64)
            }
        };
        let consistency = match self.lots.below(20) {
            0 => Some(Consistency::One),
            1 => Some(Consistency::Majority),
            _ => None,
        };
        let which = self.lots.below(4);
        if self.lots.percent(self.work.lookups) {
            let what = match self.lots.below(3) {
                0 => What::Series,
                1 => What::Names,
                _ => What::Values("instance".to_owned()),
            };
            return Request::Look { what, which, range, consistency };
        }
        Request::Read { which, range, consistency, partial: self.lots.percent(self.work.partial) }
    }
}
