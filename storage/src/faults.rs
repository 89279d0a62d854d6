//! Mistakes that can be made on purpose, so that the simulation shows that it would notice them; as in the crate `cluster`.
//!
//! Without the feature `planted-bugs`, which nothing that is shipped turns on, nothing is left of them.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mistake {
    /// What another node sends of a block is believed: neither its pages are checked nor whose its series are.
    TrustSender,
    /// A block that came from another node is visible before the disk has it.
    ShowUnsynced,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Mistake; 2] = [Mistake::TrustSender, Mistake::ShowUnsynced];
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mistake>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread makes this mistake, or none.
#[cfg(feature = "planted-bugs")]
pub fn plant(mistake: Option<Mistake>) {
    PLANTED.set(mistake);
}

/// Whether this thread is to make this mistake.
#[cfg(feature = "planted-bugs")]
pub fn planted(mistake: Mistake) -> bool {
    PLANTED.get() == Some(mistake)
}

/// Never: nothing is planted in what is shipped.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn planted(_: Mistake) -> bool {
    false
}
