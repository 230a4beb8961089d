//! Numbers the groups of a segment's rows: from dictionary codes and numbered values, never from strings.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, new_null_array};
use arrow::datatypes::{DataType, Field};
use datafusion::error::Result;

use super::GroupKey;
use super::accumulator::Groups;
use super::interner::{ENTRY_BYTES, Interner, ValueInterner};
use super::time_key::{TimeRuns, from_integers};
use crate::exec::reader::{NumberReader, Reader, Rows, StringReader, Values, wrong_type};
use crate::model::SegmentSchema;
use crate::segment::{Column, Segment};

/// Key spaces up to this many groups are arrays whatever the number of rows.
const SMALL_KEY_SPACE: usize = 4096;

/// Greater key spaces are arrays if there are as many rows, up to this many groups.
const LARGEST_KEY_SPACE: usize = 4 << 20;

/// One key over one segment.
#[derive(Debug)]
enum Key {
    /// The segment lacks the column: all rows have the null.
    Missing,
    Codes(Box<StringReader>),
    Time(Box<TimeRuns>),
    Long {
        reader: Box<NumberReader<i64>>,
        values: ValueInterner,
        ids: Vec<u32>,
    },
}

impl Key {
    fn open(key: &GroupKey, segment: &dyn Segment, columns: &SegmentSchema) -> Result<Self> {
        match key {
            GroupKey::Column(index) => match Reader::open(segment, columns, *index)? {
                Reader::Missing(_) => Ok(Self::Missing),
                Reader::Strings(reader) => Ok(Self::Codes(Box::new(reader))),
                Reader::Long(reader) => {
                    let reader = Box::new(reader);
                    Ok(Self::Long { reader, values: ValueInterner::default(), ids: Vec::new() })
                }
                Reader::Lists(_) | Reader::Float(_) | Reader::Double(_) => {
                    let name = columns.column(*index).map_or("", |column| column.name.as_str());
                    Err(wrong_type(name).into())
                }
            },
            GroupKey::Time(key) => match segment.column(0)? {
                Column::Long(time) => Ok(Self::Time(Box::new(TimeRuns::new(key.clone(), NumberReader::new(time))))),
                _ => Err(wrong_type(crate::model::TIME_COLUMN).into()),
            },
        }
    }

    /// How many different codes there may be; `None` where that shows only as rows are read.
    fn cardinality(&self) -> Option<usize> {
        match self {
            Self::Missing => Some(1),
            Self::Codes(reader) => Some(reader.column.dictionary().cardinality().max(1)),
            Self::Time(_) | Self::Long { .. } => None,
        }
    }

    fn load(&mut self, block: usize, rows: Rows<'_>) -> Result<()> {
        match self {
            Self::Missing => Ok(()),
            Self::Codes(reader) => {
                reader.codes.clear();
                reader.append(block, rows)
            }
            Self::Time(runs) => runs.load(block, rows),
            Self::Long { reader, values, ids } => {
                reader.clear();
                reader.append(block, rows)?;
                let validity = reader.take_validity();
                let is_valid = |row: usize| validity.as_ref().is_none_or(|validity| validity.is_valid(row));
                ids.clear();
                ids.extend(
                    reader.values.iter().enumerate().map(|(row, &value)| values.id(is_valid(row).then_some(value))),
                );
                Ok(())
            }
        }
    }

    /// Calls `f` with each row and its code.
    fn for_each(&self, f: &mut impl FnMut(usize, u32)) {
        match self {
            Self::Missing => {}
            Self::Codes(reader) => reader.codes.iter().enumerate().for_each(|(row, &code)| f(row, code)),
            Self::Long { ids, .. } => ids.iter().enumerate().for_each(|(row, &id)| f(row, id)),
            Self::Time(runs) => {
                let mut start = 0;
                for &(id, end) in &runs.runs {
                    (start..end).for_each(|row| f(row, id));
                    start = end;
                }
            }
        }
    }

    /// How many values were numbered so far.
    fn numbered(&self) -> usize {
        match self {
            Self::Missing | Self::Codes(_) => 0,
            Self::Time(runs) => runs.values.len(),
            Self::Long { values, .. } => values.len(),
        }
    }

    fn reset(&mut self) {
        match self {
            Self::Missing | Self::Codes(_) => {}
            Self::Time(runs) => runs.reset(),
            Self::Long { values, .. } => *values = ValueInterner::default(),
        }
    }

    /// What the codes stand for.
    fn decode(&self, codes: &[u32], values: &mut Values, field: &Field) -> Result<ArrayRef> {
        let numbered = match self {
            Self::Missing => return Ok(new_null_array(field.data_type(), codes.len())),
            Self::Codes(reader) => return Ok(Arc::new(values.of(reader.column.dictionary(), codes)?)),
            Self::Time(runs) => &runs.values.by_id,
            Self::Long { values, .. } => &values.by_id,
        };
        let integers = codes.iter().map(|&code| numbered[code as usize]).collect::<Int64Array>();
        if *field.data_type() == DataType::Int64 {
            return Ok(Arc::new(integers));
        }
        from_integers(Arc::new(integers), field.data_type())
    }
}

/// How a group's number comes from its keys' codes.
#[derive(Debug)]
enum Layout {
    /// No key: one group.
    One,
    /// The number is the codes, as digits of a number: the first key's changes fastest.
    /// A key of time comes last, so that its values may grow in number.
    Dense { order: Vec<usize>, strides: Vec<u32>, fixed: usize },
    /// Each level numbers what the keys up to there combine to.
    Hashed(Vec<Level>),
}

/// Numbers combinations of the level before and some keys, packed into 64 bits.
#[derive(Debug)]
struct Level {
    /// Keys and the bits each takes, lowest first; above them stands the number from the level before.
    keys: Vec<(usize, u32)>,
    combinations: Interner,
}

/// The groups of one segment's rows.
#[derive(Debug)]
pub(super) struct Grouping {
    keys: Vec<Key>,
    decoders: Vec<Values>,
    layout: Layout,
    /// Rows in each group; a group without is none.
    pub(super) rows: Vec<u64>,
    ids: Vec<u32>,
    packed: Vec<u64>,
    one_run: [(u32, usize); 1],
}

impl Grouping {
    /// `expected_rows` is how many rows will come at most.
    pub(super) fn new(
        keys: &[GroupKey],
        segment: &dyn Segment,
        columns: &SegmentSchema,
        expected_rows: usize,
    ) -> Result<Self> {
        let keys = keys.iter().map(|key| Key::open(key, segment, columns)).collect::<Result<Vec<_>>>()?;
        let layout = Layout::of(&keys, expected_rows);
        Ok(Self {
            decoders: keys.iter().map(|_| Values::default()).collect(),
            keys,
            layout,
            rows: Vec::new(),
            ids: Vec::new(),
            packed: Vec::new(),
            one_run: [(0, 0)],
        })
    }

    /// Finds the groups of some rows of a block and counts the rows. False if the groups so far must be given out, and
    /// hashing used, before the block can be loaded.
    pub(super) fn load(&mut self, block: usize, rows: Rows<'_>) -> Result<bool> {
        for key in &mut self.keys {
            key.load(block, rows)?;
        }
        if matches!(self.layout, Layout::Dense { .. }) && self.num_groups() > 2 * LARGEST_KEY_SPACE {
            return Ok(false);
        }
        match &mut self.layout {
            Layout::One => self.one_run = [(0, rows.len())],
            Layout::Dense { order, strides, .. } if order.len() > 1 || matches!(self.keys[order[0]], Key::Missing) => {
                self.ids.clear();
                self.ids.resize(rows.len(), 0);
                for (&key, &stride) in order.iter().zip(strides.iter()) {
                    let ids = &mut self.ids;
                    self.keys[key].for_each(&mut |row, code| ids[row] += code * stride);
                }
            }
            Layout::Dense { .. } => {}
            Layout::Hashed(levels) => {
                for level in levels {
                    level.number(&self.keys, &mut self.packed, &mut self.ids, rows.len());
                }
            }
        }
        self.rows.resize(self.num_groups(), 0);
        let mut counts = std::mem::take(&mut self.rows);
        match self.groups() {
            Groups::Runs(runs) => {
                let mut start = 0;
                for &(group, end) in runs {
                    counts[group as usize] += (end - start) as u64;
                    start = end;
                }
            }
            Groups::Each(groups) => groups.iter().for_each(|&group| counts[group as usize] += 1),
        }
        self.rows = counts;
        Ok(true)
    }

    /// The groups of the rows last loaded.
    pub(super) fn groups(&self) -> Groups<'_> {
        match &self.layout {
            Layout::One => Groups::Runs(&self.one_run),
            Layout::Hashed(_) => Groups::Each(&self.ids),
            Layout::Dense { order, .. } => match (order.as_slice(), &self.keys[order[0]]) {
                ([_], Key::Codes(reader)) => Groups::Each(&reader.codes),
                ([_], Key::Long { ids, .. }) => Groups::Each(ids),
                ([_], Key::Time(runs)) => Groups::Runs(&runs.runs),
                _ => Groups::Each(&self.ids),
            },
        }
    }

    /// The group of a whole block, if it has only one and that shows without reading it. Counts its rows.
    pub(super) fn load_block(&mut self, block: usize, rows: usize) -> Result<Option<u32>> {
        let group = match (&self.layout, self.keys.as_mut_slice()) {
            (Layout::One, _) => 0,
            (_, [Key::Time(runs)]) if runs.is_monotone() => {
                runs.load(block, Rows::All(rows))?;
                match runs.runs.as_slice() {
                    [(group, _)] => *group,
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        self.rows.resize(self.num_groups(), 0);
        self.rows[group as usize] += rows as u64;
        Ok(Some(group))
    }

    /// One more than the greatest number of a group.
    pub(super) fn num_groups(&self) -> usize {
        match &self.layout {
            Layout::One => 1,
            Layout::Dense { order, fixed, .. } => match order.last().map(|&key| &self.keys[key]) {
                Some(key) if key.cardinality().is_none() => fixed * key.numbered(),
                _ => *fixed,
            },
            Layout::Hashed(levels) => levels.last().map_or(0, |level| level.combinations.len()),
        }
    }

    /// Whether the array of groups is so large that they had better be given out.
    pub(super) fn is_full(&self) -> bool {
        matches!(self.layout, Layout::Dense { .. }) && self.keys.len() > 1 && self.num_groups() > LARGEST_KEY_SPACE
    }

    /// Bytes held for the groups, apart from the aggregates' states.
    pub(super) fn memory_bytes(&self) -> usize {
        let hashed = match &self.layout {
            Layout::Hashed(levels) => levels.iter().map(|level| level.combinations.len() * ENTRY_BYTES).sum(),
            _ => 0,
        };
        let numbered = self.keys.iter().map(Key::numbered).sum::<usize>() * ENTRY_BYTES;
        self.num_groups() * 8 + hashed + numbered
    }

    /// How many groups there is room for from the start.
    pub(super) fn first_groups(&self) -> usize {
        match &self.layout {
            Layout::Dense { fixed, .. } => *fixed,
            _ => 0,
        }
    }

    /// Gives up arrays for a table that grows with the groups that occur.
    pub(super) fn use_hashing(&mut self) {
        if !matches!(self.layout, Layout::One) {
            self.layout = Layout::hashed(&self.keys);
        }
    }

    /// The groups that have rows.
    pub(super) fn occupied(&self) -> Vec<u32> {
        (0_u32..).zip(&self.rows).filter(|(_, rows)| **rows > 0).map(|(group, _)| group).collect()
    }

    /// The keys of some groups, one array a key.
    pub(super) fn decode(&mut self, groups: &[u32], fields: &[&Field]) -> Result<Vec<ArrayRef>> {
        let mut codes = vec![Vec::new(); self.keys.len()];
        match &self.layout {
            Layout::One => {}
            Layout::Dense { order, strides, .. } => {
                for (&key, &stride) in order.iter().zip(strides) {
                    let cardinality = self.keys[key].cardinality().map_or(u32::MAX, |cardinality| cardinality as u32);
                    codes[key] = groups.iter().map(|group| group / stride % cardinality).collect();
                }
            }
            Layout::Hashed(levels) => {
                let mut numbers = groups.to_vec();
                for level in levels.iter().rev() {
                    level.unpack(&mut numbers, &mut codes);
                }
            }
        }
        for (key, codes) in self.keys.iter().zip(&mut codes) {
            if matches!(key, Key::Missing) {
                *codes = vec![0; groups.len()];
            }
        }
        let parts = self.keys.iter().zip(&codes).zip(&mut self.decoders).zip(fields);
        parts.map(|(((key, codes), values), field)| key.decode(codes, values, field)).collect()
    }

    /// Forgets all groups.
    pub(super) fn reset(&mut self) {
        self.rows = Vec::new();
        self.keys.iter_mut().for_each(Key::reset);
        if let Layout::Hashed(levels) = &mut self.layout {
            levels.iter_mut().for_each(|level| level.combinations = Interner::default());
        }
    }
}

impl Layout {
    fn of(keys: &[Key], expected_rows: usize) -> Self {
        if keys.is_empty() {
            return Self::One;
        }
        let growing = (0..keys.len()).filter(|&key| keys[key].cardinality().is_none()).collect::<Vec<_>>();
        let may_grow = match growing.as_slice() {
            [] => true,
            // Times come in order: what was given out is not asked for again.
            [key] => keys.len() == 1 || matches!(&keys[*key], Key::Time(runs) if runs.is_monotone()),
            _ => false,
        };
        let fixed = keys.iter().filter_map(Key::cardinality).try_fold(1_usize, usize::checked_mul);
        let most = expected_rows.clamp(SMALL_KEY_SPACE, LARGEST_KEY_SPACE);
        match fixed {
            Some(fixed) if may_grow && fixed <= most => Self::dense(keys, &growing, fixed),
            _ => Self::hashed(keys),
        }
    }

    fn dense(keys: &[Key], growing: &[usize], fixed: usize) -> Self {
        let mut order = (0..keys.len()).filter(|key| !growing.contains(key)).collect::<Vec<_>>();
        order.extend(growing);
        let mut stride = 1;
        let strides = order.iter().map(|&key| {
            let this = stride;
            // The last stride is at most `fixed`, which is checked to be small.
            stride *= keys[key].cardinality().unwrap_or(1) as u32;
            this
        });
        Self::Dense { strides: strides.collect(), order, fixed }
    }

    fn hashed(keys: &[Key]) -> Self {
        let mut levels: Vec<Level> = Vec::new();
        let mut free = 0;
        for (index, key) in keys.iter().enumerate() {
            let bits = key.cardinality().map_or(32, |cardinality| cardinality.next_power_of_two().trailing_zeros());
            let bits = bits.max(1);
            if bits > free || levels.is_empty() {
                // A number from the level before takes 32 bits.
                free = if levels.is_empty() { 64 } else { 32 };
                levels.push(Level { keys: Vec::new(), combinations: Interner::default() });
            }
            free -= bits;
            if let Some(level) = levels.last_mut() {
                level.keys.push((index, bits));
            }
        }
        Self::Hashed(levels)
    }
}

impl Level {
    /// Replaces `ids`, the numbers of the level before, by those of this one.
    fn number(&mut self, keys: &[Key], packed: &mut Vec<u64>, ids: &mut Vec<u32>, num_rows: usize) {
        packed.clear();
        packed.resize(num_rows, 0);
        let mut shift = 0;
        for &(key, bits) in &self.keys {
            keys[key].for_each(&mut |row, code| packed[row] |= u64::from(code) << shift);
            shift += bits;
        }
        if self.follows() {
            packed.iter_mut().zip(ids.iter()).for_each(|(packed, id)| *packed |= u64::from(*id) << shift);
        }
        ids.clear();
        ids.extend(packed.iter().map(|&key| self.combinations.id(key)));
    }

    /// Whether there is a level before it.
    fn follows(&self) -> bool {
        self.keys.first().is_some_and(|(key, _)| *key > 0)
    }

    /// Puts the codes of some numbers of this level into `codes`, and replaces the numbers by those of the level before.
    fn unpack(&self, numbers: &mut [u32], codes: &mut [Vec<u32>]) {
        for number in numbers {
            let packed = self.combinations.keys[*number as usize];
            let mut shift = 0;
            for &(key, bits) in &self.keys {
                codes[key].push((packed >> shift & ((1 << bits) - 1)) as u32);
                shift += bits;
            }
            *number = if self.follows() { (packed >> shift) as u32 } else { 0 };
        }
    }
}
