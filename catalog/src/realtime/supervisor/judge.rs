//! Whether reading may go on from where it was, and from where else a person may have it go on. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use henge_engine::ingest::stream::{Partition, StreamSource, Survey};
use henge_engine::{Error, Result};
use serde::{Deserialize, Serialize};

/// Of each partition, the offset that is next.
pub type Positions = BTreeMap<Partition, u64>;

/// Why reading cannot go on: only a person can say from where else it may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gap {
    /// Records are gone that were not read.
    Lost { partition: Partition, wanted: u64, there: Range<u64> },
    /// There are fewer records than were read.
    Beyond { partition: Partition, wanted: u64, there: Range<u64> },
    /// The partition is not there any more.
    Gone { partition: Partition, wanted: u64 },
    /// It is another topic, or another cluster, than the one that was read.
    Another { was: StreamSource, is: StreamSource },
}

impl Gap {
    /// The partition that is concerned; all are if this is `None`.
    pub fn partition(&self) -> Option<Partition> {
        match self {
            Self::Lost { partition, .. } | Self::Beyond { partition, .. } | Self::Gone { partition, .. } => {
                Some(*partition)
            }
            Self::Another { .. } => None,
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { partition, wanted, there } => {
                let last = there.start.saturating_sub(1);
                write!(
                    f,
                    "partition {partition}: offset {wanted} is next and is gone: {} records ({wanted} to {last}) ",
                    there.start - wanted
                )?;
                write!(f, "were removed before they were read; there are offsets {} to {}", there.start, there.end)
            }
            Self::Beyond { partition, wanted, there } => write!(
                f,
                "partition {partition}: offset {wanted} is next, but there are only offsets {} to {}: the topic was \
                 made anew, or records were lost there",
                there.start, there.end
            ),
            Self::Gone { partition, wanted } => {
                write!(f, "partition {partition}: offset {wanted} is next, but the partition is not there any more")
            }
            Self::Another { was, is } => {
                let said = |source: &StreamSource| {
                    let text = |id: &Option<String>| id.clone().unwrap_or_else(|| "unknown".to_owned());
                    format!("topic id {} of cluster {}", text(&source.topic_id), text(&source.cluster_id))
                };
                write!(f, "the topic is not the one that was read: it was {}, and is {}", said(was), said(is))
            }
        }
    }
}

/// What is known of a stream from the metadata store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub source: StreamSource,
    pub positions: Positions,
}

/// What to do about what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Where partitions begin that were never read.
    pub begin: Positions,
    pub gaps: Vec<Gap>,
}

impl Verdict {
    /// Adds gaps that were found before, in place of those found of the same partitions now.
    pub fn keep_gaps(&mut self, known: &[Gap]) {
        self.gaps.retain(|gap| known.iter().all(|known| known.partition() != gap.partition()));
        self.gaps.extend_from_slice(known);
        self.gaps.sort_by_key(Gap::partition);
    }

    /// Whether a partition may be read.
    pub fn allows(&self, partition: Partition) -> bool {
        self.gaps.iter().all(|gap| gap.partition().is_some_and(|other| other != partition))
    }
}

/// Before reading begins. A partition that comes later than others is read from its first record.
pub fn before_reading(survey: &Survey, known: &Known, use_earliest: bool) -> Verdict {
    if known.source.contradicts(&survey.source) {
        let gap = Gap::Another { was: known.source.clone(), is: survey.source.clone() };
        return Verdict { begin: Positions::new(), gaps: vec![gap] };
    }
    let earliest = use_earliest || !known.positions.is_empty();
    let new = survey.partitions.iter().filter(|(partition, _)| !known.positions.contains_key(partition));
    let begin = new.map(|(partition, there)| (*partition, if earliest { there.start } else { there.end })).collect();
    let gaps = known.positions.iter().filter_map(|(partition, wanted)| {
        let (partition, wanted) = (*partition, *wanted);
        match survey.partitions.get(&partition) {
            None => Some(Gap::Gone { partition, wanted }),
            Some(there) if wanted < there.start => Some(Gap::Lost { partition, wanted, there: there.clone() }),
            Some(there) if wanted > there.end => Some(Gap::Beyond { partition, wanted, there: there.clone() }),
            Some(_) => None,
        }
    });
    Verdict { begin, gaps: gaps.collect() }
}

/// While it goes on: `known` is from before the survey. Records that are gone may have been fetched already, so that
/// only the reader knows whether they are missed.
pub fn while_reading(survey: &Survey, known: &Known) -> Verdict {
    let mut verdict = before_reading(survey, known, true);
    verdict.gaps.retain(|gap| !matches!(gap, Gap::Lost { .. }));
    verdict
}

/// From where a person wants reading to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ResetTo {
    /// Where there is a gap, from the first record that is there.
    #[default]
    Gaps,
    /// All partitions from their first records.
    Earliest,
    /// All partitions after their last records.
    Latest,
    /// These partitions from these offsets.
    Offsets(Positions),
}

/// The positions after a reset, of all partitions.
pub fn after_reset(survey: &Survey, known: &Known, to: &ResetTo) -> Result<Positions> {
    let there = &survey.partitions;
    let all = |end: fn(&Range<u64>) -> u64| there.iter().map(|(partition, range)| (*partition, end(range))).collect();
    match to {
        ResetTo::Earliest => Ok(all(|range| range.start)),
        ResetTo::Latest => Ok(all(|range| range.end)),
        ResetTo::Gaps => {
            let verdict = before_reading(survey, known, true);
            if verdict.gaps.is_empty() {
                return Err(Error::invalid_input(
                    "nothing is missing: reading goes on where it was; say `to=earliest` or `to=latest` to have all \
                     records read again, or those up to now left out",
                ));
            }
            Ok(there
                .iter()
                .map(|(partition, range)| {
                    let kept = known.positions.get(partition).filter(|_| verdict.allows(*partition));
                    (*partition, kept.copied().unwrap_or(range.start))
                })
                .collect())
        }
        ResetTo::Offsets(wanted) => {
            for (partition, offset) in wanted {
                let range = there.get(partition).ok_or_else(|| {
                    Error::invalid_input(format!("there is no partition {partition}; the topic has {}", there.len()))
                })?;
                if *offset < range.start || *offset > range.end {
                    return Err(Error::invalid_input(format!(
                        "partition {partition} has no offset {offset}: there are {} to {}",
                        range.start, range.end
                    )));
                }
            }
            let mut positions: Positions =
                known.positions.iter().filter(|(p, _)| there.contains_key(p)).map(|(p, o)| (*p, *o)).collect();
            positions.extend(wanted);
            Ok(positions)
        }
    }
}

/// How many records of each partition are not read yet.
pub(super) fn lag(survey: &Survey, reached: &Positions) -> BTreeMap<Partition, u64> {
    let lag = |(partition, there): (&Partition, &Range<u64>)| {
        let reached = reached.get(partition).copied().unwrap_or(there.start);
        (*partition, there.end.saturating_sub(reached))
    };
    survey.partitions.iter().map(lag).collect()
}

/// The partitions of one of `readers`.
pub fn share(positions: &Positions, reader: usize, readers: usize) -> Positions {
    let mine = positions.iter().enumerate().filter(|(place, _)| place % readers.max(1) == reader);
    mine.map(|(_, (partition, offset))| (*partition, *offset)).collect()
}

/// As it is written down in the metadata store.
pub fn source_to_json(source: &StreamSource) -> String {
    // Texts are always JSON.
    serde_json::to_string(source).unwrap_or_default()
}

pub fn source_from_json(text: &str) -> Result<StreamSource> {
    serde_json::from_str(text)
        .map_err(|error| Error::corrupt("where a stream comes from cannot be read").with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(partitions: &[Range<u64>]) -> Survey {
        let partitions = (0..).zip(partitions.iter().cloned()).collect();
        Survey { source: source("a"), partitions }
    }

    fn source(topic_id: &str) -> StreamSource {
        StreamSource { cluster_id: Some("c".to_owned()), topic_id: Some(topic_id.to_owned()) }
    }

    fn known(positions: &[u64]) -> Known {
        Known { source: source("a"), positions: (0..).zip(positions.iter().copied()).collect() }
    }

    #[test]
    fn a_topic_that_was_never_read_begins_as_the_spec_says_and_a_later_partition_at_its_first_record() {
        let there = survey(&[5..9, 0..3]);
        let new = Known::default();
        assert_eq!(before_reading(&there, &new, true).begin, Positions::from([(0, 5), (1, 0)]));
        assert_eq!(before_reading(&there, &new, false).begin, Positions::from([(0, 9), (1, 3)]));
        assert_eq!(before_reading(&there, &known(&[7]), false).begin, Positions::from([(1, 0)]));
    }

    #[test]
    fn each_gap_is_named_and_the_other_partitions_go_on() {
        let verdict = before_reading(&survey(&[5..9, 0..3, 4..4]), &known(&[3, 4, 4, 8]), true);
        assert_eq!(
            verdict.gaps,
            [
                Gap::Lost { partition: 0, wanted: 3, there: 5..9 },
                Gap::Beyond { partition: 1, wanted: 4, there: 0..3 },
                Gap::Gone { partition: 3, wanted: 8 },
            ]
        );
        assert!(verdict.allows(2) && !verdict.allows(0));
        let text = verdict.gaps[0].to_string();
        assert!(
            text.contains("partition 0") && text.contains("2 records (3 to 4)") && text.contains("5 to 9"),
            "{text}"
        );
        // What was found before stays, also where the topic has grown meanwhile.
        let mut later = before_reading(&survey(&[5..9, 0..8, 4..4]), &known(&[3, 4, 4]), true);
        later.keep_gaps(&verdict.gaps);
        assert_eq!(later.gaps, verdict.gaps);
        // What is gone may have been fetched already.
        assert_eq!(while_reading(&survey(&[5..9, 0..3, 4..4]), &known(&[3, 3, 4])).gaps, []);
    }

    #[test]
    fn another_topic_of_the_same_name_stops_all_partitions() {
        let mut there = survey(std::slice::from_ref(&(0..9)));
        there.source = source("b");
        let verdict = before_reading(&there, &known(&[3]), true);
        assert!(matches!(verdict.gaps.as_slice(), [Gap::Another { .. }]) && !verdict.allows(0));
        assert!(verdict.begin.is_empty());
        // What an older broker does not say is no contradiction.
        there.source = StreamSource::default();
        assert_eq!(before_reading(&there, &known(&[3]), true), Verdict::default());
    }

    #[test]
    fn a_reset_leaves_what_has_no_gap_unless_all_is_asked_for() {
        let there = survey(&[5..9, 0..3]);
        assert_eq!(after_reset(&there, &known(&[3, 2]), &ResetTo::Gaps).unwrap(), Positions::from([(0, 5), (1, 2)]));
        let error = after_reset(&there, &known(&[6, 2]), &ResetTo::Gaps).unwrap_err().to_string();
        assert!(error.contains("to=earliest"), "{error}");
        assert_eq!(
            after_reset(&there, &known(&[6, 2, 7]), &ResetTo::Latest).unwrap(),
            Positions::from([(0, 9), (1, 3)])
        );
        let to = |offset| ResetTo::Offsets(Positions::from([(1, offset)]));
        assert_eq!(after_reset(&there, &known(&[6, 2]), &to(3)).unwrap(), Positions::from([(0, 6), (1, 3)]));
        assert!(after_reset(&there, &known(&[6, 2]), &to(4)).is_err());
        let mut other = survey(std::slice::from_ref(&(0..9)));
        other.source = source("b");
        assert_eq!(after_reset(&other, &known(&[3]), &ResetTo::Gaps).unwrap(), Positions::from([(0, 0)]));
    }

    #[test]
    fn readers_share_the_partitions() {
        let positions = Positions::from([(0, 1), (1, 2), (2, 3)]);
        assert_eq!(share(&positions, 0, 2), Positions::from([(0, 1), (2, 3)]));
        assert_eq!(share(&positions, 1, 2), Positions::from([(1, 2)]));
        assert_eq!(lag(&survey(&[5..9, 0..3]), &Positions::from([(0, 7), (1, 3)])), BTreeMap::from([(0, 2), (1, 0)]));
    }
}
