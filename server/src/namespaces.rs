//! The settings of namespaces as people write them, and what applying them would change.
//!
//! A namespace is changed by naming what shall be different; what is not named stays. Whoever applies sees the difference first, and
//! a change that removes samples must be confirmed.

use crate::config::{Durability, Retention, Setting};
use cluster::quorum::Consistency;
use cluster::view::Namespace;
use std::collections::BTreeMap;

/// The namespace that all series belong to.
pub const DEFAULT: &str = "default";

/// By name of the namespace, then by setting: what somebody wrote.
pub type Wanted = BTreeMap<String, BTreeMap<String, String>>;

/// The settings in the order in which they are shown.
pub const SETTINGS: [&str; 4] = ["retention", "durability", "write_consistency", "read_consistency"];

/// One setting that would be another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The namespace.
    pub namespace: String,
    /// The setting.
    pub setting: &'static str,
    /// What it is.
    pub from: String,
    /// What it would be.
    pub to: String,
    /// Whether samples go away because of it.
    pub removes: bool,
}

/// How long a namespace keeps samples.
pub fn retention(namespace: &Namespace) -> Retention {
    match i64::try_from(namespace.retention_ms) {
        Ok(0) | Err(_) => Retention::Forever,
        Ok(ms) => Retention::Millis(ms),
    }
}

/// When a write into a namespace is acknowledged.
pub fn durability(namespace: &Namespace) -> Durability {
    if namespace.fsync { Durability::Fsync } else { Durability::Interval }
}

/// The value of a setting, as one would write it.
pub fn get(namespace: &Namespace, setting: &str) -> String {
    match setting {
        "retention" => retention(namespace).print(),
        "durability" => durability(namespace).print(),
        "write_consistency" => namespace.write.to_string(),
        "read_consistency" => namespace.read.to_string(),
        _ => unreachable!("BUG: not a setting of namespaces"),
    }
}

/// Sets one; or says what is wrong.
pub fn set(namespace: &mut Namespace, setting: &str, text: &str) -> Result<(), String> {
    let bad = |expects: &str| format!("`{setting}` is set to `{text}`, but takes {expects}");
    let consistency = || text.parse::<Consistency>().map_err(|_| bad("`one`, `majority` or `all`"));
    match setting {
        "retention" => match Retention::parse(text).ok_or_else(|| bad(Retention::EXPECTS))? {
            Retention::Forever => namespace.retention_ms = 0,
            Retention::Millis(ms) => namespace.retention_ms = ms.unsigned_abs(),
        },
        "durability" => {
            let durability = Durability::parse(text).ok_or_else(|| bad(Durability::EXPECTS))?;
            namespace.fsync = durability == Durability::Fsync;
        }
        "write_consistency" => namespace.write = consistency()?,
        "read_consistency" => namespace.read = consistency()?,
        _ => return Err(format!("unknown setting `{setting}`; a namespace has {}", SETTINGS.join(", "))),
    }
    Ok(())
}

/// The namespaces as they would be, each that would be another, and what is different about it.
pub fn apply(
    now: &BTreeMap<String, Namespace>,
    wanted: &Wanted,
) -> Result<(BTreeMap<String, Namespace>, Vec<Change>), String> {
    let (mut changed, mut changes) = (BTreeMap::new(), Vec::new());
    for (name, settings) in wanted {
        let before = now.get(name).ok_or_else(|| {
            format!(
                "there is no namespace `{name}`, and none can be made in this version: every series belongs to `{DEFAULT}`, \
                 so another namespace would hold nothing"
            )
        })?;
        let mut after = *before;
        for (setting, text) in settings {
            set(&mut after, setting, text).map_err(|why| format!("namespace `{name}`: {why}"))?;
        }
        let keeps = |namespace: &Namespace| match namespace.retention_ms {
            0 => u64::MAX,
            ms => ms,
        };
        for setting in SETTINGS {
            let (from, to) = (get(before, setting), get(&after, setting));
            if from != to {
                let removes = setting == "retention" && keeps(&after) < keeps(before);
                changes.push(Change { namespace: name.clone(), setting, from, to, removes });
            }
        }
        if after != *before {
            changed.insert(name.clone(), after);
        }
    }
    Ok((changed, changes))
}

/// Why a namespace cannot be deleted, if so.
pub fn refuse_deletion(now: &BTreeMap<String, Namespace>, name: &str) -> Option<String> {
    match name {
        DEFAULT => Some(format!(
            "`{DEFAULT}` cannot be deleted: every series belongs to it; to let old samples go, give it a retention \
             (`sarsen ns apply {DEFAULT} retention=30d`)"
        )),
        _ if !now.contains_key(name) => {
            Some(format!("there is no namespace `{name}`; `sarsen ns list` shows all"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> BTreeMap<String, Namespace> {
        BTreeMap::from([(DEFAULT.to_string(), Namespace::default())])
    }

    fn wanted(name: &str, settings: &[(&str, &str)]) -> Wanted {
        let settings = settings.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        BTreeMap::from([(name.to_string(), settings)])
    }

    #[test]
    fn only_what_is_different_is_a_change() {
        let asked = [("retention", "30d"), ("durability", "fsync"), ("read_consistency", "one")];
        let (changed, changes) = apply(&now(), &wanted(DEFAULT, &asked)).unwrap();
        let told: Vec<_> =
            changes.iter().map(|c| (c.setting, c.from.as_str(), c.to.as_str(), c.removes)).collect();
        assert_eq!(
            told,
            [("retention", "forever", "30d", true), ("read_consistency", "majority", "one", false)]
        );
        assert_eq!(changed[DEFAULT].retention_ms, 30 * 86_400_000);
        let again = apply(&changed, &wanted(DEFAULT, &asked)).unwrap();
        assert_eq!(again, (BTreeMap::new(), vec![]));
        let (_, longer) = apply(&changed, &wanted(DEFAULT, &[("retention", "forever")])).unwrap();
        assert!(!longer[0].removes, "keeping more removes nothing");
    }

    #[test]
    fn what_is_not_there_or_makes_no_sense_is_refused_with_the_reason() {
        let why = |name: &str, setting: &str, text: &str| {
            apply(&now(), &wanted(name, &[(setting, text)])).unwrap_err()
        };
        assert!(why("other", "retention", "1d").contains("every series belongs to `default`"));
        assert!(why(DEFAULT, "retention", "15m").contains("at least 1h"));
        assert!(
            why(DEFAULT, "retentoin", "15d")
                .contains("unknown setting `retentoin`; a namespace has retention")
        );
        assert!(why(DEFAULT, "write_consistency", "two").contains("`one`, `majority` or `all`"));
        assert!(why(DEFAULT, "durability", "never").contains("`fsync` or `interval`"));
        assert!(refuse_deletion(&now(), DEFAULT).unwrap().contains("retention=30d"));
        assert!(refuse_deletion(&now(), "x").unwrap().contains("sarsen ns list"));
    }

    #[test]
    fn every_setting_reads_what_it_prints() {
        let other = Namespace {
            retention_ms: 86_400_000,
            fsync: false,
            write: Consistency::All,
            read: Consistency::One,
        };
        for namespace in [Namespace::default(), other] {
            let mut copy = Namespace { retention_ms: 5, fsync: !namespace.fsync, ..Namespace::default() };
            SETTINGS.iter().for_each(|setting| set(&mut copy, setting, &get(&namespace, setting)).unwrap());
            assert_eq!(copy, namespace);
        }
    }
}
