//! The tokens of a line. Nothing here looks past the line's end.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::Fault;
use std::borrow::Cow;

/// A label: name and value, copied only if they had to be unescaped.
pub(super) type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// The NaN that Prometheus stores for `NaN`; the stale marker is another one and cannot be written as text.
const NORMAL_NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);

/// A position in the body.
pub(super) struct Lexer<'a> {
    body: &'a [u8],
    at: usize,
}

/// Character classes.
const NAME: u8 = 1;
const DIGIT: u8 = 2;
const COLON: u8 = 4;
/// What may follow inside of a number or a word.
const NUMBER: u8 = 8;

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time, where a panic is a compile error")]
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut c = 0;
    while c < 256 {
        let byte = c as u8;
        if byte.is_ascii_alphabetic() || byte == b'_' {
            classes[c] |= NAME;
        }
        if byte.is_ascii_digit() {
            classes[c] |= DIGIT;
        }
        if byte == b':' {
            classes[c] |= COLON;
        }
        if byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'-' || byte == b'.' {
            classes[c] |= NUMBER;
        }
        c += 1;
    }
    classes
};

#[inline(always)]
fn is(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|c| c & class != 0)
}

impl<'a> Lexer<'a> {
    pub fn new(body: &'a [u8]) -> Lexer<'a> {
        Lexer { body, at: 0 }
    }

    pub fn is_done(&self) -> bool {
        self.at >= self.body.len()
    }

    pub fn at(&self) -> usize {
        self.at
    }

    #[inline(always)]
    pub fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    /// Passes over `byte` if it is next.
    #[inline(always)]
    pub fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// Passes over one space or tab.
    #[inline(always)]
    pub fn blank(&mut self) -> bool {
        self.take(b' ') || self.take(b'\t')
    }

    /// Passes over spaces and tabs.
    #[inline(always)]
    pub fn blanks(&mut self) {
        while self.blank() {}
    }

    #[inline(always)]
    fn while_class(&mut self, class: u8) -> &'a [u8] {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|b| !is(*b, class)).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    /// The error for what is next.
    #[cold]
    pub fn unexpected(&self, expected: &'static str) -> Fault {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
        let got = match line.utf8_chunks().next().map(|c| c.valid().chars().take(20).collect::<String>()) {
            Some(text) if !text.is_empty() => format!("{text:?}"),
            Some(_) => "bytes that are not UTF-8".to_string(),
            None => "the end of the line".to_string(),
        };
        Fault::Unexpected { expected, got }
    }

    /// Passes over the end of the line, or says what is in its way.
    pub fn end_of_line(&mut self) -> Result<(), Fault> {
        self.blanks();
        let before = self.at;
        self.take(b'\r');
        if self.is_done() || self.take(b'\n') {
            return Ok(());
        }
        self.at = before;
        Err(self.unexpected("the end of the line"))
    }

    /// Passes over the rest of the line and its end.
    pub fn skip_line(&mut self) {
        let rest = self.body.get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
    }

    /// The rest of the line, without its end.
    pub fn rest_of_line(&mut self) -> &'a [u8] {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.at += line.len();
        line
    }

    /// Whether the line that starts at `start` is meant to be a sample.
    pub fn is_sample(&self, start: usize) -> bool {
        let line = self.body.get(start..).unwrap_or_default();
        !matches!(line.iter().find(|b| !matches!(b, b' ' | b'\t')), None | Some(b'#' | b'\n' | b'\r'))
    }

    /// A word up to a blank or the end of the line.
    pub fn word(&mut self) -> &'a [u8] {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    /// A metric name that needs no quotes.
    #[inline]
    pub fn metric_name(&mut self) -> Option<&'a [u8]> {
        is(self.peek()?, NAME | COLON).then(|| self.while_class(NAME | DIGIT | COLON))
    }

    /// A metric name, in quotes if need be.
    pub fn family_name(&mut self) -> Result<Cow<'a, [u8]>, Fault> {
        let name = if self.peek() == Some(b'"') {
            self.quoted()?
        } else {
            self.metric_name().ok_or_else(|| self.unexpected("a metric name"))?.into()
        };
        match self.peek() {
            None | Some(b' ' | b'\t' | b'\n' | b'\r') => Ok(name),
            _ => Err(self.unexpected("a blank after the metric name")),
        }
    }

    /// Text in double quotes.
    #[inline]
    fn quoted(&mut self) -> Result<Cow<'a, [u8]>, Fault> {
        if !self.take(b'"') {
            return Err(self.unexpected("a quoted text"));
        }
        let rest = self.body.get(self.at..).unwrap_or_default();
        let len = plain_len(rest);
        let text = rest.get(..len).unwrap_or_default();
        self.at += len;
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(Cow::Borrowed(text))
            }
            Some(b'\\') => self.quoted_with_escapes(text.to_vec()).map(Cow::Owned),
            _ => Err(Fault::Invalid("text: its closing quote is missing")),
        }
    }

    #[cold]
    fn quoted_with_escapes(&mut self, mut text: Vec<u8>) -> Result<Vec<u8>, Fault> {
        loop {
            let byte = match self.peek() {
                None | Some(b'\n') => return Err(Fault::Invalid("text: its closing quote is missing")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'n') => b'\n',
                        Some(byte @ (b'\\' | b'"')) => byte,
                        _ => return Err(Fault::Invalid(r#"escape: only \\, \" and \n are known"#)),
                    }
                }
                Some(byte) => byte,
            };
            text.push(byte);
            self.at += 1;
        }
    }

    /// What stands in braces, after the opening one. A quoted text without a value is the metric's name.
    #[inline]
    pub fn labels(&mut self, into: &mut Vec<Pair<'a>>) -> Result<(), Fault> {
        loop {
            self.blanks();
            if self.take(b'}') {
                return Ok(());
            }
            let quoted = self.peek() == Some(b'"');
            let name = if quoted {
                self.quoted()?
            } else if self.peek().is_some_and(|b| is(b, NAME)) {
                self.while_class(NAME | DIGIT).into()
            } else {
                return Err(self.unexpected("a label name or }"));
            };
            if name.is_empty() {
                return Err(Fault::Invalid("name: it is empty"));
            }
            self.blanks();
            if self.take(b'=') {
                self.blanks();
                into.push((name, self.quoted()?));
            } else if quoted && into.is_empty() {
                into.push((model::labels::METRIC_NAME.as_bytes().into(), name));
            } else {
                return Err(self.unexpected("="));
            }
            self.blanks();
            if !self.take(b',') && self.peek() != Some(b'}') {
                return Err(self.unexpected(", or }"));
            }
        }
    }

    /// Whether a number comes next.
    #[inline]
    pub fn has_number(&self) -> bool {
        self.peek().is_some_and(|b| is(b, NUMBER))
    }

    fn number(&mut self, expected: &'static str) -> Result<&'a str, Fault> {
        let before = self.at;
        let token = self.while_class(NUMBER);
        match std::str::from_utf8(token) {
            Ok(token)
                if !token.is_empty() && matches!(self.peek(), None | Some(b' ' | b'\t' | b'\n' | b'\r')) =>
            {
                Ok(token)
            }
            _ => {
                self.at = before;
                Err(self.unexpected(expected))
            }
        }
    }

    /// A sample's value.
    #[inline]
    pub fn value(&mut self) -> Result<f64, Fault> {
        let before = self.at;
        let token = self.number("a value")?;
        match token.parse::<f64>() {
            Ok(value) if !value.is_nan() => Ok(value),
            Ok(_) if token.eq_ignore_ascii_case("nan") => Ok(NORMAL_NAN),
            _ => {
                self.at = before;
                Err(self.unexpected("a value"))
            }
        }
    }

    /// A timestamp of the text format.
    #[inline]
    pub fn milliseconds(&mut self) -> Result<i64, Fault> {
        let before = self.at;
        let token = self.number("a timestamp in milliseconds")?;
        token.parse().map_err(|_| {
            self.at = before;
            self.unexpected("a timestamp in milliseconds")
        })
    }

    /// A timestamp of OpenMetrics, in milliseconds.
    pub fn seconds(&mut self) -> Result<i64, Fault> {
        /// Seconds that still are milliseconds without loss.
        const MAX: f64 = (1u64 << 53) as f64 / 1000.0;
        let before = self.at;
        match self.number("a timestamp in seconds")?.parse::<f64>() {
            Ok(seconds) if seconds.abs() <= MAX => Ok((seconds * 1000.0).round() as i64),
            _ => {
                self.at = before;
                Err(self.unexpected("a timestamp in seconds"))
            }
        }
    }

    /// An exemplar, after its `#`: labels, a value and perhaps a timestamp.
    pub fn exemplar(&mut self) -> Result<(), Fault> {
        self.blanks();
        if !self.take(b'{') {
            return Err(self.unexpected("the exemplar's labels"));
        }
        // A quoted text without a value would be a metric's name, which exemplars do not have.
        let name = Cow::Borrowed(&b""[..]);
        self.labels(&mut vec![(name.clone(), name)])?;
        self.blanks();
        self.value()?;
        self.blanks();
        if self.has_number() {
            self.seconds()?;
        }
        Ok(())
    }
}

/// How many bytes come before the first quote, backslash or end of line; eight are looked at together.
#[inline(always)]
fn plain_len(bytes: &[u8]) -> usize {
    const LOW: u64 = u64::MAX / 0xff;
    // The high bit of each byte that is zero; bytes above the first such one may be marked falsely.
    let zero = |word: u64| word.wrapping_sub(LOW) & !word & (LOW << 7);
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let [quote, backslash, newline] = [b'"', b'\\', b'\n'].map(|b| zero(word ^ (LOW * u64::from(b))));
        let found = quote | backslash | newline;
        if found != 0 {
            return 8 * i + found.trailing_zeros() as usize / 8;
        }
    }
    let tail = rest.iter().position(|b| matches!(b, b'"' | b'\\' | b'\n')).unwrap_or(rest.len());
    8 * words.len() + tail
}

/// Help text: `\\` and `\n` are escapes, with `quotes` (OpenMetrics) `\"` too; a backslash before anything else stands
/// for itself.
pub(super) fn unescape_help(text: &[u8], quotes: bool) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escaped = match (byte, bytes.peek()) {
            (b'\\', Some(b'n')) => Some(b'\n'),
            (b'\\', Some(b'\\')) => Some(b'\\'),
            (b'\\', Some(b'"')) if quotes => Some(b'"'),
            _ => None,
        };
        if escaped.is_some() {
            bytes.next();
        }
        out.push(escaped.unwrap_or(byte));
    }
    Cow::Owned(out)
}
