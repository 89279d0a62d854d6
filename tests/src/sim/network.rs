//! The network between machines: what arrives, and when.

use super::swarm::NetworkWeather;
use crate::random::Random;
use std::collections::BTreeMap;

/// A machine, counted from 0.
pub type Machine = usize;

/// Decides the fate of each message. A message that was sent arrives whatever becomes of its sender.
pub struct Network {
    weather: NetworkWeather,
    lots: Random,
    /// Directions in which nothing passes, and how many faults want it so.
    cut: BTreeMap<(Machine, Machine), u32>,
    /// Directions that take longer.
    slow: BTreeMap<(Machine, Machine), u64>,
    /// When the last message of a direction arrives, where none overtakes another.
    last: BTreeMap<(Machine, Machine), u64>,
    healed: bool,
}

impl Network {
    /// With this weather.
    pub fn new(weather: NetworkWeather, lots: Random) -> Network {
        Network {
            weather,
            lots,
            cut: BTreeMap::new(),
            slow: BTreeMap::new(),
            last: BTreeMap::new(),
            healed: false,
        }
    }

    /// The delays after which a message that is sent now arrives: none if it is lost, two if it comes twice.
    pub fn send(&mut self, now_ms: u64, from: Machine, to: Machine) -> Vec<u64> {
        let way = (from, to);
        let weather = self.weather;
        // Drawn in any case, so that a cut does not shift what follows.
        let lot = self.lots.below(10_000);
        let doubled = self.lots.below(10_000) < weather.doubled;
        let late = self.lots.below(10_000) < weather.late;
        let delays = [0, 1].map(|_| self.lots.between(weather.delay_least_ms, weather.delay_most_ms));
        let far = self.lots.between(500, 8_000);
        if self.is_cut(from, to) || lot < weather.lost && !self.healed {
            return Vec::new();
        }
        let slow = self.slow.get(&way).copied().unwrap_or(0);
        let copies = if doubled && !self.healed { 2 } else { 1 };
        let mut arrivals = Vec::with_capacity(copies);
        for (n, delay) in delays.into_iter().take(copies).enumerate() {
            let mut delay = delay + slow;
            if weather.overtaking && late && !self.healed && n + 1 == copies {
                delay += far;
            }
            if !weather.overtaking {
                let last = self.last.entry(way).or_default();
                *last = (*last).max(now_ms + delay);
                delay = *last - now_ms;
            }
            arrivals.push(delay);
        }
        arrivals
    }

    /// How much arrives of an answer in so many pieces.
    pub fn torn(&mut self, pieces: usize) -> usize {
        let breaks = self.lots.below(10_000) < self.weather.lost && !self.healed;
        if breaks { self.lots.below(pieces as u64 + 1) as usize } else { pieces }
    }

    /// Whether nothing passes in this direction.
    pub fn is_cut(&self, from: Machine, to: Machine) -> bool {
        self.cut.contains_key(&(from, to))
    }

    /// Nothing passes in this direction, until [`Network::join`] was called as often.
    pub fn cut(&mut self, from: Machine, to: Machine) {
        *self.cut.entry((from, to)).or_default() += 1;
    }

    /// Takes one [`Network::cut`] back.
    pub fn join(&mut self, from: Machine, to: Machine) {
        if let Some(count) = self.cut.get_mut(&(from, to)) {
            *count -= 1;
            if *count == 0 {
                self.cut.remove(&(from, to));
            }
        }
    }

    /// Messages of this direction take so much longer.
    pub fn slow(&mut self, from: Machine, to: Machine, by_ms: u64) {
        self.slow.insert((from, to), by_ms);
    }

    /// A link is as fast as the others again.
    pub fn speed_up(&mut self, from: Machine, to: Machine) {
        self.slow.remove(&(from, to));
    }

    /// From now on everything arrives, once and in time.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.slow.clear();
        self.healed = true;
    }
}

/// Which directions a partition cuts.
pub fn partition(lots: &mut Random, nodes: usize) -> (&'static str, Vec<(Machine, Machine)>) {
    let mut order: Vec<Machine> = (0..nodes).collect();
    for at in (1..nodes).rev() {
        order.swap(at, lots.below(at as u64 + 1) as usize);
    }
    let size = lots.between(1, (nodes as u64 - 1).max(1)) as usize;
    let (a, b) = order.split_at(size);
    let across = || a.iter().flat_map(|&x| b.iter().map(move |&y| (x, y)));
    match lots.below(4) {
        // Nobody of the one half hears anybody of the other.
        0 | 1 => ("full", across().flat_map(|(x, y)| [(x, y), (y, x)]).collect()),
        2 => ("one way", across().collect()),
        // Everybody hears its two neighbours only.
        _ => {
            let far = |x: usize, y: usize| (x + 1) % nodes != y && (y + 1) % nodes != x;
            let all = (0..nodes).flat_map(|x| (0..nodes).map(move |y| (x, y)));
            let cuts = all.filter(|&(x, y)| x != y && far(x, y)).map(|(x, y)| (order[x], order[y]));
            let cuts: Vec<_> = cuts.collect();
            // Three in a ring hear each other; then one link breaks.
            match cuts.is_empty() {
                true => ("link", vec![(order[0], order[1]), (order[1], order[0])]),
                false => ("ring", cuts),
            }
        }
    }
}
