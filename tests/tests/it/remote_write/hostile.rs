//! Bodies that no sender means well with: the answer is right, and memory stays flat.

use super::Version::{self, V1, V2};
use super::{BOTH, Receiver, good, request};
use tests::random::{Random, now_ms};
use tests::wire::{Message, Series, compress};

const MIB: u64 = 1 << 20;

/// Memory that a request, or thousands of them, may leave behind or take for a moment.
fn check_memory(receiver: &Receiver, before: u64, grown_max: u64) {
    let peak = receiver.sarsen.process.memory_peak();
    println!("peak {} MiB, before {} MiB", peak / MIB, before / MIB);
    assert!(peak <= before + grown_max, "{} MiB more than before", (peak - before) / MIB);
}

/// Writes until the node has all the memory that ordinary requests make it take.
fn warm_up(receiver: &Receiver) -> u64 {
    for version in BOTH {
        for _ in 0..50 {
            assert_eq!(receiver.post(version, &request(version, &[good()]).snappy()).status, 204);
        }
    }
    receiver.sarsen.process.memory_peak()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[test]
fn a_body_over_the_limit_is_413_and_names_the_key() {
    let receiver = Receiver::start();
    for mib in [17, 33, 100] {
        let body = Random::new(7).bytes(mib << 20);
        let headers = "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy";
        let answer = receiver.client().send_until_answered("/api/v1/write", headers, &body);
        let (status, rest) = answer.expect("an answer, or the sender will try for ever");
        assert_eq!(status, 413, "{mib} MiB: {rest}");
        assert!(rest.contains("limits.write_body_bytes_max"), "{mib} MiB: {rest}");
    }
}

#[test]
fn a_declared_size_costs_nothing_until_there_are_bytes_for_it() {
    let receiver = Receiver::start();
    let before = warm_up(&receiver);
    for version in BOTH {
        for declared in [33 * MIB, 1 << 30, u64::from(u32::MAX), 1 << 40, u64::MAX] {
            let body = [varint(declared), b"\x00x".to_vec()].concat();
            for _ in 0..50 {
                let response = receiver.post(version, &body);
                assert_eq!(response.status, 400, "{declared} bytes declared: {response:?}");
                assert!(!response.body.is_empty());
            }
        }
        // A length within the limit, but a ratio that snappy cannot reach.
        let response = receiver.post(version, &[varint(31 * MIB), b"\x00x".to_vec()].concat());
        assert_eq!(response.status, 400, "{response:?}");
    }
    check_memory(&receiver, before, 8 * MIB);
}

#[test]
fn a_body_that_decodes_to_more_than_the_limit_is_400_and_names_the_key() {
    let receiver = Receiver::start();
    let before = warm_up(&receiver);
    let body = compress(&vec![0; 33 << 20]);
    for version in BOTH {
        let response = receiver.post(version, &body);
        assert_eq!(response.status, 400, "{response:?}");
        assert!(response.body.contains("limits.write_decoded_bytes_max"), "{}", response.body);
    }
    check_memory(&receiver, before, 8 * MIB);
}

#[test]
fn a_body_of_tiny_messages_that_want_large_columns_stays_within_the_limit() {
    let receiver = Receiver::start();
    warm_up(&receiver);
    // A sample in two bytes, fifteen million times: eight times that in memory, and as many in the log.
    let samples = Message(b"\x12\x00".repeat(15 << 20));
    let body = Message::new().bytes(1, samples).snappy();
    let response = receiver.post(V1, &body);
    assert_eq!(response.status, 400, "{response:?}");
    assert!(response.body.contains("limits.write_batch_bytes_max"), "{}", response.body);
    // The limit, the body, and what the allocator rounds up.
    let peak = receiver.sarsen.process.memory_peak();
    assert!(peak < 512 * MIB, "{} MiB", peak / MIB);
    assert!(receiver.client().is_ok("/-/ready"));
}

fn small(version: Version) -> (Message, Vec<usize>) {
    let at = now_ms();
    let series = [
        Series::named("small", "k", "1").sample(at, 1.0).sample(at + 1, 2.0),
        Series::named("small", "k", "2").sample(at, 1.0),
    ];
    let whole = request(version, &series);
    (whole.clone(), boundaries(&whole.0))
}

/// Where the fields of a message of length-delimited fields end.
fn boundaries(message: &[u8]) -> Vec<usize> {
    let (mut ends, mut at) = (vec![0], 0);
    while at < message.len() {
        // Tag and length are one byte each in messages as small as these.
        at += 2 + usize::from(message[at + 1]);
        ends.push(at);
    }
    ends
}

#[test]
fn a_request_cut_anywhere_is_400_unless_it_is_whole_as_far_as_it_goes() {
    let receiver = Receiver::start();
    for version in BOTH {
        let (whole, ends) = small(version);
        assert_eq!(ends.last(), Some(&whole.0.len()));
        for len in 0..=whole.0.len() {
            let response = receiver.post(version, &compress(&whole.0[..len]));
            let want = if ends.contains(&len) { 204 } else { 400 };
            assert_eq!(response.status, want, "{version:?}, the first {len} bytes: {response:?}");
            assert_eq!(response.body.is_empty(), want == 204, "{response:?}");
        }
        let body = whole.snappy();
        for len in 0..body.len() {
            let response = receiver.post(version, &body[..len]);
            assert_eq!(response.status, 400, "{version:?}, the first {len} bytes in snappy: {response:?}");
            assert!(!response.body.is_empty());
        }
    }
}

#[test]
fn random_bytes_get_an_answer_that_fits_and_leave_nothing_behind() {
    let receiver = Receiver::start();
    let before = warm_up(&receiver);
    let mut random = Random::announced("random_bytes");
    for round in 0..3000 {
        let version = if round % 2 == 0 { V1 } else { V2 };
        let len = random.below(400) as usize;
        // A third is no snappy; a third is snappy around noise; a third is a request with some bytes changed.
        let body = match round % 3 {
            0 => random.bytes(len),
            1 => compress(&random.bytes(len)),
            _ => {
                let (mut message, _) = small(version);
                for _ in 0..=random.below(4) {
                    let at = random.below(message.0.len() as u64) as usize;
                    message.0[at] = random.number() as u8;
                }
                message.snappy()
            }
        };
        let response = receiver.post(version, &body);
        assert!(matches!(response.status, 204 | 400), "round {round}: {response:?}");
    }
    check_memory(&receiver, before, 32 * MIB);
    assert!(receiver.client().is_ok("/-/ready"));
}
