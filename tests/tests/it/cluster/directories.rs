//! Data directories that are not what they should be.

use super::*;
use std::fs;
use std::path::Path;
use tests::cluster::{Cluster, Member};
use tests::namespaces::{inside, run};
use tests::until::until;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a folder can be listed").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}

/// A cluster of three that has data.
fn filled(dir: &Path) -> Cluster {
    let cluster = Cluster::start(dir, 3);
    let loads = [Load::new("a", 20, yesterday(), 1_000)];
    under_load(&loads, &cluster.clients(), 3, || progress(&loads, 10));
    cluster
}

#[test]
fn a_wiped_directory_at_a_known_address_is_refused() {
    let dir = folder();
    let mut cluster = filled(dir.path());
    cluster.nodes[2].kill();
    fs::remove_dir_all(dir.path().join("node2/data")).expect("a folder can be removed");
    let said = cluster.nodes[2].refused(10);
    assert!(said.contains(&cluster.nodes[2].address), "{said}");
    assert!(said.contains("its directory was lost or not mounted, put the directory back"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn a_volume_that_cannot_be_written_is_a_failed_disk() {
    if !inside("cluster::directories::a_volume_that_cannot_be_written_is_a_failed_disk") {
        return;
    }
    run("ip link set lo up");
    let dir = folder();
    let mut cluster = Cluster::start(dir.path(), 1);
    cluster.nodes[0].terminate();
    let data = dir.path().join("node0/data").display().to_string();
    run(&format!("mount --bind {data} {data}"));
    run(&format!("mount -o remount,ro,bind {data}"));
    let said = cluster.nodes[0].refused(16);
    assert!(said.contains("Read-only file system"), "{said}");
    run(&format!("umount {data}"));
    cluster.nodes[0].start();
}

#[test]
fn a_directory_without_its_control_log_is_refused() {
    let dir = folder();
    let mut cluster = filled(dir.path());
    cluster.nodes[1].kill();
    fs::remove_dir_all(dir.path().join("node1/data/cluster/raft")).expect("a folder can be removed");
    let said = cluster.nodes[1].refused(10);
    assert!(said.contains("partly wiped"), "{said}");
}

#[test]
fn a_node_of_another_cluster_is_refused_by_name_and_told_what_to_do() {
    let dir = folder();
    let cluster = filled(dir.path());
    let facts = || {
        let status = cluster.nodes[0].status().expect("an answer");
        let ids: Vec<String> =
            status["nodes"].as_array().into_iter().flatten().map(|node| node["id"].to_string()).collect();
        (status["cluster"].as_str().expect("an id").to_owned(), status["epoch"].to_string(), ids)
    };
    let before = facts();
    let mut other = Cluster::start(&dir.path().join("other"), 1);
    let status = other.nodes[0].status().expect("an answer");
    let its_own = status["cluster"].as_str().expect("an id").to_owned();
    other.nodes[0].terminate();
    // Its folder, the flags of somebody who wants to join the first cluster.
    let join = [cluster.nodes[0].address.clone()];
    let settings = Settings::default();
    let folder = dir.path().join("other/node0");
    let said = Member::new(&folder, &settings, &join, Some(&cluster.token)).refused(11);
    let words = format!("the data directory belongs to cluster {its_own}, and --join names another");
    assert!(said.contains(&words) && said.contains(&before.0), "{said}");
    assert!(said.contains("take --join away") && said.contains("an empty data directory to join"), "{said}");
    assert_eq!(facts(), before);
    cluster.await_safe();
    // The first of the two ways out that it names.
    Member::new(&folder, &settings, &[], Some(&other.token)).start();
}

#[test]
fn a_copy_of_a_running_nodes_directory_is_refused() {
    let dir = folder();
    let mut cluster = filled(dir.path());
    cluster.nodes[1].terminate();
    copy(&dir.path().join("node1/data"), &dir.path().join("copy/data"));
    cluster.nodes[1].start();
    cluster.await_safe();
    let join = [cluster.nodes[0].address.clone()];
    let mut copied = Member::new(&dir.path().join("copy"), &Settings::default(), &join, Some(&cluster.token));
    let said = copied.refused(13);
    assert!(said.contains("copies of one data directory"), "{said}");
    cluster.await_safe();
}

#[test]
fn an_old_backup_of_a_directory_is_refused() {
    let dir = folder();
    let mut cluster = filled(dir.path());
    cluster.nodes[1].terminate();
    copy(&dir.path().join("node1/data"), &dir.path().join("backup"));
    for starts in [2, 3] {
        cluster.nodes[1].start();
        cluster.await_safe();
        // What tells an old directory is how often the cluster has agreed that it was started.
        until("the start to be agreed on", PATIENCE, || {
            let status = cluster.nodes[0].status()?;
            let nodes = status["nodes"].as_array().ok_or("no nodes")?;
            let node = nodes.iter().find(|node| node["address"] == *cluster.nodes[1].address);
            if node.is_some_and(|node| node["starts"] == starts) { Ok(()) } else { Err(status.to_string()) }
        });
        cluster.nodes[1].terminate();
    }
    fs::remove_dir_all(dir.path().join("node1/data")).expect("a folder can be removed");
    copy(&dir.path().join("backup"), &dir.path().join("node1/data"));
    let said = cluster.nodes[1].refused(12);
    assert!(said.contains("old") || said.contains("copy"), "{said}");
}

#[test]
fn an_old_copy_is_refused_although_the_start_after_it_was_never_agreed_on() {
    let dir = folder();
    let mut cluster = filled(dir.path());
    cluster.nodes[1].terminate();
    copy(&dir.path().join("node1/data"), &dir.path().join("backup"));
    // One of three has no leader, and two need a second or more to find one.
    cluster.nodes[2].kill();
    until("there to be no leader", PATIENCE, || {
        let status = cluster.nodes[0].status()?;
        if status["leader"].is_null() { Ok(()) } else { Err(status.to_string()) }
    });
    cluster.nodes[1].start();
    // It is one of the two of three that have this sample, and the copy has not.
    until("a write", PATIENCE, || {
        let client = &cluster.nodes[0].client;
        let answer = client.send("POST", "/api/v1/import/prometheus", &[], b"after_the_copy 1\n")?;
        if answer.status == 204 { Ok(()) } else { Err(answer.body) }
    });
    cluster.nodes[1].kill();
    fs::remove_dir_all(dir.path().join("node1/data")).expect("a folder can be removed");
    copy(&dir.path().join("backup"), &dir.path().join("node1/data"));
    // It was started as often as the one that has died, so that it may as well be a second process.
    let said = cluster.nodes[1].refused(13);
    assert!(said.contains("old copy"), "{said}");
}
