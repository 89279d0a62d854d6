//! How long a replica may be silent before another one is asked as well.

/// Silences that are remembered.
const SILENCES: usize = 128;

/// Silences of other nodes while they answered, the last ones.
#[derive(Clone, Debug)]
pub struct Patience {
    recent: [u32; SILENCES],
    count: usize,
    next: usize,
    min_ms: u64,
    max_ms: u64,
}

impl Patience {
    /// Never less than `min_ms` and never more than `max_ms`.
    pub fn new(min_ms: u64, max_ms: u64) -> Patience {
        Patience { recent: [0; SILENCES], count: 0, next: 0, min_ms, max_ms }
    }

    /// The longest silence of an answer that came.
    pub fn note(&mut self, silence_ms: u64) {
        self.recent[self.next] = u32::try_from(silence_ms).unwrap_or(u32::MAX);
        self.next = (self.next + 1) % SILENCES;
        self.count = (self.count + 1).min(SILENCES);
    }

    /// What 19 of 20 answers kept below, within the bounds.
    pub fn hedge_after_ms(&self) -> u64 {
        let mut recent = self.recent[..self.count].to_vec();
        recent.sort_unstable();
        let at = recent.len() * 19 / 20;
        let p95 =
            recent.get(at.min(recent.len().saturating_sub(1))).map_or(self.max_ms, |ms| u64::from(*ms) + 1);
        p95.clamp(self.min_ms, self.max_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_answer_in_twenty_is_hedged_and_bounds_hold() {
        let mut patience = Patience::new(20, 1000);
        assert_eq!(patience.hedge_after_ms(), 1000, "nothing is known yet");
        (0..128).for_each(|i| patience.note(if i % 32 == 0 { 5000 } else { 60 }));
        assert_eq!(patience.hedge_after_ms(), 61);
        (0..200).for_each(|_| patience.note(1));
        assert_eq!(patience.hedge_after_ms(), 20);
        (0..200).for_each(|_| patience.note(9000));
        assert_eq!(patience.hedge_after_ms(), 1000);
    }
}
