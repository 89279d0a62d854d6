//! What a disk holds: files by pages that are shared until they are written to, so that copying an image costs little.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use std::sync::Arc;

const PAGE_BYTES: usize = 4096;

/// A file or folder, whatever its name.
pub(super) type NodeId = u64;

/// The folder that every path begins in.
pub(super) const ROOT: NodeId = 0;

/// The bytes of a file. Pages that are not there are zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE_BYTES]>>,
}

impl Content {
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let there = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let mut done = 0;
        while done < there {
            let at = offset + done as u64;
            let within = (at % PAGE_BYTES as u64) as usize;
            let n = (PAGE_BYTES - within).min(there - done);
            match self.pages.get(&(at / PAGE_BYTES as u64)) {
                Some(page) => buf[done..done + n].copy_from_slice(&page[within..within + n]),
                None => buf[done..done + n].fill(0),
            }
            done += n;
        }
        there
    }

    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = (at % PAGE_BYTES as u64) as usize;
            let n = (PAGE_BYTES - within).min(bytes.len() - done);
            let page = self.pages.entry(at / PAGE_BYTES as u64).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[within..within + n].copy_from_slice(&bytes[done..done + n]);
            done += n;
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            let within = (len % PAGE_BYTES as u64) as usize;
            let last = len / PAGE_BYTES as u64;
            self.pages.split_off(&(last + u64::from(within > 0)));
            if let Some(page) = self.pages.get_mut(&last) {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }

    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        self.read(&mut bytes, 0);
        bytes
    }
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(Arc<Content>),
    Folder(Arc<BTreeMap<String, NodeId>>),
}

/// A change of one name in one folder: what it leads to now, if anything.
pub(super) type Link = (NodeId, Arc<str>, Option<NodeId>);

/// Files and folders by number. Nodes without a name are kept for as long as somebody may have them open.
#[derive(Clone, Debug)]
pub(super) struct Image {
    nodes: BTreeMap<NodeId, Node>,
}

impl Image {
    pub fn empty() -> Image {
        Image { nodes: BTreeMap::from([(ROOT, Node::Folder(Arc::default()))]) }
    }

    pub fn insert(&mut self, id: NodeId, node: Node) {
        self.nodes.insert(id, node);
    }

    pub fn node_count(&self) -> u64 {
        self.nodes.last_key_value().map_or(0, |(id, _)| id + 1)
    }

    pub fn folder(&self, id: NodeId) -> Option<&BTreeMap<String, NodeId>> {
        match self.nodes.get(&id) {
            Some(Node::Folder(entries)) => Some(entries),
            _ => None,
        }
    }

    pub fn file(&self, id: NodeId) -> Option<&Arc<Content>> {
        match self.nodes.get(&id) {
            Some(Node::File(content)) => Some(content),
            _ => None,
        }
    }

    pub fn content(&mut self, id: NodeId) -> &mut Content {
        match self.nodes.get_mut(&id) {
            Some(Node::File(content)) => Arc::make_mut(content),
            _ => panic!("BUG: node {id} is not a file"),
        }
    }

    pub fn link(&mut self, (folder, name, to): &Link) {
        let Some(Node::Folder(entries)) = self.nodes.get_mut(folder) else { return };
        let entries = Arc::make_mut(entries);
        match to {
            Some(node) => entries.insert(name.to_string(), *node),
            None => entries.remove(&**name),
        };
    }

    /// The node that a path leads to.
    pub fn resolve(&self, path: &Path) -> Option<NodeId> {
        let mut node = ROOT;
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                Component::Normal(name) => node = *self.folder(node)?.get(name.to_str()?)?,
                Component::ParentDir => return None,
            }
        }
        Some(node)
    }

    /// What can be reached from the root or from these nodes.
    pub fn reachable(&self, also: impl Iterator<Item = NodeId>) -> BTreeSet<NodeId> {
        let mut reached = BTreeSet::new();
        let mut todo: Vec<NodeId> = also.chain([ROOT]).collect();
        while let Some(node) = todo.pop() {
            if reached.insert(node) {
                todo.extend(self.folder(node).into_iter().flat_map(|entries| entries.values()));
            }
        }
        reached
    }

    /// Forgets what no name leads to: after a crash nobody has it open.
    pub fn sweep(&mut self) {
        let reached = self.reachable(std::iter::empty());
        self.nodes.retain(|id, _| reached.contains(id));
    }
}
