//! The simulator (docs/simulation.md): seeds, each as often as it takes, and what it must have found before it can be believed.

use tests::sim::operator::Operated;
use tests::sim::regressions;
use tests::sim::suite::{describe, guarded, run_all};

/// A number from the environment, for longer runs by hand.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number")),
        Err(_) => default,
    }
}

#[test]
fn nothing_acknowledged_is_lost_whatever_fails_and_everything_heals() {
    let (first, seeds) = (setting("SIM_FIRST", 0), setting("SIM_SEEDS", 2_000));
    println!("SIM_FIRST={first} SIM_SEEDS={seeds}");
    let tally = run_all(first..first + seeds, 2, false, || ());
    let failures: Vec<String> = tally.failures.iter().map(describe).collect();
    assert!(
        failures.is_empty(),
        "{} of {} seeds failed\n{}",
        failures.len(),
        tally.seeds,
        failures.join("\n")
    );
    println!("{tally}");
    // A run in which nothing happens proves nothing.
    let work = tally.acknowledged > 100 * seeds && tally.answered.0 > 50 * seeds;
    let trouble = tally.faults > seeds && tally.removed > seeds / 4 && tally.epochs > 4 * seeds;
    let copied = tally.imported.0 > seeds / 8;
    let Operated { granted, heals, lost_under_way, replaced_again, stale, repeated } = tally.operated;
    let hard = heals.min(lost_under_way).min(replaced_again) > seeds / 200;
    let operated = granted > seeds / 4 && hard && stale.min(repeated) > seeds / 20;
    assert!(work && trouble && copied && operated, "the seeds do too little");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..20 {
        let (once, again) = (guarded(seed), guarded(seed));
        assert_eq!((once.hash, once.events), (again.hash, again.events), "seed {seed} is not the same twice");
    }
}

#[test]
fn what_was_found_once_is_not_there_any_more() {
    for (name, seed) in regressions::ALL {
        let report = guarded(*seed);
        assert!(report.violation.is_none(), "{name}: {}", describe(&report));
    }
}

/// Each safety mechanism is broken on purpose, and a few seeds notice.
#[cfg(feature = "planted-bugs")]
mod planted {
    use cluster::faults::Mistake::*;
    use storage::faults::Mistake::{ShowUnsynced, TrustSender};
    use tests::sim::suite::{
        Mistake,
        Mistake::{Cluster, Storage},
        describe, seeds_until_caught,
    };

    fn is_caught(mistake: Mistake, seeds_max: u64) {
        match seeds_until_caught(mistake, seeds_max) {
            None => panic!("{mistake:?} is not noticed by {seeds_max} seeds"),
            Some((seeds, report)) => {
                println!("{mistake:?} is noticed after {seeds} seeds: {}", describe(&report))
            }
        }
    }

    macro_rules! planted {
        ($($name:ident: $mistake:expr, within $seeds:literal;)*) => {
            $(#[test]
            fn $name() {
                is_caught($mistake, $seeds);
            })*

            #[test]
            fn every_mistake_has_its_test() {
                assert_eq!(vec![$($mistake),*], Mistake::all().collect::<Vec<_>>());
            }
        };
    }

    planted! {
        one_word_is_not_a_majority: Cluster(AcknowledgeAtOne), within 20;
        a_hint_is_no_copy: Cluster(CountHint), within 20;
        nothing_is_acknowledged_before_its_sync: Cluster(AcknowledgeBeforeSync), within 20;
        another_placement_is_refused: Cluster(SkipEpochCheck), within 100;
        unknown_series_are_asked_for: Cluster(SkipLabelRequest), within 40;
        numbers_end_with_their_session: Cluster(KeepOldNumbers), within 200;
        the_greater_value_wins: Cluster(MergeByArrival), within 150;
        a_majority_is_read: Cluster(ReadOne), within 20;
        what_differs_is_fetched: Cluster(SkipFetch), within 20;
        summaries_are_compared: Cluster(TrustSummaries), within 40;
        damage_is_not_answered_from: Cluster(ReadDamaged), within 200;
        digests_see_values: Cluster(CompareSeriesOnly), within 40;
        recent_windows_are_repaired: Cluster(SkipRecentWindows), within 40;
        damage_is_mended_when_everything_is_back: Cluster(MendAtOnce), within 200;
        views_do_not_go_back: Cluster(ViewGoesBack), within 200;
        a_placement_is_not_replaced_over_data: Cluster(AdoptOverData), within 100;
        the_raft_log_is_synced: Cluster(SkipRaftSync), within 40;
        histograms_travel: Cluster(DropHistograms), within 40;
        a_lookup_is_of_a_majority: Cluster(LookUpOne), within 40;
        gaps_are_named: Cluster(SilentGaps), within 100;
        a_moving_shard_is_written_to_both_majorities: Cluster(OldMajorityOnly), within 40;
        a_copy_is_complete_only_after_its_passes: Cluster(CutOverUnpassed), within 200;
        files_prove_nothing: Cluster(TrustFiles), within 200;
        only_who_has_accepted_a_move_is_copied_from: Cluster(PassBeforeAccepted), within 40;
        a_move_ends_when_enough_have_accepted_its_cut_over: Cluster(FinishUnaccepted), within 200;
        the_epoch_that_a_node_worked_under_is_remembered: Cluster(ForgetEpoch), within 200;
        reads_under_another_placement_are_refused: Cluster(ReadAnyEpoch), within 40;
        who_gave_a_shard_up_takes_no_rows_of_it: Cluster(AcceptAfterLeaving), within 150;
        a_copy_is_read_from_only_after_its_cut_over: Cluster(ReadBeforeCutOver), within 100;
        one_pass_is_not_enough: Cluster(PassOne), within 200;
        a_copy_goes_only_when_the_others_have_everything: Cluster(DropUnpassed), within 200;
        the_last_copy_is_not_removed: Cluster(RemoveAnyway), within 200;
        who_was_removed_stops: Cluster(StayAfterRemoval), within 100;
        copies_are_spread_over_failure_domains: Cluster(IgnoreDomains), within 40;
        operations_are_bound_to_their_epoch: Cluster(SkipOperationEpoch), within 40;
        what_is_asked_again_is_begun_once: Cluster(BeginTwice), within 200;
        a_job_ends_when_another_takes_its_place: Cluster(KeepOutdone), within 40;
        who_was_removed_gives_nobody_rows: Cluster(TakeFromRemoved), within 200;
        a_failed_sync_is_not_tried_again: Cluster(RetrySync), within 200;
        names_are_synced_too: Cluster(SkipFolderSync), within 40;
        a_block_of_others_is_checked_page_by_page: Storage(TrustSender), within 200;
        a_block_of_others_is_durable_before_it_is_visible: Storage(ShowUnsynced), within 200;
    }
}
