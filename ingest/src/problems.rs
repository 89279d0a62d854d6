//! What is wrong with parts of a request, kept within bounds however much is wrong.

use model::RejectReason;

/// Problems spelled out in one answer; the rest is counted.
const SPELLED_OUT_MAX: usize = 100;

/// Bytes of one problem's text; a label set can be megabytes.
const TEXT_BYTES_MAX: usize = 2048;

/// Why a part of a request was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No metric name, an empty label name, or not UTF-8.
    InvalidLabels,
    /// The same label name twice.
    DuplicateLabel,
    /// A label set that is not decodable, or symbol references that lead nowhere.
    Malformed,
    /// A remote write 2 series without a sample and without a histogram.
    NoSamples,
    /// Over one of the limits on labels.
    Limit,
    /// A histogram that contradicts itself.
    InvalidHistogram,
    /// An exemplar that cannot be taken.
    Exemplar,
    /// A line of text that is not in the format.
    Line,
    /// Refused by the sink.
    Rejected(RejectReason),
}

impl Reason {
    /// Every reason, for metrics that want all of them from the start.
    pub const ALL: [Reason; 12] = [
        Reason::InvalidLabels,
        Reason::DuplicateLabel,
        Reason::Malformed,
        Reason::NoSamples,
        Reason::Limit,
        Reason::InvalidHistogram,
        Reason::Exemplar,
        Reason::Line,
        Reason::Rejected(RejectReason::TooOld),
        Reason::Rejected(RejectReason::TooFarInFuture),
        Reason::Rejected(RejectReason::SeriesLimit),
        Reason::Rejected(RejectReason::IdCollision),
    ];

    /// For the `reason` label of a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::InvalidLabels => "invalid_labels",
            Reason::DuplicateLabel => "duplicate_label",
            Reason::Malformed => "malformed",
            Reason::NoSamples => "no_samples",
            Reason::Limit => "limit",
            Reason::InvalidHistogram => "invalid_histogram",
            Reason::Exemplar => "exemplar",
            Reason::Line => "line",
            Reason::Rejected(RejectReason::TooOld) => "too_old",
            Reason::Rejected(RejectReason::TooFarInFuture) => "too_far_in_future",
            Reason::Rejected(RejectReason::SeriesLimit) => "series_limit",
            Reason::Rejected(RejectReason::IdCollision) => "id_collision",
        }
    }

    /// What Prometheus's remote write 1 receiver logs and answers with 204.
    pub(crate) fn silent_in_v1(self) -> bool {
        matches!(self, Reason::InvalidLabels | Reason::DuplicateLabel | Reason::Exemplar)
    }

    fn index(self) -> usize {
        Reason::ALL.iter().position(|r| *r == self).expect("BUG: a reason is missing from Reason::ALL")
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its kind.
    pub reason: Reason,
    /// For the sender.
    pub message: String,
}

/// How often something went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Series, lines or histograms concerned.
    pub problems: u64,
    /// Samples and histograms that were not stored for it.
    pub rows: u64,
}

/// All that is wrong with one request: the first ones in words, all of them counted.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    spelled_out: Vec<Problem>,
    tallies: [Tally; Reason::ALL.len()],
}

impl Problems {
    /// Adds one that cost `rows` samples. The text is made only when there is room for it.
    pub fn add(&mut self, reason: Reason, rows: u64, message: impl FnOnce() -> String) {
        let tally = &mut self.tallies[reason.index()];
        tally.problems += 1;
        tally.rows += rows;
        // Room is kept per kind: a thousand silent ones must not hide the one that the sender has to be told.
        if tally.problems <= SPELLED_OUT_MAX as u64 {
            let mut message = message();
            if message.len() > TEXT_BYTES_MAX {
                message.truncate(message.floor_char_boundary(TEXT_BYTES_MAX));
                message.push('…');
            }
            self.spelled_out.push(Problem { reason, message });
        }
    }

    /// The first ones of each kind, in the order they were found.
    pub fn spelled_out(&self) -> &[Problem] {
        &self.spelled_out
    }

    /// How many of one kind.
    pub fn tally(&self, reason: Reason) -> Tally {
        self.tallies[reason.index()]
    }

    /// Every kind that occurred.
    pub fn tallies(&self) -> impl Iterator<Item = (Reason, Tally)> + '_ {
        Reason::ALL.into_iter().zip(self.tallies).filter(|(_, t)| t.problems > 0)
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.spelled_out.is_empty()
    }

    /// The problems of the kinds that are `told`, one a line, at the end how many more there are. Empty when there is
    /// nothing to tell.
    pub fn text(&self, told: impl Fn(Reason) -> bool) -> String {
        let lines: Vec<&str> = self
            .spelled_out
            .iter()
            .filter(|p| told(p.reason))
            .take(SPELLED_OUT_MAX)
            .map(|p| p.message.as_str())
            .collect();
        let all: u64 = self.tallies().filter(|(r, _)| told(*r)).map(|(_, t)| t.problems).sum();
        let mut text = lines.join("\n");
        if all > lines.len() as u64 {
            text.push_str(&format!("\nand {} more", all - lines.len() as u64));
        }
        text
    }
}
