//! Somebody at the port for other nodes, who may say anything: HTTP/2 and gRPC by hand (RFC 9113 and 7541), only as much as it takes to
//! call and to see that the call is over.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(10);
/// Of a frame of HTTP/2, before the receiver has said that it takes more.
const FRAME_BYTES_MAX: usize = 16_384;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a node says of itself when it calls another.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Version of the protocol.
    pub protocol: String,
    /// The cluster.
    pub cluster: String,
    /// Who calls.
    pub from: String,
    /// Who is called.
    pub to: String,
    /// What the nodes share.
    pub token: String,
}

impl Hello {
    /// Opens a stream of frames at `address`, sends `message` as one of them, which says that it has `announced` bytes, and waits until the
    /// other side has ended the stream.
    pub fn send(&self, address: &str, message: &[u8], announced: usize) -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(BOUND))?;
        stream.set_write_timeout(Some(BOUND))?;
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut out, SETTINGS, 0, 0, &[]);
        frame(&mut out, HEADERS, END_HEADERS, 1, &self.headers(address));
        // A message of gRPC: not compressed, its length, its bytes.
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(announced).expect("a length").to_be_bytes());
        body.extend_from_slice(message);
        for part in body.chunks(FRAME_BYTES_MAX) {
            frame(&mut out, DATA, 0, 1, part);
        }
        // It may hang up in the middle of it.
        let _ = stream.write_all(&out);
        await_end(&mut stream)
    }

    fn headers(&self, address: &str) -> Vec<u8> {
        let Hello { protocol, cluster, from, to, token } = self;
        let token = format!("Bearer {token}");
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/sarsen.Peer/Frames"),
            (":authority", address),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("sarsen-protocol", protocol),
            ("sarsen-cluster", cluster),
            ("sarsen-from", from),
            ("sarsen-to", to),
            ("sarsen-starts", "1"),
            ("sarsen-boot", "1"),
            ("authorization", &token),
        ] {
            // A literal that is not remembered, with a new name, neither in Huffman's code.
            block.push(0);
            for text in [name, value] {
                assert!(text.len() < 127, "a length of one byte");
                block.push(text.len() as u8);
                block.extend_from_slice(text.as_bytes());
            }
        }
        block
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Reads until the stream or the connection is over.
fn await_end(stream: &mut TcpStream) -> io::Result<()> {
    loop {
        let mut head = [0; 9];
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(error);
            }
            // Hung up.
            Err(_) => return Ok(()),
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        io::copy(&mut Read::by_ref(stream).take(u64::from(length)), &mut io::sink())?;
        let (kind, flags) = (head[3], head[4]);
        let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        if ends || kind == RESET || kind == GOAWAY {
            return Ok(());
        }
    }
}
