//! What is to be done about the settings of a namespace: a pure function.

use crate::api::{DeletePolicy, NamespaceSpec, SarsenNamespace, names};
use crate::database::Settings;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// The one namespace that the database cannot be without.
const DEFAULT: &str = "default";
const HOUR: u64 = 3_600_000;
/// Units of a retention, as the database reads them.
const UNITS: [(&str, u64); 7] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", HOUR),
    ("d", 24 * HOUR),
    ("w", 168 * HOUR),
    ("y", 8760 * HOUR),
];

/// What there is.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// What a person wrote.
    pub object: &'a SarsenNamespace,
    /// All objects of the Kubernetes namespace, this one among them or not.
    pub all: &'a [&'a SarsenNamespace],
    /// What the database says.
    pub database: Database,
}

/// What the database says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// No `SarsenCluster` has that name.
    Missing,
    /// A person wants nothing to be done.
    Paused,
    /// It does not answer, or not in a way that helps.
    Silent(String),
    /// Its namespaces with their settings.
    Says(BTreeMap<String, Settings>),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// The finalizer is put on: the namespace is to be deleted with the object.
    AddFinalizer,
    /// The finalizer is taken off.
    RemoveFinalizer,
    /// These settings are other ones in the database.
    Apply(Settings),
    /// The namespace is deleted from the database, then the finalizer taken off.
    Delete,
}

/// What is said: the condition `Applied`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the settings are in force. `None`: it is not known.
    pub applied: Option<bool>,
    /// In a word.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

impl Verdict {
    /// The settings are in force.
    pub fn applied() -> Verdict {
        Verdict { applied: Some(true), reason: "Applied", message: "the database has these settings".into() }
    }

    /// The database says no; asked again it would say the same.
    pub fn refused(why: String) -> Verdict {
        Verdict { applied: Some(false), reason: "Refused", message: why }
    }

    /// There is nobody to ask.
    pub fn silent(why: String) -> Verdict {
        Verdict { applied: None, reason: "DatabaseSilent", message: why }
    }
}

/// What to do, and what to say if that is done, or nothing is.
pub fn decide(seen: &Seen) -> (Step, Verdict) {
    let object = seen.object;
    let has_finalizer = has_finalizer(object);
    let deletes = object.spec.deletion_policy == DeletePolicy::Delete;
    if object.metadata.deletion_timestamp.is_some() {
        return if has_finalizer { leave(seen) } else { (Step::Nothing, Verdict::applied()) };
    }
    let (spec, cluster) = (&object.spec, &object.spec.cluster);
    let (step, verdict) = match (older(seen), &seen.database) {
        (Some(other), _) => {
            let message = format!(
                "SarsenNamespace {other} is older and describes the same namespace {} of cluster {cluster}: delete one of the two",
                spec.name
            );
            (Step::Nothing, Verdict { applied: Some(false), reason: "Conflict", message })
        }
        (None, Database::Missing) => {
            let message =
                format!("there is no SarsenCluster {cluster} here; the settings are applied when there is");
            (Step::Nothing, Verdict { applied: None, reason: "ClusterMissing", message })
        }
        (None, Database::Paused) => {
            let message = format!("cluster {cluster} is paused: nothing is applied");
            (Step::Nothing, Verdict { applied: None, reason: "Paused", message })
        }
        (None, Database::Silent(why)) => (Step::Nothing, Verdict::silent(why.clone())),
        (None, Database::Says(all)) => (apply(spec, all), Verdict::applied()),
    };
    match (deletes, has_finalizer) {
        // Before anything else, so that there is no moment in which the object could go without the namespace.
        (true, false) => (Step::AddFinalizer, verdict),
        (false, true) => (Step::RemoveFinalizer, verdict),
        _ => (step, verdict),
    }
}

/// Whether the object waits for us when it is deleted.
pub fn has_finalizer(object: &SarsenNamespace) -> bool {
    object.finalizers().iter().any(|finalizer| finalizer == names::NAMESPACE_FINALIZER)
}

/// What of the settings is not so yet.
fn apply(spec: &NamespaceSpec, all: &BTreeMap<String, Settings>) -> Step {
    let wanted = settings(spec);
    // Whether there can be another namespace is the database's to say.
    let Some(now) = all.get(&spec.name) else { return Step::Apply(wanted) };
    let different: Settings = wanted
        .into_iter()
        .filter(|(setting, text)| !now.get(setting).is_some_and(|now| is_same(now, text)))
        .collect();
    if different.is_empty() { Step::Nothing } else { Step::Apply(different) }
}

/// The object is deleted, and the namespace may be to go with it.
fn leave(seen: &Seen) -> (Step, Verdict) {
    let NamespaceSpec { name, cluster, deletion_policy, .. } = &seen.object.spec;
    let kept = |message: String| {
        (Step::RemoveFinalizer, Verdict { applied: Some(false), reason: "NamespaceKept", message })
    };
    if *deletion_policy == DeletePolicy::Retain {
        return kept(format!("namespace {name} stays in the database, as deletionPolicy says"));
    }
    if name == DEFAULT {
        let way = "to let old samples go, give it a retention";
        return kept(format!("namespace {DEFAULT} cannot be deleted: every series belongs to it; {way}"));
    }
    if let Some(other) = others(seen).next() {
        let other = other.name_any();
        return kept(format!(
            "namespace {name} stays in the database: SarsenNamespace {other} describes it, too"
        ));
    }
    let waits = "set deletionPolicy to Retain to let the object go without that";
    match &seen.database {
        Database::Missing => {
            kept(format!("there is no SarsenCluster {cluster} to delete namespace {name} from"))
        }
        Database::Paused => {
            let message = format!("cluster {cluster} is paused: namespace {name} is not deleted; {waits}");
            (Step::Nothing, Verdict { applied: None, reason: "Paused", message })
        }
        Database::Silent(why) => {
            (Step::Nothing, Verdict::silent(format!("namespace {name} waits to be deleted: {why}; {waits}")))
        }
        Database::Says(all) if all.contains_key(name) => {
            let message = format!("namespace {name} is deleted from the database");
            (Step::Delete, Verdict { applied: Some(false), reason: "NamespaceDeleted", message })
        }
        Database::Says(_) => kept(format!("the database has no namespace {name}")),
    }
}

/// Other objects about the same namespace of the same database, which are to stay.
fn others<'a>(seen: &Seen<'a>) -> impl Iterator<Item = &'a SarsenNamespace> {
    let object = seen.object;
    seen.all.iter().copied().filter(move |other| {
        other.uid() != object.uid()
            && (&other.spec.cluster, &other.spec.name) == (&object.spec.cluster, &object.spec.name)
            && other.metadata.deletion_timestamp.is_none()
    })
}

/// The one of them that goes before this one, if any.
fn older(seen: &Seen) -> Option<String> {
    let age = |object: &SarsenNamespace| (object.creation_timestamp(), object.name_any());
    others(seen).filter(|other| age(other) < age(seen.object)).map(ResourceExt::name_any).min()
}

/// The settings that are named, as the database calls them.
fn settings(spec: &NamespaceSpec) -> Settings {
    let all = [
        ("retention", &spec.retention),
        ("durability", &spec.durability),
        ("read_consistency", &spec.read_consistency),
        ("write_consistency", &spec.write_consistency),
    ];
    all.into_iter().filter_map(|(setting, text)| Some((setting.to_owned(), text.clone()?))).collect()
}

/// The same words, or the same time in other units.
fn is_same(one: &str, other: &str) -> bool {
    one == other || span(one).is_some_and(|ms| span(other) == Some(ms))
}

fn span(text: &str) -> Option<u64> {
    let (mut rest, mut total) = (text, 0u64);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let unit = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total = number.parse::<u64>().ok()?.checked_mul(unit).and_then(|ms| total.checked_add(ms))?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(name: &str, created: &str, spec: Value) -> SarsenNamespace {
        let mut object = json!({
            "apiVersion": "sarsen.dev/v1alpha1", "kind": "SarsenNamespace", "spec": { "cluster": "metrics" },
            "metadata": { "name": name, "uid": format!("uid-{name}"), "creationTimestamp": created },
        });
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    fn namespace(spec: Value) -> SarsenNamespace {
        object("one", "2026-01-01T00:00:00Z", spec)
    }

    /// With its finalizer, and deleted.
    fn going(spec: Value) -> SarsenNamespace {
        let mut object = namespace(spec);
        object.metadata.deletion_timestamp = object.metadata.creation_timestamp.clone();
        object.metadata.finalizers = Some(vec![names::NAMESPACE_FINALIZER.into()]);
        object
    }

    fn says() -> Database {
        let settings = [
            ("retention", "forever"),
            ("durability", "fsync"),
            ("read_consistency", "majority"),
            ("write_consistency", "majority"),
        ];
        let settings: Settings = settings.map(|(key, value)| (key.into(), value.into())).into();
        Database::Says([(DEFAULT.to_owned(), settings)].into())
    }

    fn decided(object: &SarsenNamespace, database: Database) -> (Step, Verdict) {
        decide(&Seen { object, all: &[object], database })
    }

    fn step(object: &SarsenNamespace, database: Database) -> Step {
        decided(object, database).0
    }

    #[test]
    fn only_what_is_different_is_applied_and_then_nothing() {
        let wanted =
            namespace(json!({ "retention": "90d", "durability": "fsync", "readConsistency": "one" }));
        let different = [("retention", "90d"), ("read_consistency", "one")];
        let different: Settings = different.map(|(key, value)| (key.into(), value.into())).into();
        assert_eq!(step(&wanted, says()), Step::Apply(different.clone()));
        let Database::Says(mut all) = says() else { unreachable!() };
        all.get_mut(DEFAULT).unwrap().extend(different);
        assert_eq!(decided(&wanted, Database::Says(all)), (Step::Nothing, Verdict::applied()));
        assert_eq!(step(&namespace(json!({})), says()), Step::Nothing);
    }

    #[test]
    fn the_same_time_in_other_units_is_no_difference() {
        for (one, other) in
            [("1d", "24h"), ("1y", "365d"), ("1w", "168h"), ("1h30m", "90m"), ("forever", "forever")]
        {
            assert!(is_same(one, other) && is_same(other, one), "{one} {other}");
        }
        for (one, other) in
            [("1d", "25h"), ("forever", "1d"), ("", "0s"), ("5", "5"), ("99999999999999999999y", "1y")]
        {
            assert!(one == other || !is_same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn a_namespace_that_the_database_does_not_have_is_asked_for_even_without_settings() {
        assert_eq!(step(&namespace(json!({ "name": "other" })), says()), Step::Apply(Settings::new()));
    }

    #[test]
    fn without_an_answer_it_is_unknown_and_says_what_it_waits_for() {
        let wanted = namespace(json!({ "retention": "90d" }));
        for (database, reason, word) in [
            (Database::Missing, "ClusterMissing", "no SarsenCluster metrics"),
            (Database::Paused, "Paused", "paused"),
            (Database::Silent("no node answers".into()), "DatabaseSilent", "no node answers"),
        ] {
            let (step, verdict) = decided(&wanted, database);
            assert_eq!((step, verdict.applied, verdict.reason), (Step::Nothing, None, reason));
            assert!(verdict.message.contains(word), "{verdict:?}");
        }
    }

    #[test]
    fn of_two_for_the_same_namespace_the_older_one_wins_and_the_other_names_it() {
        let old = object("z", "2026-01-01T00:00:00Z", json!({ "retention": "90d" }));
        let new = object("a", "2026-01-01T00:00:01Z", json!({ "retention": "30d" }));
        let elsewhere = object("b", "2025-01-01T00:00:00Z", json!({ "name": "other" }));
        let all = [&new, &old, &elsewhere];
        let of = |object| decide(&Seen { object, all: &all, database: says() });
        assert!(matches!(of(&old).0, Step::Apply(_)));
        let (step, verdict) = of(&new);
        assert_eq!((step, verdict.applied, verdict.reason), (Step::Nothing, Some(false), "Conflict"));
        assert!(verdict.message.contains("SarsenNamespace z is older"), "{verdict:?}");
        // One that goes does not count.
        let mut left = old.clone();
        left.metadata.deletion_timestamp = old.metadata.creation_timestamp.clone();
        let seen = Seen { object: &new, all: &[&left, &new], database: says() };
        assert!(matches!(decide(&seen).0, Step::Apply(_)));
        // Made in the same second: one of the two, and never both.
        let twin = object("y", "2026-01-01T00:00:00Z", json!({}));
        let both = [&old, &twin];
        let loses = |object| decide(&Seen { object, all: &both, database: says() }).1.reason == "Conflict";
        assert_eq!((loses(&old), loses(&twin)), (true, false));
    }

    #[test]
    fn the_finalizer_is_there_only_while_the_namespace_is_to_be_deleted_with_the_object() {
        let mut object = namespace(json!({ "deletionPolicy": "Delete", "retention": "90d" }));
        assert_eq!(step(&object, says()), Step::AddFinalizer);
        object.metadata.finalizers = Some(vec![names::NAMESPACE_FINALIZER.into()]);
        assert!(matches!(step(&object, says()), Step::Apply(_)));
        object.spec.deletion_policy = DeletePolicy::Retain;
        assert_eq!(step(&object, says()), Step::RemoveFinalizer);
        object.metadata.finalizers = None;
        object.metadata.deletion_timestamp = object.metadata.creation_timestamp.clone();
        assert_eq!(step(&object, says()), Step::Nothing);
    }

    #[test]
    fn a_deleted_object_takes_its_namespace_with_it_if_that_can_be() {
        let other = json!({ "name": "other", "deletionPolicy": "Delete" });
        let Database::Says(mut all) = says() else { unreachable!() };
        all.insert("other".into(), Settings::new());
        let has_it = Database::Says(all);
        assert_eq!(step(&going(other.clone()), has_it.clone()), Step::Delete);
        for (object, database, word) in [
            (going(json!({ "name": "other", "deletionPolicy": "Retain" })), has_it.clone(), "stays"),
            (going(json!({ "deletionPolicy": "Delete" })), has_it.clone(), "give it a retention"),
            (going(other.clone()), says(), "no namespace other"),
            (going(other.clone()), Database::Missing, "no SarsenCluster"),
        ] {
            let (step, verdict) = decided(&object, database);
            assert_eq!(step, Step::RemoveFinalizer);
            assert!(verdict.message.contains(word), "{verdict:?}");
        }
        for database in [Database::Paused, Database::Silent("nobody answers".into())] {
            let (step, verdict) = decided(&going(other.clone()), database);
            assert_eq!((step, verdict.applied), (Step::Nothing, None));
            assert!(verdict.message.contains("set deletionPolicy to Retain"), "{verdict:?}");
        }
        let twin = object("two", "2026-02-01T00:00:00Z", json!({ "name": "other" }));
        let gone = going(other);
        let (step, verdict) = decide(&Seen { object: &gone, all: &[&twin, &gone], database: has_it });
        assert_eq!(step, Step::RemoveFinalizer);
        assert!(verdict.message.contains("SarsenNamespace two"), "{verdict:?}");
    }
}
