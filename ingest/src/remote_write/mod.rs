//! Prometheus remote write, versions 1 and 2: protobuf in a snappy block.

mod body;
pub mod encode;
mod histogram;
mod v1;
mod v2;
pub(crate) mod wire;

pub use body::decompress;
pub use v1::decode_v1;
pub use v2::decode_v2;

use crate::store::Decoded;
use crate::{Limits, Refusal};
use model::{Batch, SeriesKey};

/// Which message a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `prometheus.WriteRequest`
    V1,
    /// `io.prometheus.write.v2.Request`
    V2,
}

const V1_MESSAGE: &str = "prometheus.WriteRequest";
const V2_MESSAGE: &str = "io.prometheus.write.v2.Request";

/// Tells the protocol from the request's `Content-Type` and `Content-Encoding`.
///
/// Nothing at all means version 1 in snappy, as the first senders did. Spaces around parameters and quotes around their
/// values are no obstacle: taking `; proto=…` for version 1 would acknowledge a version 2 body as an empty message.
pub fn negotiate(content_type: Option<&str>, content_encoding: Option<&str>) -> Result<Protocol, Refusal> {
    let refuse = |message: String| Err(Refusal::new(415, message));
    let encoding = content_encoding.map(str::trim).filter(|e| !e.is_empty());
    if let Some(encoding) = encoding.filter(|e| !e.eq_ignore_ascii_case("snappy")) {
        return refuse(format!(
            "{encoding} encoding (compression) is not accepted by this server; only snappy is"
        ));
    }
    let Some(content_type) = content_type.map(str::trim).filter(|t| !t.is_empty()) else {
        return Ok(Protocol::V1);
    };
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    if !media.eq_ignore_ascii_case("application/x-protobuf") {
        return refuse(format!(
            "expected application/x-protobuf as the first (media) part, got {content_type} content-type"
        ));
    }
    for part in parts {
        let Some((name, value)) = part.split_once('=') else { continue };
        if !name.trim().eq_ignore_ascii_case("proto") {
            continue;
        }
        return match value.trim().trim_matches('"') {
            V1_MESSAGE => Ok(Protocol::V1),
            V2_MESSAGE => Ok(Protocol::V2),
            other => refuse(format!(
                "{other} protobuf message is not accepted by this server; only {V1_MESSAGE} and {V2_MESSAGE} are"
            )),
        };
    }
    Ok(Protocol::V1)
}

/// Fills the columns of `batch` from the message in its `bytes`.
pub fn decode(
    protocol: Protocol,
    batch: &mut Batch,
    key: SeriesKey,
    limits: &Limits,
) -> Result<Decoded, Refusal> {
    match protocol {
        Protocol::V1 => decode_v1(batch, key, limits),
        Protocol::V2 => decode_v2(batch, key, limits),
    }
}
