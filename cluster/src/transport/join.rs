//! How a node that is no member yet asks others, and how one that waits for a cluster is found by those that wait, too.

use super::codec::Codec;
use super::frame::{Answer, Request, Status};
use super::handshake::{self, Identity, Refusal, Refused, Run, Token};
use super::link::{Channel, JOIN};
use super::server::Server;
use super::{Bounds, Counters, Error, Kind, Listener};
use crate::placement::NodeId;
use bytes::Bytes;
use http::uri::PathAndQuery;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// Addresses that a name may have. The name of all nodes of a cluster has one for each.
const ADDRESSES_MAX: usize = 256;

/// What a stranger says of itself.
#[derive(Clone)]
pub struct Stranger {
    /// The node that it is or wants to be: a node that meets itself says so.
    pub node: NodeId,
    /// Its run.
    pub run: Run,
    /// The secret of the cluster.
    pub token: Option<Token>,
}

/// Asks the node at an address that this one, a stranger to it, may ask: the answer is that of its [`super::Handler::join`]. A name may have several
/// addresses, among them the own one and those of nodes that have no cluster yet: all are asked, and the first answer counts.
pub async fn join(
    address: &str,
    stranger: &Stranger,
    body: Bytes,
    bounds: &Bounds,
    within: Duration,
) -> Result<Bytes, Error> {
    let failed = |why: String, reason| Error::Join { address: address.to_owned(), why, reason };
    let late = || "it did not answer in time".to_owned();
    let found = match timeout(within, tokio::net::lookup_host(address)).await {
        Ok(Ok(found)) => found.take(ADDRESSES_MAX).collect::<BTreeSet<_>>(),
        Ok(Err(error)) => return Err(failed(format!("its name cannot be resolved ({error})"), None)),
        Err(_) => return Err(failed("its name was not resolved in time".to_owned(), None)),
    };
    let mut asking = JoinSet::new();
    for at in found {
        let (stranger, body, bounds) = (stranger.clone(), body.clone(), *bounds);
        asking.spawn(async move {
            let asked = timeout(within, ask(at.to_string(), &stranger, body, &bounds, within)).await;
            asked.unwrap_or_else(|_| Err((late(), None)))
        });
    }
    // Why, and of how many.
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    let mut reasons = BTreeSet::new();
    while let Some(asked) = asking.join_next().await {
        match asked {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err((why, reason))) => {
                *refusals.entry(why).or_default() += 1;
                reasons.extend(reason);
            }
            // It is only aborted with this.
            Err(_) => {}
        }
    }
    let count: usize = refusals.values().sum();
    let told = refusals.into_iter().map(|(why, of)| match count {
        1 => why,
        _ => format!("{why} ({of} of {count} addresses)"),
    });
    let why = told.collect::<Vec<_>>().join(", ");
    let why = if why.is_empty() { "its name has no address".to_owned() } else { why };
    // That of a member counts more than that of this node itself, or of one that waits.
    let weight = |reason: &Refusal| matches!(reason, Refusal::Waiting | Refusal::Node);
    Err(failed(why, reasons.into_iter().min_by_key(weight)))
}

async fn ask(
    address: String,
    stranger: &Stranger,
    body: Bytes,
    bounds: &Bounds,
    within: Duration,
) -> Result<Bytes, (String, Option<Refusal>)> {
    let counters = Arc::new(Counters::default());
    let opening = timeout(bounds.connect_timeout, Channel::open(&address, bounds, &counters));
    let opened = opening.await.map_err(|_| ("it did not answer in time".to_owned(), None))?;
    let (channel, _connection) = opened.map_err(|why| (why, None))?;
    let timeout_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
    let mut request = tonic::Request::new(Request { kind: Kind::Control, id: 0, timeout_ms, body });
    let Stranger { node, run, token } = stranger;
    handshake::greet_stranger(token.as_ref(), *node, *run, request.metadata_mut());
    let mut client = channel.client(bounds);
    client.ready().await.map_err(|error| (error.to_string(), None))?;
    let answer = client.unary(request, PathAndQuery::from_static(JOIN), Codec::<Request, Answer>::new());
    let answer = answer.await.map_err(|status| {
        (status.message().to_owned(), Refused::of(&status).map(|refused| refused.reason))
    })?;
    let answer = answer.into_inner();
    match answer.status {
        Status::Done => Ok(answer.body),
        Status::Busy => Err(("it has too much to do".to_owned(), None)),
        Status::Failed => Err((String::from_utf8_lossy(&answer.body).into_owned(), None)),
    }
}

/// Answers whoever calls that this node belongs to no cluster yet, until it is dropped.
pub struct Waiting(JoinHandle<()>);

impl Waiting {
    /// Answers at `listener`.
    pub fn start(listener: Listener, stranger: Stranger, bounds: Bounds) -> Waiting {
        let Stranger { node, run, token } = stranger;
        let identity = Arc::new(Identity { cluster: 0, node, run, token });
        Waiting(tokio::spawn(Server::waiting(identity, bounds).run(listener)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abort();
    }
}
