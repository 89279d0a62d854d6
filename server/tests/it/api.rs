//! The shapes of answers and errors.

use crate::node::{Node, request};
use ingest::remote_write::encode::Series;
use serde_json::json;

/// A whole minute that is long past, in milliseconds and seconds.
const T: i64 = 1_700_000_040_000;
const S: i64 = T / 1000;

fn filled() -> Node {
    let node = Node::start();
    let series = [
        Series::new(
            &[("__name__", "m"), ("job", "a"), ("http.status", "200")],
            &[(T, 1.5), (T + 15_500, 2.0)],
        ),
        Series::new(&[("__name__", "m"), ("job", "b")], &[(T, f64::NAN), (T + 15_500, f64::INFINITY)]),
        Series::new(&[("__name__", "other"), ("job", "a")], &[(T, 1e21)]),
    ];
    assert_eq!(node.write(&series).status, 204);
    node
}

#[test]
fn an_instant_query_answers_in_prometheus_shape_by_get_and_post() {
    let node = filled();
    let expected = json!({"status": "success", "data": {"resultType": "vector", "result": [
        {"metric": {"__name__": "m", "job": "a", "http.status": "200"}, "value": [S, "1.5"]},
    ]}});
    let get = node.get(&format!("/api/v1/query?query=m%7Bjob%3D%22a%22%7D&time={S}"));
    assert_eq!((get.status, get.json()), (200, expected.clone()));
    assert_eq!(get.header("content-type"), Some("application/json"));
    let form = format!("query=m%7Bjob%3D%22a%22%7D&time={S}");
    let post = node.post(
        "/api/v1/query?nocache=1",
        &[("Content-Type", "application/x-www-form-urlencoded")],
        form.as_bytes(),
    );
    assert_eq!((post.status, post.json()), (200, expected));
    let scalar = node.get(&format!("/api/v1/query?query=1%2B1&time={S}.5")).text();
    assert_eq!(
        scalar,
        format!(r#"{{"status":"success","data":{{"resultType":"scalar","result":[{S}.5,"2"]}}}}"#)
    );
    let string = node.get(&format!("/api/v1/query?query=%22a%5C%22b%22&time={S}")).json();
    assert_eq!(string["data"], json!({"resultType": "string", "result": [S, "a\"b"]}));
}

#[test]
fn a_range_query_gives_a_matrix_with_special_values_spelled_out() {
    let node = filled();
    let answer = node.get(&format!("/api/v1/query_range?query=m&start={S}&end={}&step=15.5", S + 31));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.text(),
        format!(
            concat!(
                r#"{{"status":"success","data":{{"resultType":"matrix","result":["#,
                r#"{{"metric":{{"__name__":"m","http.status":"200","job":"a"}},"values":[[{0},"1.5"],[{1}.500,"2"],[{2},"2"]]}},"#,
                r#"{{"metric":{{"__name__":"m","job":"b"}},"values":[[{0},"NaN"],[{1}.500,"+Inf"],[{2},"+Inf"]]}}"#,
                r#"]}}}}"#
            ),
            S,
            S + 15,
            S + 31
        )
    );
}

#[test]
fn parameter_errors_are_400_in_prometheus_words() {
    let node = Node::start();
    for (path, text) in [
        (
            "/api/v1/query?query=(1",
            r#"invalid parameter "query": 1:1: parse error: unclosed left parenthesis"#,
        ),
        (
            "/api/v1/query?query=1&time=foo",
            r#"invalid parameter "time": Invalid time value for 'time': cannot parse "foo" to a valid timestamp"#,
        ),
        (
            "/api/v1/query_range?query=1&start=x&end=2&step=1",
            r#"invalid parameter "start": cannot parse "x" to a valid timestamp"#,
        ),
        (
            "/api/v1/labels?start=x",
            r#"invalid parameter "start": Invalid time value for 'start': cannot parse "x" to a valid timestamp"#,
        ),
        (
            "/api/v1/query?query=1&lookback_delta=x",
            r#"error parsing lookback delta duration: cannot parse "x" to a valid duration"#,
        ),
        (
            "/api/v1/query?query=1&limit=x",
            r#"invalid parameter "limit": strconv.Atoi: parsing "x": invalid syntax"#,
        ),
        ("/api/v1/metadata?limit=x", "limit must be a number"),
        ("/api/v1/status/tsdb?limit=0", "limit must be a positive number"),
        ("/api/v1/label/%ff/values", r#"invalid label name: "\xff""#),
        (
            "/api/v1/query_exemplars?query=up&start=2&end=1",
            "end timestamp must not be before start timestamp",
        ),
        (
            "/api/v1/query?query=1&timeout=x",
            r#"invalid parameter "timeout": cannot parse "x" to a valid duration"#,
        ),
        ("/api/v1/query?query=1&limit=-1", r#"invalid parameter "limit": limit must be non-negative"#),
        (
            "/api/v1/query_range?query=1&start=2&end=1&step=1",
            r#"invalid parameter "end": end timestamp must not be before start time"#,
        ),
        (
            "/api/v1/query_range?query=1&start=1&end=2&step=0",
            r#"invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive integer"#,
        ),
        (
            "/api/v1/query_range?query=1&end=2&step=1",
            r#"invalid parameter "start": cannot parse "" to a valid timestamp"#,
        ),
        ("/api/v1/series", "no match[] parameter provided"),
        (
            "/api/v1/series?match[]={a=~%22.*%22}",
            r#"invalid parameter "match[]": match[] must contain at least one non-empty matcher"#,
        ),
        ("/api/v1/labels?match[]={a=~%22.*%22}", "match[] must contain at least one non-empty matcher"),
        ("/api/v1/labels?match[]=up[5m]", r#"match[]: expected a series selector such as up{job="x"}"#),
    ] {
        let answer = node.get(path);
        let body = answer.json();
        assert_eq!(answer.status, 400, "{path}: {body}");
        assert_eq!(body["status"], "error");
        assert_eq!(body["errorType"], "bad_data");
        let error = body["error"].as_str().unwrap();
        if path.contains("(1") {
            // The parser's own words and column are its own tests' business.
            assert!(error.starts_with("invalid parameter \"query\": 1:"), "{error}");
            assert!(error.contains("parse error: unclosed left parenthesis"), "{error}");
        } else {
            assert_eq!(error, text, "{path}");
        }
    }
    let answer = node.get("/api/v1/query_range?query=1&start=0&end=11001&step=1");
    assert_eq!(answer.status, 400);
    let error = answer.json()["error"].as_str().unwrap().to_string();
    assert!(error.starts_with("exceeded maximum resolution of 11,000 points per timeseries."), "{error}");
    assert!(error.contains("limits.query_steps_max"), "{error}");
    assert_eq!(node.get("/api/v1/query_range?query=1&start=0&end=11000&step=1").status, 200);
}

#[test]
fn what_prometheus_takes_without_a_word_is_taken() {
    let node = filled();
    for path in [
        "/api/v1/query?query=1&unknown=x",
        "/api/v1/query?query=1&lookback_delta=-1",
        "/api/v1/query?query=1&lookback_delta=0",
        "/api/v1/series?match[]=m&start=5&end=4",
        "/api/v1/query_exemplars?query=up",
    ] {
        let answer = node.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    assert_eq!(node.get("/api/v1/metadata?limit=0").json()["data"], json!({}));
    let late = node.get("/api/v1/query?query=1&timeout=0");
    assert_eq!((late.status, late.json()["errorType"].as_str()), (503, Some("timeout")));
    // Parameters come in a form or in the URL, not in a body of another type.
    let post = node.post("/api/v1/query?query=2&time=1", &[("Content-Type", "text/plain")], b"query=1");
    assert_eq!(post.json()["data"]["result"], json!([1, "2"]));
}

#[test]
fn methods_are_answered_as_prometheus_does() {
    let node = Node::start();
    let ask = |method: &str, path: &str| request(&node.url, method, path, &[], &[]);
    for path in ["/api/v1/query", "/api/v1/write", "/api/v1/nothing"] {
        assert_eq!(ask("OPTIONS", path).status, 204, "{path}");
    }
    for (method, path) in
        [("HEAD", "/api/v1/query?query=1"), ("PUT", "/api/v1/query"), ("POST", "/-/healthy")]
    {
        assert_eq!(ask(method, path).status, 405, "{method} {path}");
    }
    assert_eq!(ask("PUT", "/api/v1/query").text(), "Method Not Allowed\n");
    assert_eq!(ask("HEAD", "/-/ready").status, 200);
}

#[test]
fn pages_of_other_origins_can_neither_read_nor_write_unless_they_are_listed() {
    const PAGE: (&str, &str) = ("Origin", "https://page.example");
    let closed = Node::start();
    let read = request(&closed.url, "GET", "/api/v1/query?query=1", &[PAGE], &[]);
    assert_eq!((read.status, read.header("access-control-allow-origin")), (200, None));
    let write = closed.post("/api/v1/import/prometheus", &[PAGE], b"m 1\n");
    assert_eq!(write.status, 403, "{}", write.text());
    assert!(write.text().contains("http_cors_origins"), "{}", write.text());
    assert_eq!(closed.post("/api/v1/import/prometheus", &[("Origin", &closed.url)], b"m 1\n").status, 204);

    let open = Node::with(&[("SARSEN_HTTP_CORS_ORIGINS", "https://page.example")]);
    let read = request(&open.url, "OPTIONS", "/api/v1/query", &[PAGE], &[]);
    assert_eq!((read.status, read.header("access-control-allow-origin")), (204, Some(PAGE.1)));
    assert_eq!(read.header("access-control-allow-methods"), Some("GET, POST, OPTIONS"));
    assert_eq!(open.post("/api/v1/import/prometheus", &[PAGE], b"m 1\n").status, 204);
}

#[test]
fn failing_evaluations_are_422() {
    let node = filled();
    let answer = node.get(&format!("/api/v1/query?query=m*on()other&time={S}"));
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert_eq!(answer.json()["errorType"], "execution");
}

#[test]
fn lookups_list_series_names_and_values() {
    let node = filled();
    let data = |path: &str| {
        let answer = node.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()["data"].clone()
    };
    assert_eq!(data("/api/v1/labels"), json!(["__name__", "http.status", "job"]));
    assert_eq!(data("/api/v1/labels?match[]=other"), json!(["__name__", "job"]));
    assert_eq!(data("/api/v1/label/job/values"), json!(["a", "b"]));
    assert_eq!(data("/api/v1/label/U__http_2e_status/values"), json!(["200"]));
    assert_eq!(data("/api/v1/label/http.status/values"), json!(["200"]));
    assert_eq!(data("/api/v1/label/absent/values"), json!([]));
    assert_eq!(
        data("/api/v1/series?match[]=m&match[]=other{job=\"b\"}".replace('"', "%22").as_str()),
        json!([{"__name__": "m", "http.status": "200", "job": "a"}, {"__name__": "m", "job": "b"}])
    );
    assert_eq!(node.get("/api/v1/label/%FF/values").status, 400);
    let post = node.post(
        "/api/v1/series",
        &[("Content-Type", "application/x-www-form-urlencoded")],
        b"match[]=other",
    );
    assert_eq!(post.json()["data"], json!([{"__name__": "other", "job": "a"}]));
}

#[test]
fn a_limit_cuts_and_says_so() {
    let node = filled();
    for (path, count) in [
        ("/api/v1/labels?limit=2", 2),
        ("/api/v1/label/job/values?limit=1", 1),
        ("/api/v1/series?match[]=m&limit=1", 1),
    ] {
        let body = node.get(path).json();
        assert_eq!(body["data"].as_array().unwrap().len(), count, "{path}");
        assert_eq!(body["warnings"], json!(["results truncated due to limit"]), "{path}");
    }
    let body = node.get(&format!("/api/v1/query?query=m&limit=1&time={S}")).json();
    assert_eq!(body["data"]["result"].as_array().unwrap().len(), 1);
    assert_eq!(body["warnings"], json!(["results truncated due to limit"]));
    let body = node.get("/api/v1/labels?limit=3").json();
    assert_eq!(body.get("warnings"), None);
}

#[test]
fn status_answers_what_grafana_asks() {
    let node = filled();
    let build = node.get("/api/v1/status/buildinfo").json();
    assert!(build["data"]["version"].as_str().unwrap().starts_with("3."));
    assert_eq!(build["data"].get("features"), None, "Grafana would take this for Mimir");
    let tsdb = node.get("/api/v1/status/tsdb?limit=1").json();
    assert_eq!(tsdb["data"]["headStats"]["numSeries"], 3);
    assert_eq!(tsdb["data"]["seriesCountByMetricName"], json!([{"name": "m", "value": 2}]));
    assert_eq!(node.get("/api/v1/rules").json()["data"], json!({"groups": []}));
    assert_eq!(node.get("/api/v1/alerts").json()["data"], json!({"alerts": []}));
    let exemplars = node.get("/api/v1/query_exemplars?query=m&start=1&end=2");
    assert_eq!(exemplars.json()["data"], json!([]));
    assert_eq!(node.get("/api/v1/metadata").json()["status"], "success");
    let format = node.get("/api/v1/format_query?query=sum(x)by(y)").json();
    assert_eq!(format["data"], "sum by (y) (x)");
    let flags = node.get("/api/v1/status/flags").json();
    assert_eq!(flags["data"]["limits.query_timeout"], "1m");
}

#[test]
fn routes_and_methods_that_do_not_exist_say_so() {
    let node = Node::start();
    let unknown = node.get("/api/v2/nope");
    assert_eq!((unknown.status, unknown.text().trim()), (404, "404 page not found"));
    assert_eq!(node.get("/api/v1/write").status, 405);
    assert_eq!(node.post("/api/v1/label/job/values", &[], b"").status, 405);
    let head = request(&node.url, "HEAD", "/-/ready", &[], &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn long_answers_are_compressed_for_those_who_ask() {
    let node = Node::start();
    let series: Vec<Series> =
        (0..200).map(|i| Series::new(&[("__name__", "m"), ("n", &i.to_string())], &[(T, 1.0)])).collect();
    assert_eq!(node.write(&series).status, 204);
    // ureq without its gzip feature gives the bytes as they came.
    let zipped = request(&node.url, "GET", "/api/v1/series?match[]=m", &[("Accept-Encoding", "gzip")], &[]);
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&zipped.body[..]), &mut plain).unwrap();
    assert_eq!(plain, node.get("/api/v1/series?match[]=m").body);
    assert!(zipped.body.len() * 4 < plain.len());
}
