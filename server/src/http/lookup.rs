//! `series`, `labels`, `label/…/values`, `metadata`.

use super::endpoint::Context;
use super::error::ApiError;
use super::json::{self, Json, Notes};
use super::params::{Params, unescape_label_name};
use super::query::TRUNCATED;
use model::{LabelQuery, Limited};

/// `/api/v1/series`
pub fn series(context: &Context, params: &Params) -> Result<Vec<u8>, ApiError> {
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let (asked, ours) = limits(params, context.app.config.limits.lookup_series_max)?;
    let range = params.lookup_range()?;
    let selectors = params.selectors().map_err(|e| ApiError::parameter("match[]", e.message))?;
    let query = LabelQuery { selectors, range, limit: Some(asked.min(ours)), shards: None };
    let found = context.source.series(&query)?;
    respond(found, asked, ours, "limits.lookup_series_max", |json, labels| {
        json.labels(&labels);
    })
}

/// `/api/v1/labels`
pub fn labels(context: &Context, params: &Params) -> Result<Vec<u8>, ApiError> {
    let (asked, ours) = limits(params, context.app.config.limits.lookup_names_max)?;
    let found = context.source.label_names(&label_query(params, asked.min(ours))?)?;
    respond(found, asked, ours, "limits.lookup_names_max", |json, name| {
        json.string(&name);
    })
}

/// `/api/v1/label/{name}/values`
pub fn label_values(context: &Context, params: &Params) -> Result<Vec<u8>, ApiError> {
    let name = context.path.rsplit('/').nth(1).unwrap_or("");
    let decoded: Vec<u8> = percent_decode(name);
    let name = String::from_utf8(decoded).map_err(|e| {
        ApiError::bad_data(format!("invalid label name: \"{}\"", e.as_bytes().escape_ascii()))
    })?;
    let name = unescape_label_name(&name);
    if name.is_empty() {
        return Err(ApiError::bad_data("invalid label name: \"\""));
    }
    let (asked, ours) = limits(params, context.app.config.limits.lookup_names_max)?;
    let found = context.source.label_values(&name, &label_query(params, asked.min(ours))?)?;
    respond(found, asked, ours, "limits.lookup_names_max", |json, value| {
        json.string(&value);
    })
}

/// `/api/v1/metadata`
pub fn metadata(context: &Context, params: &Params) -> Result<Vec<u8>, ApiError> {
    let count = |name| params.int(name).map_err(|_| ApiError::bad_data(format!("{name} must be a number")));
    // As in Prometheus: a limit of 0 is 0 families, but any number of entries for each.
    let families_max = count("limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let per_family_max = count("limit_per_metric")?.filter(|n| *n > 0);
    let per_family_max = per_family_max.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let items = context.source.metadata(params.get("metric"))?;
    json::success(&Notes::default(), |json| {
        json::metadata(json, &items, families_max, per_family_max);
        Ok(())
    })
}

fn limits(params: &Params, ours: u64) -> Result<(usize, usize), ApiError> {
    Ok((params.limit()?.unwrap_or(usize::MAX), usize::try_from(ours).unwrap_or(usize::MAX)))
}

fn label_query(params: &Params, limit: usize) -> Result<LabelQuery, ApiError> {
    Ok(LabelQuery {
        range: params.lookup_range()?,
        selectors: params.selectors()?,
        limit: Some(limit),
        shards: None,
    })
}

fn respond<T>(
    found: Limited<T>,
    asked: usize,
    ours: usize,
    key: &str,
    item: impl FnMut(&mut Json, T),
) -> Result<Vec<u8>, ApiError> {
    let mut notes = Notes { warnings: found.warnings, ..Notes::default() };
    if found.truncated && asked <= ours {
        notes.warnings.push(TRUNCATED.to_string());
    } else if found.truncated {
        notes.warnings.push(format!("{TRUNCATED} of {ours} (raise `{key}` to allow more)"));
    }
    json::success(&notes, |json| {
        json.list(found.items, item);
        Ok(())
    })
}

/// `%41` to `A`. What is not an escape stays.
fn percent_decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        let mut ahead = bytes.clone();
        if let (b'%', Some(high), Some(low)) = (byte, digit(ahead.next()), digit(ahead.next())) {
            out.push((high * 16 + low) as u8);
            bytes = ahead;
        } else {
            out.push(byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_percent_decoded() {
        assert_eq!(percent_decode("a%20b%2Fc"), b"a b/c");
        assert_eq!(percent_decode("100%"), b"100%");
        assert_eq!(percent_decode("%zz%C3%A9"), "%zzé".as_bytes());
    }
}
