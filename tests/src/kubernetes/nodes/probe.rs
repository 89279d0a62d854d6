//! Asking a container how it is, by HTTP.

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Whether it has started; nothing else is asked before.
    Startup,
    /// Whether it takes requests.
    Readiness,
    /// Whether it should go on.
    Liveness,
}

/// Of every kind.
pub const KINDS: [Kind; 3] = [Kind::Startup, Kind::Readiness, Kind::Liveness];

/// What the answers have added up to.
#[derive(Clone, Debug)]
pub struct Tally {
    good: i32,
    bad: i32,
    due: Instant,
    is_asking: bool,
}

impl Kind {
    /// What a container wants to be asked.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Kind::Startup => container.startup_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
            Kind::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

impl Tally {
    /// Of a container that starts now.
    pub fn new(probe: &Probe, now: Instant) -> Tally {
        let delay = seconds(probe.initial_delay_seconds, 0);
        Tally { good: 0, bad: 0, due: now + delay, is_asking: false }
    }

    /// Whether to ask now; if so, it counts as asked.
    pub fn ask(&mut self, now: Instant) -> bool {
        let is_due = !self.is_asking && now >= self.due;
        self.is_asking |= is_due;
        is_due
    }

    /// Counts an answer. There is a verdict when there were enough of one kind in a row.
    pub fn answer(&mut self, is_good: bool, probe: &Probe, now: Instant) -> Option<bool> {
        self.is_asking = false;
        self.due = now + seconds(probe.period_seconds, 10);
        (self.good, self.bad) = if is_good { (self.good + 1, 0) } else { (0, self.bad + 1) };
        match is_good {
            true => (self.good >= probe.success_threshold.unwrap_or(1)).then_some(true),
            false => (self.bad >= probe.failure_threshold.unwrap_or(3)).then_some(false),
        }
    }
}

/// How long an answer may take.
pub fn timeout(probe: &Probe) -> Duration {
    seconds(probe.timeout_seconds, 1)
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.map_or(default, |value| u64::try_from(value).unwrap_or(0)))
}

/// `address:port` and path of a request to a container, whose ports may have names.
pub fn target(get: &HTTPGetAction, container: &Container, ip: &str) -> Option<(String, String)> {
    let port = match &get.port {
        IntOrString::Int(port) => *port,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())?
        }
    };
    let host = get.host.as_deref().unwrap_or(ip);
    Some((format!("{host}:{port}"), get.path.clone().unwrap_or_else(|| "/".into())))
}

/// The status of an answer to GET, within a bound. `Err` says why there was none.
pub async fn get(address: &str, path: &str, bound: Duration) -> Result<u16, String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-probe/1.36\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        // `HTTP/1.1 200`
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        // The rest is read to its end: a preStop hook has ended when its answer has.
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(head)
    };
    let head = tokio::time::timeout(bound, ask).await.map_err(|_| format!("no answer within {bound:?}"))?;
    let head = head.map_err(|error| error.to_string())?;
    let status = std::str::from_utf8(&head[9..]).ok().and_then(|status| status.parse().ok());
    status.ok_or_else(|| "no answer of HTTP".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_takes_as_many_answers_in_a_row_as_the_probe_says() {
        let probe = Probe {
            failure_threshold: Some(2),
            success_threshold: Some(2),
            period_seconds: Some(5),
            ..Probe::default()
        };
        let start = Instant::now();
        let mut tally = Tally::new(&probe, start);
        assert!(tally.ask(start));
        assert!(!tally.ask(start), "one question at a time");
        assert_eq!(tally.answer(true, &probe, start), None);
        assert!(!tally.ask(start + Duration::from_secs(4)));
        assert!(tally.ask(start + Duration::from_secs(5)));
        assert_eq!(tally.answer(true, &probe, start), Some(true));
        assert_eq!(tally.answer(false, &probe, start), None);
        assert_eq!(tally.answer(true, &probe, start), None, "counted anew");
        assert_eq!(tally.answer(false, &probe, start), None);
        assert_eq!(tally.answer(false, &probe, start), Some(false));
    }

    #[test]
    fn a_port_may_have_a_name() {
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "c", "ports": [{"name": "http", "containerPort": 7420}]}),
        )
        .expect("a container");
        let get = |port| HTTPGetAction { port, path: Some("/x".into()), ..HTTPGetAction::default() };
        let target = |port| target(&get(port), &container, "10.0.0.1");
        let expected = Some(("10.0.0.1:7420".to_string(), "/x".to_string()));
        assert_eq!(target(IntOrString::String("http".into())), expected);
        assert_eq!(target(IntOrString::Int(7420)), expected);
        assert_eq!(target(IntOrString::String("other".into())), None);
    }
}
