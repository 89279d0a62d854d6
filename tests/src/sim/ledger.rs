//! What was sent, what was acknowledged, and when: the truth that every answer is held against (Jepsen's *set-full*).

use super::values::{Row, VERSIONS, Values};
use model::value::Value;
use std::collections::BTreeMap;

/// Not acknowledged.
const NEVER: u64 = u64::MAX;

#[derive(Clone, Copy)]
struct Cell {
    /// By bit.
    sent: u8,
    acknowledged_ms: [u64; VERSIONS],
}

/// Every row by series and timestamp.
#[derive(Default)]
pub struct Ledger {
    cells: BTreeMap<(u16, i64), Cell>,
    acknowledged: u64,
    rejected: u64,
}

impl Ledger {
    /// A client sends a row, now or again.
    pub fn sent(&mut self, row: Row) {
        let cell = self
            .cells
            .entry((row.series, row.t))
            .or_insert(Cell { sent: 0, acknowledged_ms: [NEVER; VERSIONS] });
        cell.sent |= 1 << row.version;
    }

    /// The cluster said that it has the row.
    pub fn acknowledged(&mut self, row: Row, now_ms: u64) {
        let cell = self.cells.get_mut(&(row.series, row.t)).expect("BUG: acknowledged and never sent");
        let at = &mut cell.acknowledged_ms[usize::from(row.version)];
        self.acknowledged += u64::from(*at == NEVER);
        *at = (*at).min(now_ms);
    }

    /// Whether the cluster said that it has any version of a row.
    pub fn is_acknowledged(&self, series: u16, t: i64) -> bool {
        let cell = self.cells.get(&(series, t));
        cell.is_some_and(|cell| cell.acknowledged_ms.iter().any(|at| *at != NEVER))
    }

    /// What the cluster said that it has of a series: timestamps, and the value that must win there.
    pub fn acknowledged_of(&self, values: &Values, series: u16) -> impl Iterator<Item = (i64, Value)> {
        self.cells.range((series, i64::MIN)..=(series, i64::MAX)).filter_map(move |(&(_, t), cell)| {
            let known =
                (0..VERSIONS as u8).filter(|version| cell.acknowledged_ms[usize::from(*version)] != NEVER);
            Some((t, values.winner(series, t, known)?))
        })
    }

    /// The cluster said that it will never take the row.
    pub fn rejected(&mut self) {
        self.rejected += 1;
    }

    /// Rows acknowledged.
    pub fn acknowledged_count(&self) -> u64 {
        self.acknowledged
    }

    /// Rows rejected.
    pub fn rejected_count(&self) -> u64 {
        self.rejected
    }

    /// The newest timestamp sent of a series and some that are older, for clients that send rows again.
    pub fn some_of(&self, series: u16) -> Option<i64> {
        let (&(_, t), _) = self.cells.range((series, i64::MIN)..=(series, i64::MAX)).next_back()?;
        Some(t)
    }

    /// Holds what was read of a series between two timestamps, both included, against the truth. Everything that was acknowledged before `since_ms`
    /// must be there, with a value that wins over it; nothing else may be there but what was sent.
    ///
    /// # Errors
    /// What is missing, wrong or invented.
    pub fn check(
        &self,
        values: &Values,
        series: u16,
        (min, max): (i64, i64),
        since_ms: u64,
        read: impl IntoIterator<Item = (i64, Value)>,
    ) -> Result<(), String> {
        let mut known = self.cells.range((series, min)..=(series, max)).peekable();
        let due = |cell: &Cell| {
            let at = cell.acknowledged_ms;
            (0..VERSIONS as u8).filter(move |version| at[usize::from(*version)] < since_ms)
        };
        let missing = |t: i64, cell: &Cell| match due(cell).next() {
            None => Ok(()),
            Some(version) => Err(format!(
                "lost: series {series} at {t}, version {version}, acknowledged at {} ms and not there for a read that began at {since_ms} ms",
                cell.acknowledged_ms[usize::from(version)]
            )),
        };
        let mut last = i64::MIN;
        for (t, value) in read {
            if t < min || t > max || t <= last && last != i64::MIN {
                return Err(format!(
                    "out of order or range: series {series} at {t}, asked for {min} to {max}"
                ));
            }
            last = t;
            while let Some((&(_, at), cell)) = known.next_if(|((_, at), _)| *at < t) {
                missing(at, cell)?;
            }
            let Some((_, cell)) = known.next_if(|((_, at), _)| *at == t) else {
                return Err(format!("invented: series {series} has a row at {t} that nobody sent"));
            };
            let of = |version: u8| values.value(Row { series, t, version });
            let sent = (0..VERSIONS as u8).filter(|v| cell.sent >> v & 1 == 1);
            if !sent.into_iter().any(|version| of(version).cmp_conflict(&value).is_eq()) {
                return Err(format!("wrong: series {series} at {t} is {value:?}, which nobody sent"));
            }
            if let Some(least) = values.winner(series, t, due(cell))
                && value.cmp_conflict(&least).is_lt()
            {
                return Err(format!(
                    "stale: series {series} at {t} is {value:?} although {least:?} was acknowledged"
                ));
            }
        }
        known.try_for_each(|(&(_, at), cell)| missing(at, cell))
    }

    /// Holds a lookup of series between two timestamps, both included, against the truth: one that had a row there which was acknowledged before
    /// `since_ms` must be found, one that nobody ever sent a row of must not. (Those of other times may be: a block is looked at as a whole.)
    ///
    /// # Errors
    /// What is missing or invented.
    pub fn check_found(
        &self,
        series: u16,
        (min, max): (i64, i64),
        since_ms: u64,
        found: bool,
    ) -> Result<(), String> {
        let mut between = self.cells.range((series, min)..=(series, max));
        let due = between.find(|(_, cell)| cell.acknowledged_ms.iter().any(|at| *at < since_ms));
        let sent = self.some_of(series).is_some();
        match (found, due) {
            (false, Some(((_, t), _))) => {
                Err(format!("lost: series {series} is not found, which has a row at {t}"))
            }
            (true, _) if !sent => {
                Err(format!("invented: series {series} is found, of which nobody sent a row"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: (i64, i64) = (i64::MIN, i64::MAX);

    fn row(t: i64, version: u8) -> Row {
        Row { series: 1, t, version }
    }

    #[test]
    fn what_is_lost_wrong_stale_or_invented_is_told() {
        let values = Values::new(7, 3, 40);
        let mut ledger = Ledger::default();
        for r in [row(10, 0), row(20, 0), row(30, 0), row(30, 1)] {
            ledger.sent(r);
        }
        ledger.acknowledged(row(10, 0), 5);
        ledger.acknowledged(row(30, 0), 6);
        ledger.acknowledged(row(30, 1), 9);
        let value = |t, version| (t, values.value(row(t, version)));
        let best = values.winner(1, 30, 0..2).unwrap();
        let worst =
            [0, 1].map(|v| value(30, v)).into_iter().find(|(_, v)| v.cmp_conflict(&best).is_ne()).unwrap();
        let best = (30, best);
        let check = |range, since, read: &[(i64, Value)]| {
            ledger.check(&values, 1, range, since, read.iter().cloned())
        };
        assert_eq!(check(ALL, 100, &[value(10, 0), best.clone()]), Ok(()));
        assert_eq!(
            check(ALL, 100, &[value(10, 0), value(20, 0), best.clone()]),
            Ok(()),
            "not acknowledged, and there"
        );
        assert_eq!(check(ALL, 5, &[]), Ok(()), "acknowledged while the read was under way");
        assert_eq!(check((11, 29), 100, &[]), Ok(()));
        assert!(check(ALL, 100, &[best]).unwrap_err().starts_with("lost"));
        assert!(check(ALL, 100, &[value(10, 0)]).unwrap_err().starts_with("lost"));
        assert!(check(ALL, 100, &[value(10, 0), worst]).unwrap_err().starts_with("stale"));
        assert!(check(ALL, 1, &[value(10, 1)]).unwrap_err().starts_with("wrong"));
        assert!(check(ALL, 1, &[(15, Value::Float(1.0))]).unwrap_err().starts_with("invented"));
        assert!(check(ALL, 1, &[value(20, 0), value(10, 0)]).unwrap_err().starts_with("out of order"));
        let found = |series, range, since, found| ledger.check_found(series, range, since, found);
        assert_eq!((found(1, ALL, 100, true), found(2, ALL, 100, false)), (Ok(()), Ok(())));
        assert_eq!(found(1, (11, 29), 100, true), Ok(()), "of another time");
        assert_eq!((found(1, (11, 29), 100, false), found(1, ALL, 5, false)), (Ok(()), Ok(())));
        assert!(found(1, ALL, 100, false).unwrap_err().starts_with("lost"));
        assert!(found(2, ALL, 1, true).unwrap_err().starts_with("invented"));
    }
}
