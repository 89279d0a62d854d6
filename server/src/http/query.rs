//! `query` and `query_range`.

use super::Rejected;
use super::endpoint::Context;
use super::error::ApiError;
use super::json::{self, Json, Notes};
use super::params::Params;
use crate::time;
use query::{Answer, Value};
use std::time::Instant;

/// What cut results say, as Prometheus words it.
pub const TRUNCATED: &str = "results truncated due to limit";

/// `/api/v1/query`
pub fn instant(context: &Context, params: &Params) -> Result<Vec<u8>, ApiError> {
    let limit = params.limit()?;
    let at = params.optional_time("time")?.unwrap_or(context.now);
    let text = text(context, params)?;
    let settings = settings(context, params)?;
    let started = Instant::now();
    let answer = evaluate(|| context.db.query.instant(&*context.source, text, at, &settings))?;
    respond(context, params, answer, limit, started)
}

/// `/api/v1/query_range`
pub fn range(context: &Context, params: &Params) -> Result<Vec<u8>, ApiError> {
    let limit = params.limit()?;
    let start = params.required_time("start")?;
    let end = params.required_time("end")?;
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step = params.required_span("step")?;
    if step <= 0 {
        let text = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(ApiError::parameter("step", text));
    }
    let steps_max = context.app.config.limits.query_steps_max;
    if end.0.abs_diff(start.0) / step.unsigned_abs() > steps_max {
        return Err(ApiError::bad_data(format!(
            "exceeded maximum resolution of {} points per timeseries. Try decreasing the query resolution \
             (?step=XX), or raise `limits.query_steps_max`",
            thousands(steps_max)
        ))
        .by(Rejected::by("limits.query_steps_max")));
    }
    let text = text(context, params)?;
    let settings = settings(context, params)?;
    let started = Instant::now();
    let answer = evaluate(|| context.db.query.range(&*context.source, text, start, end, step, &settings))?;
    respond(context, params, answer, limit, started)
}

/// Own bytes that turn out to be damaged while they are read are known to be from then on: the second time, other copies answer for them.
fn evaluate(mut once: impl FnMut() -> Result<Answer, query::Error>) -> Result<Answer, query::Error> {
    match once() {
        Err(query::Error::Source(model::Error::Corrupt { .. })) => once(),
        ended => ended,
    }
}

/// `/api/v1/query_exemplars`: none are kept, so there are none in any range.
pub fn exemplars(context: &Context, params: &Params) -> Result<Vec<u8>, ApiError> {
    let range = params.lookup_range()?;
    if range.max < range.min {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    query::parser::parse(text(context, params)?).map_err(|e| ApiError::bad_data(e.to_string()))?;
    json::success(&Notes::default(), |json| {
        json.raw("[]");
        Ok(())
    })
}

/// `/api/v1/format_query`
pub fn format(context: &Context, params: &Params) -> Result<Vec<u8>, ApiError> {
    let expr = query::parser::parse(text(context, params)?).map_err(|e| ApiError::parameter("query", e))?;
    json::success(&Notes::default(), |json| {
        json.string(&expr.to_string());
        Ok(())
    })
}

fn text<'a>(context: &Context, params: &'a Params) -> Result<&'a str, ApiError> {
    let text = params.get("query").unwrap_or("");
    let max = context.app.config.limits.query_text_bytes_max.0;
    if text.len() as u64 > max {
        let got = text.len() as u64;
        let error =
            model::Error::Limit { what: "bytes of a query", key: "limits.query_text_bytes_max", max, got };
        return Err(ApiError::parameter("query", error).by(Rejected::by("limits.query_text_bytes_max")));
    }
    Ok(text)
}

fn settings(context: &Context, params: &Params) -> Result<query::Params, ApiError> {
    let lookback_ms = match params.get("lookback_delta") {
        None => None,
        Some(text) => Some(time::parse_span_ms(text).ok_or_else(|| {
            ApiError::bad_data(format!(
                "error parsing lookback delta duration: cannot parse {text:?} to a valid duration"
            ))
        })?),
    };
    // Nothing and less than nothing stand for the default, as in Prometheus.
    let lookback_ms = lookback_ms.filter(|ms| *ms > 0);
    Ok(query::Params { lookback_ms, cancel: Some(context.cancel.clone()) })
}

fn respond(
    context: &Context,
    params: &Params,
    mut answer: Answer,
    limit: Option<usize>,
    started: Instant,
) -> Result<Vec<u8>, ApiError> {
    let seconds = started.elapsed().as_secs_f64();
    context.app.metrics.query(answer.samples_read, context.queued);
    if cut(&mut answer.value, limit) {
        answer.warnings.push(TRUNCATED.to_string());
    }
    let notes = Notes { warnings: answer.warnings, infos: answer.infos };
    let bytes_max = context.app.config.limits.query_response_bytes_max.0;
    json::success(&notes, |json| {
        json.raw("{");
        json::result(json, &answer.value, bytes_max)?;
        if params.get("stats").is_some() {
            stats(json, context.queued.as_secs_f64(), seconds, answer.samples_read, answer.samples_peak);
        }
        json.raw("}");
        Ok(())
    })
}

/// Keeps the first `limit` series; whether there were more.
fn cut(value: &mut Value, limit: Option<usize>) -> bool {
    let Some(limit) = limit else { return false };
    fn truncate<T>(items: &mut Vec<T>, limit: usize) -> bool {
        let over = items.len() > limit;
        items.truncate(limit);
        over
    }
    match value {
        Value::Vector(items) => truncate(items, limit),
        Value::Matrix(items) => truncate(items, limit),
        Value::Scalar(..) | Value::String(..) => false,
    }
}

fn stats(json: &mut Json, queued: f64, evaluated: f64, read: u64, peak: u64) {
    json.raw(&format!(
        ",\"stats\":{{\"timings\":{{\"evalTotalTime\":{evaluated},\"resultSortTime\":0,\"queryPreparationTime\":0,\
         \"innerEvalTime\":{evaluated},\"execQueueTime\":{queued},\"execTotalTime\":{}}},\
         \"samples\":{{\"totalQueryableSamples\":{read},\"peakSamples\":{peak}}}}}",
        queued + evaluated
    ));
}

/// `11000` as `11,000`.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(thousands(11_000), "11,000");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }
}
