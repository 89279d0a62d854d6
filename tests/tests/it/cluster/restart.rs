//! Nodes that are restarted one after the other, as for an upgrade.

use super::*;
use tests::cluster::Cluster;
use tests::random::Random;

#[test]
fn a_rolling_restart_fails_no_request_and_moves_nothing() {
    let mut random = Random::announced("rolling restart");
    let dir = folder();
    let mut cluster = Cluster::start(dir.path(), 3);
    let loads = ["a", "b"].map(|name| Load::new(name, 50, yesterday(), 1_000));
    let clients = cluster.clients();
    // No request but those of a node that is away is sent again, and none of them waits long.
    under_load(&loads, &clients, random.number(), || {
        progress(&loads, 20);
        let epoch = |cluster: &Cluster| cluster.nodes[0].status().expect("a status")["epoch"].clone();
        let before = epoch(&cluster);
        for number in [0, 1, 2] {
            let drained = cluster.nodes[number].client.get("/drain").expect("an answer");
            assert_eq!(drained.status, 200, "{drained:?}");
            let me = cluster.nodes[number].status().expect("a status")["me"].clone();
            assert_ne!(drained.json()["leader"], me, "another leads: {drained:?}");
            let ready = cluster.nodes[number].client.get("/-/ready").expect("an answer");
            assert_eq!((ready.status, &ready.json()["state"]), (503, &"drained".into()), "{ready:?}");
            progress(&loads, 20);
            cluster.nodes[number].terminate();
            progress(&loads, 20);
            cluster.nodes[number].start();
            cluster.await_safe();
        }
        assert_eq!(epoch(&cluster), before, "a restart moves nothing");
    });
    check_all(&loads, &clients);
}
