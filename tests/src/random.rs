//! Random numbers that can be repeated.

/// SplitMix64. Small, and good enough to choose test cases with.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator whose seed is printed, and taken from the environment variable `SEED` when that is set.
    pub fn announced(test: &str) -> Random {
        let seed = match std::env::var("SEED") {
            Ok(text) => text.parse().expect("SEED is a number"),
            Err(_) => std::process::id() as u64 ^ nanos(),
        };
        println!("{test}: SEED={seed}");
        Random(seed)
    }

    /// A generator with this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True so many times of a hundred.
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// That many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.number() as u8).collect()
    }
}

/// Scrambles a number; equal numbers give equal results.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn nanos() -> u64 {
    now().as_nanos() as u64
}

/// The time since 1970. Tests are an edge of the system, so they may read the clock.
#[expect(clippy::disallowed_methods, reason = "tests write samples of now, as senders do")]
pub fn now() -> std::time::Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is past 1970")
}

/// Now, in milliseconds.
pub fn now_ms() -> i64 {
    now().as_millis() as i64
}
