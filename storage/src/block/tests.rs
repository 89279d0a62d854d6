use super::*;
use crate::merge::{normalize, push_float};
use crate::{Error, Result};
use disk::{Mapped, RealVfs, Vfs};
use model::histogram::{Counts, ResetHint, Span};
use model::{Digest, Histogram, Labels, MatchOp, Matcher, Samples, SeriesKey};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

const WINDOW: TimeRange =
    TimeRange { min: model::Timestamp(1_767_225_600_000), max: model::Timestamp(1_767_232_799_999) };

/// What makes ids of labels.
const KEY: SeriesKey = SeriesKey([1, 2, 3, 4]);

fn header() -> Header {
    Header { shard: Shard(3), range: WINDOW, level: 0, id: 0x0123_4567_89ab_cdef_0011_2233_4455_6677 }
}

type Content = Vec<(Labels, Samples)>;

fn build(content: &Content) -> Vec<u8> {
    let mut builder = Builder::new(header());
    content
        .iter()
        .for_each(|(labels, samples)| builder.add(KEY.id(labels.as_bytes()), labels, samples).unwrap());
    builder.encode().unwrap().0
}

fn open(bytes: &[u8]) -> Result<Reader> {
    Reader::from_bytes(Mapped(Arc::new(bytes.to_vec())), Path::new("test.block"))
}

fn histogram(count: u64) -> Arc<Histogram> {
    Arc::new(Histogram {
        reset_hint: ResetHint::NoReset,
        schema: 3,
        zero_threshold: 0.001,
        sum: count as f64 * 1.5,
        counts: Counts::Integer { count, zero: 1, positive: vec![count as i64, 2], negative: vec![] },
        positive_spans: vec![Span { offset: -2, length: 2 }],
        negative_spans: vec![],
        custom_values: vec![],
    })
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// Everything that tells samples apart, bit for bit.
fn rows(samples: &Samples) -> Vec<(i64, u64, i64, String)> {
    let start = |i: usize| samples.starts.get(i).copied().unwrap_or(0);
    let floats = samples.timestamps.iter().zip(&samples.values).enumerate();
    let floats = floats.map(|(i, (&t, v))| (t, v.to_bits(), start(i), String::new()));
    let histograms = samples.histograms.iter().map(|(t, st, h)| (*t, 0, *st, format!("{h:?}")));
    floats.chain(histograms).collect()
}

fn read(reader: &Reader, series: u32, range: TimeRange) -> Samples {
    let mut samples = Samples::default();
    reader.read(series, range, &mut samples).unwrap();
    samples
}

/// Two targets with a few metrics each, a series with start timestamps, one with histograms.
fn small() -> Content {
    let mut content = Content::new();
    for (instance, jitter) in [("a:9100", 0), ("b:9100", 7)] {
        let scrapes: Vec<i64> =
            (0..20).map(|i| WINDOW.min.0 + 1234 + jitter * (i % 3) + i * 15_000).collect();
        let mut add = |name: &str, values: &dyn Fn(usize) -> f64| {
            let labels = labels(&[("__name__", name), ("instance", instance), ("job", "node")]);
            let values = (0..scrapes.len()).map(values).collect();
            content.push((labels, Samples { timestamps: scrapes.clone(), values, ..Samples::default() }));
        };
        add("up", &|_| 1.0);
        add("node_load1", &|i| ((i * 37) % 11) as f64 / 100.0 + 0.5);
        add("node_boot_time_seconds", &|i| if i == 19 { model::value::stale() } else { 1.7e9 });
        add("node_context_switches_total", &|i| 123_456_789.0 + (i * i * 1001) as f64);
        add("noise", &|i| (i as f64 + 0.1).sqrt());
    }
    let mut started = Samples::default();
    for i in 0..5 {
        push_float(
            &mut started,
            WINDOW.min.0 + i * 1000,
            i as f64,
            if i > 1 { WINDOW.min.0 + 500 } else { 0 },
        );
    }
    content.push((labels(&[("__name__", "started_total"), ("job", "otel")]), started));
    let histograms = (0..4).map(|i| (WINDOW.min.0 + i * 60_000, i % 2, histogram(i as u64))).collect();
    content.push((
        labels(&[("__name__", "latency"), ("job", "otel")]),
        Samples { histograms, ..Samples::default() },
    ));
    content.push((
        Labels::default(),
        Samples { timestamps: vec![WINDOW.max.0], values: vec![-0.0], ..Samples::default() },
    ));
    content.sort_by(|a, b| order(&a.0, &b.0));
    content
}

fn random_samples() -> impl Strategy<Value = Samples> {
    let value = prop_oneof![
        6 => (0i32..5000).prop_map(|v| f64::from(v) / 100.0),
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => Just(model::value::stale()),
    ];
    let span = WINDOW.max.0 - WINDOW.min.0;
    let float = (0..=span, value, prop_oneof![9 => Just(0i64), 1 => any::<i64>()]);
    let floats = prop_oneof![
        4 => prop::collection::vec(float.clone(), 0..40),
        1 => prop::collection::vec(float, 450..1500),
    ];
    let histograms = prop_oneof![
        4 => Just(Vec::new()),
        1 => prop::collection::vec((0..=span, 0i64..9, (0u64..99).prop_map(histogram)), 0..300),
    ];
    (floats, histograms, any::<bool>()).prop_map(|(floats, histograms, with_starts)| {
        let mut samples = Samples::default();
        for (t, value, start) in floats {
            push_float(&mut samples, WINDOW.min.0 + t, value, if with_starts { start } else { 0 });
        }
        samples.histograms = histograms.into_iter().map(|(t, st, h)| (WINDOW.min.0 + t, st, h)).collect();
        normalize(&mut samples);
        samples
    })
}

fn random_labels() -> impl Strategy<Value = Labels> {
    let name = prop::sample::select(vec!["A", "__name__", "job", "jo", "instance", "é"]);
    let value = prop::sample::select(vec![
        "",
        "a",
        "b",
        "ab",
        "abc",
        "é",
        "x\ny",
        "1",
        "10.0.0.1:9100",
        "10.0.0.2:9100",
    ]);
    prop::collection::btree_map(name, value, 0..6).prop_map(|pairs| Labels::from_pairs(pairs).unwrap())
}

fn random_content() -> impl Strategy<Value = Content> {
    let series = prop::collection::btree_map(random_labels(), random_samples(), 0..40);
    (series, prop::collection::vec(random_samples(), 1..3), any::<u64>()).prop_map(
        |(series, shared, pick)| {
            let mut content: Content = series
                .into_iter()
                .enumerate()
                .map(|(i, (labels, samples))| {
                    let scrape = &shared[i % shared.len()];
                    if pick >> (i % 64) & 1 == 0 {
                        return (labels, samples);
                    }
                    let values = scrape.timestamps.iter().map(|&t| (t % 1000) as f64).collect();
                    (labels, Samples { timestamps: scrape.timestamps.clone(), values, ..Samples::default() })
                })
                .filter(|(_, samples)| !samples.is_empty())
                .collect();
            content.sort_by(|a, b| order(&a.0, &b.0));
            content
        },
    )
}

fn matchers() -> impl Strategy<Value = Vec<Matcher>> {
    let op =
        prop::sample::select(vec![MatchOp::Equal, MatchOp::NotEqual, MatchOp::Matches, MatchOp::NotMatches]);
    let value = prop::sample::select(vec![
        "", "a", "ab", "a|b", "a.*", ".*", ".+", "(a|)", "[^a]", "é", "x.y", "nothing", r"10\.0.*", "a?b?c?",
        r"\w+",
    ]);
    let name = prop::sample::select(vec!["A", "__name__", "job", "jo", "j", "instance", "é", "none"]);
    prop::collection::vec((name, op, value).prop_map(|(n, op, v)| Matcher::new(n, op, v).unwrap()), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn everything_put_in_comes_out(content in random_content(), cut in any::<(u32, u32)>()) {
        let bytes = build(&content);
        let reader = open(&bytes).unwrap();
        prop_assert_eq!(reader.series_count() as usize, content.len());
        reader.verify_meaning(KEY).unwrap();
        let length = (WINDOW.max.0 - WINDOW.min.0) as u32;
        let (from, to) = (cut.0 % length, cut.1 % length);
        let part = TimeRange::new(WINDOW.min.0 + i64::from(from.min(to)), WINDOW.min.0 + i64::from(from.max(to)));
        let mut cursor = reader.cursor();
        for (number, (labels, samples)) in content.iter().enumerate() {
            let number = number as u32;
            prop_assert_eq!(&reader.labels(number).unwrap(), labels);
            prop_assert_eq!(&cursor.labels(number).unwrap(), labels);
            prop_assert_eq!(rows(&read(&reader, number, TimeRange::ALL)), rows(samples));
            let inside: Vec<_> = rows(samples).into_iter().filter(|row| part.contains(row.0)).collect();
            prop_assert_eq!(rows(&read(&reader, number, part)), inside);
        }
    }

    #[test]
    fn selecting_equals_matching_each_series(content in random_content(), matchers in matchers()) {
        let reader = open(&build(&content)).unwrap();
        let expected: Vec<u32> = (0..content.len() as u32)
            .filter(|&i| matchers.iter().all(|m| m.matches(content[i as usize].0.get(&m.name).unwrap_or(""))))
            .collect();
        prop_assert_eq!(reader.select(&matchers).unwrap(), expected.clone());
        for name in ["__name__", "job", "jo", "none"] {
            let values: BTreeSet<&str> =
                expected.iter().filter_map(|&i| content[i as usize].0.get(name)).collect();
            let values: Vec<&str> = values.into_iter().collect();
            prop_assert_eq!(reader.label_values_among(name, &expected).unwrap(), values);
        }
        let names: BTreeSet<&str> =
            expected.iter().flat_map(|&i| content[i as usize].0.iter().map(|l| l.0)).collect();
        prop_assert_eq!(reader.label_names_among(&expected).unwrap(), names.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn random_bytes_are_no_block_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(open(&bytes).is_err());
    }
}

#[test]
fn a_series_read_twice_into_the_same_columns_is_appended() {
    let content = small();
    let reader = open(&build(&content)).unwrap();
    let mut both = Samples::default();
    let half = WINDOW.min.0 + 150_000;
    for (number, (labels, samples)) in content.iter().enumerate() {
        both.clear();
        reader.read(number as u32, TimeRange::new(i64::MIN, half), &mut both).unwrap();
        reader.read(number as u32, TimeRange::new(half + 1, i64::MAX), &mut both).unwrap();
        assert_eq!(rows(&both), rows(samples), "{labels}");
        assert!(both.starts.is_empty() || both.starts.len() == both.timestamps.len());
    }
}

#[test]
fn columns_are_shared_between_series_of_one_scrape() {
    let reader = open(&build(&small())).unwrap();
    assert_eq!(reader.meta().series, 13);
    assert_eq!(reader.meta().columns, 4);
    assert_eq!(reader.meta().samples, 10 * 20 + 5 + 4 + 1);
    assert_eq!(reader.meta().histograms, 4);
}

#[test]
fn names_and_values_are_listed_in_order() {
    let reader = open(&build(&small())).unwrap();
    assert_eq!(reader.label_names().unwrap(), ["__name__", "instance", "job"]);
    assert_eq!(reader.label_values("instance").unwrap(), ["a:9100", "b:9100"]);
    assert_eq!(reader.label_values("inst").unwrap(), [""; 0]);
    assert_eq!(reader.label_values_among("instance", &[1, 2]).unwrap(), ["a:9100"]);
}

#[test]
fn an_empty_block_is_a_block() {
    let reader = open(&build(&Content::new())).unwrap();
    assert_eq!(reader.select(&[]).unwrap(), [0u32; 0]);
    assert_eq!(reader.label_names().unwrap(), [""; 0]);
}

/// All that a reader can be asked, or the first error.
fn read_everything(reader: &Reader) -> Result<(Content, Vec<String>, Vec<Vec<u32>>)> {
    let mut content = Content::new();
    for number in 0..reader.series_count() {
        let mut samples = Samples::default();
        reader.read(number, TimeRange::ALL, &mut samples)?;
        reader.span(number)?;
        content.push((reader.labels(number)?, samples));
    }
    let mut values = Vec::new();
    let mut lists = Vec::new();
    for name in reader.label_names()? {
        for value in reader.label_values(&name)? {
            lists.push(reader.select(&[Matcher::equal(&*name, &*value)])?);
            values.push(value);
        }
    }
    Ok((content, values, lists))
}

fn comparable(all: (Content, Vec<String>, Vec<Vec<u32>>)) -> String {
    let content: Vec<_> = all.0.iter().map(|(l, s)| (l.clone(), rows(s))).collect();
    format!("{content:?} {:?} {:?}", all.1, all.2)
}

#[test]
fn no_flipped_byte_ever_changes_an_answer() {
    let bytes = build(&small());
    let truth = comparable(read_everything(&open(&bytes).unwrap()).unwrap());
    for at in 0..bytes.len() {
        for xor in [1u8, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= xor;
            match open(&damaged).and_then(|reader| read_everything(&reader)) {
                Err(Error::Corrupt { path, .. }) => assert_eq!(path, Path::new("test.block")),
                Err(other) => panic!("byte {at}: {other}"),
                Ok(all) => assert_eq!(comparable(all), truth, "byte {at}"),
            }
        }
    }
}

#[test]
fn no_cut_file_is_a_block() {
    let bytes = build(&small());
    for len in 0..bytes.len() {
        assert!(matches!(open(&bytes[..len]), Err(Error::Corrupt { .. })), "{len} bytes");
    }
    assert!(open(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn a_page_of_another_file_is_corrupt() {
    let ours = build(&small());
    let mut builder = Builder::new(Header { id: 7, ..header() });
    small()
        .iter()
        .for_each(|(labels, samples)| builder.add(KEY.id(labels.as_bytes()), labels, samples).unwrap());
    let (theirs, _) = builder.encode().unwrap();
    let footer = ours.len() - format::FOOTER_LEN;
    // The same content under the other file's footer, checksums included: only the id in the page's checksum differs.
    let mixed = [&ours[..footer - 4], &theirs[footer - 4..]].concat();
    assert_eq!(ours[..footer - 4], theirs[..footer - 4]);
    let reader = open(&mixed).unwrap();
    assert!(read_everything(&reader).is_ok(), "one page with their checksum and their id is their file");
    let mut swapped = theirs.clone();
    swapped[footer - 4..footer].copy_from_slice(&ours[footer - 4..footer]);
    assert!(open(&swapped).is_err(), "our page checksum in their file");
}

#[test]
fn damage_that_keeps_checksums_valid_never_panics_in_tables_and_columns() {
    // Not reachable by accident, but a wrong offset must not become a crash of the node.
    let bytes = build(&small());
    let truth = open(&bytes).unwrap();
    let footer = truth.footer().clone();
    let body = footer.body_len();
    // The FST has a checksum of its own, since the library offers no bounded walk.
    for at in 0..body {
        for xor in [1u8, 0x55, 0xff] {
            let mut damaged = bytes[..body].to_vec();
            damaged[at] ^= xor;
            let checksums: Vec<u8> = (damaged.chunks(format::PAGE).enumerate())
                .flat_map(|(i, p)| {
                    format::page_checksum(p, footer.header.id, (i * format::PAGE) as u64).to_le_bytes()
                })
                .collect();
            let footer = format::Footer { checksums: crc32fast::hash(&checksums), ..footer.clone() };
            damaged.extend(checksums);
            damaged.extend(footer.encode());
            let reader = open(&damaged).unwrap();
            let _ = read_everything(&reader);
            let _ = reader.verify_meaning(KEY);
        }
    }
}

#[test]
fn a_finished_block_is_found_under_its_name_and_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let vfs = RealVfs;
    let content = small();
    let mut builder = Builder::new(header());
    content
        .iter()
        .for_each(|(labels, samples)| builder.add(KEY.id(labels.as_bytes()), labels, samples).unwrap());
    let meta = builder.finish(&vfs, folder.path()).unwrap();
    let names: Vec<String> = vfs.list(folder.path()).unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["1767225600000-1767232799999-0-0123456789abcdef0011223344556677.block"]);
    let reader = Reader::open(&vfs, &meta.path).unwrap();
    assert_eq!(*reader.meta(), meta);
    reader.verify(&vfs, KEY).unwrap();
    let stats = reader.stats();
    assert_eq!(stats.sections.iter().map(|s| s.1).sum::<u64>() + stats.frame_bytes, meta.bytes);

    let moved = folder.path().join("1-2-0-00000000000000000000000000000001.block");
    vfs.rename(&meta.path, &moved).unwrap();
    let error = Reader::open(&vfs, &moved).err().unwrap().to_string();
    assert!(error.contains("this is the content of 1767225600000"), "{error}");
}

#[test]
fn scrubbing_sees_what_the_map_has_not() {
    let folder = tempfile::tempdir().unwrap();
    let vfs = RealVfs;
    let mut builder = Builder::new(header());
    small()
        .iter()
        .for_each(|(labels, samples)| builder.add(KEY.id(labels.as_bytes()), labels, samples).unwrap());
    let meta = builder.finish(&vfs, folder.path()).unwrap();
    let reader = Reader::open(&vfs, &meta.path).unwrap();
    let file = vfs.open(&meta.path, disk::OpenMode::Write).unwrap();
    let mut byte = [0];
    assert!(file.read_exact_at(&mut byte, 100).unwrap());
    file.write_all_at(&[byte[0] ^ 4], 100).unwrap();
    assert!(matches!(reader.verify(&vfs, KEY), Err(Error::Corrupt { offset: 0, .. })));
}

#[test]
fn many_series_of_a_metric_use_every_kind_of_list() {
    let mut series = BTreeMap::new();
    for i in 0..9000u32 {
        let labels = labels(&[
            ("__name__", "m"),
            ("half", if i % 7 < 3 { "x" } else { "y" }),
            ("i", &format!("{i:05}")),
            ("tens", &format!("{}", i / 10)),
        ]);
        series.insert(
            labels,
            Samples { timestamps: vec![WINDOW.min.0], values: vec![f64::from(i)], ..Samples::default() },
        );
    }
    let content: Content = series.into_iter().collect();
    let reader = open(&build(&content)).unwrap();
    reader.verify_meaning(KEY).unwrap();
    let select = |name: &str, value: &str| reader.select(&[Matcher::equal(name, value)]).unwrap().len();
    assert_eq!(
        (select("half", "y"), select("tens", "5"), select("i", "00007"), select("i", "7")),
        (5142, 10, 1, 0)
    );
    let some = [Matcher::equal("half", "x"), Matcher::new("i", MatchOp::Matches, "0000.").unwrap()];
    assert_eq!(reader.select(&some).unwrap().len(), 6);
}

/// The block that `docs/format/block.md` takes apart.
fn example() -> Content {
    let timestamps: Vec<i64> = (0..4).map(|i| WINDOW.min.0 + 1000 + i * 15_000).collect();
    let series = |instance: &str, values: [f64; 4]| {
        let labels = labels(&[("__name__", "load"), ("instance", instance)]);
        (labels, Samples { timestamps: timestamps.clone(), values: values.to_vec(), ..Samples::default() })
    };
    vec![series("a", [1.0; 4]), series("b", [0.25, 0.5, 0.75, 0.5])]
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |pair: &str| u8::from_str_radix(pair, 16).expect("hexadecimal");
    text.split_whitespace().map(byte).collect()
}

#[test]
fn the_format_page_shows_exactly_what_is_written() {
    let page = include_str!("../../../docs/format/block.md");
    let dump =
        page.split("```hex\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a dump in the page");
    let shown: Vec<u8> =
        dump.lines().flat_map(|line| unhex(line.split('|').next().expect("bytes before the bar"))).collect();
    let written = build(&example());
    assert!(shown == written, "docs/format/block.md shows\n{shown:02x?}\nthe builder writes\n{written:02x?}");
    assert!(page.contains(&format!("| footer | {} bytes", format::FOOTER_LEN)));
    assert!(page.contains("32,768 bytes") && format::PAGE == 32_768);
    let sections = Section::ALL.map(|section| format!("\n| {} |", format!("{section:?}").to_lowercase()));
    assert!(sections.iter().all(|section| page.contains(section)));
}

/// A file of a version that some release has written must stay readable, whatever the builder chooses today. When the
/// builder changes its choices, keep the old file and add one; `SARSEN_WRITE_GOLDEN=1` writes a missing one.
#[test]
fn the_golden_file_of_every_version_reads_as_it_did() {
    for version in 1..=format::FORMAT_VERSION {
        let path = format!("{}/testdata/block-v{version}.hex", env!("CARGO_MANIFEST_DIR"));
        let content = small();
        if std::env::var_os("SARSEN_WRITE_GOLDEN").is_some() && !Path::new(&path).exists() {
            let lines: Vec<String> = (build(&content).chunks(32))
                .map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "))
                .collect();
            std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        }
        let bytes = unhex(&std::fs::read_to_string(path).unwrap());
        let reader = open(&bytes).unwrap();
        reader.verify_meaning(KEY).unwrap();
        // Its footer says the same when it is written again.
        assert!(bytes.ends_with(&reader.footer().encode()));
        let digests = content.iter().map(|(labels, samples)| Digest::of(KEY.id(labels.as_bytes()), samples));
        assert_eq!(reader.meta().digest, (version > 1).then(|| digests.sum()));
        let (read, ..) = read_everything(&reader).unwrap();
        assert_eq!(read.len(), content.len());
        for ((labels, samples), (expected_labels, expected)) in read.iter().zip(&content) {
            assert_eq!(labels, expected_labels);
            assert_eq!(rows(samples), rows(expected), "{labels}");
        }
    }
}

#[test]
fn a_digest_that_is_not_that_of_the_samples_is_noticed() {
    let bytes = build(&small());
    let reader = open(&bytes).unwrap();
    reader.verify_meaning(KEY).unwrap();
    // Under another key the labels are other series.
    assert!(reader.verify_meaning(SeriesKey([1, 2, 3, 5])).unwrap_err().to_string().contains("digest"));
    let mut footer = reader.footer().clone();
    footer.digest = footer.digest.map(|digest| digest + Digest(1));
    let end = bytes.len() - footer.len();
    let other = open(&[&bytes[..end], &footer.encode()].concat()).unwrap();
    assert!(other.verify_meaning(KEY).unwrap_err().to_string().contains("digest"));
}

/// Values that do not compress: several pages of them.
fn several_pages() -> Content {
    let timestamps: Vec<i64> = (0..7000).map(|i| WINDOW.min.0 + i * 1000).collect();
    let series = |name: &str, seed: u64| {
        let mix = |x: u64| (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = |t: &i64| mix(mix(*t as u64).wrapping_add(seed));
        let values = timestamps.iter().map(|t| f64::from_bits(bits(t))).collect();
        (
            labels(&[("__name__", name)]),
            Samples { timestamps: timestamps.clone(), values, ..Samples::default() },
        )
    };
    vec![series("a", 1), series("b", 2), series("c", 3)]
}

#[test]
fn damage_in_one_page_leaves_the_others_readable() {
    let content = several_pages();
    let mut bytes = build(&content);
    bytes[2 * format::PAGE + 5] ^= 1;
    let reader = open(&bytes).unwrap();
    let first_hours = TimeRange::new(WINDOW.min.0, WINDOW.min.0 + 1_000_000);
    assert_eq!(rows(&read(&reader, 2, first_hours)).len(), 1001);
    let mut samples = Samples { timestamps: vec![1], values: vec![2.0], ..Samples::default() };
    let error = reader.read(1, TimeRange::ALL, &mut samples).unwrap_err();
    assert!(matches!(error, Error::Corrupt { offset, .. } if offset == 2 * format::PAGE as u64), "{error}");
    assert_eq!((samples.timestamps, samples.values), (vec![1], vec![2.0]), "nothing was appended");
}

#[test]
fn pages_in_each_others_place_are_corrupt() {
    let bytes = build(&several_pages());
    let body = open(&bytes).unwrap().footer().body_len();
    let mut swapped = bytes.clone();
    let page = format::PAGE;
    swapped[page..2 * page].copy_from_slice(&bytes[2 * page..3 * page]);
    swapped[2 * page..3 * page].copy_from_slice(&bytes[page..2 * page]);
    // The checksums travel with their pages; only the pages' offsets tell.
    swapped[body + 4..body + 8].copy_from_slice(&bytes[body + 8..body + 12]);
    swapped[body + 8..body + 12].copy_from_slice(&bytes[body + 4..body + 8]);
    let mut footer = open(&bytes).unwrap().footer().clone();
    let end = bytes.len() - format::FOOTER_LEN;
    footer.checksums = crc32fast::hash(&swapped[body..end]);
    swapped[end..].copy_from_slice(&footer.encode());
    let error = open(&swapped).and_then(|reader| read_everything(&reader).map(|_| ())).unwrap_err();
    assert!(matches!(error, Error::Corrupt { offset, .. } if offset == page as u64), "{error}");
}

#[test]
fn a_file_name_tells_its_range_also_before_the_epoch() {
    for (min, max) in [(0, 7_199_999), (-7_200_000, -1), (i64::MIN, i64::MAX), (-1, 5)] {
        let header =
            Header { shard: model::Shard(1), range: TimeRange::new(min, max), level: 3, id: u128::MAX };
        assert_eq!(Header::range_of_file_name(&header.file_name()), Some(header.range));
    }
    for name in ["", "x.block", "5-1-0-0.block", "1-2.block", "--.block", "1--0-0.block", "é-1-0-0.block"] {
        assert_eq!(Header::range_of_file_name(name), None, "{name}");
    }
}
