//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Asks again and again until there is an answer. Panics after `bound`, with the last thing that was seen.
pub fn until<T>(what: &str, bound: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        let seen = match ask() {
            Ok(answer) => return answer,
            Err(seen) => seen,
        };
        assert!(start.elapsed() < bound, "waited {bound:?} for {what}; last seen: {seen}");
        // A pause between two questions, so that asking does not take the processor from what we wait for.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
