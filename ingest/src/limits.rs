//! What one request may cost, and the configuration key behind each number.

use crate::Refusal;

/// Limits of one write request. The server fills them from its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body as received. Key [`BODY_BYTES_MAX`].
    pub body_bytes_max: usize,
    /// Bytes of a body after decompression. Key [`DECODED_BYTES_MAX`].
    pub decoded_bytes_max: usize,
    /// Decoded bytes for each byte received. Key [`DECODED_RATIO_MAX`].
    pub decoded_ratio_max: usize,
    /// Memory for the decoded columns and for labels that had to be assembled. Key [`BATCH_BYTES_MAX`].
    pub batch_bytes_max: usize,
    /// Labels of one series, the metric's name included. Key [`LABELS_MAX`].
    pub labels_max: usize,
    /// Bytes of a label's name. Key [`LABEL_NAME_BYTES_MAX`].
    pub label_name_bytes_max: usize,
    /// Bytes of a label's value. Key [`LABEL_VALUE_BYTES_MAX`].
    pub label_value_bytes_max: usize,
    /// Bytes of a metric family's name, help or unit; longer help is cut. Key [`METADATA_BYTES_MAX`].
    pub metadata_bytes_max: usize,
    /// Bytes of one line of text. Key [`LINE_BYTES_MAX`].
    pub line_bytes_max: usize,
}

/// Key of [`Limits::body_bytes_max`].
pub const BODY_BYTES_MAX: &str = "limits.write_body_bytes_max";
/// Key of [`Limits::decoded_bytes_max`].
pub const DECODED_BYTES_MAX: &str = "limits.write_decoded_bytes_max";
/// Key of [`Limits::decoded_ratio_max`].
pub const DECODED_RATIO_MAX: &str = "limits.write_decoded_ratio_max";
/// Key of [`Limits::batch_bytes_max`].
pub const BATCH_BYTES_MAX: &str = "limits.write_batch_bytes_max";
/// Key of [`Limits::labels_max`].
pub const LABELS_MAX: &str = "limits.labels_per_series_max";
/// Key of [`Limits::label_name_bytes_max`].
pub const LABEL_NAME_BYTES_MAX: &str = "limits.label_name_bytes_max";
/// Key of [`Limits::label_value_bytes_max`].
pub const LABEL_VALUE_BYTES_MAX: &str = "limits.label_value_bytes_max";
/// Key of [`Limits::metadata_bytes_max`].
pub const METADATA_BYTES_MAX: &str = "limits.metadata_bytes_max";
/// Key of [`Limits::line_bytes_max`].
pub const LINE_BYTES_MAX: &str = "limits.import_line_bytes_max";

/// Offsets into a batch are 32 bits, and so are sums of two lengths in it, so no limit may allow more than this, whatever
/// the configuration says.
const ADDRESSABLE: usize = 1 << 30;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes_max: 16 << 20,
            decoded_bytes_max: 32 << 20,
            decoded_ratio_max: 100,
            batch_bytes_max: 128 << 20,
            labels_max: 64,
            label_name_bytes_max: 1024,
            label_value_bytes_max: 4096,
            metadata_bytes_max: 1024,
            line_bytes_max: 10 << 20,
        }
    }
}

impl Limits {
    /// Refuses (413) a body that is too long as received.
    pub fn check_body(&self, bytes: usize) -> Result<(), Refusal> {
        let max = self.body_bytes_max;
        if bytes > max {
            return Err(over(413, "bytes of the request's body", bytes, max, BODY_BYTES_MAX));
        }
        Ok(())
    }

    /// Refuses a body that is, or says that it will be, too long when decoded.
    pub(crate) fn check_decoded(&self, bytes: usize, status: u16) -> Result<(), Refusal> {
        let max = self.decoded_bytes_max.min(ADDRESSABLE);
        if bytes > max {
            return Err(over(status, "bytes of the decoded body", bytes, max, DECODED_BYTES_MAX));
        }
        Ok(())
    }

    pub(crate) fn budget(&self) -> Budget {
        let max = self.batch_bytes_max.min(ADDRESSABLE);
        Budget { left: max, max }
    }
}

/// The memory that decoding one request may still take.
///
/// A byte on the wire can ask for a hundred bytes of columns, so counting the body alone bounds nothing.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
    max: usize,
}

impl Budget {
    #[inline]
    pub fn take(&mut self, bytes: usize) -> Result<(), Refusal> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.exhausted(bytes)),
        }
    }

    #[cold]
    fn exhausted(&self, bytes: usize) -> Refusal {
        let got = (self.max - self.left).saturating_add(bytes);
        over(400, "memory for the request's series and samples, in bytes,", got, self.max, BATCH_BYTES_MAX)
    }
}

#[cold]
pub(crate) fn over(status: u16, what: &str, got: usize, max: usize, key: &'static str) -> Refusal {
    Refusal {
        status,
        message: format!(
            "{what} would reach {got}, over the limit of {max}; send smaller requests or raise `{key}`"
        ),
        limit: Some(key),
    }
}
