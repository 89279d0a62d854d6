//! What is said of a cluster: its status and conditions.

use super::Plan;
use super::action::{Action, Deferral, Reason};
use super::draft::Draft;
use super::evidence::{Remedy, trouble};
use super::instances::{Instance, Role, group_of};
use super::observed::{Copy, CopyState, Database, NodeState, Observed};
use super::quantity::bytes;
use super::rollout;
use crate::api::{ClusterStatus, GroupStatus, ReplacementStatus};
use crate::render::names::serial_of;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The specification cannot be read at all.
pub fn unreadable(observed: &Observed) -> ClusterStatus {
    let mut status = observed.status.clone();
    let why = observed.wanted.problems.join("; ");
    status.observed_generation = observed.generation;
    (status.phase, status.message) = ("Invalid".into(), why.clone());
    let condition = condition(observed, "SpecValid", Some(false), "SpecInvalid", &why);
    status.conditions.retain(|old| old.type_ != "SpecValid");
    status.conditions.push(condition);
    status
}

/// The plan, with what is said.
pub fn finish(draft: Draft) -> Plan {
    let status = status(&draft);
    let mut draft = draft;
    // What a person waits for after `kubectl apply`.
    let last = &draft.observed.status;
    if last.cluster_id != status.cluster_id {
        draft.tell(false, "Created", format!("the database exists; its id is {}", status.cluster_id));
    }
    if is_ready(&status) && !is_ready(last) {
        draft.tell(false, "Ready", status.message.clone());
    }
    draft.deferrals.sort();
    draft.deferrals.dedup();
    Plan { actions: draft.actions, deferrals: draft.deferrals, told: draft.told, status, again: draft.again }
}

fn is_ready(status: &ClusterStatus) -> bool {
    status.conditions.iter().any(|known| known.type_ == "Ready" && known.status == "True")
}

/// Shards by what they have: all copies, a majority, all.
struct Shards {
    whole: usize,
    readable: usize,
    total: usize,
}

fn shards(database: &Database) -> Shards {
    let live = |copies: &Vec<Copy>| {
        copies
            .iter()
            .filter(|copy| copy.state != CopyState::Initializing && database.hears(&copy.node))
            .count()
    };
    let at_least = |n: usize| database.shards.iter().filter(|copies| live(copies) >= n).count();
    Shards {
        whole: at_least(database.factor),
        readable: at_least(database.factor / 2 + 1),
        total: database.shards.len(),
    }
}

fn status(draft: &Draft) -> ClusterStatus {
    let observed = draft.observed;
    let groups: Vec<GroupStatus> =
        draft.spec.groups.iter().map(|group| of_group(draft, &group.name, group.nodes)).collect();
    let (ready, desired) =
        groups.iter().fold((0, 0), |(ready, desired), group| (ready + group.ready, desired + group.desired));
    let replacements: Vec<ReplacementStatus> = replacements(draft);
    let counts = observed.database.as_ref().map(shards);
    let mut versions: Vec<&str> = observed
        .database
        .iter()
        .flat_map(|database| database.nodes.values())
        .map(|node| node.version.as_str())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    versions.retain(|version| !version.is_empty());
    let last = &observed.status;
    let known = |now: Option<String>, last: &str| now.unwrap_or_else(|| last.to_owned());
    let database = observed.database.as_ref();
    let mut status = ClusterStatus {
        observed_generation: observed.generation,
        ready: format!("{ready}/{desired}"),
        shards: counts
            .as_ref()
            .map(|counts| format!("{}/{}", counts.whole, counts.total))
            .unwrap_or_default(),
        replacing: match replacements.len() {
            0 => String::new(),
            n => n.to_string(),
        },
        version: known((!versions.is_empty()).then(|| versions.join(", ")), &last.version),
        cluster_id: known(database.map(|database| database.cluster_id.clone()), &last.cluster_id),
        placement_epoch: database.map_or(last.placement_epoch, |database| database.epoch),
        groups,
        replacements,
        ..ClusterStatus::default()
    };
    let grounds = Grounds { draft, status: &status, counts: counts.as_ref() };
    let conditions = grounds.conditions();
    (status.phase, status.message) = grounds.phase();
    status.conditions = conditions;
    status
}

fn of_group(draft: &Draft, name: &str, desired: u32) -> GroupStatus {
    let observed = draft.observed;
    let members: Vec<&Instance> = draft.instances.members(name).collect();
    let count = |is: &dyn Fn(&Instance) -> bool| members.iter().filter(|member| is(member)).count() as u32;
    let initializing = |member: &&Instance| {
        let database = observed.database.as_ref()?;
        Some(database.initializing(member.node?.0))
    };
    let said = observed.status.last_serial(name);
    // Those that are made by this plan, too: from then on the group is where it is.
    let serials = draft.instances.all.keys().copied().chain(draft.made());
    let serials = serials.filter(|instance| group_of(&observed.name, instance) == name);
    GroupStatus {
        name: name.into(),
        desired,
        instances: members.len() as u32,
        leaving: draft
            .instances
            .all
            .values()
            .filter(|instance| instance.group == name && goes(instance))
            .count() as u32,
        ready: count(&|member| member.pod.is_some_and(|pod| pod.ready.is_some() && !pod.deleting)),
        updated: count(&|member| member.pod.is_some() && !rollout::is_outdated(draft.observed, member)),
        initializing_shards: members.iter().filter_map(initializing).sum::<usize>() as u32,
        last_serial: serials.filter_map(serial_of).max().unwrap_or(0).max(said),
    }
}

/// Whether an instance is to go, and its pod or its copies are still there.
fn goes(instance: &Instance) -> bool {
    matches!(instance.role, Role::Leaving(_)) && (instance.pod.is_some() || instance.node.is_some())
}

fn replacements(draft: &Draft) -> Vec<ReplacementStatus> {
    let observed = draft.observed;
    let mut list: Vec<ReplacementStatus> = draft
        .instances
        .replacements()
        .filter_map(|(new, old)| {
            let replaces = new.claim?.replaces.as_ref()?;
            let job = |id: &str| {
                let jobs = &observed.database.as_ref()?.jobs;
                jobs.iter().find(|job| job.coming.as_deref() == Some(id))
            };
            let job = new.node.and_then(|(id, _)| job(id));
            let left = new.node.map_or(0, |(_, node)| node.bytes_left);
            let total = job.map_or(left, |job| job.bytes.max(left));
            let step = match (new.role, new.node) {
                (Role::Newcomer, None) if new.pod.is_none_or(|pod| pod.machine.is_none()) => "Placing",
                (Role::Newcomer, None) => "Starting",
                (Role::Newcomer, Some((_, node))) if node.state == NodeState::Standby => "Committing",
                (_, Some((id, _)))
                    if observed.database.as_ref().is_some_and(|database| database.initializing(id) > 0) =>
                {
                    "Bootstrapping"
                }
                _ => "Verifying",
            };
            let why = draft
                .deferrals
                .iter()
                .find(|deferral| deferral.instance == old || deferral.instance == new.name);
            Some(ReplacementStatus {
                old: old.into(),
                new: new.name.into(),
                reason: replaces.why.clone(),
                step: step.into(),
                started_at: rfc3339(replaces.since),
                bytes_done: total.saturating_sub(left),
                bytes_total: total,
                eta_seconds: new.node.and_then(|(_, node)| node.eta_s),
                message: why.map(|why| why.message.clone()).unwrap_or_default(),
            })
        })
        .collect();
    // Those that are about to be made, so that nobody wonders.
    for (name, found) in &draft.evidence {
        if found.remedy == Remedy::Free || draft.instances.successor(name).is_some() {
            continue;
        }
        let suspect = draft.instances.get(name).and_then(|instance| instance.claim?.suspect.as_ref());
        let why = draft.deferrals.iter().find(|deferral| deferral.instance == *name);
        list.push(ReplacementStatus {
            old: (*name).into(),
            reason: found.kind.word().into(),
            step: "Suspect".into(),
            started_at: rfc3339(suspect.map_or(observed.now, |suspect| suspect.since)),
            message: why.map_or(found.message.clone(), |why| format!("{}; {}", found.message, why.message)),
            ..ReplacementStatus::default()
        });
    }
    list
}

/// What conditions are made from.
struct Grounds<'a, 'b> {
    draft: &'b Draft<'a>,
    status: &'b ClusterStatus,
    counts: Option<&'b Shards>,
}

impl Grounds<'_, '_> {
    fn deferred(&self, reasons: &[Reason]) -> Option<&Deferral> {
        self.draft.deferrals.iter().find(|deferral| reasons.contains(&deferral.reason))
    }

    /// What keeps a replacement from going on, other than its grace.
    fn blocked(&self) -> Option<&Deferral> {
        let quiet = [Reason::Grace, Reason::Starting, Reason::Paused, Reason::RolloutStuck];
        self.draft.deferrals.iter().find(|deferral| {
            let is_at_stake = self.draft.evidence.contains_key(deferral.instance.as_str())
                || [Reason::ZoneAway, Reason::NetworkVolume].contains(&deferral.reason);
            is_at_stake && !quiet.contains(&deferral.reason)
        })
    }

    /// Every pod is as the specification says.
    fn all_updated(&self) -> bool {
        self.status.groups.iter().all(|group| group.updated == group.instances)
    }

    /// There are as many instances as wanted, and all are ready.
    fn all_there(&self) -> bool {
        let is_there = |group: &GroupStatus| group.instances == group.desired && group.ready >= group.desired;
        self.status.groups.iter().all(is_there)
    }

    fn is_replacing(&self) -> bool {
        self.draft.instances.replacements().next().is_some()
    }

    fn conditions(&self) -> Vec<Condition> {
        let observed = self.draft.observed;
        let problems = &self.draft.problems;
        let say = |kind: &str, is: Option<bool>, reason: &str, message: &str| {
            condition(observed, kind, is, reason, message)
        };
        let mut list = vec![match problems.first() {
            None => say("SpecValid", Some(true), "Valid", "the specification can work"),
            Some(_) => say("SpecValid", Some(false), "SpecInvalid", &problems.join("; ")),
        }];
        list.push(match self.counts {
            None => say("Available", None, "DatabaseSilent", "no node of the database answers"),
            Some(counts) if counts.readable == counts.total && counts.total > 0 => {
                say("Available", Some(true), "Majority", "every shard has a majority of its copies")
            }
            Some(counts) => {
                let message = format!(
                    "{} of {} shards lack a majority of their copies: bring back one of the nodes that are away",
                    counts.total - counts.readable,
                    counts.total
                );
                say("Available", Some(false), "QuorumLost", &message)
            }
        });
        let quorum_lost = self.deferred(&[Reason::QuorumLost]);
        let unavailable = self.counts.is_some_and(|counts| counts.readable < counts.total);
        list.push(match quorum_lost {
            Some(deferral) => say("QuorumLost", Some(true), "QuorumLost", &deferral.message),
            None if unavailable => {
                say("QuorumLost", Some(true), "QuorumLost", "shards lack a majority of their copies")
            }
            None => say("QuorumLost", Some(false), "Majority", "nothing waits for a majority"),
        });
        let short = self.counts.map_or(0, |counts| counts.total - counts.whole);
        list.push(match self.draft.evidence.iter().next() {
            Some((_, found)) => say("Degraded", Some(true), found.kind.word(), &found.message),
            None if self.counts.is_none() => {
                say("Degraded", None, "DatabaseSilent", "no node of the database answers")
            }
            None if short > 0 => say(
                "Degraded",
                Some(true),
                "CopiesMissing",
                &format!("{short} shards have fewer copies than wanted"),
            ),
            None => say("Degraded", Some(false), "Whole", "every shard has its copies"),
        });
        list.push(match self.draft.instances.replacements().next() {
            Some((new, old)) => say(
                "ReplacementInProgress",
                Some(true),
                "Replacing",
                &format!("{} takes the place of {old}", new.name),
            ),
            None => say("ReplacementInProgress", Some(false), "None", "nothing is being replaced"),
        });
        list.push(match self.blocked() {
            Some(deferral) => {
                let message = format!("{}: {}", deferral.instance, deferral.message);
                say(
                    "ReplacementBlocked",
                    Some(true),
                    deferral.reason.word(),
                    message.trim_start_matches(": "),
                )
            }
            None => say("ReplacementBlocked", Some(false), "None", "nothing is held back"),
        });
        let stuck = self.deferred(&[Reason::RolloutStuck]);
        list.push(match stuck {
            Some(deferral) => say("RolloutPaused", Some(true), "RolloutStuck", &deferral.message),
            None if self.draft.spec.rollout.paused => {
                say("RolloutPaused", Some(true), "Paused", "rollout.paused is true")
            }
            None => {
                say("RolloutPaused", Some(false), "None", "pods are changed when the specification changes")
            }
        });
        let small = self.draft.instances.all.values().find(|instance| {
            let wanted = self.draft.spec.storage_of(instance.group);
            let lags = |claim: &super::observed::Claim| {
                bytes(&wanted.size).is_some_and(|bytes| claim.capacity > 0 && claim.capacity < bytes)
            };
            matches!(instance.role, Role::Member) && instance.claim.is_some_and(lags)
        });
        list.push(match small {
            Some(instance) => say(
                "StorageResizing",
                Some(true),
                "Resizing",
                &format!("the volume of {} is smaller than wanted", instance.name),
            ),
            None => say("StorageResizing", Some(false), "None", "volumes are as large as wanted"),
        });
        let progress = self.progress();
        list.push(match &progress {
            Some((reason, message)) => say("Progressing", Some(true), reason, message),
            None => say("Progressing", Some(false), "Settled", "nothing is to be done"),
        });
        let paused = observed.paused || self.draft.spec.paused;
        list.push(match paused {
            true => say("Paused", Some(true), "Paused", "the operator does nothing"),
            false => say("Paused", Some(false), "None", "the operator works"),
        });
        let whole = self.counts.is_some_and(|counts| counts.total > 0 && counts.whole == counts.total);
        let ready = self.all_there() && self.all_updated() && whole && progress.is_none();
        list.push(match ready {
            true => {
                say("Ready", Some(true), "Ready", "every instance is ready, and every shard has its copies")
            }
            false => {
                let (reason, message) = self.phase();
                say("Ready", Some(false), &reason, &message)
            }
        });
        list
    }

    /// What is on its way, if anything.
    fn progress(&self) -> Option<(&'static str, String)> {
        let draft = self.draft;
        if let Some((new, old)) = draft.instances.replacements().next() {
            return Some(("Replacing", format!("{} takes the place of {old}", new.name)));
        }
        if let Some(leaving) =
            draft.instances.all.values().find(|i| matches!(i.role, Role::Leaving(_)) && i.node.is_some())
        {
            return Some(("Scaling", format!("{} leaves", leaving.name)));
        }
        if !self.all_updated() {
            let left: u32 = self
                .status
                .groups
                .iter()
                .map(|group| group.instances - group.updated.min(group.instances))
                .sum();
            return Some(("Updating", format!("{left} pods are not as the specification says")));
        }
        if !self.all_there() {
            let trouble = draft
                .instances
                .all
                .values()
                .filter(|i| i.role == Role::Member)
                .find_map(|instance| trouble(draft.observed, instance));
            let is_complete = self.status.groups.iter().all(|group| group.instances == group.desired);
            let reason = match &draft.observed.database {
                None => "Creating",
                // Nobody wants more or fewer: some of them are not ready.
                Some(_) if is_complete => "Recovering",
                Some(_) => "Scaling",
            };
            return Some((
                reason,
                trouble.unwrap_or_else(|| format!("{} instances are ready", self.status.ready)),
            ));
        }
        let disruptive =
            |action: &&Action| matches!(action, Action::CreateClaim { .. } | Action::ExpandClaim { .. });
        draft.actions.iter().find(disruptive).map(|action| ("Scaling", action.to_string()))
    }

    /// What goes on, in a word and in a sentence.
    fn phase(&self) -> (String, String) {
        let draft = self.draft;
        let observed = draft.observed;
        let say = |word: &str, message: String| (word.to_owned(), message);
        if observed.deleting {
            return say("Deleting", "the cluster object is deleted".into());
        }
        if observed.paused || draft.spec.paused {
            return say("Paused", "the operator does nothing".into());
        }
        if let Some(counts) = self.counts.filter(|counts| counts.readable < counts.total) {
            let lack = counts.total - counts.readable;
            return say(
                "Unavailable",
                format!("{lack} of {} shards lack a majority of their copies", counts.total),
            );
        }
        if observed.database.is_none() && !observed.status.cluster_id.is_empty() {
            return say("Unavailable", "no node of the database answers".into());
        }
        if let Some(problem) = draft.problems.first() {
            return say("Invalid", problem.clone());
        }
        if self.is_replacing() {
            let step = self.status.replacements.iter().find(|step| !step.new.is_empty());
            let message = step.map(|step| match step.bytes_total {
                0 => format!("{} takes the place of {}: {}", step.new, step.old, step.step),
                total => format!(
                    "{} takes the place of {}: {}, {} of {total} bytes",
                    step.new, step.old, step.step, step.bytes_done
                ),
            });
            return say("Replacing", message.unwrap_or_default());
        }
        if let Some(deferral) = self.blocked() {
            return say("Blocked", format!("{}: {}", deferral.reason.word(), deferral.message));
        }
        if let Some(found) = draft.evidence.values().next() {
            return say("Degraded", found.message.clone());
        }
        if let Some(deferral) = self.deferred(&[Reason::RolloutStuck]) {
            return say("RolloutStuck", deferral.message.clone());
        }
        if let Some((word, message)) = self.progress() {
            return say(word, message);
        }
        match self.counts {
            Some(counts) if counts.whole < counts.total => say(
                "Degraded",
                format!("{} shards have fewer copies than wanted", counts.total - counts.whole),
            ),
            Some(_) => say("Ready", "every instance is ready, and every shard has its copies".into()),
            None => say("Creating", "the database is being created".into()),
        }
    }
}

fn condition(observed: &Observed, kind: &str, is: Option<bool>, reason: &str, message: &str) -> Condition {
    let status = match is {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let last = observed.status.conditions.iter().find(|last| last.type_ == kind && last.status == status);
    let since = last.map_or_else(|| Time(instant(observed.now)), |last| last.last_transition_time.clone());
    Condition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: since,
        observed_generation: Some(observed.generation),
    }
}

/// Whole seconds, as Kubernetes keeps times.
fn instant(ms: i64) -> Timestamp {
    Timestamp::from_second(ms.div_euclid(1000)).unwrap_or_default()
}

fn rfc3339(ms: i64) -> String {
    instant(ms).to_string()
}
