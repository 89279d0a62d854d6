//! The load of `tsbench`, a generator that lies beside the project rather than in it: a fleet of machines and pods as one scrapes them.
//!
//! It is used where the variable `TSBENCH` names its program. What it sends is a function of its seed, and it prints what it would send: so every sample
//! can be compared.

use crate::client::{Client, LabelSet};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Active series.
const SERIES: &str = "2000";
/// Samples a second.
const RATE: &str = "2000";
/// Seconds between two scrapes of a target.
const INTERVAL_S: i64 = 15;

/// Samples of a metric: milliseconds, and the bits of the value, by series.
type Samples = BTreeMap<LabelSet, Vec<(i64, u64)>>;

/// One fleet, scraped again and again.
pub struct Tsbench {
    program: PathBuf,
    seed: String,
    /// Seconds.
    start: i64,
    /// Scrapes of the whole fleet that were acknowledged, from the first on.
    scrapes: AtomicU64,
}

impl Tsbench {
    /// A fleet whose first scrape is at `start_ms`, if there is the program.
    pub fn from_environment(start_ms: i64, seed: u64) -> Option<Tsbench> {
        let program = PathBuf::from(std::env::var_os("TSBENCH")?);
        assert!(program.is_file(), "TSBENCH is to be the path of the program tsbench: {}", program.display());
        Some(Tsbench {
            program,
            seed: seed.to_string(),
            start: start_ms.div_euclid(1000),
            scrapes: AtomicU64::new(0),
        })
    }

    /// Samples that were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.scrapes.load(Ordering::SeqCst) * series()
    }

    fn run(&self, command: &str, more: &[&str]) -> Result<Output, String> {
        let start = self.start.to_string();
        let mut process = Command::new(&self.program);
        process.args([command, "--series", SERIES, "--seed", &self.seed, "--start", &start]).args(more);
        process.output().map_err(|error| format!("{}: {error}", self.program.display()))
    }

    /// Writes to `address` until `stop`. A scrape that is not acknowledged whole within `patience` is a failure.
    pub fn write(&self, address: &str, patience: Duration, stop: &AtomicBool) -> Result<(), String> {
        let url = format!("http://{address}/api/v1/write");
        while !stop.load(Ordering::Relaxed) {
            let scrape = self.scrapes.load(Ordering::SeqCst).to_string();
            let began = Instant::now();
            loop {
                let output = self.run(
                    "write",
                    &["--url", &url, "--first-step", &scrape, "--rate", RATE, "--retries", "20"],
                )?;
                let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
                if told["failed_samples"] == 0 && told["acked_samples"] == series() {
                    break;
                }
                if began.elapsed() > patience {
                    let errors = String::from_utf8_lossy(&output.stderr);
                    return Err(format!("tsbench could not write scrape {scrape}: {told}{errors}"));
                }
                std::thread::park_timeout(Duration::from_millis(100));
            }
            self.scrapes.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Compares everything that one node answers with everything that was acknowledged. What was sent and not acknowledged may be there as well.
    pub fn check(&self, client: &Client) -> Result<(), String> {
        let scrapes = self.scrapes.load(Ordering::SeqCst);
        let output = self.run("gen", &["--print", "--steps", &(scrapes + 1).to_string()])?;
        let text = String::from_utf8(output.stdout).map_err(|error| error.to_string())?;
        // The last scrape may have begun.
        let last = (self.start + INTERVAL_S * scrapes as i64) * 1000;
        let mut sent: BTreeMap<&str, Samples> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('{')) {
            let (name, labels, sample) = parse(line).ok_or_else(|| format!("tsbench prints {line}"))?;
            sent.entry(name).or_default().entry(labels).or_default().push(sample);
        }
        let count: usize = sent.values().flat_map(BTreeMap::values).map(Vec::len).sum();
        if !output.status.success() || count as u64 != (scrapes + 1) * series() {
            return Err(format!(
                "tsbench prints {count} samples of {} scrapes: {}",
                scrapes + 1,
                output.status
            ));
        }
        let end = self.start + INTERVAL_S * (scrapes as i64 + 1);
        for (name, sent) in &sent {
            let range = INTERVAL_S * (scrapes as i64 + 2);
            let found = client.instant(&format!("{name}[{range}s]"), end as f64)?;
            let found: Samples = found
                .into_iter()
                .map(|(labels, points)| {
                    let points =
                        points.iter().map(|(at, value)| ((at * 1e3).round() as i64, value.to_bits()));
                    (labels, points.collect())
                })
                .collect();
            let nothing = vec![];
            for (labels, sent) in sent {
                let found = found.get(labels).unwrap_or(&nothing);
                let must = sent.iter().filter(|(at, _)| *at < last);
                if let Some(lost) = must.clone().find(|sample| !found.contains(sample)) {
                    return Err(format!("{} lacks {lost:?} of {labels:?}, and has {found:?}", client.base()));
                }
                if let Some(other) = found.iter().find(|sample| !sent.contains(sample)) {
                    return Err(format!("{} has {other:?} of {labels:?}, which nobody sent", client.base()));
                }
            }
            if let Some(other) = found.keys().find(|labels| !sent.contains_key(*labels)) {
                return Err(format!("{} has {other:?}, which nobody sent", client.base()));
            }
        }
        Ok(())
    }
}

fn series() -> u64 {
    SERIES.parse().expect("a number")
}

/// A line as `tsbench` prints it, which has no escapes: `name{label="value",…} value time`.
fn parse(line: &str) -> Option<(&str, LabelSet, (i64, u64))> {
    let (name, rest) = line.split_once('{')?;
    let (labels, sample) = rest.rsplit_once("\"} ")?;
    let (value, at) = sample.split_once(' ')?;
    let mut set = LabelSet::from([("__name__".into(), name.into())]);
    for label in labels.split("\",") {
        let (label, value) = label.split_once("=\"")?;
        set.insert(label.into(), value.into());
    }
    Some((name, set, (at.parse().ok()?, value.parse::<f64>().ok()?.to_bits())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_sample() {
        let (name, labels, sample) = parse(r#"up{job="a, b",pod="c"} 0.5 1767225605387"#).expect("a sample");
        assert_eq!((name, sample), ("up", (1_767_225_605_387, 0.5f64.to_bits())));
        let told: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(told, [("__name__", "up"), ("job", "a, b"), ("pod", "c")]);
        assert_eq!(parse("up 1 2"), None);
    }
}
