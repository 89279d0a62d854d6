//! Who calls whom: checked before the first frame of every stream.
//!
//! ```text
//!   sarsen-protocol: 1            this version, the one before or the one after
//!   sarsen-cluster:  32 hex digits
//!   sarsen-from:     hex          the caller
//!   sarsen-to:       hex          whom it wants to reach
//!   sarsen-starts:   decimal      how often the caller was started
//!   sarsen-boot:     hex          drawn by the caller's process
//!   authorization:   Bearer TOKEN
//! ```
//!
//! Who joins has no cluster yet, and asks whoever is at an address: it leaves out `sarsen-cluster` and `sarsen-to`. Who is called says `sarsen-protocol`, `sarsen-starts` and `sarsen-boot` of
//! itself in its answer. So whoever has got anything from a run of a node has heard of that run before, and can tell an old copy of its directory
//! although the cluster may not have agreed on the start yet.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::placement::NodeId;
use std::cmp::Ordering;
use std::fmt;
use std::hint::black_box;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// The protocol between nodes. A node speaks its own version and the one before, so that it gets on with its neighbours on both sides: of two,
/// the newer one speaks as the older one does.
pub const VERSION: u32 = 1;

pub(super) const PROTOCOL: &str = "sarsen-protocol";
pub(super) const CLUSTER: &str = "sarsen-cluster";
pub(super) const FROM: &str = "sarsen-from";
pub(super) const TO: &str = "sarsen-to";
pub(super) const STARTS: &str = "sarsen-starts";
pub(super) const BOOT: &str = "sarsen-boot";
pub(super) const TOKEN: &str = "authorization";
/// Of an answer that refuses: [`Refusal::as_str`].
const REFUSAL: &str = "sarsen-refusal";

/// A secret that nodes share.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Visible ASCII, so that it can be in a header; none if it is empty or anything else.
    pub fn new(text: &str) -> Option<Token> {
        let fits = !text.is_empty() && text.len() <= 1024 && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Token(text.to_owned()))
    }

    /// Takes as long whatever is different.
    fn is(&self, other: &[u8]) -> bool {
        let own = self.0.as_bytes();
        // A given token of another length is compared as well, with itself repeated.
        let given = other.iter().cycle().copied().chain(std::iter::repeat(0));
        let different = own.iter().zip(given).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
        black_box(different) == 0 && own.len() == other.len()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// One run of a node, as it says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How often its directory was started, with this one.
    pub starts: u64,
    /// Drawn by its process: of two that use copies of one directory, each has another.
    pub boot: u128,
}

/// Who this node is to others.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its cluster.
    pub cluster: u128,
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub run: Run,
    /// What it shares with the others.
    pub token: Option<Token>,
}

/// Why a stream was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// Not even the beginning was understood.
    Garbage,
    /// Another protocol.
    Version,
    /// No token, or another.
    Token,
    /// Another cluster.
    Cluster,
    /// Another node is at this address.
    Node,
    /// The caller was started more often than it says.
    Stale,
    /// Another process uses a copy of the caller's directory.
    Copied,
    /// The caller was removed from the cluster for good.
    Removed,
    /// A frame that is none, or too long.
    Malformed,
    /// More connections than are allowed.
    Connections,
    /// Who is called belongs to no cluster yet.
    Waiting,
}

impl Refusal {
    /// All of them, by their numbers.
    pub const ALL: [Refusal; 11] = [
        Refusal::Garbage,
        Refusal::Version,
        Refusal::Token,
        Refusal::Cluster,
        Refusal::Node,
        Refusal::Stale,
        Refusal::Copied,
        Refusal::Removed,
        Refusal::Malformed,
        Refusal::Connections,
        Refusal::Waiting,
    ];

    /// One word, for metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Garbage => "garbage",
            Refusal::Version => "version",
            Refusal::Token => "token",
            Refusal::Cluster => "cluster",
            Refusal::Node => "node",
            Refusal::Stale => "stale",
            Refusal::Copied => "copied",
            Refusal::Removed => "removed",
            Refusal::Malformed => "malformed",
            Refusal::Connections => "connections",
            Refusal::Waiting => "waiting",
        }
    }

    fn code(self) -> Code {
        match self {
            Refusal::Token => Code::Unauthenticated,
            Refusal::Garbage | Refusal::Malformed => Code::InvalidArgument,
            Refusal::Connections => Code::ResourceExhausted,
            _ => Code::FailedPrecondition,
        }
    }
}

/// A refusal in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub reason: Refusal,
    pub why: String,
}

impl Refused {
    pub fn status(&self) -> Status {
        let mut status = Status::new(self.reason.code(), self.why.clone());
        status.metadata_mut().insert(REFUSAL, MetadataValue::from_static(self.reason.as_str()));
        status
    }

    /// What a peer answered, if that was a refusal.
    pub fn of(status: &Status) -> Option<Refused> {
        let word = status.metadata().get(REFUSAL)?.to_str().ok()?;
        let reason = Refusal::ALL.into_iter().find(|reason| reason.as_str() == word)?;
        Some(Refused { reason, why: status.message().to_owned() })
    }
}

fn put(metadata: &mut MetadataMap, key: &'static str, value: &str) {
    // Numbers and tokens are always in ASCII.
    if let Ok(value) = value.parse() {
        metadata.insert(key, value);
    }
}

/// What who joins sends.
pub(super) fn greet_stranger(token: Option<&Token>, from: NodeId, own: Run, metadata: &mut MetadataMap) {
    put(metadata, PROTOCOL, &VERSION.to_string());
    put(metadata, FROM, &from.to_string());
    say(own, metadata);
    if let Some(token) = token {
        put(metadata, TOKEN, &format!("Bearer {}", token.0));
    }
}

/// What a member sends to the member `to`.
pub(super) fn greet(own: &Identity, to: NodeId, metadata: &mut MetadataMap) {
    greet_stranger(own.token.as_ref(), own.node, own.run, metadata);
    put(metadata, CLUSTER, &format!("{:032x}", own.cluster));
    put(metadata, TO, &to.to_string());
}

/// What a member answers to who calls it.
pub(super) fn answer(own: Run, metadata: &mut MetadataMap) {
    put(metadata, PROTOCOL, &VERSION.to_string());
    say(own, metadata);
}

/// What [`answer`] said.
pub(super) fn answered(metadata: &MetadataMap) -> Result<Run, String> {
    let version = text(metadata, PROTOCOL).and_then(|version| version.parse().ok());
    let (Some(version), Some(run)) = (version, said(metadata)) else {
        return Err("it does not say which protocol it speaks and which of its starts this is".to_owned());
    };
    strange(version).map_or(Ok(run), |why| Err(format!("it {why}")))
}

/// Why nobody here speaks this version, if so.
fn strange(version: u32) -> Option<String> {
    (version.abs_diff(VERSION) > 1).then(|| {
        format!(
            "speaks protocol {version} between nodes and this node {VERSION}, which gets on with the one before and the one after: upgrade one version at a time"
        )
    })
}

fn say(own: Run, metadata: &mut MetadataMap) {
    put(metadata, STARTS, &own.starts.to_string());
    put(metadata, BOOT, &format!("{:032x}", own.boot));
}

/// What [`say`] said.
fn said(metadata: &MetadataMap) -> Option<Run> {
    let starts = text(metadata, STARTS)?.parse().ok()?;
    let boot = u128::from_str_radix(text(metadata, BOOT)?, 16).ok()?;
    Some(Run { starts, boot })
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key)?.to_str().ok()
}

/// Whether somebody who may be of no cluster may ask to join.
pub(super) fn check_stranger(token: Option<&Token>, metadata: &MetadataMap) -> Result<(), Refused> {
    let refused = |reason, why: String| Err(Refused { reason, why });
    let version = text(metadata, PROTOCOL).and_then(|version| version.parse::<u32>().ok());
    let Some(version) = version else {
        return refused(
            Refusal::Garbage,
            "this is the address for other Sarsen nodes, and what called is none; clients use the HTTP address"
                .to_owned(),
        );
    };
    if let Some(why) = strange(version) {
        return refused(Refusal::Version, format!("the caller {why}"));
    }
    if let Some(token) = token {
        let given = text(metadata, TOKEN).and_then(|value| value.strip_prefix("Bearer ")).unwrap_or("");
        if !token.is(given.as_bytes()) {
            return refused(
                Refusal::Token,
                "the join token is not this cluster's; start with the --join-token that its nodes have"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

/// Whether a stranger is this very process: its name and those of others may be one.
pub(super) fn is_self(own: &Identity, metadata: &MetadataMap) -> bool {
    let from = text(metadata, FROM).and_then(|value| u128::from_str_radix(value, 16).ok());
    from == Some(own.node.0) && said(metadata) == Some(own.run)
}

/// What a node that belongs to no cluster yet answers.
pub(super) fn waits() -> Refused {
    Refused { reason: Refusal::Waiting, why: "it waits for a cluster, too".to_owned() }
}

/// What a node answers to itself.
pub(super) fn itself() -> Refused {
    Refused { reason: Refusal::Node, why: "it is this node itself".to_owned() }
}

/// What is known of callers.
pub(super) trait Known {
    /// Takes note of a run of a node, unless it is known to be over: then what is said against it.
    fn meet(&self, node: NodeId, run: Run) -> Result<(), Refused>;
    /// Whether a node was removed for good.
    fn is_removed(&self, node: NodeId) -> bool;
}

/// Who calls, if that may be.
pub(super) fn check(own: &Identity, known: &impl Known, metadata: &MetadataMap) -> Result<NodeId, Refused> {
    let refused = |reason, why: String| Err(Refused { reason, why });
    check_stranger(own.token.as_ref(), metadata)?;
    let hex = |key| text(metadata, key).and_then(|value| u128::from_str_radix(value, 16).ok());
    let (Some(cluster), Some(from), Some(to), Some(run)) = (hex(CLUSTER), hex(FROM), hex(TO), said(metadata))
    else {
        return refused(Refusal::Garbage, "the caller does not say who it is".to_owned());
    };
    let (from, to) = (NodeId(from), NodeId(to));
    if cluster != own.cluster {
        return refused(
            Refusal::Cluster,
            format!(
                "the caller belongs to cluster {cluster:032x} and this node to {:032x}; take one out of the other's --join, or give it the right address",
                own.cluster
            ),
        );
    }
    if to != own.node {
        return refused(
            Refusal::Node,
            format!(
                "the caller wants node {to}, and at this address is node {}; it was moved, or two nodes announce one address: set --cluster-advertise",
                own.node
            ),
        );
    }
    if from == own.node {
        return refused(
            Refusal::Copied,
            format!(
                "the caller says that it is node {from}, which is this node; its data directory is a copy: start it with an empty one"
            ),
        );
    }
    if known.is_removed(from) {
        return refused(
            Refusal::Removed,
            format!(
                "node {from} was removed from the cluster; to come back, start it with an empty data directory"
            ),
        );
    }
    match known.meet(from, run) {
        Ok(()) => Ok(from),
        Err(refused) => Err(refused),
    }
}

/// Why a run of `node` is not its newest, if what is `known` says so.
pub(super) fn outdated(node: NodeId, run: Run, known: Run) -> Option<Refused> {
    let Run { starts, boot } = run;
    let (reason, why) = match starts.cmp(&known.starts) {
        Ordering::Less => (
            Refusal::Stale,
            format!("and is known for {}; its data directory is an old copy or in use twice", known.starts),
        ),
        Ordering::Equal if boot != known.boot => (
            Refusal::Copied,
            "and so does another process; two use copies of one data directory, or this is an old copy"
                .to_owned(),
        ),
        _ => return None,
    };
    let why = format!(
        "node {node} says that it was started {starts} times, {why}: stop it, and start it with the newest directory or an empty one"
    );
    Some(Refused { reason, why })
}

/// What is known of every caller.
impl Known for Run {
    fn meet(&self, node: NodeId, run: Run) -> Result<(), Refused> {
        outdated(node, run, *self).map_or(Ok(()), Err)
    }
    fn is_removed(&self, _: NodeId) -> bool {
        false
    }
}

/// What a call with these headers is told by a node that knows of this run of every caller. Without a network, for those who try
/// what callers may say.
///
/// # Errors
/// Why it is refused.
pub fn admit(own: &Identity, run: Run, headers: &[(&str, &[u8])]) -> Result<NodeId, Refusal> {
    let mut metadata = http::HeaderMap::new();
    for (name, value) in headers {
        // What is no header does not get through HTTP.
        if let (Ok(name), Ok(value)) =
            (name.parse::<http::HeaderName>(), http::HeaderValue::from_bytes(value))
        {
            metadata.append(name, value);
        }
    }
    check(own, &run, &MetadataMap::from_headers(metadata)).map_err(|refused| refused.reason)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Table(Option<Run>, bool);

    impl Known for Table {
        fn meet(&self, node: NodeId, run: Run) -> Result<(), Refused> {
            self.0.and_then(|known| outdated(node, run, known)).map_or(Ok(()), Err)
        }
        fn is_removed(&self, _: NodeId) -> bool {
            self.1
        }
    }

    fn identity(node: u128) -> Identity {
        let run = Run { starts: 3, boot: 0xb };
        Identity { cluster: 7, node: NodeId(node), run, token: Token::new("secret") }
    }

    fn told(known: Table, change: impl Fn(&mut MetadataMap)) -> Result<NodeId, Refusal> {
        let mut metadata = MetadataMap::new();
        greet(&identity(1), NodeId(2), &mut metadata);
        change(&mut metadata);
        check(&identity(2), &known, &metadata).map_err(|refused| {
            // The other side reads the same from the answer.
            assert_eq!(Refused::of(&refused.status()), Some(refused.clone()));
            refused.reason
        })
    }

    fn with(key: &'static str, value: &'static str) -> Result<NodeId, Refusal> {
        told(Table(None, false), |metadata| {
            metadata.insert(key, MetadataValue::from_static(value));
        })
    }

    #[test]
    fn each_thing_that_is_wrong_is_refused_for_its_own_reason() {
        assert_eq!(told(Table(None, false), |_| ()), Ok(NodeId(1)));
        let known = |starts, boot| Table(Some(Run { starts, boot }), false);
        assert_eq!(told(known(3, 0xb), |_| ()), Ok(NodeId(1)));
        assert_eq!(told(known(2, 0xc), |_| ()), Ok(NodeId(1)));
        assert_eq!(told(known(3, 0xc), |_| ()), Err(Refusal::Copied));
        assert_eq!(told(known(4, 0xb), |_| ()), Err(Refusal::Stale));
        assert_eq!(told(Table(None, true), |_| ()), Err(Refusal::Removed));
        assert_eq!(with(PROTOCOL, "3"), Err(Refusal::Version));
        assert_eq!(with(PROTOCOL, "4294967295"), Err(Refusal::Version));
        assert_eq!(with(PROTOCOL, "0"), Ok(NodeId(1)), "the one before");
        assert_eq!(with(PROTOCOL, "2"), Ok(NodeId(1)), "the one after");
        assert_eq!(with(PROTOCOL, "x"), Err(Refusal::Garbage));
        assert_eq!(with(TOKEN, "Bearer other!"), Err(Refusal::Token));
        assert_eq!(with(TOKEN, "secret"), Err(Refusal::Token));
        assert_eq!(with(CLUSTER, "8"), Err(Refusal::Cluster));
        assert_eq!(with(TO, "3"), Err(Refusal::Node));
        assert_eq!(with(FROM, "2"), Err(Refusal::Copied), "itself");
        assert_eq!(with(STARTS, "many"), Err(Refusal::Garbage));
        assert_eq!(with(BOOT, "-"), Err(Refusal::Garbage));
    }

    #[test]
    fn who_is_called_says_its_protocol_and_one_of_two_versions_apart_is_not_talked_to() {
        let run = Run { starts: 3, boot: 0xb };
        let answered = |version: Option<&'static str>| {
            let mut metadata = MetadataMap::new();
            answer(run, &mut metadata);
            metadata.remove(PROTOCOL).unwrap();
            version.map(|version| metadata.insert(PROTOCOL, MetadataValue::from_static(version)));
            super::answered(&metadata)
        };
        assert_eq!([Some("0"), Some("1"), Some("2")].map(answered), [Ok(run), Ok(run), Ok(run)]);
        assert!(answered(Some("3")).unwrap_err().contains("upgrade one version at a time"));
        assert!(answered(None).unwrap_err().contains("which protocol"));
    }

    proptest! {
        #[test]
        fn only_the_same_token_is_the_same(a in "[!-~]{1,20}", b in "[!-~]{0,40}") {
            let token = Token::new(&a).unwrap();
            prop_assert!(token.is(a.as_bytes()));
            prop_assert_eq!(token.is(b.as_bytes()), a == b);
            prop_assert!(!token.is(a.repeat(2).as_bytes()));
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", identity(1)).contains("secret"));
        assert_eq!(Token::new("with space"), None);
    }

    #[test]
    fn the_format_page_names_every_header() {
        let page = include_str!("../../../docs/format/transport.md");
        for name in [PROTOCOL, CLUSTER, FROM, TO, STARTS, BOOT, TOKEN, REFUSAL] {
            assert!(page.contains(&format!("`{name}`")), "docs/format/transport.md does not name {name}");
        }
        for reason in Refusal::ALL {
            assert!(page.contains(&format!("| `{}` |", reason.as_str())), "{reason:?}");
        }
    }
}
