//! Start, stop, and what stands in the way.

use crate::node::{Node, PATIENCE, request, sarsen, until};
use ingest::remote_write::encode::{self, Series};
use server::app::{App, Database};
use server::config::{Config, Listen};
use server::http;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const T: i64 = 1_700_000_040_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_the_data_is_open_the_node_says_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let cluster_listen = Listen("127.0.0.1:0".to_string());
    let config = Config { data_dir: dir.path().join("d"), cluster_listen, ..Config::default() };
    let app = Arc::new(App::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("http://{address}");
    let options = http::serve::Options {
        connections_max: 10,
        header_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        shutdown_timeout: PATIENCE,
    };
    tokio::spawn(http::serve::serve(listener, http::router(app.clone()), options, std::future::pending()));

    let ask = |method: &'static str, path: &'static str| {
        let url = url.clone();
        async move { tokio::task::spawn_blocking(move || request(&url, method, path, &[], &[])).await.unwrap() }
    };
    app.progress("wal", 250, 1000);
    let ready = ask("GET", "/-/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(
        ready.json(),
        serde_json::json!({"ready": false, "state": "starting", "reason": "starting: wal, 25 % of 1000 bytes",
            "progress": {"step": "wal", "done_bytes": 250, "total_bytes": 1000}})
    );
    assert_eq!(ask("GET", "/-/healthy").await.status, 200);
    assert_eq!(ask("GET", "/metrics").await.status, 200);
    for (method, path) in
        [("GET", "/api/v1/query?query=1"), ("POST", "/api/v1/write"), ("GET", "/api/v1/labels")]
    {
        let answer = ask(method, path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert_eq!(answer.header("retry-after"), Some("1"), "{path}");
        assert!(answer.text().contains("25 %"), "{path}: {}", answer.text());
    }

    let open = server::node::open(&app, address).await.unwrap();
    let query = query::Engine::new(server::node::query_options(&app.config));
    app.open(Database { cluster: open.cluster, query, engine: open.engine });
    let ready = ask("GET", "/-/ready").await;
    assert_eq!((ready.status, ready.json()["ready"].as_bool()), (200, Some(true)));
    assert_eq!(ask("GET", "/api/v1/query?query=1").await.status, 200);
    app.stop();
    let ready = ask("GET", "/-/ready").await;
    assert_eq!((ready.status, ready.json()["state"].as_str()), (503, Some("stopping")));
}

#[test]
fn a_stop_lets_writers_finish_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::on(dir.path(), &[]);
    let acknowledged: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    let (url, done) = (node.url.clone(), &stop);
    let status = std::thread::scope(|scope| {
        for (i, acknowledged) in acknowledged.iter().enumerate() {
            let url = url.clone();
            scope.spawn(move || {
                let writer = i.to_string();
                for n in 1u64.. {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let t = T + n as i64;
                    let series = Series::new(&[("__name__", "w"), ("writer", &writer)], &[(t, n as f64)]);
                    let body = encode::compress(&encode::v1(&[series], &[]));
                    let agent: ureq::Agent =
                        ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
                    // Whatever is not a 204 is unknown, and unknown is the end of this writer.
                    match agent.post(format!("{url}/api/v1/write")).send(&body[..]) {
                        Ok(answer) if answer.status() == 204 => acknowledged.store(n, Ordering::Relaxed),
                        _ => return,
                    }
                }
            });
        }
        until("every writer has written", || {
            acknowledged.iter().all(|n| n.load(Ordering::Relaxed) >= 20).then_some(())
        });
        let (status, log) = node.stop();
        stop.store(true, Ordering::Relaxed);
        assert!(log.contains("msg=stopped"), "{log}");
        status
    });
    assert_eq!(status.code(), Some(0));
    let node = Node::on(dir.path(), &[]);
    for (i, acknowledged) in acknowledged.iter().enumerate() {
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        let end = (T + acknowledged as i64) as f64 / 1000.0;
        let query = format!("/api/v1/query?query=count_over_time(w%7Bwriter=%22{i}%22%7D[1h])&time={end}");
        let body = node.get(&query).json();
        assert_eq!(body["data"]["result"][0]["value"][1], acknowledged.to_string(), "writer {i}: {body}");
    }
}

/// A write whose body is only half sent.
struct HalfWrite {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl HalfWrite {
    fn begin(node: &Node) -> HalfWrite {
        let body = encode::compress(&encode::v1(&[Series::new(&[("__name__", "late")], &[(T, 1.0)])], &[]));
        let mut stream = TcpStream::connect(node.url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // `100 Continue` is sent when the handler asks for the body: then the request is under way for sure.
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut continued = [0; 25];
        stream.read_exact(&mut continued).unwrap();
        assert_eq!(&continued, b"HTTP/1.1 100 Continue\r\n\r\n");
        let (first, rest) = body.split_at(body.len() / 2);
        stream.write_all(first).unwrap();
        HalfWrite { stream, rest: rest.to_vec() }
    }

    fn finish(mut self) -> String {
        self.stream.write_all(&self.rest).unwrap();
        let mut answer = String::new();
        let _ = self.stream.read_to_string(&mut answer);
        answer
    }
}

fn refuses_connections(node: &Node) -> Option<()> {
    TcpStream::connect(node.url.strip_prefix("http://").unwrap()).is_err().then_some(())
}

#[test]
fn a_request_under_way_is_answered_after_the_stop() {
    let mut node = Node::start();
    let half = HalfWrite::begin(&node);
    let mut silent = TcpStream::connect(node.url.strip_prefix("http://").unwrap()).unwrap();
    node.signal(15);
    until("no connection is taken any more", || refuses_connections(&node));
    assert!(half.finish().starts_with("HTTP/1.1 204"));
    let (status, log) = node.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(silent.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut node = Node::start();
    let _half = HalfWrite::begin(&node);
    node.signal(15);
    until("no connection is taken any more", || refuses_connections(&node));
    node.signal(2);
    let (status, log) = node.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("second signal"), "{log}");
}

#[test]
fn a_request_that_never_ends_is_cut_after_the_shutdown_timeout() {
    let mut node = Node::with(&[("SARSEN_SHUTDOWN_TIMEOUT", "100ms")]);
    let _half = HalfWrite::begin(&node);
    node.signal(15);
    let (status, log) = node.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("connections=1"), "{log}");
}

fn fails_to_start(args: &[&str]) -> String {
    let output = sarsen().arg("server").args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"", "no banner of a node that is not there");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn what_stands_in_the_way_is_named_with_the_way_out() {
    let node = Node::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let error = fails_to_start(&["--data-dir", path, "--http-listen", &address]);
    assert!(
        error.contains("in use") && error.contains("--http-listen") && error.contains(&address),
        "{error}"
    );

    let open = node.dir.to_str().unwrap();
    let error = fails_to_start(&["--data-dir", open, "--http-listen", "127.0.0.1:0"]);
    assert!(error.contains("another process has") && error.contains(open), "{error}");

    std::fs::create_dir(dir.path().join("blocks")).unwrap();
    std::fs::write(dir.path().join("identity"), "nonsense").unwrap();
    let error = fails_to_start(&["--data-dir", path, "--http-listen", "127.0.0.1:0"]);
    assert!(error.contains(path) && error.contains("identity"), "{error}");

    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = fails_to_start(&["--data-dir", file.to_str().unwrap(), "--http-listen", "127.0.0.1:0"]);
    assert!(error.contains(file.to_str().unwrap()), "{error}");
}
