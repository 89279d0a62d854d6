//! Controllers by themselves and against each other.

use super::*;
use crate::placement::Domain;
use crate::raft::Durable;

pub fn me(n: u16, boot: u128) -> Me {
    Me {
        address: format!("10.0.0.{n}:7421"),
        http_address: format!("10.0.0.{n}:7420"),
        zone: format!("z{n}").parse::<Domain>().unwrap(),
        capacity: 10,
        boot,
    }
}

pub const MAKE: Make = Make { shards: 8, replication_factor: 3 };

#[test]
fn a_cluster_of_one_leads_and_takes_commands_without_a_tick() {
    let mut lots = 7;
    let mut dice = || {
        lots += 1;
        lots
    };
    let start = decide(&Flags::default(), None, None, &Durable::default(), &mut dice).unwrap();
    assert_eq!((start.how, start.file.phase, start.file.starts), (How::Create, Phase::Creating, 1));
    let mut out = Vec::new();
    let mut controller =
        Controller::new(start, me(1, 99), MAKE, Durable::default(), Options::default(), 0, &mut out).unwrap();
    controller.step(0, Event::Local { token: 5, command: crate::state::Command::NoteData }, &mut out);
    let (mut at, mut done, mut phase) = (0, None, None);
    while at < out.len() {
        let effect = out[at].clone();
        at += 1;
        match effect {
            Effect::Persist(batch) => controller.step(0, Event::Persisted(batch.sequence), &mut out),
            Effect::Done { token, result } => done = Some((token, result)),
            Effect::Remember(file) => phase = Some(file.phase),
            Effect::Fatal(why) => panic!("{why}"),
            _ => {}
        }
    }
    assert_eq!(done, Some((5, Ok(crate::state::Outcome::Done))));
    assert_eq!(phase, Some(Phase::Member));
    let view = controller.view().unwrap();
    assert!(view.has_data && view.leader == Some(controller.me()) && view.epoch() == 1);
    assert_eq!(view.held_by(controller.me()).len(), 8);
}
