//! Numbers the groups of rows: from dictionary codes and numbered values, never from strings.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use datafusion::error::Result;

use super::GroupKey;
use super::interner::{ENTRY_BYTES, Interner};
use super::key::{CodeSpace, Codes, Key};
use super::loops::Groups;
use crate::exec::reader::{Rows, Values};
use crate::exec::selection::ReadCodes;
use crate::model::SegmentSchema;
use crate::segment::Segment;
use crate::widened::widened;

/// Key spaces up to this many groups are arrays whatever the number of rows.
const SMALL_KEY_SPACE: usize = 4096;

/// Greater key spaces are arrays if there are as many rows, up to this many groups.
const LARGEST_KEY_SPACE: usize = 16 << 20;

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

/// The groups of rows, of one segment after another.
#[derive(Debug)]
pub(super) struct Grouping {
    keys: Vec<Key>,
    layout: Layout,
    /// Rows in each group; a group without is none.
    pub(super) rows: Vec<u64>,
    ids: Vec<u32>,
    packed: Vec<u64>,
    one_run: [(u32, usize); 1],
    /// How many rows will come at most.
    expected_rows: usize,
}

impl Grouping {
    /// `spaces` says for each key what its codes are; `expected_rows` is how many rows will come at most. A segment
    /// must be opened before rows are loaded.
    pub(super) fn new(
        keys: &[GroupKey],
        spaces: Vec<CodeSpace>,
        columns: &SegmentSchema,
        expected_rows: usize,
    ) -> Result<Self> {
        let keys = keys.iter().zip(spaces).map(|(key, space)| Key::new(key, columns, space));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        Ok(Self {
            layout: Layout::of(&keys, expected_rows),
            keys,
            rows: Vec::new(),
            ids: Vec::new(),
            packed: Vec::new(),
            one_run: [(0, 0)],
            expected_rows,
        })
    }

    /// Goes on to a segment, which is at `place` of those that have ordinals.
    pub(super) fn open(&mut self, segment: &dyn Segment, place: usize, columns: &SegmentSchema) -> Result<()> {
        for key in &mut self.keys {
            key.open(segment, place, columns)?;
        }
        // The codes of a segment's own dictionary are known only now.
        if self.rows.is_empty() && !matches!(self.layout, Layout::One) {
            self.layout = Layout::of(&self.keys, self.expected_rows);
        }
        Ok(())
    }

    /// Finds the groups of some rows of a block. False if the groups so far must be given out, and
    /// hashing used, before the block can be loaded. `read` has codes that need not be read again.
    pub(super) fn load(&mut self, block: usize, rows: Rows<'_>, read: &ReadCodes) -> Result<bool> {
        for key in &mut self.keys {
            key.load(block, rows, read)?;
        }
        if matches!(self.layout, Layout::Dense { .. }) && self.num_groups() > 2 * LARGEST_KEY_SPACE {
            return Ok(false);
        }
        match &mut self.layout {
            Layout::One => self.one_run = [(0, rows.len())],
            Layout::Dense { order, strides, .. } if order.len() > 1 => {
                self.ids.clear();
                self.ids.resize(rows.len(), 0);
                for (&key, &stride) in order.iter().zip(strides.iter()) {
                    add_codes(self.keys[key].codes(), stride, &mut self.ids);
                }
            }
            Layout::Dense { .. } => {}
            Layout::Hashed(levels) => {
                let codes = |key: usize| self.keys[key].codes();
                for level in levels {
                    level.number(codes, &mut self.packed, &mut self.ids, rows.len());
                }
            }
        }
        self.rows.resize(self.num_groups(), 0);
        Ok(true)
    }

    /// Counts the rows last loaded, by `count`, which is given the rows of each group so far.
    pub(super) fn count(&mut self, count: impl FnOnce(&mut [u64], Groups<'_>)) {
        let mut counts = std::mem::take(&mut self.rows);
        count(&mut counts, self.groups());
        self.rows = counts;
    }

    /// Counts rows where there is one group.
    pub(super) fn count_in_one(&mut self, rows: u64) {
        self.rows.resize(1, 0);
        self.rows[0] += rows;
    }

    /// The groups of the rows last loaded.
    pub(super) fn groups(&self) -> Groups<'_> {
        match &self.layout {
            Layout::One => Groups::Runs(&self.one_run),
            Layout::Hashed(_) => Groups::Each(&self.ids),
            Layout::Dense { order, .. } => match order.as_slice() {
                [key] => match self.keys[*key].codes() {
                    Codes::Each(codes) => Groups::Each(codes),
                    Codes::Runs(runs) => Groups::Runs(runs),
                },
                _ => Groups::Each(&self.ids),
            },
        }
    }

    /// Whether a whole block may be of one group without its being read.
    pub(super) fn may_be_one_group(&self) -> bool {
        matches!((&self.layout, self.keys.as_slice()), (Layout::One, _) | (_, [Key::Time(_)]))
    }

    /// The group of a whole block, if it has only one and that shows without reading it. Counts its rows.
    pub(super) fn load_block(&mut self, block: usize, rows: usize) -> Result<Option<u32>> {
        let group = match (&self.layout, self.keys.as_mut_slice()) {
            (Layout::One, _) => 0,
            (_, [Key::Time(runs)]) => match (runs.load_if_one(block, Rows::All(rows))?, runs.runs.as_slice()) {
                (true, [(group, _)]) => *group,
                _ => return Ok(None),
            },
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
        self.occupied_in(0..self.rows.len())
    }

    /// Takes the groups of another table of the same keys over: adds up their rows, and returns by which number each of
    /// its groups goes here. Both must have come to hashing, or neither; or `place` is where the only segment is that the
    /// other has seen, among those that have ordinals.
    pub(super) fn adopt(&mut self, other: &Self, place: Option<usize>) -> Vec<u32> {
        let maps = self.keys.iter_mut().zip(&other.keys).map(|(key, other)| key.adopt(other, place));
        let maps = maps.collect::<Vec<_>>();
        let numbers = match (&mut self.layout, &other.layout) {
            _ if place.is_some() => self.adopt_combinations(other, &maps),
            (Layout::Hashed(levels), Layout::Hashed(others)) => {
                let mut numbers = Vec::new();
                for (level, other) in levels.iter_mut().zip(others) {
                    numbers = level.adopt(other, &maps, &numbers);
                }
                numbers
            }
            (Layout::Dense { order, fixed, .. }, _) => {
                let growing = order.last().and_then(|&key| maps[key].as_deref());
                dense_numbers(other.num_groups(), *fixed, growing)
            }
            _ => (0..other.num_groups() as u32).collect(),
        };
        self.rows.resize(self.num_groups(), 0);
        for (&number, &rows) in numbers.iter().zip(&other.rows) {
            self.rows[number as usize] += rows;
        }
        numbers
    }

    /// By which number each of another table's groups goes here, whatever the layouts; `maps` has, by key, what its codes
    /// are here. A group without rows gets the number of one that has some.
    fn adopt_combinations(&mut self, other: &Self, maps: &[Option<Vec<u32>>]) -> Vec<u32> {
        let groups = other.occupied();
        let mut codes = other.codes_of(&groups);
        for (codes, map) in codes.iter_mut().zip(maps) {
            if let Some(map) = map {
                codes.iter_mut().for_each(|code| *code = map[*code as usize]);
            }
        }
        let mut numbers = vec![0; groups.len()];
        match &mut self.layout {
            Layout::One => {}
            Layout::Dense { order, strides, .. } => {
                for (&key, &stride) in order.iter().zip(strides.iter()) {
                    add_codes(Codes::Each(&codes[key]), stride, &mut numbers);
                }
            }
            Layout::Hashed(levels) => {
                for level in levels {
                    level.number(|key| Codes::Each(&codes[key]), &mut self.packed, &mut numbers, groups.len());
                }
            }
        }
        let mut all = vec![numbers.first().copied().unwrap_or(0); other.rows.len()];
        groups.iter().zip(numbers).for_each(|(&group, number)| all[group as usize] = number);
        all
    }

    /// Whether there is one group, whether it has rows or not.
    pub(super) fn has_no_keys(&self) -> bool {
        matches!(self.layout, Layout::One)
    }

    /// The groups among `range` that have rows.
    pub(super) fn occupied_in(&self, range: std::ops::Range<usize>) -> Vec<u32> {
        let start = range.start as u32;
        let rows = self.rows.get(range).unwrap_or_default();
        (start..).zip(rows).filter(|(_, rows)| **rows > 0).map(|(group, _)| group).collect()
    }

    /// The keys of some groups, one array a key; `decoders` has what each key's decoder remembers, at first nothing.
    pub(super) fn decode(
        &self,
        groups: &[u32],
        fields: &[&Field],
        decoders: &mut Vec<Values>,
    ) -> Result<Vec<ArrayRef>> {
        decoders.resize_with(self.keys.len(), Values::default);
        let codes = self.codes_of(groups);
        let parts = self.keys.iter().zip(&codes).zip(decoders).zip(fields);
        parts.map(|(((key, codes), values), field)| key.decode(codes, values, field)).collect()
    }

    /// The codes of some groups, by key.
    fn codes_of(&self, groups: &[u32]) -> Vec<Vec<u32>> {
        let mut codes = vec![Vec::new(); self.keys.len()];
        match &self.layout {
            Layout::One => {}
            Layout::Dense { order, strides, .. } => {
                for (&key, &stride) in order.iter().zip(strides) {
                    let cardinality = self.keys[key].cardinality().map_or(u32::MAX, |cardinality| cardinality as u32);
                    codes[key] = match order.len() {
                        1 => groups.to_vec(),
                        _ => groups.iter().map(|group| group / stride % cardinality).collect(),
                    };
                }
            }
            Layout::Hashed(levels) => {
                let mut numbers = groups.to_vec();
                for level in levels.iter().rev() {
                    level.unpack(&mut numbers, &mut codes);
                }
            }
        }
        codes
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

/// The numbers of another dense table's groups, whose last key's codes are `growing` here.
fn dense_numbers(num_groups: usize, fixed: usize, growing: Option<&[u32]>) -> Vec<u32> {
    let number = |group: usize| match growing {
        Some(codes) => codes[group / fixed] * fixed as u32 + (group % fixed) as u32,
        None => group as u32,
    };
    (0..num_groups).map(number).collect()
}

fn add_codes(codes: Codes<'_>, stride: u32, ids: &mut [u32]) {
    match codes {
        Codes::Each(codes) => add_multiples(codes, stride, ids),
        Codes::Runs(runs) => {
            let mut start = 0;
            for &(code, end) in runs {
                ids[start..end].iter_mut().for_each(|id| *id += code * stride);
                start = end;
            }
        }
    }
}

widened! {
    fn add_multiples(codes: &[u32], stride: u32, ids: &mut [u32]) {
        ids.iter_mut().zip(codes).for_each(|(id, code)| *id = id.wrapping_add(code.wrapping_mul(stride)));
    }
}

fn add_packed(codes: Codes<'_>, shift: u32, packed: &mut [u64]) {
    match codes {
        Codes::Each(codes) => packed.iter_mut().zip(codes).for_each(|(key, code)| *key |= u64::from(*code) << shift),
        Codes::Runs(runs) => {
            let mut start = 0;
            for &(code, end) in runs {
                packed[start..end].iter_mut().for_each(|key| *key |= u64::from(code) << shift);
                start = end;
            }
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
    fn number<'a>(
        &mut self,
        codes: impl Fn(usize) -> Codes<'a>,
        packed: &mut Vec<u64>,
        ids: &mut Vec<u32>,
        num_rows: usize,
    ) {
        packed.clear();
        packed.resize(num_rows, 0);
        let mut shift = 0;
        for &(key, bits) in &self.keys {
            add_packed(codes(key), shift, packed);
            shift += bits;
        }
        if self.follows() {
            packed.iter_mut().zip(ids.iter()).for_each(|(packed, id)| *packed |= u64::from(*id) << shift);
        }
        ids.clear();
        ids.extend(packed.iter().map(|&key| self.combinations.id(key)));
    }

    /// Takes another table's combinations over; `maps` has, by key, what its codes are here, and `before` what the
    /// numbers of its level before are here. Returns by which number each of its combinations goes here.
    fn adopt(&mut self, other: &Self, maps: &[Option<Vec<u32>>], before: &[u32]) -> Vec<u32> {
        let renumbered = |&packed: &u64| {
            let (mut key, mut shift) = (0, 0);
            for &(index, bits) in &other.keys {
                let code = packed >> shift & ((1 << bits) - 1);
                let code = maps[index].as_ref().map_or(code, |map| u64::from(map[code as usize]));
                key |= code << shift;
                shift += bits;
            }
            if other.follows() { key | u64::from(before[(packed >> shift) as usize]) << shift } else { key }
        };
        other.combinations.keys.iter().map(|packed| self.combinations.id(renumbered(packed))).collect()
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
