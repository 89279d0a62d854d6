//! From a decoded batch to a sink: known series at once, new ones after their labels were checked.

use crate::Limits;
use crate::problems::{Problems, Reason};
use crate::series::{self, Fault};
use model::{Appended, Batch, Durable, Error, Sink, Written};
use std::sync::Arc;

/// What decoding found besides the rows.
#[derive(Debug, Default)]
pub struct Decoded {
    /// What could not be taken.
    pub problems: Problems,
    /// Exemplars in the request. They are checked; keeping them is not built yet.
    pub exemplars: u64,
}

/// What was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Float samples.
    pub samples: u64,
    /// Native histograms.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
}

/// What became of one request.
pub struct Stored {
    /// Must resolve before the request is answered.
    pub durable: Durable,
    /// What was taken.
    pub written: Counted,
    /// What was not, and why.
    pub problems: Problems,
    /// Exemplars that were sent.
    pub exemplars_received: u64,
    /// Series whose labels had to be checked: new ones, and known ones in another spelling.
    pub series_checked: u64,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored")
            .field("written", &self.written)
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

/// Sends the rows of `batch` to `sink`.
///
/// Everything goes in one append first. Series that come back as unknown have their labels checked and, if they are not
/// canonical, rewritten behind [`Batch::bytes`] under the id that they really have; then these go once more. A series is
/// never stored under the hash of bytes that are not canonical, because no sink creates an unchecked series.
///
/// An error means that an unknown part of the batch was taken. Sending again is safe.
pub fn store(
    sink: &dyn Sink,
    batch: &mut Arc<Batch>,
    decoded: Decoded,
    limits: &Limits,
) -> Result<Stored, Error> {
    let Decoded { mut problems, exemplars } = decoded;
    let first = sink.append(batch, None)?;
    let mut written = first.written;
    reject(batch, &first, &mut problems);
    let mut durable = first.durable;
    let mut checked = first.unknown;
    let series_checked = checked.len() as u64;
    if !checked.is_empty() {
        let key = sink.key();
        let mut canonical = Vec::new();
        // A sink may hold on to the batch as it was.
        let batch = Arc::make_mut(batch);
        checked.retain(|&index| check_one(batch, index as usize, key, &mut canonical, limits, &mut problems));
    }
    if !checked.is_empty() {
        let second = sink.append(batch, Some(&checked))?;
        debug_assert!(second.unknown.is_empty(), "BUG: the sink does not take checked series");
        reject(batch, &second, &mut problems);
        written = Written {
            floats: written.floats + second.written.floats,
            histograms: written.histograms + second.written.histograms,
        };
        let (one, two) = (durable, second.durable);
        durable = Box::pin(async move {
            one.await?;
            two.await
        });
    }
    if !batch.metadata.is_empty() {
        sink.describe(&batch.metadata)?;
    }
    Ok(Stored {
        durable,
        written: Counted { samples: written.floats, histograms: written.histograms, exemplars: 0 },
        problems,
        exemplars_received: exemplars,
        series_checked,
    })
}

/// Makes series `index` fit for creation, or adds to `problems` and returns false.
fn check_one(
    batch: &mut Batch,
    index: usize,
    key: model::SeriesKey,
    canonical: &mut Vec<u8>,
    limits: &Limits,
    problems: &mut Problems,
) -> bool {
    let mut one = batch.series[index];
    canonical.clear();
    match series::check(batch.labels(&one), canonical, limits) {
        Ok(series::Form::Canonical) => {}
        Ok(series::Form::Rewritten) => {
            let at = batch.bytes.len();
            let (Ok(at), true) = (u32::try_from(at), at + canonical.len() <= u32::MAX as usize) else {
                let fault = Fault::TooLarge;
                let rows = u64::from(one.floats_len) + u64::from(one.histograms_len);
                problems.add(fault.reason(), rows, || fault.message(batch.labels(&one)));
                return false;
            };
            batch.bytes.extend_from_slice(canonical);
            one.labels_at = at;
            one.labels_len = canonical.len() as u32;
            one.id = key.id(canonical);
        }
        Err(fault) => {
            let rows = u64::from(one.floats_len) + u64::from(one.histograms_len);
            problems.add(fault.reason(), rows, || fault.message(batch.labels(&one)));
            return false;
        }
    }
    one.checked = true;
    batch.series[index] = one;
    true
}

fn reject(batch: &Batch, appended: &Appended, problems: &mut Problems) {
    for rejection in &appended.rejected {
        let Some(series) = batch.series.get(rejection.series as usize) else { continue };
        problems.add(Reason::Rejected(rejection.reason), u64::from(rejection.rows), || {
            format!(
                "{} for series {} ({} from timestamp {})",
                rejection.reason.as_str(),
                series::Text(batch.labels(series)),
                if rejection.rows == 1 {
                    "1 sample".to_string()
                } else {
                    format!("{} samples", rejection.rows)
                },
                rejection.timestamp
            )
        });
    }
}
