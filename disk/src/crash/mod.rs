//! A file system in memory that can lose power.
//!
//! [`CrashVfs`] behaves like a disk behind a page cache and writes down every operation. [`CrashVfs::journal`] takes the
//! record; from it come, for a crash after any number of operations, the disks that could be found afterwards. Each is
//! a `CrashVfs` again, so that what recovers on it can crash too.
//!
//! ```
//! # use disk::{CrashVfs, OpenMode, Vfs, crash::Exploration};
//! # use std::path::Path;
//! let vfs = CrashVfs::new();
//! let path = Path::new("/a");
//! let file = vfs.open(path, OpenMode::Create)?;
//! file.write_all_at(b"hello", 0)?;
//! file.sync_data()?;
//! let before = vfs.operations(); // what was promised so far holds for crashes after this many operations
//! vfs.sync_dir(Path::new("/"))?;
//! for crash in vfs.journal().states(&Exploration::default()) {
//!     assert!(crash.after <= before || crash.vfs.exists(path)?, "{crash}");
//! }
//! # Ok::<(), disk::Error>(())
//! ```
//!
//! What may happen to an operation that was not synced:
//!
//! * a write reaches the disk whole, not at all, or by any of its sectors; what is missing inside the file shows the bytes
//!   from before, beyond the durable length zeros or garbage;
//! * the file's length is that after any of the operations on this file since its last sync, whatever became of the data;
//! * names made, renamed or removed since their folder was synced are each as before or as after, in any combination.
//!   `sync_data` of a file does not make its name durable. A rename is atomic, and durable with either of its folders.
//!
//! Folders made by `create_dir_all` are durable at once, as the trait promises, and so are the other names in their
//! parents. Lock files leave no trace.

mod image;
mod journal;

pub use journal::{Crash, Exploration, Journal, Survivors};

use crate::Error;
use crate::lots::Lots;
use crate::vfs::{Entry, File, Mapped, OpenMode, Result, Space, Vfs};
use image::{Image, Link, Node, NodeId};
use journal::Op;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The crash-simulating file system; clones share it.
#[derive(Clone)]
pub struct CrashVfs {
    world: Arc<Mutex<World>>,
}

struct World {
    /// What was durable at the beginning.
    base: Image,
    /// What a running program sees.
    live: Image,
    ops: Vec<Op>,
    next_node: NodeId,
    /// By [`Vfs::unique`].
    drawn: u64,
    /// By how many guards; whoever has a path alone counts as [`ALONE`].
    locked: BTreeMap<PathBuf, u32>,
}

/// What reads show once the kernel has given up on dirty pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The new bytes, for as long as the page stays in memory: it is called clean although the disk never got it.
    Readable,
    /// The old bytes: the page was evicted and read again.
    Evicted,
}

impl CrashVfs {
    /// An empty disk.
    pub fn new() -> CrashVfs {
        CrashVfs::from_image(Image::empty())
    }

    fn from_image(image: Image) -> CrashVfs {
        let next_node = image.node_count();
        let world = World {
            base: image.clone(),
            live: image,
            ops: Vec::new(),
            next_node,
            drawn: 0,
            locked: BTreeMap::new(),
        };
        CrashVfs { world: Arc::new(Mutex::new(world)) }
    }

    /// How many operations that change something there were. A promise made now is checked in crashes after this many or more.
    pub fn operations(&self) -> usize {
        self.world.lock().ops.len()
    }

    /// Everything that happened so far.
    pub fn journal(&self) -> Journal {
        let world = self.world.lock();
        Journal::new(world.base.clone(), world.ops.clone())
    }

    /// Does to a file's un-synced writes what Linux does when fsync fails: they will never reach the disk, while a later
    /// fsync reports success. The length is kept.
    pub fn drop_unsynced(&self, path: &Path, dropped: Dropped) -> Result<()> {
        let mut world = self.world.lock();
        let node = world.file("drop pages", path)?;
        world.ops.push(Op::Dropped { node });
        if dropped == Dropped::Evicted {
            let len = world.live.content(node).len();
            let durable = Journal::new(world.base.clone(), world.ops.clone()).durable_content(node);
            let content = world.live.content(node);
            *content = durable;
            content.set_len(len);
        }
        Ok(())
    }
}

impl Default for CrashVfs {
    fn default() -> CrashVfs {
        CrashVfs::new()
    }
}

fn fail<T>(op: &'static str, path: &Path, kind: io::ErrorKind) -> Result<T> {
    Err(Error::Io { op, path: path.to_owned(), source: kind.into() })
}

impl World {
    fn file(&self, op: &'static str, path: &Path) -> Result<NodeId> {
        match self.live.resolve(path) {
            Some(node) if self.live.file(node).is_some() => Ok(node),
            Some(_) => fail(op, path, io::ErrorKind::IsADirectory),
            None => fail(op, path, io::ErrorKind::NotFound),
        }
    }

    fn folder(&self, op: &'static str, path: &Path) -> Result<NodeId> {
        match self.live.resolve(path) {
            Some(node) if self.live.folder(node).is_some() => Ok(node),
            Some(_) => fail(op, path, io::ErrorKind::NotADirectory),
            None => fail(op, path, io::ErrorKind::NotFound),
        }
    }

    /// The folder that holds `path`, and the name in it.
    fn parent(&self, op: &'static str, path: &Path) -> Result<(NodeId, Arc<str>)> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return fail(op, path, io::ErrorKind::InvalidInput);
        };
        let folder = self.folder(op, path.parent().unwrap_or(Path::new("")))?;
        Ok((folder, name.into()))
    }

    fn new_node(&mut self, node: Node) -> NodeId {
        let id = self.next_node;
        self.next_node += 1;
        self.live.insert(id, node);
        id
    }

    /// Changes names, all or none of them.
    fn link(&mut self, links: Vec<Link>) {
        links.iter().for_each(|link| self.live.link(link));
        self.ops.push(Op::Links(links.into()));
    }
}

impl Vfs for CrashVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        let mut world = self.world.lock();
        let node = match mode {
            OpenMode::Read | OpenMode::Write => world.file("open", path)?,
            OpenMode::Create => {
                let (folder, name) = world.parent("create", path)?;
                if world.live.resolve(path).is_some() {
                    return fail("create", path, io::ErrorKind::AlreadyExists);
                }
                let node = world.new_node(Node::File(Arc::default()));
                world.link(vec![(folder, name, Some(node))]);
                node
            }
        };
        Ok(Box::new(CrashFile {
            world: self.world.clone(),
            node,
            path: path.to_owned(),
            writable: mode != OpenMode::Read,
        }))
    }

    fn map(&self, path: &Path) -> Result<Mapped> {
        let world = self.world.lock();
        let node = world.file("map", path)?;
        let bytes = world.live.file(node).map(|content| content.to_vec()).unwrap_or_default();
        Ok(Mapped(Arc::new(bytes)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut world = self.world.lock();
        let Some(node) = world.live.resolve(from) else {
            return fail("rename", from, io::ErrorKind::NotFound);
        };
        let (from_folder, from_name) = world.parent("rename", from)?;
        let (to_folder, to_name) = world.parent("rename", to)?;
        let is_folder = world.live.folder(node).is_some();
        if let Some(there) = world.live.resolve(to) {
            if there == node {
                return Ok(());
            }
            match (is_folder, world.live.folder(there)) {
                (true, Some(entries)) if entries.is_empty() => {}
                (true, Some(_)) => return fail("rename", to, io::ErrorKind::DirectoryNotEmpty),
                (true, None) => return fail("rename", to, io::ErrorKind::NotADirectory),
                (false, Some(_)) => return fail("rename", to, io::ErrorKind::IsADirectory),
                (false, None) => {}
            }
        }
        world.link(vec![(from_folder, from_name, None), (to_folder, to_name, Some(node))]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut world = self.world.lock();
        world.file("remove", path)?;
        let (folder, name) = world.parent("remove", path)?;
        world.link(vec![(folder, name, None)]);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        let mut world = self.world.lock();
        let node = world.folder("remove folder", path)?;
        if world.live.folder(node).is_some_and(|entries| !entries.is_empty()) {
            return fail("remove folder", path, io::ErrorKind::DirectoryNotEmpty);
        }
        let (folder, name) = world.parent("remove folder", path)?;
        world.link(vec![(folder, name, None)]);
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let mut world = self.world.lock();
        let ancestors: Vec<&Path> = path.ancestors().collect();
        for folder in ancestors.into_iter().rev() {
            match world.live.resolve(folder) {
                Some(node) if world.live.folder(node).is_some() => {}
                Some(_) => return fail("create folder", folder, io::ErrorKind::AlreadyExists),
                None => {
                    let (parent, name) = world.parent("create folder", folder)?;
                    let node = world.new_node(Node::Folder(Arc::default()));
                    let link = (parent, name, Some(node));
                    world.live.link(&link);
                    world.ops.push(Op::Folder(link));
                }
            }
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<Entry>> {
        let world = self.world.lock();
        let folder = world.folder("list", path)?;
        let entries = world.live.folder(folder).into_iter().flatten();
        let entry = |(name, node): (&String, &NodeId)| match world.live.file(*node) {
            Some(content) => Entry { name: name.clone(), is_dir: false, len: content.len() },
            None => Entry { name: name.clone(), is_dir: true, len: 0 },
        };
        Ok(entries.map(entry).collect())
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let mut world = self.world.lock();
        let node = world.folder("sync folder", path)?;
        world.ops.push(Op::SyncFolder { node });
        Ok(())
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        Ok(self.world.lock().live.resolve(path).is_some())
    }

    fn space(&self, path: &Path) -> Result<Space> {
        let world = self.world.lock();
        match world.live.resolve(path) {
            Some(_) => Ok(Space { free: 1 << 40, total: 1 << 40 }),
            None => fail("statvfs", path, io::ErrorKind::NotFound),
        }
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>> {
        let mut world = self.world.lock();
        world.parent("open lock", path)?;
        if world.locked.contains_key(path) {
            return Ok(None);
        }
        world.locked.insert(path.to_owned(), ALONE);
        Ok(Some(Box::new(Lock { world: self.world.clone(), path: path.to_owned() })))
    }

    fn lock_shared(&self, path: &Path) -> Result<Option<Box<dyn Send + Sync>>> {
        let mut world = self.world.lock();
        world.parent("open lock", path)?;
        let guards = world.locked.entry(path.to_owned()).or_default();
        if *guards == ALONE {
            return Ok(None);
        }
        *guards += 1;
        Ok(Some(Box::new(Lock { world: self.world.clone(), path: path.to_owned() })))
    }

    fn unique(&self) -> u64 {
        let mut world = self.world.lock();
        world.drawn += 1;
        // Every file that was ever made has raised the first, so that a disk after a crash goes on with other numbers.
        Lots(world.next_node << 32 ^ world.drawn).next()
    }
}

const ALONE: u32 = u32::MAX;

struct Lock {
    world: Arc<Mutex<World>>,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut world = self.world.lock();
        match world.locked.get_mut(&self.path) {
            Some(guards) if (2..ALONE).contains(guards) => *guards -= 1,
            _ => {
                world.locked.remove(&self.path);
            }
        }
    }
}

struct CrashFile {
    world: Arc<Mutex<World>>,
    node: NodeId,
    path: PathBuf,
    writable: bool,
}

impl CrashFile {
    fn change(&self, op: &'static str, change: Op) -> Result<()> {
        if !self.writable {
            return fail(op, &self.path, io::ErrorKind::PermissionDenied);
        }
        let mut world = self.world.lock();
        change.apply_data(world.live.content(self.node));
        world.ops.push(change);
        Ok(())
    }
}

impl File for CrashFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        Ok(self.world.lock().live.file(self.node).map_or(0, |content| content.read(buf, offset)))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.change("write", Op::Write { node: self.node, offset, bytes: bytes.into() })
    }

    fn sync_data(&self) -> Result<()> {
        self.world.lock().ops.push(Op::SyncFile { node: self.node });
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.world.lock().live.file(self.node).map_or(0, |content| content.len()))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        if self.len()? == len {
            return Ok(());
        }
        self.change("set length", Op::SetLen { node: self.node, len })
    }

    fn allocate(&self, len: u64) -> Result<()> {
        if self.len()? >= len {
            return Ok(());
        }
        self.change("allocate", Op::SetLen { node: self.node, len })
    }
}
