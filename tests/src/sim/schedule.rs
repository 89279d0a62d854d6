//! Simulated time.

use std::collections::BTreeMap;

/// What will happen, in order of time; what is due at the same time happens in the order in which it was planned.
pub struct Schedule<E> {
    now_ms: u64,
    planned: u64,
    events: BTreeMap<(u64, u64), E>,
}

impl<E> Default for Schedule<E> {
    fn default() -> Schedule<E> {
        Schedule { now_ms: 0, planned: 0, events: BTreeMap::new() }
    }
}

impl<E> Schedule<E> {
    /// Milliseconds since the beginning.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Plans something for later.
    pub fn after(&mut self, delay_ms: u64, event: E) {
        self.planned += 1;
        self.events.insert((self.now_ms + delay_ms, self.planned), event);
    }

    /// The next thing to happen before `end_ms`; it is its time now. Without any, it is `end_ms`.
    pub fn next_before(&mut self, end_ms: u64) -> Option<E> {
        match self.events.first_entry() {
            Some(first) if first.key().0 < end_ms => {
                self.now_ms = first.key().0;
                Some(first.remove())
            }
            _ => {
                self.now_ms = self.now_ms.max(end_ms);
                None
            }
        }
    }

    /// How much is planned.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing is planned.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_their_time_and_then_of_planning() {
        let mut schedule = Schedule::default();
        for (delay, name) in [(5, "c"), (1, "a"), (5, "d"), (2, "b"), (9, "e")] {
            schedule.after(delay, name);
        }
        let mut seen = String::new();
        while let Some(name) = schedule.next_before(9) {
            seen += name;
        }
        assert_eq!((seen.as_str(), schedule.now_ms(), schedule.len()), ("abcd", 9, 1));
    }
}
