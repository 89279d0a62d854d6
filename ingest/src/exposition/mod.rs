//! Prometheus text 0.0.4 and OpenMetrics 1.0, read line by line into a batch.
//!
//! ```text
//! # HELP name text           # TYPE name type           # UNIT name unit (OpenMetrics)           # EOF (OpenMetrics)
//! name{label="value",..} value [timestamp] [# {label="value",..} value [timestamp]]
//! {"any name","any label"="value",..} value ..
//! ```
//!
//! A line that is not in the format is reported with its number and the others are stored. Timestamps are integers in
//! milliseconds in text, decimals in seconds in OpenMetrics. Exemplars are read and counted, not kept. What a scraper
//! would check between lines (order of families, suffixes that fit the type) is not checked: a line stands for itself.
//!
//! Labels leave here canonical and checked, so the sink creates series from them at once.

mod lexer;

use crate::limits::{self, Budget};
use crate::problems::{Problems, Reason};
use crate::store::Decoded;
use crate::{Limits, Refusal, metadata};
use lexer::{Lexer, Pair};
use model::labels::{self, METRIC_NAME};
use model::{Batch, BatchSeries, Metadata, MetricType, SeriesKey};

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus text, 0.0.4 and 1.0.0.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// What the request says besides its body.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For lines without a timestamp: the time of the request, or what its parameter `timestamp` says. Milliseconds.
    pub default_timestamp: i64,
    /// Set on every series, in place of a label that has the same name.
    pub extra_labels: Vec<(String, String)>,
}

impl Options {
    /// Adds what a parameter `extra_label` says: `name=value`.
    pub fn extra_label(&mut self, parameter: &str) -> Result<(), Refusal> {
        match parameter.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                // The last one of a name wins.
                self.extra_labels.retain(|(n, _)| n != name);
                self.extra_labels.push((name.to_string(), value.to_string()));
                Ok(())
            }
            _ => Err(Refusal::bad(format!("extra_label must be name=value, got {parameter:?}"))),
        }
    }
}

/// Tells the format from the request's `Content-Type` or, when that names neither, from the closing `# EOF`.
pub fn detect(content_type: Option<&str>, body: &[u8]) -> Format {
    let mut parts = content_type.unwrap_or_default().split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let versioned = parts.any(|p| p.strip_prefix("version=").is_some());
    let closed = body.trim_ascii_end().ends_with(b"# EOF");
    let text = media.eq_ignore_ascii_case("text/plain") && versioned;
    if media.eq_ignore_ascii_case("application/openmetrics-text") || (closed && !text) {
        Format::OpenMetrics
    } else {
        Format::Text
    }
}

/// Why a line is not taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("expected {expected}, got {got}")]
    Unexpected { expected: &'static str, got: String },
    #[error("invalid {0}")]
    Invalid(&'static str),
    #[error("no metric name")]
    NoName,
    #[error("duplicated label {0}")]
    Duplicate(String),
    #[error("{what}: {got} is over the limit of {max} (raise `{key}` to allow more)")]
    Limit { what: &'static str, got: usize, max: usize, key: &'static str },
    #[error("there is more after # EOF")]
    AfterEof,
}

/// Fills the columns of `batch` from `body`; its `bytes` receive the label sets only. An error leaves them half filled:
/// clear them.
pub fn parse(
    body: &[u8],
    format: Format,
    options: &Options,
    batch: &mut Batch,
    key: SeriesKey,
    limits: &Limits,
) -> Result<Decoded, Refusal> {
    limits.check_decoded(body.len(), 413)?;
    let mut parser = Parser {
        format,
        options,
        batch,
        key,
        limits,
        budget: limits.budget(),
        // One pass over everything is many times faster than one for each name and value.
        utf8: std::str::from_utf8(body).is_ok(),
        pairs: Vec::new(),
        described: Metadata::default(),
        problems: Problems::default(),
        exemplars: 0,
    };
    parser.lines(body)?;
    Ok(Decoded { problems: parser.problems, exemplars: parser.exemplars })
}

/// What a line turned out to be.
enum Line {
    Nothing,
    Sample {
        timestamp: i64,
        value: f64,
    },
    /// What is known of a family by now.
    Metadata(Metadata),
    Eof,
}

struct Parser<'a> {
    format: Format,
    options: &'a Options,
    batch: &'a mut Batch,
    key: SeriesKey,
    limits: &'a Limits,
    budget: Budget,
    /// Whether the whole body is UTF-8.
    utf8: bool,
    /// The labels of the line at hand.
    pairs: Vec<Pair<'a>>,
    /// The family that the last metadata lines were about.
    described: Metadata,
    problems: Problems,
    exemplars: u64,
}

impl<'a> Parser<'a> {
    fn lines(&mut self, body: &'a [u8]) -> Result<(), Refusal> {
        let mut lexer = Lexer::new(body);
        let (mut number, mut closed) = (0u64, false);
        while !lexer.is_done() {
            number += 1;
            let start = lexer.at();
            let line = if closed { Err(Fault::AfterEof) } else { self.line(&mut lexer) };
            let line = line.and_then(|line| lexer.end_of_line().map(|()| line));
            if line.is_err() {
                lexer.skip_line();
            }
            let (got, max) = (lexer.at() - start, self.limits.line_bytes_max);
            let line = line.and_then(|line| match got > max {
                true => {
                    Err(Fault::Limit { what: "bytes of one line", got, max, key: limits::LINE_BYTES_MAX })
                }
                false => Ok(line),
            });
            let taken = match line {
                Ok(Line::Nothing) => Ok(()),
                Ok(Line::Sample { timestamp, value }) => self.sample(timestamp, value)?,
                Ok(Line::Metadata(described)) => {
                    if self.described.family != described.family {
                        self.flush_metadata()?;
                    }
                    self.described = described;
                    Ok(())
                }
                Ok(Line::Eof) => {
                    closed = true;
                    Ok(())
                }
                Err(fault) => Err(fault),
            };
            if let Err(fault) = taken {
                let rows = u64::from(lexer.is_sample(start));
                self.problems.add(Reason::Line, rows, || format!("line {number}: {fault}"));
                if closed {
                    break;
                }
            }
        }
        self.flush_metadata()?;
        if self.format == Format::OpenMetrics && !closed {
            self.problems.add(Reason::Line, 0, || {
                format!("line {}: the body does not end with # EOF, so it may have been cut off", number + 1)
            });
        }
        Ok(())
    }

    fn line(&mut self, lexer: &mut Lexer<'a>) -> Result<Line, Fault> {
        lexer.blanks();
        match lexer.peek() {
            None | Some(b'\n' | b'\r') => Ok(Line::Nothing),
            Some(b'#') => self.comment(lexer),
            _ => self.read_sample(lexer),
        }
    }

    fn read_sample(&mut self, lexer: &mut Lexer<'a>) -> Result<Line, Fault> {
        self.pairs.clear();
        if let Some(name) = lexer.metric_name() {
            self.pairs.push((METRIC_NAME.as_bytes().into(), name.into()));
            lexer.blanks();
        } else if lexer.peek() != Some(b'{') {
            return Err(lexer.unexpected("a metric name"));
        }
        if lexer.take(b'{') {
            lexer.labels(&mut self.pairs)?;
            lexer.blanks();
        }
        let value = lexer.value()?;
        let mut timestamp = self.options.default_timestamp;
        lexer.blanks();
        if lexer.has_number() {
            timestamp = match self.format {
                Format::Text => lexer.milliseconds()?,
                Format::OpenMetrics => lexer.seconds()?,
            };
            lexer.blanks();
        }
        if self.format == Format::OpenMetrics && lexer.take(b'#') {
            lexer.exemplar()?;
            self.exemplars += 1;
        }
        Ok(Line::Sample { timestamp, value })
    }

    fn comment(&mut self, lexer: &mut Lexer<'a>) -> Result<Line, Fault> {
        lexer.take(b'#');
        let strict = self.format == Format::OpenMetrics;
        // `#HELP` is a remark.
        let keyword = if lexer.blank() {
            lexer.blanks();
            lexer.word()
        } else {
            b""
        };
        match keyword {
            b"HELP" | b"TYPE" => {}
            b"UNIT" if strict => {}
            b"EOF" if strict => return Ok(Line::Eof),
            _ if strict => {
                return Err(Fault::Invalid("comment: OpenMetrics has HELP, TYPE, UNIT and EOF only"));
            }
            _ => {
                lexer.rest_of_line();
                return Ok(Line::Nothing);
            }
        }
        lexer.blanks();
        let family = lexer.family_name()?;
        let family =
            std::str::from_utf8(&family).map_err(|_| Fault::Invalid("UTF-8 in a metric name"))?.to_string();
        // One blank ends the name; whatever follows belongs to the text.
        lexer.blank();
        let text = lexer.rest_of_line();
        let mut described = if self.described.family == family {
            self.described.clone()
        } else {
            Metadata { family, ..Metadata::default() }
        };
        match keyword {
            b"HELP" => {
                described.help = String::from_utf8_lossy(&lexer::unescape_help(text, strict)).into_owned()
            }
            b"UNIT" => described.unit = String::from_utf8_lossy(text.trim_ascii()).into_owned(),
            _ => described.metric_type = metric_type(text.trim_ascii(), self.format)?,
        }
        Ok(Line::Metadata(described))
    }

    fn flush_metadata(&mut self) -> Result<(), Refusal> {
        let Metadata { family, metric_type, help, unit } = std::mem::take(&mut self.described);
        let entry =
            metadata::entry(family.as_bytes(), metric_type, help.as_bytes(), unit.as_bytes(), self.limits);
        if let Some(entry) = entry {
            self.budget
                .take(size_of::<Metadata>() + entry.family.len() + entry.help.len() + entry.unit.len())?;
            self.batch.metadata.push(entry);
        }
        Ok(())
    }

    /// Enters the sample whose labels are in `self.pairs`. The inner error concerns this line only.
    fn sample(&mut self, timestamp: i64, value: f64) -> Result<Result<(), Fault>, Refusal> {
        if let Err(fault) = self.canonicalise() {
            return Ok(Err(fault));
        }
        let len: usize = self.pairs.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
        self.budget.take(len + size_of::<BatchSeries>() + 16)?;
        let at = self.batch.bytes.len();
        for (name, value) in &self.pairs {
            labels::push(&mut self.batch.bytes, name, value);
        }
        let bytes = self.batch.bytes.get(at..).unwrap_or_default();
        self.batch.series.push(BatchSeries {
            id: self.key.id(bytes),
            checked: true,
            labels_at: at as u32,
            labels_len: bytes.len() as u32,
            floats_at: self.batch.timestamps.len() as u32,
            floats_len: 1,
            histograms_at: self.batch.histograms.len() as u32,
            histograms_len: 0,
        });
        self.batch.timestamps.push(timestamp);
        self.batch.values.push(value.to_bits());
        Ok(Ok(()))
    }

    /// Brings `self.pairs` into the form in which labels are stored, or says why that cannot be.
    fn canonicalise(&mut self) -> Result<(), Fault> {
        let pairs = &mut self.pairs;
        for (name, value) in &self.options.extra_labels {
            pairs.retain(|(n, _)| n.as_ref() != name.as_bytes());
            pairs.push((name.as_bytes().into(), value.as_bytes().into()));
        }
        if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            if let Some([twice, _]) = pairs.array_windows::<2>().find(|[a, b]| a.0 == b.0) {
                return Err(Fault::Duplicate(String::from_utf8_lossy(&twice.0).into_owned()));
            }
        }
        pairs.retain(|(_, value)| !value.is_empty());
        let limit =
            |what, got, max, key| if got > max { Err(Fault::Limit { what, got, max, key }) } else { Ok(()) };
        let max = self.limits;
        limit("labels of one series", pairs.len(), max.labels_max, limits::LABELS_MAX)?;
        let mut named = false;
        for (name, value) in pairs.iter() {
            if !self.utf8 && (std::str::from_utf8(name).is_err() || std::str::from_utf8(value).is_err()) {
                return Err(Fault::Invalid("UTF-8 in a label name or value"));
            }
            limit(
                "bytes of a label name",
                name.len(),
                max.label_name_bytes_max,
                limits::LABEL_NAME_BYTES_MAX,
            )?;
            limit(
                "bytes of a label value",
                value.len(),
                max.label_value_bytes_max,
                limits::LABEL_VALUE_BYTES_MAX,
            )?;
            named |= name.as_ref() == METRIC_NAME.as_bytes();
        }
        if named { Ok(()) } else { Err(Fault::NoName) }
    }
}

fn metric_type(word: &[u8], format: Format) -> Result<MetricType, Fault> {
    Ok(match (word, format) {
        (b"counter", _) => MetricType::Counter,
        (b"gauge", _) => MetricType::Gauge,
        (b"histogram", _) => MetricType::Histogram,
        (b"summary", _) => MetricType::Summary,
        (b"untyped", Format::Text) | (b"unknown", Format::OpenMetrics) => MetricType::Unknown,
        (b"gaugehistogram", Format::OpenMetrics) => MetricType::GaugeHistogram,
        (b"info", Format::OpenMetrics) => MetricType::Info,
        (b"stateset", Format::OpenMetrics) => MetricType::StateSet,
        _ => return Err(Fault::Invalid("metric type")),
    })
}
