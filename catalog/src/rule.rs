//! Load, drop and broadcast rules: how many replicas of a segment are wanted, and where.
//!
//! The rules of a data source are a list, followed by those of all data sources; the first that applies to a segment
//! decides. Druid's JSON and Druid's meaning (`server/…/coordinator/rules/Rules.java`): rules that load and broadcast
//! apply to segments that *overlap* their time, rules that drop only to those that lie *within* it. Pure: the time is
//! passed in.

use std::collections::BTreeMap;

use henge_engine::model::{Interval, Period, TimeZone, Timestamp};
use henge_engine::{Error, Result};
use serde::{Deserialize, Serialize};

/// The tier of a historical that does not say its own.
pub const DEFAULT_TIER: &str = "_default_tier";
/// The key of the rules that come after those of each data source.
pub const DEFAULT_RULES: &str = "_default";
/// How many replicas a rule wants that does not say.
const DEFAULT_REPLICAS: u32 = 2;
/// More copies than any cluster has historicals.
const MAX_REPLICAS: u32 = 10_000;

/// Replicas by tier.
pub type Replicas = BTreeMap<String, u32>;

/// One rule, as Druid writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Rule {
    LoadForever {
        #[serde(flatten)]
        load: Load,
    },
    LoadByInterval {
        interval: Interval,
        #[serde(flatten)]
        load: Load,
    },
    LoadByPeriod {
        period: Period,
        #[serde(default = "yes")]
        include_future: bool,
        #[serde(flatten)]
        load: Load,
    },
    DropForever,
    DropByInterval {
        interval: Interval,
    },
    DropByPeriod {
        period: Period,
        #[serde(default = "yes")]
        include_future: bool,
    },
    DropBeforeByPeriod {
        period: Period,
    },
    BroadcastForever,
    BroadcastByInterval {
        interval: Interval,
    },
    BroadcastByPeriod {
        period: Period,
        #[serde(default = "yes")]
        include_future: bool,
    },
}

fn yes() -> bool {
    true
}

/// What a rule that loads asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// No tier at all means: nowhere, but still used.
    #[serde(default = "two_in_the_default_tier", skip_serializing_if = "Option::is_none")]
    pub tiered_replicants: Option<Replicas>,
    /// Whether a missing list of tiers means the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_default_tier_for_null: Option<bool>,
}

fn two_in_the_default_tier() -> Option<Replicas> {
    Some(Replicas::from([(DEFAULT_TIER.to_owned(), DEFAULT_REPLICAS)]))
}

/// What is wanted of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// So many replicas in each tier; other tiers have none.
    Load(Replicas),
    /// A replica on every server.
    Broadcast,
    /// It is marked unused.
    Drop,
}

impl Rule {
    /// Whether the rule decides about a segment of this interval.
    pub fn applies(&self, interval: &Interval, now: Timestamp) -> bool {
        match self {
            Self::LoadForever { .. } | Self::DropForever | Self::BroadcastForever => true,
            Self::LoadByInterval { interval: when, .. } | Self::BroadcastByInterval { interval: when } => {
                when.overlaps(interval)
            }
            Self::DropByInterval { interval: when } => when.contains_interval(interval),
            Self::LoadByPeriod { period, include_future, .. } | Self::BroadcastByPeriod { period, include_future } => {
                recent(*period, *include_future, now).is_some_and(|when| when.overlaps(interval))
            }
            Self::DropByPeriod { period, include_future } => {
                recent(*period, *include_future, now).is_some_and(|when| when.contains_interval(interval))
            }
            Self::DropBeforeByPeriod { period } => before(*period, now).is_some_and(|limit| interval.end() <= limit),
        }
    }

    /// What it wants of the segments that it applies to.
    pub fn wants(&self) -> Wanted {
        match self {
            Self::LoadForever { load } | Self::LoadByInterval { load, .. } | Self::LoadByPeriod { load, .. } => {
                Wanted::Load(load.replicas())
            }
            Self::DropForever
            | Self::DropByInterval { .. }
            | Self::DropByPeriod { .. }
            | Self::DropBeforeByPeriod { .. } => Wanted::Drop,
            Self::BroadcastForever | Self::BroadcastByInterval { .. } | Self::BroadcastByPeriod { .. } => {
                Wanted::Broadcast
            }
        }
    }

    /// When, after `now`, the rule begins or ends to apply to a segment of this interval, if time alone brings that
    /// about. Until then [`Rule::applies`] answers the same, so that nobody needs to ask again.
    pub fn next_change(&self, interval: &Interval, now: Timestamp) -> Option<Timestamp> {
        let (period, include_future, within) = match self {
            Self::LoadByPeriod { period, include_future, .. } | Self::BroadcastByPeriod { period, include_future } => {
                (*period, *include_future, false)
            }
            Self::DropByPeriod { period, include_future } => (*period, *include_future, true),
            Self::DropBeforeByPeriod { period } => return moment(interval.end(), *period, now),
            _ => return None,
        };
        // The edge that time moves past the segment. A load rule is left behind as its end is reached, a drop rule only
        // as its start is passed.
        let after_start = Timestamp::from_millis(interval.start().millis() + 1);
        let leaves = moment(if within { after_start } else { interval.end() }, period, now);
        let enters = match (include_future, within) {
            (true, _) => None,
            // It lies within what ends now as soon as it has ended; it overlaps that only after it has begun.
            (false, true) => Some(interval.end()),
            (false, false) => Some(after_start),
        };
        let enters = enters.filter(|at| *at > now);
        [leaves, enters].into_iter().flatten().min()
    }

    /// Fails unless the rule can be meant as it stands.
    pub fn check(&self) -> Result<()> {
        let period = match self {
            Self::LoadByPeriod { period, .. }
            | Self::DropByPeriod { period, .. }
            | Self::DropBeforeByPeriod { period }
            | Self::BroadcastByPeriod { period, .. } => Some(period),
            _ => None,
        };
        if let Some(period) = period.filter(|period| !period.is_positive()) {
            return Err(Error::invalid_input(format!("the period of a rule must be positive, and `{period}` is not")));
        }
        let Wanted::Load(replicas) = self.wants() else { return Ok(()) };
        match replicas.iter().find(|(_, count)| **count > MAX_REPLICAS) {
            Some((tier, count)) => Err(Error::invalid_input(format!(
                "a rule asks for {count} replicas in tier `{tier}`; at most {MAX_REPLICAS} can be asked for"
            ))),
            None => Ok(()),
        }
    }
}

impl Load {
    /// So many replicas in the default tier.
    pub fn in_default_tier(replicas: u32) -> Self {
        let replicas = Replicas::from([(DEFAULT_TIER.to_owned(), replicas)]);
        Self { tiered_replicants: Some(replicas), use_default_tier_for_null: None }
    }

    fn replicas(&self) -> Replicas {
        match &self.tiered_replicants {
            Some(replicas) => replicas.clone(),
            None if self.use_default_tier_for_null == Some(false) => Replicas::new(),
            None => two_in_the_default_tier().unwrap_or_default(),
        }
    }
}

/// From a period ago until now, or for ever.
fn recent(period: Period, include_future: bool, now: Timestamp) -> Option<Interval> {
    let end = if include_future { Interval::ETERNITY.end() } else { now };
    // A period that reaches before the calendar reaches all of it.
    Interval::new(before(period, now).unwrap_or(Interval::ETERNITY.start()), end).ok()
}

fn before(period: Period, now: Timestamp) -> Option<Timestamp> {
    period.add_to(now, -1, TimeZone::Utc)
}

/// The first moment after `now` at which `edge` is a period or more ago. Months make this inexact by a day or two: then
/// it is the earlier one, at which asking again does no harm.
fn moment(edge: Timestamp, period: Period, now: Timestamp) -> Option<Timestamp> {
    const SLACK_MS: i64 = 3 * 86_400_000;
    let passed = |now| before(period, now).is_some_and(|limit| limit >= edge);
    if passed(now) {
        return None;
    }
    let guess = period.add_to(edge, 1, TimeZone::Utc)?;
    if guess > now && passed(guess) && !passed(Timestamp::from_millis(guess.millis() - 1)) {
        return Some(guess);
    }
    let earliest = guess.millis().saturating_sub(SLACK_MS).max(now.millis().saturating_add(1));
    Some(Timestamp::from_millis(earliest))
}

/// What the rules want of a segment: those of its data source first, then the default ones. Without any rule that
/// applies, two replicas in the default tier: a segment is dropped only if somebody said so.
pub fn wanted(own: &[Rule], default: &[Rule], interval: &Interval, now: Timestamp) -> Wanted {
    let mut rules = own.iter().chain(default);
    match rules.find(|rule| rule.applies(interval, now)) {
        Some(rule) => rule.wants(),
        None => Wanted::Load(two_in_the_default_tier().unwrap_or_default()),
    }
}

/// When, after `now`, [`wanted`] may answer otherwise.
pub fn next_change(own: &[Rule], default: &[Rule], interval: &Interval, now: Timestamp) -> Option<Timestamp> {
    let mut next = None;
    for rule in own.iter().chain(default) {
        next = [next, rule.next_change(interval, now)].into_iter().flatten().min();
        let for_ever = matches!(rule, Rule::LoadForever { .. } | Rule::DropForever | Rule::BroadcastForever);
        if for_ever {
            break;
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).expect("valid rule")
    }

    fn interval(text: &str) -> Interval {
        text.parse().expect("valid interval")
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("valid time")
    }

    const NOW: &str = "2013-08-31T12:00";

    #[test]
    fn json_is_druids() {
        for json in [
            r#"{"type":"loadForever","tieredReplicants":{"_default_tier":2,"hot":1}}"#,
            r#"{"type":"loadByPeriod","period":"P1M","includeFuture":true,"tieredReplicants":{"hot":1}}"#,
            r#"{"type":"loadByInterval","interval":"2012-01-01T00:00:00.000Z/2013-01-01T00:00:00.000Z","tieredReplicants":{}}"#,
            r#"{"type":"dropForever"}"#,
            r#"{"type":"dropByPeriod","period":"P1M","includeFuture":false}"#,
            r#"{"type":"dropBeforeByPeriod","period":"P1M"}"#,
            r#"{"type":"dropByInterval","interval":"2012-01-01T00:00:00.000Z/2013-01-01T00:00:00.000Z"}"#,
            r#"{"type":"broadcastForever"}"#,
            r#"{"type":"broadcastByPeriod","period":"P1D","includeFuture":true}"#,
        ] {
            assert_eq!(serde_json::to_string(&rule(json)).expect("plain data"), json);
        }
        let plain = rule(r#"{"type":"loadForever"}"#);
        assert_eq!(plain.wants(), Wanted::Load(Replicas::from([(DEFAULT_TIER.to_owned(), 2)])));
        assert!(serde_json::from_str::<Rule>(r#"{"type":"loadSometimes"}"#).is_err());
        assert!(rule(r#"{"type":"dropByPeriod","period":"-P1D"}"#).check().is_err());
        assert!(rule(r#"{"type":"loadForever","tieredReplicants":{"t":99999}}"#).check().is_err());
    }

    /// As in Druid: a day that is half in the period is loaded, and not dropped.
    #[test]
    fn load_rules_apply_on_overlap_and_drop_rules_on_containment() {
        let (now, cut) = (time(NOW), interval("2013-08-30/2013-08-31"));
        assert!(rule(r#"{"type":"loadByPeriod","period":"P1D"}"#).applies(&cut, now));
        assert!(!rule(r#"{"type":"dropByPeriod","period":"P1D"}"#).applies(&cut, now));
        assert!(rule(r#"{"type":"dropByPeriod","period":"P2D"}"#).applies(&cut, now));
        assert!(!rule(r#"{"type":"dropBeforeByPeriod","period":"P1D"}"#).applies(&cut, now));
        assert!(rule(r#"{"type":"dropBeforeByPeriod","period":"PT12H"}"#).applies(&cut, now));
        let tomorrow = interval("2013-09-02/2013-09-03");
        assert!(rule(r#"{"type":"loadByPeriod","period":"P1D"}"#).applies(&tomorrow, now));
        assert!(!rule(r#"{"type":"loadByPeriod","period":"P1D","includeFuture":false}"#).applies(&tomorrow, now));
        let by_interval = r#"{"type":"dropByInterval","interval":"2013-08-01/2013-08-31"}"#;
        assert!(rule(by_interval).applies(&cut, now));
        assert!(!rule(by_interval).applies(&interval("2013-08-30/2013-09-01"), now));
    }

    #[test]
    fn the_first_rule_that_applies_decides_and_the_default_ones_come_last() {
        let own = [rule(r#"{"type":"loadByPeriod","period":"P1M","tieredReplicants":{"hot":1}}"#)];
        let default = [rule(r#"{"type":"dropForever"}"#)];
        let (now, hot) = (time(NOW), Replicas::from([("hot".to_owned(), 1)]));
        assert_eq!(wanted(&own, &default, &interval("2013-08-30/2013-08-31"), now), Wanted::Load(hot));
        assert_eq!(wanted(&own, &default, &interval("2013-01-01/2013-01-02"), now), Wanted::Drop);
        let kept = wanted(&own, &[], &interval("2013-01-01/2013-01-02"), now);
        assert!(matches!(kept, Wanted::Load(_)), "without a word nothing is dropped");
    }

    fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let periods = ["P1D", "P3D", "PT6H", "P1M", "P1W"];
        let period = (0..periods.len()).prop_map(move |n| periods[n].parse::<Period>().expect("valid period"));
        let one = (period, any::<bool>(), 0..5_u8).prop_map(|(period, include_future, kind)| match kind {
            0 => Rule::LoadByPeriod { period, include_future, load: Load::in_default_tier(1) },
            1 => Rule::DropByPeriod { period, include_future },
            2 => Rule::DropBeforeByPeriod { period },
            3 => Rule::BroadcastByPeriod { period, include_future },
            _ => Rule::LoadForever { load: Load::in_default_tier(3) },
        });
        proptest::collection::vec(one, 0..4)
    }

    proptest! {
        /// The coordinator asks again only when told to: the answer must not have changed before.
        #[test]
        fn until_the_next_change_the_answer_stays(
            own in rules(), default in rules(), start in -80_i64..80, hours in 1_i64..60, step in 1_i64..2000,
        ) {
            let now = time(NOW);
            let hour = |n: i64| Timestamp::from_millis(now.millis() + n * 3_600_000);
            let interval = Interval::new(hour(start), hour(start + hours)).expect("not empty");
            let before = wanted(&own, &default, &interval, now);
            let next = next_change(&own, &default, &interval, now);
            prop_assert!(next.is_none_or(|next| next > now));
            let later = hour(step);
            if next.is_none_or(|next| later < next) {
                prop_assert_eq!(&wanted(&own, &default, &interval, later), &before);
            }
            if let Some(next) = next {
                let just_before = Timestamp::from_millis(next.millis() - 1);
                prop_assert_eq!(wanted(&own, &default, &interval, just_before), before);
            }
        }
    }
}
