//! How fast something gets less.

/// Over which time a change of pace shows: long enough that copies which end one by one make a steady number.
const MEMORY_S: f64 = 30.0;

/// The pace at which what is left gets less, an average that forgets exponentially.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    last: Option<(u64, f64)>,
    sum: f64,
    /// Of all that was summed up; below 1 in the beginning.
    weight: f64,
}

impl Pace {
    /// What is left now. When it has become more, there is more to do: that says nothing about the pace.
    pub fn note(&mut self, now_ms: u64, left: f64) {
        let Some((at_ms, before)) = self.last.replace((now_ms, left)) else { return };
        let seconds = now_ms.saturating_sub(at_ms) as f64 / 1e3;
        if seconds <= 0.0 || left > before {
            return;
        }
        let share = 1.0 - (-seconds / MEMORY_S).exp();
        self.sum += share * ((before - left) / seconds - self.sum);
        self.weight += share * (1.0 - self.weight);
    }

    /// So much less a second; `None` as long as nothing has become less.
    pub fn per_s(&self) -> Option<f64> {
        (self.weight > 0.0 && self.sum > 0.0).then(|| self.sum / self.weight)
    }

    /// Seconds until nothing is left.
    pub fn eta_s(&self) -> Option<u64> {
        let (_, left) = self.last?;
        // A pace that has all but died away says nothing.
        self.per_s().map(|pace| (left / pace).ceil()).filter(|eta| *eta < 1e8).map(|eta| eta as u64)
    }
}
