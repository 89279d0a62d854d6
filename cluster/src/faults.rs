//! Mistakes that can be made on purpose, so that the simulation shows that it would notice them.
//!
//! Each is a line in the code that it breaks: `if faults::planted(Mistake::…)`. Without the feature `planted-bugs`, which nothing that is
//! shipped turns on, the answer is `false` at compile time and nothing is left of them. With it, one mistake at a time can be planted in one thread.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mistake {
    /// One replica's word is enough for a write that needs more.
    AcknowledgeAtOne,
    /// A replica that failed, and will get a hint, counts as one that has the rows.
    CountHint,
    /// A replica answers a frame, and counts itself, before the rows are synced.
    AcknowledgeBeforeSync,
    /// Writes under another placement are taken.
    SkipEpochCheck,
    /// Rows of a series that a replica does not know are dropped, instead of asking for the labels.
    SkipLabelRequest,
    /// The numbers of a sender that was started again are taken for those of its last run.
    KeepOldNumbers,
    /// Of two values at one time, the one that is read first wins.
    MergeByArrival,
    /// One replica's answer is taken for a majority.
    ReadOne,
    /// What differs between copies is not fetched.
    SkipFetch,
    /// A replica says that it has what another one has, without a look.
    TrustSummaries,
    /// A replica answers reads of what it knows to be damaged.
    ReadDamaged,
    /// Repair compares which series there are, and not what they have.
    CompareSeriesOnly,
    /// Repair leaves the newest windows alone, for ever.
    SkipRecentWindows,
    /// Damage is forgotten before everything was brought back.
    MendAtOnce,
    /// A joining node takes every snapshot for news.
    ViewGoesBack,
    /// The first write does not wait until it is agreed on that there is data.
    AdoptOverData,
    /// The Raft log is written and not synced.
    SkipRaftSync,
    /// Histograms are left out of rows that travel.
    DropHistograms,
    /// A lookup gives what the first answer has.
    LookUpOne,
    /// An answer with gaps does not say that it has any.
    SilentGaps,
    /// A write of a shard that moves needs a majority of the old replicas only.
    OldMajorityOnly,
    /// A copy is called complete before anything was compared with the old ones.
    CutOverUnpassed,
    /// A copy that has what comes as files is called complete, without any pass.
    TrustFiles,
    /// A replica answers whoever makes a copy although it still takes writes under the placement before the move.
    PassBeforeAccepted,
    /// A move ends although the old replicas may still answer reads as before it.
    FinishUnaccepted,
    /// Which placement a node has seen is not remembered when it stops.
    ForgetEpoch,
    /// A replica answers reads that were asked under another placement.
    ReadAnyEpoch,
    /// A replica that gave a shard up still takes rows of it from whoever does not know that yet.
    AcceptAfterLeaving,
    /// A copy answers reads before it is complete.
    ReadBeforeCutOver,
    /// A copy is called complete when one of the old ones has been compared.
    PassOne,
    /// A copy goes before those that stay have everything.
    DropUnpassed,
    /// A node is removed although a shard has no other copy.
    RemoveAnyway,
    /// A node that was removed goes on.
    StayAfterRemoval,
    /// Copies are placed without a look at failure domains.
    IgnoreDomains,
    /// An operation is begun although it was decided on under another placement.
    SkipOperationEpoch,
    /// Who asks again for what is at work or done begins it once more.
    BeginTwice,
    /// A job goes on although another was begun in its place.
    KeepOutdone,
    /// A replica takes rows from a node that it knows to be removed.
    TakeFromRemoved,
    /// A failed fsync is tried again, and its second answer is taken for the first. Made by the disk of whoever plants it: nothing below this crate
    /// knows of mistakes.
    RetrySync,
    /// Names are not synced after files. Made by the disk, too.
    SkipFolderSync,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Mistake; 40] = [
        Mistake::AcknowledgeAtOne,
        Mistake::CountHint,
        Mistake::AcknowledgeBeforeSync,
        Mistake::SkipEpochCheck,
        Mistake::SkipLabelRequest,
        Mistake::KeepOldNumbers,
        Mistake::MergeByArrival,
        Mistake::ReadOne,
        Mistake::SkipFetch,
        Mistake::TrustSummaries,
        Mistake::ReadDamaged,
        Mistake::CompareSeriesOnly,
        Mistake::SkipRecentWindows,
        Mistake::MendAtOnce,
        Mistake::ViewGoesBack,
        Mistake::AdoptOverData,
        Mistake::SkipRaftSync,
        Mistake::DropHistograms,
        Mistake::LookUpOne,
        Mistake::SilentGaps,
        Mistake::OldMajorityOnly,
        Mistake::CutOverUnpassed,
        Mistake::TrustFiles,
        Mistake::PassBeforeAccepted,
        Mistake::FinishUnaccepted,
        Mistake::ForgetEpoch,
        Mistake::ReadAnyEpoch,
        Mistake::AcceptAfterLeaving,
        Mistake::ReadBeforeCutOver,
        Mistake::PassOne,
        Mistake::DropUnpassed,
        Mistake::RemoveAnyway,
        Mistake::StayAfterRemoval,
        Mistake::IgnoreDomains,
        Mistake::SkipOperationEpoch,
        Mistake::BeginTwice,
        Mistake::KeepOutdone,
        Mistake::TakeFromRemoved,
        Mistake::RetrySync,
        Mistake::SkipFolderSync,
    ];
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

/// What [`Mistake::MergeByArrival`] is: times that an earlier copy has are taken out of the later ones.
pub(crate) fn first_wins(copies: &mut [model::Samples]) {
    for at in 1..copies.len() {
        let (before, later) = copies.split_at_mut(at);
        let copy = &mut later[0];
        let known = |t: i64| before.iter().any(|earlier| earlier.timestamps.binary_search(&t).is_ok());
        let kept: Vec<bool> = copy.timestamps.iter().map(|t| !known(*t)).collect();
        let mut keep = kept.iter();
        copy.values.retain(|_| keep.next().copied().unwrap_or(true));
        keep = kept.iter();
        copy.starts.retain(|_| keep.next().copied().unwrap_or(true));
        keep = kept.iter();
        copy.timestamps.retain(|_| keep.next().copied().unwrap_or(true));
    }
}
