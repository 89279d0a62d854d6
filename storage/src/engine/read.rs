//! The way out: [`Source`] for the engine.

use super::Engine;
use crate::head::{Head, Snapshot, Table};
use crate::{block, merge, postings};
use model::{
    Error, LabelQuery, Labels, Limited, Matcher, Metadata, Samples, Selection, SeriesId, SeriesSet, ShardSet,
    Source, TimeRange, Timestamp,
};
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

/// One series of a selection, wherever its samples are.
pub(super) struct Selected {
    pub id: SeriesId,
    pub labels: Labels,
    head: Option<Snapshot>,
    blocks: Vec<(Arc<block::Reader>, u32)>,
}

impl Selected {
    /// Replaces the content of `into` with the samples in `range`.
    pub fn read(&self, range: TimeRange, into: &mut Samples) -> crate::Result<()> {
        combine(range, self.head.as_ref(), &self.blocks, into)
    }
}

/// The series that a selector matched.
struct Set {
    series: Vec<Selected>,
    visible: TimeRange,
    warnings: Vec<String>,
}

thread_local! {
    /// Where parts of a series are decoded before they are merged.
    static PARTS: RefCell<Vec<Samples>> = RefCell::default();
}

/// Merges what head and blocks have of one series in `range` into `into`.
pub(super) fn combine(
    range: TimeRange,
    head: Option<&Snapshot>,
    blocks: &[(Arc<block::Reader>, u32)],
    into: &mut Samples,
) -> crate::Result<()> {
    into.clear();
    match (head, blocks) {
        (None, []) => Ok(()),
        (None, [(block, ordinal)]) => block.read(*ordinal, range, into),
        (Some(head), []) if !head.has_side() => {
            head.runs(range, into, &mut Vec::new());
            Ok(())
        }
        _ => PARTS.with_borrow_mut(|parts| {
            parts.iter_mut().for_each(Samples::clear);
            parts.resize_with((blocks.len() + 1).max(parts.len()), Samples::default);
            let mut side = Vec::new();
            if let Some(head) = head {
                head.runs(range, &mut parts[0], &mut side);
            }
            for ((block, ordinal), part) in blocks.iter().zip(&mut parts[1..]) {
                block.read(*ordinal, range, part)?;
            }
            let all: Vec<&Samples> =
                parts[..=blocks.len()].iter().chain(side.iter().map(|run| &**run)).collect();
            merge::merge(&all, into);
            // A run of the side buffer is shared as a whole.
            into.restrict(range);
            Ok(())
        }),
    }
}

impl SeriesSet for Set {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn id(&self, index: usize) -> SeriesId {
        self.series[index].id
    }

    fn labels(&self, index: usize) -> Labels {
        self.series[index].labels.clone()
    }

    fn read(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), Error> {
        let range = TimeRange { min: range.min.max(self.visible.min), max: range.max.min(self.visible.max) };
        self.series[index].read(range, into).map_err(Error::from)
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Takes a block and the numbers of its series that are wanted, or `None` for all.
type VisitBlock<'a> = dyn FnMut(&block::Reader, Option<&[u32]>) -> crate::Result<()> + 'a;

/// One shard's part of a selection while it is put together.
pub(super) struct Gather<'a> {
    key: model::SeriesKey,
    range: TimeRange,
    series: &'a mut Vec<Selected>,
    by_id: Table,
    pub series_max: usize,
    /// Whether anybody will look at the labels.
    with_labels: bool,
}

impl Gather<'_> {
    /// Adds what a head has in the range of the series in these slots.
    pub fn head(&mut self, head: &Head, slots: impl IntoIterator<Item = u32>) -> Result<(), Error> {
        for slot in slots {
            let series = &head.series[slot as usize];
            if let Some(snapshot) = series.snapshot(self.range) {
                self.entry(series.id, || head.labels(slot))?.head = Some(snapshot);
            }
        }
        Ok(())
    }

    /// Adds what a block has in the range of those of its series with these numbers that are wanted.
    pub fn block(
        &mut self,
        block: &Arc<block::Reader>,
        numbers: impl IntoIterator<Item = u32>,
        wanted: impl Fn(SeriesId) -> bool,
    ) -> Result<(), Error> {
        let span = block.meta().span;
        let inside = self.range.min <= span.min && span.max <= self.range.max;
        let (mut cursor, mut bytes) = (block.cursor(), Vec::new());
        for number in numbers {
            if !inside && !block.span(number)?.overlaps(&self.range) {
                continue;
            }
            bytes.clear();
            cursor.bytes(number, &mut bytes)?;
            let id = self.key.id(&bytes);
            if wanted(id) {
                let selected = self.entry(id, || Labels::from_canonical(&bytes))?;
                selected.blocks.push((block.clone(), number));
            }
        }
        Ok(())
    }

    /// The series with these labels, new or from another place. Equal ids are the same series: the head compares labels
    /// when it creates one.
    fn entry(&mut self, id: SeriesId, labels: impl FnOnce() -> Labels) -> Result<&mut Selected, Error> {
        let at = match self.by_id.find(id, |at| self.series[at as usize].id == id) {
            Some(at) => at as usize,
            None => {
                if self.series.len() >= self.series_max {
                    return Err(Error::Limit {
                        what: "series selected by one query",
                        key: "limits.query_series_max",
                        max: self.series_max as u64,
                        got: self.series.len() as u64 + 1,
                    });
                }
                self.by_id.insert(id, self.series.len() as u32);
                let labels = if self.with_labels { labels() } else { Labels::default() };
                self.series.push(Selected { id, labels, head: None, blocks: Vec::new() });
                self.series.len() - 1
            }
        };
        Ok(&mut self.series[at])
    }
}

impl Engine {
    /// The blocks of a shard that may have samples in `range`, and what its head has, in one consistent view.
    pub(super) fn view_shard<T>(
        &self,
        shard: &crate::shard::Shard,
        range: TimeRange,
        head: impl FnOnce(&Head) -> T,
    ) -> (T, Vec<Arc<block::Reader>>) {
        let state = shard.state.lock();
        let blocks =
            state.blocks.iter().filter(|block| block.meta().span.overlaps(&range)).cloned().collect();
        (head(&state.head), blocks)
    }

    fn gather_all(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        series_max: usize,
        shards: Option<&ShardSet>,
    ) -> Result<Vec<Selected>, Error> {
        let mut series = Vec::new();
        for shard in self.wanted(shards) {
            let mut gather = self.gather(range, true, &mut series);
            gather.series_max = series_max;
            let (head, blocks) = self.view_shard(shard, range, |head| {
                gather.head(head, postings::resolve(&head.index, matchers)?)
            });
            head?;
            for block in blocks {
                gather.block(&block, block.select(matchers)?, |_| true)?;
            }
        }
        Ok(series)
    }

    /// For one shard; what is gathered goes behind what is in `series`.
    pub(super) fn gather<'a>(
        &self,
        range: TimeRange,
        with_labels: bool,
        series: &'a mut Vec<Selected>,
    ) -> Gather<'a> {
        Gather { key: self.key, range, series, by_id: Table::default(), series_max: usize::MAX, with_labels }
    }

    fn wanted<'a>(&'a self, shards: Option<&'a ShardSet>) -> impl Iterator<Item = &'a crate::shard::Shard> {
        self.shards.iter().filter(move |shard| shards.is_none_or(|wanted| wanted.contains(shard.number)))
    }

    /// Visits what a lookup of labels wants, once for each selector: every head, then every block, with the numbers of
    /// the series; `None` for all of them. Of a head's series some may have no samples in the range; a block's all have.
    fn visit(
        &self,
        query: &LabelQuery,
        visit_head: &mut dyn FnMut(&Head, Option<&[u32]>),
        visit_block: &mut VisitBlock<'_>,
    ) -> Result<(), Error> {
        let range = self.visible(query.range);
        let everything = [Vec::new()];
        let selectors = if query.selectors.is_empty() { &everything[..] } else { &query.selectors };
        for shard in self.wanted(query.shards.as_ref()) {
            let (head, blocks) = self.view_shard(shard, range, |head| {
                for matchers in selectors {
                    let series = if matchers.is_empty() {
                        None
                    } else {
                        Some(postings::resolve(&head.index, matchers)?)
                    };
                    visit_head(head, series.as_deref());
                }
                Ok::<(), crate::Error>(())
            });
            head?;
            for block in blocks {
                // A block that lies wholly in the range has nothing outside it.
                let inside = range.min <= block.meta().span.min && block.meta().span.max <= range.max;
                for matchers in selectors {
                    if inside && matchers.is_empty() {
                        visit_block(&block, None)?;
                        continue;
                    }
                    let mut series = block.select(matchers)?;
                    if !inside {
                        let mut kept = Vec::with_capacity(series.len());
                        for number in series {
                            if block.span(number)?.overlaps(&range) {
                                kept.push(number);
                            }
                        }
                        series = kept;
                    }
                    let all = series.len() == block.series_count() as usize;
                    if !series.is_empty() {
                        visit_block(&block, if all { None } else { Some(&series) })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Calls `visit` with every series that matches and its samples in `range`, sorted by labels.
    pub fn dump(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        visit: &mut dyn FnMut(&Labels, &Samples),
    ) -> Result<(), Error> {
        let range = self.visible(range);
        let mut all = self.gather_all(matchers, range, usize::MAX, None)?;
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        let mut samples = Samples::default();
        for series in &all {
            series.read(range, &mut samples)?;
            if !samples.is_empty() {
                visit(&series.labels, &samples);
            }
        }
        Ok(())
    }
}

/// Calls `visit` with each of the series, or with each below `count`.
fn each(
    series: Option<&[u32]>,
    count: usize,
    mut visit: impl FnMut(u32) -> crate::Result<()>,
) -> crate::Result<()> {
    match series {
        Some(series) => series.iter().copied().try_for_each(visit),
        None => (0..count as u32).try_for_each(&mut visit),
    }
}

/// Different texts from many places.
#[derive(Default)]
struct Texts(RefCell<HashSet<String>>);

impl Texts {
    fn add(&self, text: &str) {
        let mut known = self.0.borrow_mut();
        if !known.contains(text) {
            known.insert(text.to_owned());
        }
    }
}

/// The items in order, up to the limit.
fn limited<T: Ord>(items: impl IntoIterator<Item = T>, limit: Option<usize>) -> Limited<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort_unstable();
    let truncated = limit.is_some_and(|limit| items.len() > limit);
    items.truncate(limit.unwrap_or(usize::MAX));
    Limited { items, truncated, warnings: Vec::new() }
}

impl Source for Engine {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, Error> {
        let visible = self.visible(selection.range);
        let series =
            self.gather_all(&selection.matchers, visible, selection.series_max, selection.shards.as_ref())?;
        let warnings = self.damage.lock().warnings(visible, selection.shards.as_ref());
        // A reader may ask for more than it selected by; it is still not shown what has expired.
        let visible = TimeRange { min: Timestamp(self.cut_off()), max: Timestamp::MAX };
        Ok(Box::new(Set { series, visible, warnings }))
    }

    fn series(&self, query: &LabelQuery) -> Result<Limited<Labels>, Error> {
        let seen: RefCell<HashSet<Vec<u8>>> = RefCell::default();
        let note = |labels: &[u8]| {
            let mut seen = seen.borrow_mut();
            if !seen.contains(labels) {
                seen.insert(labels.to_vec());
            }
        };
        let range = self.visible(query.range);
        let mut bytes = Vec::new();
        let heads = &mut |head: &Head, series: Option<&[u32]>| {
            each(series, head.series.len(), |slot| {
                if head.overlaps(slot, range) {
                    bytes.clear();
                    head.labels_bytes(slot, &mut bytes);
                    note(&bytes);
                }
                Ok(())
            })
            .expect("BUG: labels in memory cannot be damaged");
        };
        let mut bytes = Vec::new();
        self.visit(query, heads, &mut |block, series| {
            let mut cursor = block.cursor();
            each(series, block.series_count() as usize, |number| {
                bytes.clear();
                cursor.bytes(number, &mut bytes)?;
                note(&bytes);
                Ok(())
            })
        })?;
        Ok(limited(seen.into_inner().iter().map(|bytes| Labels::from_canonical(bytes)), query.limit))
    }

    fn label_names(&self, query: &LabelQuery) -> Result<Limited<String>, Error> {
        let (names, range) = (Texts::default(), self.visible(query.range));
        let heads = &mut |head: &Head, series: Option<&[u32]>| {
            head.index.names_where(head.labels_among(series, range)).for_each(|name| names.add(name));
        };
        self.visit(query, heads, &mut |block, series| {
            let found = match series {
                None => block.label_names()?,
                Some(series) => block.label_names_among(series)?,
            };
            found.iter().for_each(|name| names.add(name));
            Ok(())
        })?;
        Ok(limited(names.0.into_inner(), query.limit))
    }

    fn label_values(&self, name: &str, query: &LabelQuery) -> Result<Limited<String>, Error> {
        let (values, range) = (Texts::default(), self.visible(query.range));
        let heads = &mut |head: &Head, series: Option<&[u32]>| {
            head.index
                .values_where(name, head.labels_among(series, range))
                .for_each(|value| values.add(value));
        };
        self.visit(query, heads, &mut |block, series| {
            match series {
                None => block.visit_values(name, &mut |value| values.add(value))?,
                Some(series) => {
                    block.label_values_among(name, series)?.iter().for_each(|value| values.add(value));
                }
            }
            Ok(())
        })?;
        Ok(limited(values.0.into_inner(), query.limit))
    }

    fn metadata(&self, family: Option<&str>) -> Result<Vec<Metadata>, Error> {
        let known = self.metadata.lock();
        Ok(match family {
            Some(family) => known.get(family).cloned().into_iter().collect(),
            None => known.values().cloned().collect(),
        })
    }
}
