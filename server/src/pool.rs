//! Buffers that are used again.

use parking_lot::Mutex;

/// A stack of idle values.
pub struct Pool<T> {
    idle: Mutex<Vec<T>>,
    idle_max: usize,
    keep: fn(&T) -> bool,
}

impl<T: Default> Pool<T> {
    /// Holds at most `idle_max` values, and only such as `keep` wants.
    pub fn new(idle_max: usize, keep: fn(&T) -> bool) -> Pool<T> {
        Pool { idle: Mutex::new(Vec::new()), idle_max, keep }
    }

    /// One that was used before, as it was left, or a new one.
    pub fn take(&self) -> T {
        self.idle.lock().pop().unwrap_or_default()
    }

    /// Takes one back.
    pub fn give(&self, value: T) {
        if (self.keep)(&value) {
            let mut idle = self.idle.lock();
            if idle.len() < self.idle_max {
                idle.push(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_unless_they_are_too_large_or_too_many() {
        let pool: Pool<Vec<u8>> = Pool::new(1, |v| v.capacity() <= 100);
        pool.give(Vec::with_capacity(50));
        pool.give(Vec::with_capacity(60));
        assert_eq!(pool.take().capacity(), 50);
        assert_eq!(pool.take().capacity(), 0);
        pool.give(Vec::with_capacity(1000));
        assert_eq!(pool.take().capacity(), 0);
    }
}
