//! Spans of time in a specification: `90s`, `15m`, `24h`, `1h30m`, `7d`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// What [`Span`] accepts, for the API server.
const PATTERN: &str = "^(0|([0-9]{1,9}(ms|s|m|h|d))+)$";
/// So long that no number that fits is too large to be added up.
const LENGTH_MAX: usize = 32;
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A span of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

impl Span {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Span {
        Span(seconds * 1000)
    }

    /// So many minutes.
    pub const fn minutes(minutes: u64) -> Span {
        Span::seconds(60 * minutes)
    }

    /// So many hours.
    pub const fn hours(hours: u64) -> Span {
        Span::minutes(60 * hours)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong = || format!("{text:?} is not a duration such as 90s, 15m or 1h30m");
        if text == "0" {
            return Ok(Span(0));
        }
        let (mut rest, mut total) = (text, 0u64);
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
            let unit = UNITS.iter().find(|(name, _)| *name == &rest[..letters]).ok_or_else(wrong)?.1;
            rest = &rest[letters..];
            total = number.checked_mul(unit).and_then(|more| total.checked_add(more)).ok_or_else(wrong)?;
        }
        Ok(Span(total))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, unit) in UNITS {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": LENGTH_MAX, "pattern": PATTERN })
    }
}

/// A span of time, or `Never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// After so long.
    After(Span),
    /// Not by itself.
    Never,
}

impl Serialize for Grace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Grace::After(span) => span.serialize(serializer),
            Grace::Never => serializer.serialize_str("Never"),
        }
    }
}

impl<'de> Deserialize<'de> for Grace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Grace, D::Error> {
        match &*Cow::<str>::deserialize(deserializer)? {
            "Never" => Ok(Grace::Never),
            text => text.parse().map(Grace::After).map_err(D::Error::custom),
        }
    }
}

impl JsonSchema for Grace {
    fn schema_name() -> Cow<'static, str> {
        "Grace".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": LENGTH_MAX, "pattern": PATTERN.replace("^(", "^(Never|") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        for (text, ms, printed) in [
            ("90s", 90_000, "1m30s"),
            ("15m", 900_000, "15m"),
            ("24h", 86_400_000, "1d"),
            ("1h30m", 5_400_000, "1h30m"),
            ("0", 0, "0s"),
            ("250ms", 250, "250ms"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span, span.to_string().as_str()), (Span(ms), printed));
            assert_eq!(printed.parse(), Ok(span));
        }
        for wrong in ["", "5", "h", "-1s", "1 h", "1w", "99999999999999999999s", "1.5h"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }
}
