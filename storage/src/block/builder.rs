//! Writes a block.

use super::format::{FORMAT_VERSION, Footer, MAGIC, PAGE, page_checksum};
use super::series::{self, Pair, Places};
use super::{Header, Meta, column, extras, index, order, symbols};
use crate::codec::{CHUNK_MAX, floats};
use crate::{Error, Result};
use disk::{OpenMode, Vfs};
use model::{Digest, Labels, Samples, SeriesId, TimeRange, varint};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::Path;

/// Collects the series of one block, then writes the file. Holds the encoded samples, about a byte each, and the labels.
pub struct Builder {
    header: Header,
    /// The file so far: the head and the values.
    file: Vec<u8>,
    values_at: usize,
    times: Vec<u8>,
    columns: Columns,
    extras: Vec<u8>,
    symbols: HashMap<Box<str>, u32>,
    /// Labels as numbers of `symbols`, in the order of first appearance.
    series: Vec<(Vec<Pair>, Places)>,
    last: Option<Labels>,
    span: TimeRange,
    samples: u64,
    histograms: u64,
    chunks: u64,
    digest: Digest,
    chunk: Vec<u8>,
}

/// The columns so far: found by hash, compared in full.
#[derive(Default)]
struct Columns {
    hasher: RandomState,
    by_hash: HashMap<u64, Vec<usize>>,
    all: Vec<(Vec<i64>, usize)>,
}

impl Builder {
    /// A block without series.
    pub fn new(header: Header) -> Builder {
        let mut file = Vec::new();
        file.extend(MAGIC);
        file.extend(FORMAT_VERSION.to_le_bytes());
        file.extend([0; 4]);
        Builder {
            header,
            values_at: file.len(),
            file,
            times: Vec::new(),
            columns: Columns::default(),
            extras: Vec::new(),
            symbols: HashMap::new(),
            series: Vec::new(),
            last: None,
            span: TimeRange::new(i64::MAX, i64::MIN),
            samples: 0,
            histograms: 0,
            chunks: 0,
            digest: Digest::default(),
            chunk: Vec::new(),
        }
    }

    /// Adds the next series in [`order`]; `id` is the hash of its labels. Samples are sorted by time, one a timestamp, inside the header's range; a
    /// series without samples is left out.
    pub fn add(&mut self, id: SeriesId, labels: &Labels, samples: &Samples) -> Result<()> {
        assert!(
            self.last.as_ref().is_none_or(|last| order(last, labels).is_lt()),
            "BUG: {labels} was added to a block after {:?}",
            self.last
        );
        self.last = Some(labels.clone());
        if samples.is_empty() {
            return Ok(());
        }
        if self.series.len() >= u32::MAX as usize {
            return Err(too_large("series of one block", self.series.len() as u64));
        }
        let mut places = Places::default();
        let base = self.header.range.min.0;
        if let (Some(&first), Some(&last)) = (samples.timestamps.first(), samples.timestamps.last()) {
            assert!(samples.timestamps.is_sorted_by(|a, b| a < b), "BUG: {labels} has unsorted samples");
            assert_eq!(samples.timestamps.len(), samples.values.len(), "BUG: columns of different length");
            self.widen(first, last);
            places.column = Some(self.columns.place(&samples.timestamps, base, &mut self.times));
            places.values = self.add_values(&samples.values);
        }
        if let (Some(first), Some(last)) = (samples.histograms.first(), samples.histograms.last()) {
            assert!(
                samples.histograms.is_sorted_by(|a, b| a.0 < b.0),
                "BUG: {labels} has unsorted histograms"
            );
            self.widen(first.0, last.0);
        }
        if extras::needed(samples) {
            let at = self.extras.len();
            extras::encode(samples, base, &mut self.extras);
            places.extras = Some(at..self.extras.len());
        }
        let mut pairs = Vec::new();
        for (name, value) in labels.iter() {
            pairs.push((self.intern(name)?, self.intern(value)?));
        }
        self.series.push((pairs, places));
        self.digest += Digest::of(id, samples);
        self.samples += (samples.timestamps.len() + samples.histograms.len()) as u64;
        self.histograms += samples.histograms.len() as u64;
        self.chunks += samples.timestamps.len().div_ceil(CHUNK_MAX) as u64;
        Ok(())
    }

    /// Whether no series was added.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    fn widen(&mut self, first: i64, last: i64) {
        let range = self.header.range;
        assert!(
            range.contains(first) && range.contains(last),
            "BUG: samples outside of the block's {range:?}"
        );
        self.span = TimeRange::new(self.span.min.0.min(first), self.span.max.0.max(last));
    }

    /// Lengths of all chunks but the last, then the chunks.
    fn add_values(&mut self, values: &[f64]) -> std::ops::Range<usize> {
        let at = self.file.len() - self.values_at;
        self.chunk.clear();
        let chunks = values.chunks(CHUNK_MAX);
        let count = chunks.len();
        for (number, chunk) in chunks.enumerate() {
            let from = self.chunk.len();
            floats::encode(chunk, &mut self.chunk);
            if number + 1 < count {
                varint::put(&mut self.file, (self.chunk.len() - from) as u64);
            }
        }
        self.file.append(&mut self.chunk);
        at..self.file.len() - self.values_at
    }

    fn intern(&mut self, text: &str) -> Result<u32> {
        if let Some(&number) = self.symbols.get(text) {
            return Ok(number);
        }
        let count = self.symbols.len();
        let number = u32::try_from(count)
            .map_err(|_| too_large("label names and values of one block", count as u64))?;
        self.symbols.insert(text.into(), number);
        Ok(number)
    }

    /// The whole file.
    pub fn encode(mut self) -> Result<(Vec<u8>, Meta)> {
        let mut ends = Vec::new();
        let mut file = std::mem::take(&mut self.file);
        let mut section = |bytes: &mut Vec<u8>, file: &mut Vec<u8>| {
            file.append(bytes);
            ends.push(file.len() as u64);
        };
        section(&mut Vec::new(), &mut file);
        section(&mut self.times, &mut file);
        section(&mut self.extras, &mut file);

        // Symbols get their final numbers: sorted, so that similar ones are neighbours.
        let mut sorted: Vec<(&str, u32)> =
            self.symbols.iter().map(|(text, &number)| (&**text, number)).collect();
        sorted.sort_unstable();
        let mut numbers = vec![0; sorted.len()];
        sorted.iter().enumerate().for_each(|(new, &(_, old))| numbers[old as usize] = new as u32);
        let texts: Vec<&str> = sorted.iter().map(|&(text, _)| text).collect();
        let mut bytes = Vec::new();
        symbols::encode(&texts, &mut bytes)
            .ok_or_else(|| too_large("bytes of labels in one block", u64::MAX))?;
        section(&mut bytes, &mut file);

        let (labels, places): (Vec<Vec<Pair>>, Vec<Places>) =
            std::mem::take(&mut self.series).into_iter().unzip();
        let renumber = |pairs: Vec<Pair>| {
            pairs.into_iter().map(|(n, v)| (numbers[n as usize], numbers[v as usize])).collect::<Vec<Pair>>()
        };
        let labels: Vec<Vec<Pair>> = labels.into_iter().map(renumber).collect();
        let (mut shapes, mut table, mut groups) = series_table(&labels, &places)
            .ok_or_else(|| too_large("bytes of the series table of one block", u64::MAX))?;
        section(&mut shapes, &mut file);
        section(&mut table, &mut file);
        section(&mut groups, &mut file);
        let (mut fst, mut postings) = index::encode(&texts, &labels);
        section(&mut fst, &mut file);
        section(&mut postings, &mut file);

        let id = self.header.id;
        let checksums: Vec<u8> = (file.chunks(PAGE).enumerate())
            .flat_map(|(number, page)| page_checksum(page, id, (number * PAGE) as u64).to_le_bytes())
            .collect();
        file.extend_from_slice(&checksums);
        let footer = Footer {
            ends: ends.try_into().expect("BUG: a section is missing"),
            header: self.header,
            span: self.span,
            series: labels.len() as u64,
            samples: self.samples,
            histograms: self.histograms,
            chunks: self.chunks,
            columns: self.columns.all.len() as u64,
            digest: Some(self.digest),
            checksums: crc32fast::hash(&checksums),
        };
        file.extend(footer.encode());
        let meta = footer.meta(Path::new(""), file.len());
        Ok((file, meta))
    }

    /// Writes the file into the folder `dir`, durably: when this returns, it will be found after any crash. An
    /// interrupted call leaves at most a file that ends in `.tmp`.
    pub fn finish(self, vfs: &dyn Vfs, dir: &Path) -> Result<Meta> {
        let path = dir.join(self.header.file_name());
        let temporary = path.with_extension("tmp");
        let (bytes, meta) = self.encode()?;
        if vfs.exists(&temporary)? {
            vfs.remove(&temporary)?;
        }
        let file = vfs.open(&temporary, OpenMode::Create)?;
        let mut at = 0;
        for piece in bytes.chunks(WRITE) {
            file.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
        // The content before the name, the name before anybody relies on it.
        file.sync_data()?;
        drop(file);
        vfs.rename(&temporary, &path)?;
        vfs.sync_dir(dir)?;
        Ok(Meta { path, ..meta })
    }
}

/// Bytes handed to the operating system at once.
const WRITE: usize = 1 << 20;

impl Columns {
    /// Where the column of these timestamps is; appends it if it is new.
    fn place(&mut self, timestamps: &[i64], base: i64, times: &mut Vec<u8>) -> usize {
        let Columns { hasher, by_hash, all } = self;
        // Columns that agree in these are compared in full; scrapes of different targets practically never do.
        let probe = |i: usize| timestamps.get(i).copied().unwrap_or(0);
        let n = timestamps.len();
        let hash = hasher.hash_one((n, probe(0), probe(n / 3), probe(n / 2), probe(n - 1)));
        let candidates = by_hash.entry(hash).or_default();
        if let Some(&known) = candidates.iter().find(|&&number| all[number].0 == timestamps) {
            return all[known].1;
        }
        candidates.push(all.len());
        let at = times.len();
        column::encode(timestamps, base, times);
        all.push((timestamps.to_vec(), at));
        at
    }
}

/// The sections `shapes`, `series` and `groups`; `None` if the table is too long for 32-bit places.
fn series_table(labels: &[Vec<Pair>], places: &[Places]) -> Option<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let (mut shapes, mut table, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    let mut known: HashMap<Vec<u32>, usize> = HashMap::new();
    let mut values_at = 0;
    let mut before: &[Pair] = &[];
    for (number, (labels, places)) in labels.iter().zip(places).enumerate() {
        if number % series::GROUP == 0 {
            groups.extend(u32::try_from(table.len()).ok()?.to_le_bytes());
            varint::put(&mut table, values_at as u64);
            before = &[];
        }
        let names: Vec<u32> = labels.iter().map(|pair| pair.0).collect();
        let shape = *known.entry(names).or_insert_with_key(|names| {
            let at = shapes.len();
            varint::put(&mut shapes, names.len() as u64);
            names.iter().for_each(|&name| varint::put(&mut shapes, u64::from(name)));
            at
        });
        series::encode(shape, labels, before, places, &mut table);
        before = labels;
        values_at = values_at.max(places.values.end);
    }
    Some((shapes, table, groups))
}

#[cold]
fn too_large(what: &'static str, got: u64) -> Error {
    Error::Limit { what, key: "storage.block_window", max: u64::from(u32::MAX), got }
}
