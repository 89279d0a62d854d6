//! Requests that are answered before their body was read: a sender that first writes everything gets its answer.

use crate::node::{Node, PATIENCE};
use server::app::App;
use server::config::Config;
use server::http;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// Writes a whole request, and only then reads. Every error is one that a sender would see.
fn write_then_read(address: &str, head: &str, bytes: usize) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let head = format!("{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\n");
    let kind = "Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{head}{kind}").as_bytes()).unwrap();
    let piece = vec![b'x'; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(piece.len());
        stream.write_all(&piece[..n]).unwrap_or_else(|e| panic!("{head}: {e} with {left} bytes to go"));
        left -= n;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|e| panic!("{head}: {e}"));
    answer
}

#[test]
fn a_sender_that_writes_everything_first_gets_the_answer() {
    let node = Node::start();
    let address = node.url.strip_prefix("http://").unwrap();
    for (head, status) in [
        // The form's type is none of remote write's.
        ("POST /api/v1/write", "415"),
        ("POST /api/v1/import/prometheus", "413"),
        ("POST /api/v1/query", "413"),
        ("POST /api/v1/series", "413"),
        ("PUT /api/v1/query", "405"),
        ("POST /api/v1/metadata", "405"),
        ("POST /nothing", "404"),
        ("POST /-/healthy", "405"),
    ] {
        let answer = write_then_read(address, head, 40 << 20);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{head}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_comes_while_the_node_starts_is_told_so() {
    let app = Arc::new(App::new(Config::default()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let options = http::serve::Options {
        connections_max: 10,
        header_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        shutdown_timeout: PATIENCE,
    };
    tokio::spawn(http::serve::serve(listener, http::router(app), options, std::future::pending()));
    for head in ["POST /api/v1/import/prometheus", "POST /api/v1/query"] {
        let address = address.clone();
        let answer = tokio::task::spawn_blocking(move || write_then_read(&address, head, 15 << 20));
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{head}: {answer}");
        assert!(answer.contains("starting"), "{head}: {answer}");
    }
}
