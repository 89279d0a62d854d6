//! Digests of the series of a set, by several threads.

use model::{Digest, Error, Samples, SeriesSet, TimeRange};

/// Series that are worth a thread of their own.
const SERIES_PER_THREAD_MIN: usize = 256;

/// Series between two looks at the clock.
const SERIES_PER_LOOK: usize = 64;

/// Half of the digest of what each of these series has in `range`: 0 for nothing. Stops at the first series that cannot be read, and when
/// `expired` says so.
pub(super) fn digests(
    set: &dyn SeriesSet,
    series: &[usize],
    range: TimeRange,
    threads: usize,
    expired: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<u64>, Error> {
    let mut all = vec![0; series.len()];
    let parts = threads.min(series.len() / SERIES_PER_THREAD_MIN).max(1);
    let fill = |series: &[usize], part: &mut [u64]| -> Result<(), Error> {
        let mut samples = Samples::default();
        for (i, (&index, digest)) in series.iter().zip(part).enumerate() {
            if i % SERIES_PER_LOOK == 0 && expired() {
                return Err(Error::Canceled);
            }
            set.read(index, range, &mut samples)?;
            *digest = half(Digest::of(set.id(index), &samples));
        }
        Ok(())
    };
    if parts == 1 {
        fill(series, &mut all)?;
        return Ok(all);
    }
    let size = series.len().div_ceil(parts);
    std::thread::scope(|scope| {
        let spawn = |(series, part)| scope.spawn(move || fill(series, part));
        let running: Vec<_> = series.chunks(size).zip(all.chunks_mut(size)).map(spawn).collect();
        // All are joined before the first failure is given.
        let ends: Vec<_> = running.into_iter().map(|t| t.join().expect("BUG: a digest panicked")).collect();
        ends.into_iter().collect::<Result<(), Error>>()
    })?;
    Ok(all)
}

/// What travels of a digest.
pub(super) fn half(digest: Digest) -> u64 {
    digest.0 as u64
}
