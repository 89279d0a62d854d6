//! How fast blocks may come.
//!
//! A bucket of bytes that fills with time. While clients wait longer than usual it fills more slowly, down to a sixteenth, and recovers
//! step by step: halving at once and growing slowly finds the pace that does not hurt.

/// The foreground is hurt when its latency is so many percent of what is usual.
const HURT_PERCENT: u64 = 150;
/// The pace is counted in these parts of the limit.
const PARTS: u64 = 16;
/// A change of the pace has to show before the next one.
const CHANGE_MS: u64 = 1_000;
/// What was not used is kept for so long.
const BURST_MS: u64 = 250;

/// Bytes that may be asked for.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_per_s: u64,
    parts: u64,
    changed_ms: u64,
    /// Below zero after a piece that was larger than what was left. In thousandths of a byte, so that short ticks are not lost.
    allowance: i128,
    filled_ms: u64,
}

impl Budget {
    pub fn new(bytes_per_s: u64) -> Budget {
        Budget { bytes_per_s, parts: PARTS, changed_ms: 0, allowance: 0, filled_ms: 0 }
    }

    /// The limit; 0 pauses.
    pub fn set(&mut self, bytes_per_s: u64) {
        self.bytes_per_s = bytes_per_s;
    }

    /// The pace of the moment.
    pub fn bytes_per_s(&self) -> u64 {
        (u128::from(self.bytes_per_s) * u128::from(self.parts) / u128::from(PARTS)) as u64
    }

    /// What the foreground sees.
    pub fn foreground(&mut self, now_ms: u64, latency_us: u64, usual_us: u64) {
        if now_ms.saturating_sub(self.changed_ms) < CHANGE_MS {
            return;
        }
        let hurt = u128::from(latency_us) * 100 > u128::from(usual_us) * u128::from(HURT_PERCENT);
        self.parts = if hurt { (self.parts / 2).max(1) } else { (self.parts + 1).min(PARTS) };
        self.changed_ms = now_ms;
    }

    pub fn fill(&mut self, now_ms: u64) {
        let elapsed = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = self.filled_ms.max(now_ms);
        let rate = i128::from(self.bytes_per_s());
        self.allowance = (self.allowance + rate * i128::from(elapsed)).min(rate * i128::from(BURST_MS));
    }

    /// Whether so many bytes may be asked for now; if so, they count.
    pub fn take(&mut self, bytes: u64) -> bool {
        let may = self.allowance > 0;
        if may {
            self.allowance -= i128::from(bytes) * 1000;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of pieces of `piece` that get through in `ms`.
    fn through(budget: &mut Budget, from_ms: u64, ms: u64, piece: u64) -> u64 {
        let mut bytes = 0;
        for now in (from_ms..from_ms + ms).step_by(7) {
            budget.fill(now);
            while budget.take(piece) {
                bytes += piece;
            }
        }
        bytes
    }

    #[test]
    fn the_limit_holds_whatever_the_size_of_pieces_and_what_was_saved_is_little() {
        for piece in [1_000, 40_000, 3_000_000] {
            let mut budget = Budget::new(1_000_000);
            budget.fill(1_000_000);
            let bytes = through(&mut budget, 1_000_000, 10_000, piece);
            assert!((9_900_000..=10_300_000 + piece).contains(&bytes), "{bytes} in pieces of {piece}");
        }
        let mut paused = Budget::new(0);
        assert_eq!(through(&mut paused, 0, 10_000, 1), 0);
    }

    #[test]
    fn it_yields_at_once_and_recovers_slowly() {
        let mut budget = Budget::new(16_000);
        let pace = |budget: &mut Budget, second: u64, latency| {
            budget.foreground(second * 1_000, latency, 1_000);
            budget.bytes_per_s()
        };
        assert_eq!(
            [1, 2, 3, 4, 5, 6].map(|s| pace(&mut budget, s, 1_501)),
            [8_000, 4_000, 2_000, 1_000, 1_000, 1_000]
        );
        assert_eq!([7, 8, 9].map(|s| pace(&mut budget, s, 1_500)), [2_000, 3_000, 4_000]);
        assert_eq!(pace(&mut budget, 9, 9_000), 4_000, "twice in a second");
        let _ = (10..40).map(|s| pace(&mut budget, s, 0)).max();
        assert_eq!(budget.bytes_per_s(), 16_000);
    }
}
