//! Which series have which labels, in memory.
//!
//! A label is interned whole, as its bytes in the canonical form of a label set, so that the labels of a series are the
//! concatenation of its labels' bytes. Each label knows the slots of the series that carry it, in ascending order
//! because slots are only ever handed out upwards.

use crate::Result;
use crate::postings::{self, Values};
use hashbrown::HashTable;
use model::labels;
use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

/// One label, its bytes and its series.
struct Label {
    at: u32,
    len: u32,
    slots: Vec<u32>,
}

/// One label name and its values.
struct Name {
    name: Box<str>,
    /// Indices into `Index::labels`, in the order of first appearance.
    labels: Vec<u32>,
}

/// The labels of one head.
#[derive(Default)]
pub struct Index {
    /// The canonical bytes of every label, one after the other.
    bytes: Vec<u8>,
    labels: Vec<Label>,
    by_bytes: HashTable<u32>,
    names: Vec<Name>,
    by_name: HashTable<u32>,
    hasher: RandomState,
    series: u32,
    postings: usize,
}

/// Splits canonical label bytes into the bytes of its labels.
fn split(mut canonical: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = model::varint::take(canonical.get(1..)?)?;
        let end = canonical.len() - rest.len() + len as usize;
        let (label, after) = canonical.split_at(end);
        canonical = after;
        Some(label)
    })
}

impl Index {
    /// Adds the series in `slot`, which must be above all slots so far, and appends the numbers of its labels to `refs`.
    pub fn insert(&mut self, slot: u32, canonical: &[u8], refs: &mut Vec<u32>) {
        for label in split(canonical) {
            let number = self.intern(label);
            let slots = &mut self.labels[number as usize].slots;
            debug_assert!(slots.last().is_none_or(|&last| last < slot), "BUG: slots must ascend");
            slots.push(slot);
            refs.push(number);
            self.postings += 1;
        }
        self.series = slot + 1;
    }

    fn intern(&mut self, label: &[u8]) -> u32 {
        let Index { bytes, labels, by_bytes, hasher, .. } = self;
        let text = |l: &Label| &bytes[l.at as usize..(l.at + l.len) as usize];
        let hash = hasher.hash_one(label);
        if let Some(&number) = by_bytes.find(hash, |&n| text(&labels[n as usize]) == label) {
            return number;
        }
        let number = u32::try_from(labels.len()).expect("BUG: more labels than u32 can count");
        by_bytes.insert_unique(hash, number, |&n| hasher.hash_one(text(&labels[n as usize])));
        let at = u32::try_from(bytes.len()).expect("BUG: over 4 GiB of labels in one shard");
        labels.push(Label { at, len: label.len() as u32, slots: Vec::new() });
        bytes.extend_from_slice(label);
        let (name, _) = labels::Iter::new(label).next().expect("BUG: a label without a name");
        let name = self.intern_name(name);
        self.names[name as usize].labels.push(number);
        number
    }

    fn intern_name(&mut self, name: &str) -> u32 {
        let Index { names, by_name, hasher, .. } = self;
        let hash = hasher.hash_one(name);
        if let Some(&number) = by_name.find(hash, |&n| &*names[n as usize].name == name) {
            return number;
        }
        let number = names.len() as u32;
        by_name.insert_unique(hash, number, |&n| hasher.hash_one(&*names[n as usize].name));
        names.push(Name { name: name.into(), labels: Vec::new() });
        number
    }

    /// The canonical bytes of one label.
    pub fn label(&self, number: u32) -> &[u8] {
        let label = &self.labels[number as usize];
        &self.bytes[label.at as usize..(label.at + label.len) as usize]
    }

    fn value(&self, number: u32) -> &str {
        labels::Iter::new(self.label(number)).next().expect("BUG: a label without a value").1
    }

    /// Every label name with its values, each value with its series.
    pub fn names(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = (&str, &[u32])>)> {
        self.names.iter().map(|name| {
            let values = name.labels.iter().map(|&n| (self.value(n), &self.labels[n as usize].slots[..]));
            (&*name.name, values)
        })
    }

    /// The names of which a label is wanted.
    pub fn names_where(&self, wanted: impl Fn(u32) -> bool) -> impl Iterator<Item = &str> {
        let names = self.names.iter().filter(move |name| name.labels.iter().any(|&n| wanted(n)));
        names.map(|name| &*name.name)
    }

    /// The values of the wanted labels of one name.
    pub fn values_where(&self, name: &str, wanted: impl Fn(u32) -> bool) -> impl Iterator<Item = &str> {
        self.labels_of(name).iter().filter(move |&&n| wanted(n)).map(|&n| self.value(n))
    }

    /// The series that have a label.
    pub fn slots(&self, number: u32) -> &[u32] {
        &self.labels[number as usize].slots
    }

    /// How many labels there are; their numbers are below this.
    pub fn label_count(&self) -> usize {
        self.labels.len()
    }

    /// The numbers of the labels of one name.
    fn labels_of(&self, name: &str) -> &[u32] {
        let hash = self.hasher.hash_one(name);
        let found = self.by_name.find(hash, |&n| &*self.names[n as usize].name == name);
        found.map_or(&[], |&n| &self.names[n as usize].labels)
    }

    /// The series with this very label.
    fn slots_of(&self, name: &str, value: &str) -> &[u32] {
        let mut label = Vec::with_capacity(name.len() + value.len() + 12);
        labels::push(&mut label, name.as_bytes(), value.as_bytes());
        let hash = self.hasher.hash_one(&label[..]);
        match self.by_bytes.find(hash, |&n| self.label(n) == label) {
            Some(&number) => &self.labels[number as usize].slots,
            None => &[],
        }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.bytes.capacity()
            + self.labels.capacity() * size_of::<Label>()
            + self.by_bytes.capacity() * 5
            + self.labels.len() * 4
            // Vectors that grow by doubling are three quarters full on average.
            + self.postings * 16 / 3
    }
}

impl postings::Index for Index {
    fn all(&self) -> Result<Vec<u32>> {
        Ok((0..self.series).collect())
    }

    fn postings(&self, name: &str, value: &str) -> Result<Cow<'_, [u32]>> {
        Ok(self.slots_of(name, value).into())
    }

    fn having(&self, name: &str) -> Result<Cow<'_, [u32]>> {
        let lists = self.labels_of(name).iter().map(|&n| Cow::from(&self.labels[n as usize].slots));
        Ok(postings::union(lists.collect()).into())
    }

    fn matching(&self, name: &str, values: &Values<'_>) -> Result<Vec<Cow<'_, [u32]>>> {
        let labels = self.labels_of(name).iter().filter(|&&n| values.contain(self.value(n)));
        Ok(labels.map(|&n| Cow::from(&self.labels[n as usize].slots)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postings::Index as _;
    use model::Labels;

    #[test]
    fn labels_come_back_as_the_bytes_they_were() {
        let mut index = Index::default();
        let long = "x".repeat(300);
        let sets = [
            vec![("__name__", "up"), ("job", "a")],
            vec![("__name__", "up"), ("job", long.as_str())],
            vec![],
        ];
        for (slot, pairs) in sets.into_iter().enumerate() {
            let labels = Labels::from_pairs(pairs).unwrap();
            let mut refs = Vec::new();
            index.insert(slot as u32, labels.as_bytes(), &mut refs);
            let bytes: Vec<u8> = refs.iter().flat_map(|&r| index.label(r).to_vec()).collect();
            assert_eq!(bytes, labels.as_bytes());
        }
        assert_eq!(index.slots_of("__name__", "up"), [0, 1]);
        assert_eq!(index.slots_of("job", &long), [1]);
        assert_eq!(index.slots_of("job", "b"), [0u32; 0]);
        assert_eq!(*index.having("job").unwrap(), [0, 1]);
        assert_eq!(index.having("nope").unwrap().len(), 0);
        assert_eq!(index.all().unwrap(), [0, 1, 2]);
    }
}
