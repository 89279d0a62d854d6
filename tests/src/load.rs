//! Load whose values are a function of series and time, so that every read can be checked.
//!
//! A writer sends one request after the other, each with one sample of each of its series, to any of the nodes, and sends it again
//! until it is acknowledged, as a sender does. A reader asks any of the nodes and compares: what was acknowledged before it
//! asked must be there, and what is there must have been sent.

use crate::client::Client;
use crate::random::{Random, mix};
use crate::wire::{Series, v1};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One writer's samples. Request number k carries those at `start + k * step`.
pub struct Load {
    /// Distinguishes it from others.
    pub name: String,
    /// Series in each request.
    pub series: u64,
    /// Milliseconds.
    pub start: i64,
    /// Milliseconds between two samples of a series.
    pub step: i64,
    /// From the beginning of one request to that of the next, and of one read to the next; none for one after the other.
    pub pace: Duration,
    sent: AtomicI64,
    acknowledged: AtomicI64,
    /// Requests that were sent more than once.
    pub repeated: AtomicU64,
    /// Reads that were compared.
    pub checked: AtomicU64,
    /// How long each request took until it was acknowledged, tries and all.
    took: Mutex<Vec<Duration>>,
}

impl Load {
    /// Nothing is sent yet.
    pub fn new(name: &str, series: u64, start: i64, step: i64) -> Load {
        Load {
            name: name.into(),
            series,
            start,
            step,
            pace: Duration::ZERO,
            sent: AtomicI64::new(0),
            acknowledged: AtomicI64::new(0),
            repeated: AtomicU64::new(0),
            checked: AtomicU64::new(0),
            took: Mutex::new(Vec::new()),
        }
    }

    /// The same at a steady rate.
    pub fn every(self, pace: Duration) -> Load {
        Load { pace, ..self }
    }

    /// The time within which 99 of 100 of the requests were acknowledged since this was last asked.
    pub fn p99(&self) -> Duration {
        let mut took = std::mem::take(&mut *self.took.lock().expect("nobody panicked with it"));
        took.sort_unstable();
        took.get(took.len() * 99 / 100).copied().unwrap_or_default()
    }

    /// Requests that were acknowledged, from the first on.
    pub fn acknowledged(&self) -> i64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// The last moment that was sent.
    pub fn end(&self) -> i64 {
        self.time(self.sent.load(Ordering::SeqCst) - 1)
    }

    fn time(&self, request: i64) -> i64 {
        self.start + request * self.step
    }

    /// What a series has at a time. An integer, so that it survives every textual form.
    fn value(&self, series: u64, time: i64) -> f64 {
        let name = self.name.bytes().fold(0u64, |hash, byte| mix(hash ^ u64::from(byte)));
        (mix(mix(name ^ series) ^ time as u64) >> 20) as f64
    }

    /// Writes until `stop`. A request that nobody acknowledges within `patience` is a failure.
    pub fn write(
        &self,
        clients: &[Client],
        patience: Duration,
        stop: &AtomicBool,
        seed: u64,
    ) -> Result<(), String> {
        let mut random = Random::new(seed);
        let mut due = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
            due = Instant::now().max(due + self.pace);
            let request = self.sent.fetch_add(1, Ordering::SeqCst);
            let body = v1::request(&self.samples(request)).snappy();
            let began = Instant::now();
            for attempt in 0.. {
                let client = &clients[random.below(clients.len() as u64) as usize];
                let seen = match client.send("POST", "/api/v1/write", &[], &body) {
                    Ok(answer) if answer.status == 204 => {
                        self.took.lock().expect("nobody panicked with it").push(began.elapsed());
                        break;
                    }
                    Ok(answer) if answer.status < 500 => {
                        return Err(format!(
                            "a good request was answered {}: {}",
                            answer.status, answer.body
                        ));
                    }
                    Ok(answer) => format!("{} of {}: {}", answer.status, client.base(), answer.body),
                    Err(error) => format!("{}: {error}", client.base()),
                };
                if began.elapsed() > patience {
                    return Err(format!(
                        "{}: request {request} failed {attempt} times, last {seen}",
                        self.name
                    ));
                }
                self.repeated.fetch_add(1, Ordering::Relaxed);
                std::thread::park_timeout(Duration::from_millis(20));
            }
            self.acknowledged.store(request + 1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// The series of one request.
    pub fn samples(&self, request: i64) -> Vec<Series> {
        let time = self.time(request);
        (0..self.series)
            .map(|series| {
                let number = series.to_string();
                let labels = [("__name__", "load"), ("series", &number), ("writer", &self.name)];
                Series::new(&labels).sample(time, self.value(series, time))
            })
            .collect()
    }

    /// Reads the newest requests again and again until `stop`. A read that nobody answers within `patience` is a failure, and so is
    /// a wrong answer.
    pub fn read(
        &self,
        clients: &[Client],
        patience: Duration,
        stop: &AtomicBool,
        seed: u64,
    ) -> Result<(), String> {
        let mut random = Random::new(seed);
        let mut due = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
            due = Instant::now().max(due + self.pace);
            let began = Instant::now();
            loop {
                let acknowledged = self.acknowledged();
                let client = &clients[random.below(clients.len() as u64) as usize];
                match self.ask(client, acknowledged - 20, "") {
                    Ok(found) => {
                        self.compare(&found, acknowledged - 20, acknowledged)?;
                        break;
                    }
                    Err(seen) if began.elapsed() > patience => {
                        return Err(format!(
                            "{}: a read failed, last at {}: {seen}",
                            self.name,
                            client.base()
                        ));
                    }
                    Err(_) => {
                        std::thread::park_timeout(Duration::from_millis(20));
                    }
                }
            }
            self.checked.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Compares everything that one node answers with everything that was sent.
    pub fn check(&self, client: &Client) -> Result<(), String> {
        let acknowledged = self.acknowledged();
        let mut from = 0;
        while from < self.sent.load(Ordering::SeqCst) {
            let found = self.range(client, from, from + 5_000, "")?;
            self.compare(&found, from, acknowledged.min(from + 5_000))?;
            from += 5_000;
        }
        Ok(())
    }

    /// The samples from request `from` on.
    fn ask(&self, client: &Client, from: i64, parameters: &str) -> Result<Vec<(u64, i64, f64)>, String> {
        self.range(client, from.max(0), self.sent.load(Ordering::SeqCst), parameters)
    }

    /// The samples of the requests `from..to`.
    fn range(
        &self,
        client: &Client,
        from: i64,
        to: i64,
        parameters: &str,
    ) -> Result<Vec<(u64, i64, f64)>, String> {
        let (first, last) = (self.time(from.max(0)), self.time(to.max(1)) - 1);
        let query = format!("load{{writer=\"{}\"}}[{}ms]", self.name, last - first + 1);
        let matrix = client.instant_with(&query, last as f64 / 1e3, parameters)?;
        let mut found = Vec::new();
        for (labels, points) in matrix {
            let series =
                labels["series"].parse().map_err(|_| format!("a series that nobody wrote: {labels:?}"))?;
            found.extend(
                points.into_iter().map(|(seconds, value)| (series, (seconds * 1e3).round() as i64, value)),
            );
        }
        Ok(found)
    }

    /// Whether what was found is what was sent, and all that was acknowledged of the requests `from..to`.
    fn compare(&self, found: &[(u64, i64, f64)], from: i64, to: i64) -> Result<(), String> {
        let sent = self.sent.load(Ordering::SeqCst);
        let mut counts = vec![0i64; self.series as usize];
        for (series, time, value) in found {
            let request = (time - self.start).div_euclid(self.step);
            if self.time(request) != *time || request >= sent || *series >= self.series {
                return Err(format!("{}: nobody wrote series {series} at {time}", self.name));
            }
            if *value != self.value(*series, *time) {
                return Err(format!("{}: series {series} has {value} at {time}", self.name));
            }
            if (from.max(0)..to).contains(&request) {
                counts[*series as usize] += 1;
            }
        }
        let want = (to - from.max(0)).max(0);
        match counts.iter().position(|count| *count != want) {
            None => Ok(()),
            Some(series) => Err(format!(
                "{}: acknowledged and gone: series {series} has {} of {want} samples of the requests {}..{to}",
                self.name,
                counts[series],
                from.max(0)
            )),
        }
    }
}
