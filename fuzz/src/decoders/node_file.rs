//! The file `cluster/node`: refused, or the only form of what it says.

use cluster::control::{NodeFile, Phase};
use cluster::placement::NodeId;

pub fn check(body: &[u8]) -> bool {
    // As it is, its checksum refuses it.
    let _ = NodeFile::parse(&String::from_utf8_lossy(body));
    let text = super::sealed(body);
    let Ok(text) = std::str::from_utf8(&text) else { return false };
    let Ok(file) = NodeFile::parse(text) else { return false };
    assert_eq!(file.render(), text);
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let file = |phase, cluster, member| NodeFile {
        phase,
        cluster,
        node: NodeId(3),
        disk: 4,
        member,
        incarnation: 5,
        starts: 17,
        epoch: 40,
    };
    [file(Phase::Member, 2, 3), file(Phase::Joining, 0, 0), file(Phase::Creating, 2, 0)]
        .map(|file| super::unsealed(file.render().as_bytes()))
        .into()
}
