//! Freeing an instance from a machine that is lost without its volume: the pod is taken off the machine, and nothing else.
//!
//! Kubernetes lets the pod of a machine that does not answer hang *Terminating* until a person says that the machine is off. When the pod object is gone, the
//! ordinary path makes it anew for the same claim, the scheduler finds another machine, and the volume is attached there. The instance stays who it is: nothing
//! in the placement changes, nothing is copied but what it has missed.
//!
//! **Why that needs no fence in the placement.** The machine may only be cut off, and the old process live. But the volume is attached in one place at a time:
//! Kubernetes gives it to the new pod after it has taken it from the old machine (at once if that answers and has unmounted it or is called out of service, else after six
//! minutes, by force). From then on the old process cannot fsync, and what is not fsynced is not acknowledged; before then there is no new process. When the old machine is reached again, the others
//! refuse the old process, as an earlier start of a node that they know by a later one. A volume that could be written to from both is left to a person.
//!
//! The gates are those of a replacement: if it is rather the network that is broken, the old process may be one of those that answer when it is mended.

use super::action::{Action, Reason};
use super::draft::Draft;
use super::evidence::{Remedy, pinned, volume};
use super::gates::{self, Gate};
use super::instances::{Instance, Role};
use super::observed::Leaving;
use super::replace;

/// Frees the next one that is due.
pub fn advance(draft: &mut Draft) {
    for instance in draft.all() {
        let must_run = match instance.role {
            Role::Member | Role::Newcomer => true,
            // It is emptied before it goes.
            Role::Leaving(why) => why == Leaving::ScaleIn && instance.node.is_some(),
            Role::Retired => false,
        };
        if must_run {
            free(draft, &instance);
            waits_for_its_volume(draft, &instance);
        }
    }
}

fn free(draft: &mut Draft, instance: &Instance) {
    if replace::due(draft, instance, Remedy::Free).is_none() {
        return;
    }
    let (observed, spec) = (draft.observed, draft.spec);
    let (Some(pod), Some(machine)) = (instance.pod, draft.instances.machine(instance)) else { return };
    if !volume(observed, instance).is_some_and(|volume| volume.exclusive) {
        let message = format!(
            "nothing keeps what may still run on machine {machine} from writing to the volume of {}: switch the machine off for good, and {}",
            instance.name,
            by_hand(instance)
        );
        draft.defer(instance.name, Reason::NetworkVolume, message);
        return;
    }
    if draft.is_disruptive() {
        return;
    }
    let mut gates = vec![gates::mode(spec, false)];
    // Whoever holds nothing is missed by nobody, and is not waited for by a database that is still to be created.
    if replace::holds_something(draft, instance) {
        gates.extend([
            gates::database(observed).map(drop),
            gates::zone(observed, spec, instance.group),
            gates::infrastructure(spec, &draft.instances, false),
            gates::alone(spec, observed.database.as_ref(), &draft.instances, instance),
            replace::others_hold(draft, instance),
        ]);
    }
    if !draft.may(instance.name, gates.into_iter().map(|gate| with_the_way_out(gate, instance, machine))) {
        return;
    }
    let why = format!("machine {machine} does not answer, and the volume can be used on another");
    draft.tell(false, "PodFreed", format!("the pod {} is taken off: {why}", instance.name));
    draft.act(Action::DeletePod { instance: instance.name.into(), uid: pod.uid.clone(), force: true, why });
}

/// What a person can do who knows better: here it is not the replacement, which would make everything anew.
fn with_the_way_out(gate: Gate, instance: &Instance, machine: &str) -> Gate {
    gate.map_err(|(reason, message)| match reason {
        Reason::Manual => {
            let hand = by_hand(instance);
            (reason, format!("failurePolicy.mode is Manual: if machine {machine} is off for good, {hand}"))
        }
        Reason::QuorumLost | Reason::TooManyAway => {
            let hand = by_hand(instance);
            (
                reason,
                format!("{message}; its volume is not lost: if machine {machine} is off for good, {hand}"),
            )
        }
        _ => (reason, message),
    })
}

fn by_hand(instance: &Instance) -> String {
    format!("delete its pod: kubectl delete pod {} --grace-period=0 --force", instance.name)
}

/// A pod that has left a machine that is away, and whose volume has not yet.
fn waits_for_its_volume(draft: &mut Draft, instance: &Instance) {
    let (Some(claim), Some(pod)) = (instance.claim, instance.pod) else { return };
    let (Some(host), Some(machine)) = (&claim.host, &pod.machine) else { return };
    let starts = !pod.containers_ready && !pod.deleting && pod.trouble.is_none() && instance.is_silent();
    let left = host.name != *machine
        && draft.observed.machines.as_ref().is_some_and(|machines| {
            machines.get(&host.name).is_none_or(|machine| !machine.ready)
                && machines.get(machine).is_some_and(|machine| machine.ready)
        });
    if starts && left && pinned(draft.observed, instance) == Some(false) {
        let message = format!(
            "{} starts on machine {machine} when Kubernetes has taken its volume from machine {}: that lasts up to six minutes, and no time if {} is off \
             for good and has the taint node.kubernetes.io/out-of-service",
            instance.name, host.name, host.name
        );
        draft.defer(instance.name, Reason::NetworkVolume, message);
    }
}
