//! How long writes take of late, and how long they usually do: copies that are being made yield to them.
//!
//! ```text
//!   requests ─► Writes: counts by duration ─► once a second ─► Foreground: 99th percentile of the last seconds, and of quiet times
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Steps in which a duration doubles. A percentile is as exact as one of them: 19 %.
const STEPS: f64 = 4.0;
/// What is shorter than this is in the first bucket.
const SHORTEST_US: f64 = 64.0;
/// Up to more than a minute.
const BUCKETS: usize = 84;
/// Of what was counted, this share is kept for another second: percentiles of late are those of about three seconds.
const RECENT: f64 = 0.7;
/// And of quiet times: of about a minute.
const USUAL: f64 = 1.0 - 1.0 / 60.0;
/// So many writes of quiet times make a percentile.
const USUAL_COUNT_MIN: f64 = 20.0;
/// Nobody feels a difference below it.
const USUAL_MIN: Duration = Duration::from_millis(2);

/// Writes that have ended since somebody looked, by how long they took.
pub struct Writes([AtomicU32; BUCKETS]);

impl Default for Writes {
    fn default() -> Writes {
        Writes([const { AtomicU32::new(0) }; BUCKETS])
    }
}

impl Writes {
    /// One has ended.
    pub fn note(&self, took: Duration) {
        self.0[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self) -> [u32; BUCKETS] {
        std::array::from_fn(|bucket| self.0[bucket].swap(0, Ordering::Relaxed))
    }
}

fn bucket(took: Duration) -> usize {
    let steps = (took.as_micros() as f64 / SHORTEST_US).log2() * STEPS;
    // What is below the first is negative, or infinitely so.
    (steps.ceil().max(0.0) as usize).min(BUCKETS - 1)
}

/// Counts that fade.
struct Faded([f64; BUCKETS]);

impl Faded {
    fn add(&mut self, counts: &[u32; BUCKETS], kept: f64) {
        self.0.iter_mut().zip(counts).for_each(|(sum, count)| *sum = *sum * kept + f64::from(*count));
    }

    /// The longest of the bucket in which the 99th percentile is, if there were `least`.
    fn p99(&self, least: f64) -> Option<Duration> {
        let all: f64 = self.0.iter().sum();
        let mut longer = all * 0.01;
        let bucket = self.0.iter().rposition(|count| {
            longer -= count;
            longer < 0.0
        });
        let us = SHORTEST_US * (bucket? as f64 / STEPS).exp2();
        (all >= least).then(|| Duration::from_micros(us as u64))
    }
}

/// What clients feel.
pub struct Foreground {
    recent: Faded,
    usual: Faded,
}

impl Default for Foreground {
    fn default() -> Foreground {
        Foreground { recent: Faded([0.0; BUCKETS]), usual: Faded([0.0; BUCKETS]) }
    }
}

impl Foreground {
    /// A second has gone by. Gives the 99th percentile of late, zero if nothing was written, and the usual one; nothing as long as
    /// no quiet time was seen.
    pub fn look(&mut self, writes: &Writes, is_copying: bool) -> Option<(Duration, Duration)> {
        let counts = writes.take();
        self.recent.add(&counts, RECENT);
        if !is_copying && counts.iter().any(|count| *count > 0) {
            self.usual.add(&counts, USUAL);
        }
        let usual = self.usual.p99(USUAL_COUNT_MIN)?.max(USUAL_MIN);
        // What is left of one that was long ago is no longer felt.
        Some((self.recent.p99(0.5).unwrap_or_default(), usual))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A second with so many writes of each duration.
    fn second(foreground: &mut Foreground, is_copying: bool, took: &[(u64, u64)]) -> Option<(u128, u128)> {
        let writes = Writes::default();
        took.iter().for_each(|(count, took)| (0..*count).for_each(|_| writes.note(ms(*took))));
        let (late, usual) = foreground.look(&writes, is_copying)?;
        Some((late.as_millis(), usual.as_millis()))
    }

    fn is_near(got: u128, wanted: u128) -> bool {
        (wanted..=wanted * 6 / 5).contains(&got)
    }

    #[test]
    fn a_duration_is_told_within_a_fifth_of_it_and_the_longest_and_shortest_have_a_place() {
        for us in [64, 100, 999, 5_000, 123_456, 60_000_000] {
            let told = SHORTEST_US * (bucket(Duration::from_micros(us)) as f64 / STEPS).exp2();
            assert!((us as f64..us as f64 * 1.2).contains(&told), "{us}: {told}");
        }
        assert_eq!((bucket(Duration::ZERO), bucket(Duration::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn the_slowest_hundredth_counts() {
        let mut foreground = Foreground::default();
        let (late, _) = second(&mut foreground, false, &[(995, 5), (5, 700)]).unwrap();
        assert!(is_near(late, 5), "{late}");
        let mut foreground = Foreground::default();
        let (late, _) = second(&mut foreground, false, &[(980, 5), (20, 700)]).unwrap();
        assert!(is_near(late, 700), "{late}");
    }

    #[test]
    fn what_is_usual_is_learned_in_quiet_times_only() {
        let mut foreground = Foreground::default();
        assert_eq!(second(&mut foreground, true, &[(100, 10)]), None, "it was never quiet");
        assert_eq!(second(&mut foreground, false, &[(5, 10)]), None, "too few");
        let (_, usual) = second(&mut foreground, false, &[(100, 10)]).unwrap();
        assert!(is_near(usual, 10), "{usual}");
        for _ in 0..60 {
            let (late, usual) = second(&mut foreground, true, &[(100, 80)]).unwrap();
            assert!(is_near(late, 80) && is_near(usual, 10), "{late} {usual}");
        }
        // The machine has become slower, and nothing is copied: that is usual then.
        let told: Vec<_> = (0..120).filter_map(|_| second(&mut foreground, false, &[(100, 80)])).collect();
        assert!(is_near(told[119].1, 80), "{told:?}");
    }

    #[test]
    fn after_a_burst_and_in_silence_nobody_is_hurt() {
        let mut foreground = Foreground::default();
        second(&mut foreground, false, &[(100, 10)]);
        second(&mut foreground, true, &[(3, 900)]);
        let told: Vec<_> = (0..30).map(|_| second(&mut foreground, true, &[]).unwrap().0).collect();
        assert!(is_near(told[0], 900) && told[29] == 0, "{told:?}");
        // As fast as can be is no reason to call twice of that slow.
        let mut foreground = Foreground::default();
        assert_eq!(second(&mut foreground, false, &[(100, 0)]).unwrap(), (0, 2));
    }
}
