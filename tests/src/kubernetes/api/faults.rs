//! What goes wrong on purpose.
//!
//! Clients are chosen by what their user agent begins with; an empty text chooses all.

use crate::random::Random;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::sync::watch;

/// How a request goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// It is refused with this status, such as 500 or 503, and nothing is done.
    Status(u16),
    /// It is done, and the connection ends before the answer.
    AnswerLost,
    /// It is never answered, and nothing is done.
    Silence,
}

#[derive(Clone, Debug)]
struct Rule {
    user_agent: String,
    what: What,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Fails { fault: Fault, percent: u64, is_write_only: bool },
    WatchesDelayed(Duration),
    WatchesFrozen,
    Cut,
}

struct Rules {
    rules: Vec<Rule>,
    random: Random,
}

/// The switches. They are read at every request, and watches wake when one is turned.
pub struct Faults {
    rules: Mutex<Rules>,
    turned: watch::Sender<u64>,
    up: watch::Sender<bool>,
    /// Whether the port is open, as said by whoever listens there.
    pub(super) is_open: watch::Sender<bool>,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            rules: Mutex::new(Rules { rules: vec![], random: Random::new(1) }),
            turned: watch::Sender::new(0),
            up: watch::Sender::new(true),
            is_open: watch::Sender::new(false),
        }
    }
}

impl Faults {
    /// The server goes down: connections end, new ones are refused.
    pub fn down(&self) {
        self.set_up(false);
    }

    /// The server comes back, at the same address and with all it knows.
    pub fn up(&self) {
        self.set_up(true);
    }

    fn set_up(&self, up: bool) {
        self.up.send_replace(up);
        crate::until::until("the port", Duration::from_secs(10), || {
            if *self.is_open.borrow() == up {
                Ok(())
            } else {
                Err(format!("the port is still {}", if up { "closed" } else { "open" }))
            }
        });
    }

    /// So many of a hundred requests of these clients fail. Watches are requests, too.
    pub fn fail(&self, user_agent: &str, fault: Fault, percent: u64) {
        self.add(user_agent, What::Fails { fault, percent, is_write_only: false });
    }

    /// So many of a hundred writes of these clients fail.
    pub fn fail_writes(&self, user_agent: &str, fault: Fault, percent: u64) {
        self.add(user_agent, What::Fails { fault, percent, is_write_only: true });
    }

    /// These clients are told of changes only after so long.
    pub fn delay_watches(&self, user_agent: &str, by: Duration) {
        self.add(user_agent, What::WatchesDelayed(by));
    }

    /// These clients are told of no change any more, until [`Faults::clear`]: what they have seen gets stale.
    pub fn freeze_watches(&self, user_agent: &str) {
        self.add(user_agent, What::WatchesFrozen);
    }

    /// The connections of these clients end, and each request on a new one ends it.
    pub fn cut(&self, user_agent: &str) {
        self.add(user_agent, What::Cut);
    }

    /// Nothing goes wrong for these clients any more; what was held back is told.
    pub fn clear(&self, user_agent: &str) {
        self.rules.lock().rules.retain(|rule| rule.user_agent != user_agent);
        self.turned.send_modify(|count| *count += 1);
    }

    fn add(&self, user_agent: &str, what: What) {
        self.rules.lock().rules.push(Rule { user_agent: user_agent.into(), what });
        self.turned.send_modify(|count| *count += 1);
    }

    /// Whether the server is up, and when that changes.
    pub(super) fn ups(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// When something is turned.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.turned.subscribe()
    }

    /// How this request goes wrong, if it does.
    pub(super) fn of_request(&self, user_agent: &str, is_write: bool) -> Option<Fault> {
        let mut rules = self.rules.lock();
        let Rules { rules, random } = &mut *rules;
        rules.iter().filter(|rule| user_agent.starts_with(&rule.user_agent)).find_map(|rule| {
            match rule.what {
                What::Fails { fault, percent, is_write_only } => {
                    (!is_write_only || is_write).then_some(fault).filter(|_| random.percent(percent))
                }
                _ => None,
            }
        })
    }

    /// Whether connections of this client are to end.
    pub(super) fn is_cut(&self, user_agent: &str) -> bool {
        self.any(user_agent, |what| *what == What::Cut)
    }

    /// Whether this client is told nothing.
    pub(super) fn is_frozen(&self, user_agent: &str) -> bool {
        self.any(user_agent, |what| *what == What::WatchesFrozen)
    }

    fn any(&self, user_agent: &str, is: impl Fn(&What) -> bool) -> bool {
        let rules = self.rules.lock();
        rules.rules.iter().any(|rule| user_agent.starts_with(&rule.user_agent) && is(&rule.what))
    }

    /// How long this client waits for news.
    pub(super) fn delay(&self, user_agent: &str) -> Duration {
        let rules = self.rules.lock();
        let delays = rules.rules.iter().filter(|rule| user_agent.starts_with(&rule.user_agent));
        delays
            .map(|rule| if let What::WatchesDelayed(by) = rule.what { by } else { Duration::ZERO })
            .max()
            .unwrap_or_default()
    }
}
