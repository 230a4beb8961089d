//! `index.drd` and `metadata.drd`: which columns there are, in which order, and what the metrics were made of.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::bitmap::BitmapKind;
use super::container::Container;
use super::cursor::{ByteOrder, Cursor};
use super::descriptor::RawBitmap;
use super::indexed::Indexed;
use crate::error::{Error, Result};
use crate::model::{MetricCombine, TIME_COLUMN};

/// What a segment says of itself as a whole.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// In the order of the segment.
    pub(super) dimensions: Vec<String>,
    pub(super) metrics: Vec<String>,
    /// First instant and the one behind the last, in milliseconds.
    pub(super) interval: (i64, i64),
    /// What the segment says; each column says it again of itself.
    pub(super) bitmaps: BitmapKind,
}

impl Index {
    pub(super) fn read(files: &Container) -> Result<Self> {
        let mut cursor = Cursor::new(files.require("index.drd")?, "`index.drd`");
        let columns = names(&mut cursor, files)?;
        let dimensions = names(&mut cursor, files)?;
        let interval = (cursor.i64()?, cursor.i64()?);
        // The oldest segments end here.
        let bitmaps = match cursor.remaining() {
            0 => BitmapKind::Concise,
            _ => serde_json::from_str::<RawBitmap>(&cursor.text()?).map_or(BitmapKind::Roaring, |raw| raw.kind()),
        };
        let (mut columns, mut dimensions) = (columns, dimensions);
        if cursor.remaining() > 0 {
            columns = merged(columns, &names(&mut cursor, files)?);
            dimensions = merged(dimensions, &names(&mut cursor, files)?);
        }
        let mut seen = HashSet::from([TIME_COLUMN.to_owned()]);
        let mut known = |name: &String| !name.is_empty() && seen.insert(name.clone());
        let dimensions = dimensions.into_iter().flatten().filter(&mut known).collect();
        let metrics = columns.into_iter().flatten().filter(&mut known).collect();
        Ok(Self { dimensions, metrics, interval, bitmaps })
    }
}

fn names(cursor: &mut Cursor, files: &Container) -> Result<Vec<Option<String>>> {
    let list = Indexed::read(cursor, files, ByteOrder::Little)?;
    (0..list.len()).map(|index| list.get(index)?.map(|name| cursor.utf8(name)).transpose()).collect()
}

/// `all` names the columns without any value; where it is null comes the next of `some`.
fn merged(some: Vec<Option<String>>, all: &[Option<String>]) -> Vec<Option<String>> {
    let mut some = some.into_iter();
    let mut merged = all.iter().map(|name| name.clone().or_else(|| some.next().flatten())).collect::<Vec<_>>();
    merged.extend(some);
    merged
}

/// What is used of `metadata.drd`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    aggregators: Option<Vec<Aggregator>>,
    #[serde(default)]
    rollup: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Aggregator {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    name: String,
}

impl Metadata {
    /// It may be missing, and what is wrong with it loses no row.
    pub(super) fn read(files: &Container) -> Self {
        let bytes = files.get("metadata.drd").ok().flatten().unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    pub(super) fn rollup(&self) -> Option<bool> {
        self.rollup
    }

    /// How rows combine each metric, as far as it is said.
    pub(super) fn combines(&self) -> HashMap<&str, MetricCombine> {
        let aggregators = self.aggregators.iter().flatten();
        aggregators.filter_map(|aggregator| Some((aggregator.name.as_str(), combine_of(&aggregator.kind)?))).collect()
    }
}

fn combine_of(aggregator: &str) -> Option<MetricCombine> {
    if aggregator.ends_with("Min") {
        return Some(MetricCombine::Min);
    }
    aggregator.ends_with("Max").then_some(MetricCombine::Max)
}

/// The segment lacks something that every segment has.
pub(super) fn no_time() -> Error {
    Error::corrupt(format!("the segment has no column `{TIME_COLUMN}`"))
}
