//! The database is created once in its life.
//!
//! ```text
//! one that waits is chosen: its claim says so ─► it is told to ─► others join and take their share ─► every shard has all its copies ─►
//! claims say which database they are of: it is founded ─► readiness gates open: somebody may write
//! ```
//!
//! Who creates it is written on a claim before it is told to, so that no two ever are. And that it is founded is written on claims before anybody is let write, so that
//! **as long as no claim says so, nobody has written anything**. Who is lost until then may be one of the few who decide, or have the only copy of a shard, and nobody
//! could bring that back. But nothing is lost with it: such an attempt is void, everything that belongs to it goes, and it is begun anew.

use super::action::{Action, Note, Reason, Request};
use super::draft::Draft;
use super::gates;
use super::instances::{Instance, Role};
use super::observed::{Answer, Contents, Copy, CopyState, Database, Leaving};
use super::replace;
use crate::api::{Group, names::REPLACE};
use crate::render::names::claim;
use std::collections::BTreeSet;

/// Whether somebody may have written to the database. That is so from when every shard has all its copies, and if the database says so itself: it is not ready then, but
/// whoever knows a node's address can write to it.
pub fn is_founded(draft: &Draft) -> bool {
    let is_noted = |instance: &Instance| match instance.claim.map(|claim| (&claim.contents, &claim.volume)) {
        Some((Contents::Of(_), _)) => true,
        // It may have been made from a backup.
        Some((Contents::Unknown, Some(_))) => !waits(instance),
        _ => false,
    };
    let is_open = |instance: &Instance| instance.pod.is_some_and(|pod| pod.gate == Some(true));
    let instances = || draft.instances.all.values();
    let is_well_begun = |database: &Database| {
        database.has_leader
            && has_all_copies(database)
            && has_all_groups(draft)
            && !instances().any(|instance| is_abandoned(instance) && instance.has_part())
    };
    let database = draft.observed.database.as_ref();
    instances().any(|instance| is_noted(instance) || is_open(instance))
        || database.is_some_and(|database| database.has_data || is_well_begun(database))
}

/// Whether there is a group for every copy. Before, nobody is to write: it would be on too few disks.
pub fn has_all_groups(draft: &Draft) -> bool {
    // One that is lost has been there: then the others have its copies, or are to have them.
    let groups: BTreeSet<&str> = draft
        .instances
        .all
        .values()
        .filter(|instance| instance.has_part())
        .map(|instance| instance.group)
        .collect();
    groups.len() >= usize::from(draft.spec.replication_factor)
}

fn has_all_copies(database: &Database) -> bool {
    let all = |copies: &Vec<Copy>| {
        let complete = || copies.iter().filter(|copy| copy.state != CopyState::Initializing);
        let live = complete().filter(|copy| database.hears(&copy.node)).count();
        complete().count() >= database.factor && live > database.factor / 2
    };
    database.shards.iter().all(all)
}

/// Whether nothing is lost with anybody: nobody was let write yet, and there is no database that decides, or one that lacks what only those have that are lost or given up.
pub fn is_void(draft: &Draft) -> bool {
    if draft.is_founded {
        return false;
    }
    let Some(database) = draft.observed.database.as_ref().filter(|database| database.has_leader) else {
        return true;
    };
    let is_needed = |instance: &Instance| {
        let id = instance.node.map(|(id, _)| id);
        id.is_some_and(|id| gates::quorum(database, &[id].into()).is_err())
    };
    draft.instances.all.values().any(|instance| {
        let is_lost = draft.evidence.contains_key(instance.name) && !instance.is_heard();
        // What was given up is not taken back: others may have been given up with it.
        (is_lost && is_needed(instance)) || (is_abandoned(instance) && instance.has_part())
    })
}

/// Whether those that were given up with an attempt still answer. Until they do not, nobody new comes: it would only join what goes.
pub fn is_ending(draft: &Draft) -> bool {
    draft.is_void && draft.instances.all.values().any(|instance| is_abandoned(instance) && answers(instance))
}

/// Whether the claims of those that were given up may be deleted: until then they tell that the attempt is void, also to those who come back.
pub fn is_over(draft: &Draft) -> bool {
    !draft.instances.all.values().any(|instance| {
        let has_volume = instance.claim.is_some_and(|claim| claim.volume.is_some());
        has_volume && !waits(instance) && !is_given_up(instance)
    })
}

fn is_abandoned(instance: &Instance) -> bool {
    // Of one without a claim nothing is left but its place.
    instance.role == Role::Leaving(Leaving::Abandoned) || instance.claim.is_none()
}

fn is_given_up(instance: &Instance) -> bool {
    is_abandoned(instance) || matches!(instance.role, Role::Leaving(_) | Role::Retired)
}

fn waits(instance: &Instance) -> bool {
    instance.pod.is_some_and(|pod| pod.answer == Some(Answer::Waiting))
}

fn says_that_it_belongs(instance: &Instance) -> bool {
    instance.pod.is_some_and(|pod| matches!(pod.answer, Some(Answer::Belongs(_))))
}

fn answers(instance: &Instance) -> bool {
    says_that_it_belongs(instance) || instance.is_heard()
}

/// Creates the database, or sees to it that it can be created anew.
pub fn advance(draft: &mut Draft) {
    if !draft.is_void {
        return;
    }
    let instances = || draft.instances.all.values();
    let creates = |instance: &Instance| instance.claim.is_some_and(|claim| claim.creates);
    let was_in_it = |instance: &Instance| {
        creates(instance)
            || instance.node.is_some()
            || instance.claim.is_some_and(|claim| claim.node_id.is_some())
    };
    let lost = instances().find(|instance| is_abandoned(instance) && was_in_it(instance));
    let is_in_it = |instance: &&Instance| {
        (says_that_it_belongs(instance) || instance.node.is_some()) && !is_given_up(instance)
    };
    let members: Vec<Instance> = instances().filter(is_in_it).cloned().collect();
    if let Some(lost) = lost.map(|lost| lost.name) {
        for member in &members {
            let why = format!("{lost} is lost, and nobody was let write yet: all begins anew");
            replace::abandon(draft, member, &why);
        }
    } else if let Some(member) = members.first() {
        stands_still(draft, member);
    }
    if !members.is_empty() || is_ending(draft) {
        return;
    }
    let instances = || draft.instances.all.values();
    let can_create = |instance: &&Instance| {
        let stays = !is_given_up(instance) && instance.pod.is_some_and(|pod| !pod.deleting);
        stays && waits(instance) && !draft.evidence.contains_key(instance.name)
    };
    if let Some(chosen) = instances().find(|instance| creates(instance) && !is_given_up(instance)) {
        if can_create(&chosen) {
            let instance = chosen.name.into();
            draft.act(Action::Ask(Request::Create { instance }));
        }
        return;
    }
    // Somebody may come back who was in what a former one has created.
    if instances().any(|instance| creates(instance) && is_abandoned(instance)) && !is_over(draft) {
        return;
    }
    let mut groups = draft.spec.groups.iter();
    let first = groups.find_map(|Group { name, .. }| draft.instances.members(name).find(can_create));
    if let Some(first) = first.cloned() {
        draft.note(&first, Note::Create);
    }
}

/// There is a database, and nobody decides in it. In a moment there may be; but if those who do are lost and nobody sees it, only a person can know.
fn stands_still(draft: &mut Draft, member: &Instance) {
    if draft.observed.database.as_ref().is_some_and(|database| database.has_leader) {
        return;
    }
    let is_away = |instance: &&Instance| {
        let has_place = instance.node.is_some() || instance.claim.is_some_and(|claim| claim.creates);
        has_place && !answers(instance) && !is_given_up(instance)
    };
    let Some(away) = draft.instances.all.values().find(is_away) else { return };
    let message = format!(
        "{} belongs to a database in which nobody decides, and that nobody was let write to: bring back {}, or have it begun anew: \
         kubectl annotate pvc {} {REPLACE}=true",
        member.name,
        away.name,
        claim(away.name),
    );
    draft.defer("", Reason::DatabaseSilent, message);
}
