//! Remote-write requests, encoded by hand from the specifications.
//!
//! Written for tests: anything can be expressed, also what no sender should send.

/// A protobuf message under construction.
#[derive(Clone, Debug, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    /// An empty message.
    pub fn new() -> Message {
        Message::default()
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    /// A field of a varint type: `uint64`, `int64` (as its two's complement), `enum`.
    pub fn int(mut self, field: u32, value: i64) -> Message {
        self.tag(field, 0);
        self.varint(value as u64);
        self
    }

    /// A field of type `sint32` or `sint64`.
    pub fn sint(self, field: u32, value: i64) -> Message {
        self.int(field, (value << 1) ^ (value >> 63))
    }

    /// A field of type `double`.
    pub fn double(mut self, field: u32, value: f64) -> Message {
        self.tag(field, 1);
        self.0.extend(value.to_bits().to_le_bytes());
        self
    }

    /// A field of type `string`, `bytes` or message, or a packed repeated field.
    pub fn bytes(mut self, field: u32, value: impl AsRef<[u8]>) -> Message {
        self.tag(field, 2);
        self.varint(value.as_ref().len() as u64);
        self.0.extend(value.as_ref());
        self
    }

    /// A packed repeated field of varints.
    pub fn packed(self, field: u32, values: impl IntoIterator<Item = u64>) -> Message {
        let mut content = Message::new();
        values.into_iter().for_each(|value| content.varint(value));
        self.bytes(field, content)
    }

    /// A packed repeated `sint64` field.
    pub fn packed_sint(self, field: u32, values: &[i64]) -> Message {
        self.packed(field, values.iter().map(|value| ((value << 1) ^ (value >> 63)) as u64))
    }

    /// A packed repeated `double` field.
    pub fn packed_double(self, field: u32, values: &[f64]) -> Message {
        let content: Vec<u8> = values.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect();
        self.bytes(field, content)
    }

    /// Many messages in one repeated field.
    pub fn each(mut self, field: u32, messages: impl IntoIterator<Item = Message>) -> Message {
        for message in messages {
            self = self.bytes(field, message);
        }
        self
    }

    /// The message compressed as remote write wants it.
    pub fn snappy(&self) -> Vec<u8> {
        compress(&self.0)
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Snappy's block format.
pub fn compress(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).expect("tests stay below snappy's limit of 4 GiB")
}

/// One series of a request: labels in the order given, then anything else.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Names and values; bytes, so that they may be no UTF-8.
    pub labels: Vec<(Vec<u8>, Vec<u8>)>,
    /// Milliseconds and values.
    pub samples: Vec<(i64, f64)>,
    /// Native histograms, as [`histogram`] makes them.
    pub histograms: Vec<Message>,
    /// Exemplars of version 2, encoded.
    pub exemplars: Vec<Message>,
}

impl Series {
    /// A series with these labels and no samples.
    pub fn new<N: AsRef<[u8]>, V: AsRef<[u8]>>(labels: &[(N, V)]) -> Series {
        let labels =
            labels.iter().map(|(name, value)| (name.as_ref().to_vec(), value.as_ref().to_vec())).collect();
        Series { labels, ..Series::default() }
    }

    /// A series with this metric name and one more label.
    pub fn named(metric: &str, label: &str, value: &str) -> Series {
        Series::new(&[("__name__", metric), (label, value)])
    }

    /// With one more sample.
    pub fn sample(mut self, timestamp: i64, value: f64) -> Series {
        self.samples.push((timestamp, value));
        self
    }

    /// With one more native histogram.
    pub fn histogram(mut self, histogram: Message) -> Series {
        self.histograms.push(histogram);
        self
    }
}

/// Version 1: `prometheus.WriteRequest`.
pub mod v1 {
    use super::{Message, Series};

    /// A request with these series.
    pub fn request(series: &[Series]) -> Message {
        Message::new().each(1, series.iter().map(time_series))
    }

    fn time_series(series: &Series) -> Message {
        let labels = series.labels.iter().map(|(name, value)| Message::new().bytes(1, name).bytes(2, value));
        let samples = series
            .samples
            .iter()
            .map(|(timestamp, value)| Message::new().double(1, *value).int(2, *timestamp));
        Message::new().each(1, labels).each(2, samples).each(4, series.histograms.iter().cloned())
    }

    /// A request that only describes a metric family; `kind` is a number of `MetricType`.
    pub fn metadata(family: &str, kind: i64, help: &str, unit: &str) -> Message {
        let metadata = Message::new().int(1, kind).bytes(2, family).bytes(4, help).bytes(5, unit);
        Message::new().bytes(3, metadata)
    }
}

/// Version 2: `io.prometheus.write.v2.Request`.
pub mod v2 {
    use super::{Message, Series};

    /// A request with these series, its symbols in order of first use.
    pub fn request(series: &[Series]) -> Message {
        let mut symbols: Vec<Vec<u8>> = vec![vec![]];
        let mut reference = |text: &[u8]| {
            let known = symbols.iter().position(|symbol| symbol == text);
            known.unwrap_or_else(|| {
                symbols.push(text.to_vec());
                symbols.len() - 1
            }) as u64
        };
        let series: Vec<Message> = series
            .iter()
            .map(|series| {
                let refs: Vec<u64> = series
                    .labels
                    .iter()
                    .flat_map(|(name, value)| [reference(name), reference(value)])
                    .collect();
                time_series(&refs, series)
            })
            .collect();
        with_symbols(&symbols, &series)
    }

    /// A request of parts that need not fit.
    pub fn with_symbols<S: AsRef<[u8]>>(symbols: &[S], series: &[Message]) -> Message {
        symbols
            .iter()
            .fold(Message::new(), |request, symbol| request.bytes(4, symbol))
            .each(5, series.iter().cloned())
    }

    /// A series with these references; the labels of `series` are not looked at.
    pub fn time_series(refs: &[u64], series: &Series) -> Message {
        let samples = series
            .samples
            .iter()
            .map(|(timestamp, value)| Message::new().double(1, *value).int(2, *timestamp));
        Message::new()
            .packed(1, refs.iter().copied())
            .each(2, samples)
            .each(3, series.histograms.iter().cloned())
            .each(4, series.exemplars.iter().cloned())
    }
}

/// A native histogram with integer buckets, as both versions carry it.
#[derive(Clone, Debug)]
pub struct Buckets {
    /// Observations altogether.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Resolution: -4 to 8, or -53 for custom bounds.
    pub schema: i64,
    /// Observations around zero.
    pub zero_count: u64,
    /// Spans as offset and length.
    pub positive_spans: Vec<(i64, u64)>,
    /// Each bucket's difference from the one before.
    pub positive_deltas: Vec<i64>,
    /// Bounds of schema -53.
    pub custom_values: Vec<f64>,
}

impl Default for Buckets {
    /// Three observations in two buckets, nothing wrong with it.
    fn default() -> Buckets {
        Buckets {
            count: 3,
            sum: 4.5,
            schema: 0,
            zero_count: 0,
            positive_spans: vec![(0, 2)],
            positive_deltas: vec![1, 1],
            custom_values: vec![],
        }
    }
}

/// The histogram at a time, encoded.
pub fn histogram(timestamp: i64, buckets: &Buckets) -> Message {
    let spans = buckets
        .positive_spans
        .iter()
        .map(|(offset, length)| Message::new().sint(1, *offset).int(2, *length as i64));
    let mut message = Message::new()
        .int(1, buckets.count as i64)
        .double(3, buckets.sum)
        .sint(4, buckets.schema)
        .int(6, buckets.zero_count as i64);
    if buckets.schema != -53 {
        message = message.double(5, 1e-128);
    }
    message
        .each(11, spans)
        .packed_sint(12, &buckets.positive_deltas)
        .int(15, timestamp)
        .packed_double(16, &buckets.custom_values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_zigzag_and_doubles_are_those_of_the_protobuf_specification() {
        assert_eq!(Message::new().int(1, 150).0, [0x08, 0x96, 0x01]);
        assert_eq!(Message::new().int(2, -1).0, [0x10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        assert_eq!(Message::new().sint(4, -3).0, [0x20, 5]);
        assert_eq!(Message::new().bytes(2, "testing").0, *b"\x12\x07testing");
        assert_eq!(Message::new().double(1, 1.0).0, [9, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        assert_eq!(Message::new().packed(4, [3, 270, 86942]).0, [0x22, 6, 3, 0x8e, 2, 0x9e, 0xa7, 5]);
    }
}
