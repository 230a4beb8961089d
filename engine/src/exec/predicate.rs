//! What a scan selects, in terms that a segment can answer without looking at every row.

use std::fmt;
use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;

use crate::model::Timestamp;

/// A condition on `__time` and on string dimensions.
///
/// SQL knows three truths, and a row is selected only if the condition is *true* for it. There is no negation here:
/// whoever builds a predicate pushes it down to the leaves, where `NOT` of unknown stays unknown. Then a conjunction
/// selects what all its parts select, and a disjunction what any does, with no need to tell false from unknown.
#[derive(Clone, Debug)]
pub enum Predicate {
    /// `__time` lies in one of these.
    Time(TimeRanges),
    /// A function of one string dimension is true.
    Dimension(DimensionPredicate),
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
}

/// A deterministic condition on one string dimension that cannot fail, whatever the value.
#[derive(Clone, Debug)]
pub struct DimensionPredicate {
    /// Index into the data source's columns.
    pub column: usize,
    pub name: String,
    /// Over batches of that one column, a `Utf8View`.
    pub condition: Arc<dyn PhysicalExpr>,
}

impl Predicate {
    /// The times outside of which it selects nothing.
    pub fn times(&self) -> TimeRanges {
        match self {
            Self::Time(ranges) => ranges.clone(),
            Self::Dimension(_) => TimeRanges::all(),
            Self::And(parts) => parts.iter().fold(TimeRanges::all(), |times, part| times.intersect(&part.times())),
            Self::Or(parts) => parts.iter().fold(TimeRanges::none(), |times, part| times.union(&part.times())),
        }
    }

    /// The conditions on dimensions.
    pub fn conditions(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        match self {
            Self::Time(_) => Vec::new(),
            Self::Dimension(dimension) => vec![&dimension.condition],
            Self::And(parts) | Self::Or(parts) => parts.iter().flat_map(Self::conditions).collect(),
        }
    }

    /// Whether it says no more than [`Predicate::times`].
    pub fn is_only_about_time(&self) -> bool {
        match self {
            Self::Time(_) => true,
            Self::Dimension(_) => false,
            Self::And(parts) | Self::Or(parts) => parts.iter().all(Self::is_only_about_time),
        }
    }
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, word) = match self {
            Self::Time(ranges) => return write!(f, "__time IN {ranges}"),
            Self::Dimension(dimension) => return write!(f, "{}", dimension.condition),
            Self::And(parts) => (parts, " AND "),
            Self::Or(parts) => (parts, " OR "),
        };
        for (i, part) in parts.iter().enumerate() {
            let nested = matches!(part, Self::And(_) | Self::Or(_));
            let (open, close) = if nested { ("(", ")") } else { ("", "") };
            write!(f, "{}{open}{part}{close}", if i == 0 { "" } else { word })?;
        }
        Ok(())
    }
}

/// A set of instants: half-open ranges of milliseconds, disjoint, ascending, none empty. The greatest `i64` stands for
/// no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeRanges(Vec<(i64, i64)>);

impl TimeRanges {
    pub fn all() -> Self {
        Self(vec![(i64::MIN, i64::MAX)])
    }

    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// `[start, end)`; nothing if that is empty.
    pub fn between(start: i64, end: i64) -> Self {
        if start < end { Self(vec![(start, end)]) } else { Self::none() }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn ranges(&self) -> &[(i64, i64)] {
        &self.0
    }

    /// From the first instant to the last; `None` when empty.
    pub fn hull(&self) -> Option<(i64, i64)> {
        Some((self.0.first()?.0, self.0.last()?.1))
    }

    /// Whether any instant of `[start, end)` is in it.
    pub fn overlaps(&self, start: i64, end: i64) -> bool {
        self.0.iter().any(|&(from, to)| from < end && start < to)
    }

    /// Whether all of `[start, end)` is in it.
    pub fn covers(&self, start: i64, end: i64) -> bool {
        self.0.iter().any(|&(from, to)| from <= start && end <= to)
    }

    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        for &(a, b) in &self.0 {
            for &(c, d) in &other.0 {
                if a.max(c) < b.min(d) {
                    both.push((a.max(c), b.min(d)));
                }
            }
        }
        both.sort_unstable();
        Self(both)
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut ranges = self.0.iter().chain(&other.0).copied().collect::<Vec<_>>();
        ranges.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Self(merged)
    }

    #[must_use]
    pub fn complement(&self) -> Self {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut from = i64::MIN;
        for &(start, end) in &self.0 {
            if from < start {
                gaps.push((from, start));
            }
            from = end;
        }
        if from < i64::MAX {
            gaps.push((from, i64::MAX));
        }
        Self(gaps)
    }
}

impl fmt::Display for TimeRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |millis: i64, open: i64| match millis == open {
            true => "..".to_owned(),
            false => Timestamp::from_millis(millis).to_string(),
        };
        match self.0.as_slice() {
            [] => return f.write_str("none"),
            [(i64::MIN, i64::MAX)] => return f.write_str("all"),
            _ => {}
        }
        for (i, &(start, end)) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { " or " };
            write!(f, "{gap}{}/{}", bound(start, i64::MIN), bound(end, i64::MAX))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = TimeRanges> {
        let range = (-20..20_i64, 0..10_i64).prop_map(|(start, len)| TimeRanges::between(start, start + len));
        prop::collection::vec(range, 0..4)
            .prop_map(|parts| parts.iter().fold(TimeRanges::none(), |all, part| all.union(part)))
    }

    fn has(ranges: &TimeRanges, instant: i64) -> bool {
        ranges.overlaps(instant, instant + 1)
    }

    proptest! {
        #[test]
        fn ranges_are_sets(a in ranges(), b in ranges()) {
            let (union, both, rest) = (a.union(&b), a.intersect(&b), a.complement());
            for instant in -40..40 {
                prop_assert_eq!(has(&union, instant), has(&a, instant) || has(&b, instant));
                prop_assert_eq!(has(&both, instant), has(&a, instant) && has(&b, instant));
                prop_assert_eq!(has(&rest, instant), !has(&a, instant));
            }
            prop_assert_eq!(rest.complement(), a);
        }
    }
}
