//! Whose data directory this is.
//!
//! ```text
//! <dir>/identity   text, one `key = value` a line, the last line is the checksum of all before it:
//!     sarsen data directory
//!     format = 1
//!     cluster = 0123456789abcdef0123456789abcdef
//!     node = …            disk = …            128 random bits each, in hexadecimal
//!     shards = 64
//!     crc32 = 89abcdef
//! <dir>/lock       held by the process that has the directory open
//! ```
//!
//! A directory with data but without identity, with a damaged one, or with one of another format never serves. The file
//! appears by rename after it was fsynced, and nothing else is written before it.

use crate::{Error, Result};
use disk::{OpenMode, Vfs};
use model::SeriesKey;
use std::path::Path;

/// The format of everything under a data directory.
pub const FORMAT: u32 = 1;

const FILE: &str = "identity";
const TEMPORARY: &str = "identity.tmp";
const TITLE: &str = "sarsen data directory";
/// No identity is longer; a longer file is damaged.
const BYTES_MAX: u64 = 4096;

/// Who a data directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster: also the secret behind series ids.
    pub cluster: u128,
    /// The node.
    pub node: u128,
    /// The disk: a directory that was wiped gets another one.
    pub disk: u128,
    /// Number of shards, fixed for the life of the data.
    pub shards: u32,
}

impl Identity {
    /// The key with which labels become series ids.
    pub fn key(&self) -> SeriesKey {
        SeriesKey::of_cluster(self.cluster)
    }

    /// Why a directory with this identity is not the one meant, and the way out.
    fn foreign_to(&self, meant: &Identity) -> Option<String> {
        let differs = |what: &str, found: u128, meant: u128, way_out: &str| {
            (found != meant)
                .then(|| format!("it belongs to {what} {found:032x}, this is {meant:032x}; {way_out}"))
        };
        differs(
            "cluster",
            self.cluster,
            meant.cluster,
            "name this cluster's data directory, or an empty one to join as a new node",
        )
        .or_else(|| {
            let way_out = "name this node's data directory, or an empty one; two nodes never share one, and a copy is no node";
            differs("node", self.node, meant.node, way_out)
        })
        .or_else(|| {
            let way_out = "it is another disk of this node, perhaps an old copy; put the right one back, or empty it and its copies come from the other nodes";
            differs("disk", self.disk, meant.disk, way_out)
        })
    }

    fn render(&self) -> String {
        let Identity { cluster, node, disk, shards } = self;
        let body = format!(
            "{TITLE}\nformat = {FORMAT}\ncluster = {cluster:032x}\nnode = {node:032x}\ndisk = {disk:032x}\nshards = {shards}\n"
        );
        format!("{body}crc32 = {:08x}\n", crc32fast::hash(body.as_bytes()))
    }

    fn parse(text: &str) -> std::result::Result<Identity, String> {
        let damaged = || "the identity file is damaged".to_owned();
        let at = text.rfind("crc32 = ").ok_or_else(damaged)?;
        let (body, sum) = text.split_at(at);
        if sum != format!("crc32 = {:08x}\n", crc32fast::hash(body.as_bytes())) {
            return Err(damaged());
        }
        let mut lines = body.lines();
        if lines.next() != Some(TITLE) {
            return Err(damaged());
        }
        let mut fields = lines.filter_map(|line| line.split_once(" = "));
        let mut field =
            |key: &str| fields.next().filter(|(k, _)| *k == key).map(|(_, v)| v).ok_or_else(damaged);
        let format = field("format")?;
        if format != FORMAT.to_string() {
            return Err(format!(
                "its format is {format} and this program knows format {FORMAT}; start it with the version of sarsen that wrote it"
            ));
        }
        let mut hex = |key: &str| u128::from_str_radix(field(key)?, 16).map_err(|_| damaged());
        let (cluster, node, disk) = (hex("cluster")?, hex("node")?, hex("disk")?);
        let shards: u32 = field("shards")?.parse().map_err(|_| damaged())?;
        if !shards.is_power_of_two() || shards > 1 << 16 {
            return Err(damaged());
        }
        Ok(Identity { cluster, node, disk, shards })
    }

    /// Reads the identity of `dir`, which must have one.
    pub fn existing(vfs: &dyn Vfs, dir: &Path) -> Result<Identity> {
        read(vfs, dir)?.ok_or_else(|| {
            let why = "there is no data of sarsen (no identity file); name the directory that the server was started with";
            refused(dir, why.to_owned())
        })
    }

    /// Reads the identity of `dir`, which must be the `given` one if there is one; or gives it to an empty directory. Without it,
    /// an empty directory gets a new one with this many shards; `random` gives 128 random bits at a time.
    pub fn open(
        vfs: &dyn Vfs,
        dir: &Path,
        given: Option<Identity>,
        shards: u32,
        random: &dyn Fn() -> u128,
    ) -> Result<Identity> {
        let shards = given.map_or(shards, |given| given.shards);
        match read(vfs, dir)? {
            Some(identity) => match given.and_then(|given| identity.foreign_to(&given)) {
                Some(why) => Err(refused(dir, why)),
                None if identity.shards != shards => Err(refused(
                    dir,
                    format!(
                        "it was created with {} shards and the configuration says {shards}; set `storage.shards` back, the number is fixed for the life of the data",
                        identity.shards
                    ),
                )),
                None => Ok(identity),
            },
            None => {
                let has_data = vfs
                    .list(dir)?
                    .iter()
                    .any(|entry| entry.is_dir && ["wal", "blocks"].contains(&&*entry.name));
                if has_data {
                    return Err(refused(
                        dir,
                        "it has data but no identity file; put the identity file back from a backup, or choose an empty directory"
                            .to_owned(),
                    ));
                }
                let identity = given.unwrap_or_else(|| Identity {
                    cluster: random(),
                    node: random(),
                    disk: random(),
                    shards,
                });
                write(vfs, dir, &identity)?;
                Ok(identity)
            }
        }
    }
}

/// The identity of `dir`, without opening anything; `None` if it has none or does not exist. A damaged one is an error.
pub fn peek(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Identity>> {
    read(vfs, dir)
}

fn refused(dir: &Path, why: String) -> Error {
    Error::Refused { dir: dir.to_owned(), why }
}

fn read(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Identity>> {
    let path = dir.join(FILE);
    let file = match vfs.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.is_not_found() => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let mut bytes = vec![0; file.len()?.min(BYTES_MAX) as usize];
    file.read_exact_at(&mut bytes, 0)?;
    let text = String::from_utf8_lossy(&bytes);
    Identity::parse(&text).map(Some).map_err(|why| {
        refused(
            dir,
            format!(
                "{why} ({}); restore this file from a backup, or choose an empty directory",
                path.display()
            ),
        )
    })
}

fn write(vfs: &dyn Vfs, dir: &Path, identity: &Identity) -> Result<()> {
    let temporary = dir.join(TEMPORARY);
    // What a crash left of an earlier attempt.
    match vfs.remove(&temporary) {
        Err(e) if !e.is_not_found() => return Err(e.into()),
        _ => {}
    }
    let file = vfs.open(&temporary, OpenMode::Create)?;
    file.write_all_at(identity.render().as_bytes(), 0)?;
    // The content before the name, the name before anything that relies on it.
    file.sync_data()?;
    vfs.rename(&temporary, &dir.join(FILE))?;
    vfs.sync_dir(dir)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_every_damaged_byte_is_noticed() {
        let identity = Identity { cluster: 1 << 100, node: 2, disk: u128::MAX, shards: 64 };
        let text = identity.render();
        assert_eq!(Identity::parse(&text), Ok(identity));
        for i in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[i] ^= 1;
            assert!(Identity::parse(&String::from_utf8_lossy(&bytes)).is_err(), "byte {i}");
            assert!(Identity::parse(&text[..i]).is_err(), "cut at {i}");
        }
    }

    #[test]
    fn the_format_page_shows_the_text_that_is_written() {
        let page = include_str!("../../docs/format/data-directory.md");
        let text = Identity { cluster: 1, node: 2, disk: 3, shards: 64 }.render();
        assert!(page.contains(&text), "docs/format/data-directory.md does not show:\n{text}");
    }

    #[test]
    fn another_format_names_the_way_out() {
        let body = Identity { cluster: 1, node: 2, disk: 3, shards: 64 }
            .render()
            .replace("format = 1", "format = 2");
        let body = &body[..body.rfind("crc32").unwrap()];
        let text = format!("{body}crc32 = {:08x}\n", crc32fast::hash(body.as_bytes()));
        assert!(Identity::parse(&text).unwrap_err().contains("version of sarsen that wrote it"));
    }
}
