//! The headers with which a call begins: who is let in has said all that it has to.

use cluster::placement::NodeId;
use cluster::transport::handshake::admit;
use cluster::transport::{Identity, Run, Token};

const TOKEN: &str = "secret";
/// The run of the caller that is known.
const RUN: Run = Run { starts: 3, boot: 0xb007 };

fn header(line: &[u8]) -> Option<(&str, &[u8])> {
    let at = line.windows(2).position(|two| two == b": ")?;
    Some((std::str::from_utf8(&line[..at]).ok()?, &line[at + 2..]))
}

/// A header a line.
pub fn check(bytes: &[u8]) -> bool {
    let headers: Vec<(&str, &[u8])> = bytes.split(|byte| *byte == b'\n').filter_map(header).collect();
    let own = Identity {
        cluster: super::CLUSTER,
        node: NodeId(2),
        run: Run { starts: 5, boot: 9 },
        token: Token::new(TOKEN),
    };
    let Ok(from) = admit(&own, RUN, &headers) else { return false };
    let says = |name: &str, right: &dyn Fn(&str) -> bool| {
        let right = |value: &[u8]| std::str::from_utf8(value).is_ok_and(right);
        assert!(headers.iter().any(|(n, value)| n.eq_ignore_ascii_case(name) && right(value)), "{name}");
    };
    let hex = |text: &str| u128::from_str_radix(text.trim(), 16).ok();
    says("authorization", &|value| value.trim() == format!("Bearer {TOKEN}"));
    says("sarsen-cluster", &|value| hex(value) == Some(own.cluster));
    says("sarsen-to", &|value| hex(value) == Some(own.node.0));
    says("sarsen-from", &|value| hex(value) == Some(from.0) && from != own.node);
    says("sarsen-starts", &|value| value.trim().parse::<u64>().is_ok_and(|starts| starts >= RUN.starts));
    says("sarsen-boot", &|value| hex(value).is_some());
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let text = |protocol: u32, starts: u64| {
        format!(
            "sarsen-protocol: {protocol}\nsarsen-cluster: {:032x}\nsarsen-from: 1\nsarsen-to: 2\nsarsen-starts: {starts}\nsarsen-boot: {:032x}\nauthorization: Bearer {TOKEN}",
            super::CLUSTER,
            RUN.boot
        )
    };
    vec![text(1, 3).into_bytes(), text(0, 400).into_bytes(), text(2, 3).into_bytes()]
}
