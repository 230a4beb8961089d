//! What the rows of segments amount to, whatever their order and however they are divided: by it a merge is checked before
//! it takes the place of what it was made of.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::{BLOCK_ROWS, Column, Dictionary, Number, NumericColumn, Rollup, Segment, block_range};
use crate::error::{Error, Result};
use crate::model::{ColumnRole, ColumnSchema, MetricCombine, SegmentSchema};

/// Odd, and otherwise of no meaning: the digits of pi behind the point.
const FACTOR: u128 = 0x243f_6a88_85a3_08d3_1319_8a2e_0370_7345;
const NULL: u128 = 0x6e75_6c6c;
const EMPTY_LIST: u128 = 0x6c69_7374;
/// Sums of floats depend on the order of their addition, by so much of what was added.
const ROUNDING: f64 = 1e-9;

/// Counts, sums and a hash of rows. That of two segments together is the sum of theirs.
#[derive(Clone, Debug, Default)]
pub struct Fingerprint {
    num_rows: u64,
    /// The sum of the hashes of the rows.
    rows: u128,
    /// By column: what rollup keeps of metrics.
    totals: Vec<Total>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Total {
    /// Nothing is kept that could be told from outside.
    #[default]
    Nothing,
    Long(i128),
    /// The sum, and that of the amounts without their signs.
    Double(f64, f64),
    /// The least, or the greatest, as it is.
    Extreme(Option<f64>, fn(f64, f64) -> f64),
}

/// The fingerprint of a segment's rows as rows of `schema`: a column that the segment lacks is null, and a single value is
/// a list of one where lists are wanted. Reads everything.
pub fn fingerprint(segment: &dyn Segment, schema: &SegmentSchema) -> Result<Fingerprint> {
    let num_rows = segment.num_rows();
    let mut hashes = vec![FACTOR; num_rows];
    let mut totals = Vec::with_capacity(schema.columns().len());
    for wanted in schema.columns() {
        let column = segment.schema().index_of(&wanted.name).map(|index| segment.column(index)).transpose()?;
        let total = match column {
            Some(column) => add_column(&column, wanted, &mut hashes),
            None => {
                let missing = if wanted.multi_value { EMPTY_LIST } else { NULL };
                hashes.iter_mut().for_each(|hash| *hash = mixed(*hash, missing));
                Ok(Total::Nothing)
            }
        };
        totals.push(total.map_err(|error| error.context("column", &wanted.name))?);
    }
    let rows = hashes.into_iter().fold(0, |sum: u128, hash| sum.wrapping_add(mixed(hash, FACTOR)));
    Ok(Fingerprint { num_rows: num_rows as u64, rows, totals })
}

fn mixed(hash: u128, value: u128) -> u128 {
    let product = (hash ^ value).wrapping_mul(FACTOR);
    product ^ product >> 61
}

fn text_hash(text: &[u8]) -> u128 {
    let half = |seed| u128::from(FixedState::with_seed(seed).hash_one(text));
    half(1) << 64 | half(2)
}

fn hashes_of(dictionary: &dyn Dictionary) -> Result<Vec<u128>> {
    let values = dictionary.values_once()?;
    Ok(values.iter().map(|value| value.map_or(NULL, |value| text_hash(value.as_bytes()))).collect())
}

fn add_column(column: &Column, wanted: &ColumnSchema, hashes: &mut [u128]) -> Result<Total> {
    match column {
        Column::Long(numbers) => {
            let mut sum = 0i128;
            let extreme = add_numbers(
                numbers.as_ref(),
                wanted,
                hashes,
                |value| value as u64,
                |value| {
                    sum += i128::from(value);
                    value as f64
                },
            )?;
            Ok(extreme.unwrap_or(Total::Long(sum)).only_of(wanted))
        }
        Column::Float(numbers) => {
            let (mut sum, mut amount) = (0.0, 0.0);
            let extreme = add_numbers(
                numbers.as_ref(),
                wanted,
                hashes,
                |value| u64::from(value.to_bits()),
                |value| {
                    (sum, amount) = (sum + f64::from(value), amount + f64::from(value).abs());
                    f64::from(value)
                },
            )?;
            Ok(extreme.unwrap_or(Total::Double(sum, amount)).only_of(wanted))
        }
        Column::Double(numbers) => {
            let (mut sum, mut amount) = (0.0, 0.0);
            let extreme = add_numbers(numbers.as_ref(), wanted, hashes, f64::to_bits, |value| {
                (sum, amount) = (sum + value, amount + value.abs());
                value
            })?;
            Ok(extreme.unwrap_or(Total::Double(sum, amount)).only_of(wanted))
        }
        Column::String(_) | Column::MultiString(_) => add_texts(column, wanted, hashes).map(|()| Total::Nothing),
    }
}

/// Mixes numbers into the hashes of their rows, and shows each to `add`; the least or greatest, where that is kept.
fn add_numbers<T: Number>(
    numbers: &dyn NumericColumn<T>,
    wanted: &ColumnSchema,
    hashes: &mut [u128],
    bits: impl Fn(T) -> u64,
    mut add: impl FnMut(T) -> f64,
) -> Result<Option<Total>> {
    let (mut values, mut extreme) = (Vec::new(), None::<f64>);
    let keep: Option<fn(f64, f64) -> f64> = match wanted.role {
        ColumnRole::Metric(MetricCombine::Min) => Some(|a, b| if b.total_cmp(&a).is_lt() { b } else { a }),
        ColumnRole::Metric(MetricCombine::Max) => Some(|a, b| if b.total_cmp(&a).is_gt() { b } else { a }),
        _ => None,
    };
    let num_rows = hashes.len();
    for block in 0..num_rows.div_ceil(BLOCK_ROWS) {
        let valid = numbers.read(block, &mut values)?;
        let rows = &mut hashes[block_range(block, num_rows)];
        for (row, (hash, value)) in rows.iter_mut().zip(&values).enumerate() {
            if valid.as_ref().is_some_and(|valid| !valid.value(row)) {
                *hash = mixed(*hash, NULL);
                continue;
            }
            *hash = mixed(*hash, 1 << 64 | u128::from(bits(*value)));
            let number = add(*value);
            extreme = keep.map(|keep| extreme.map_or(number, |extreme| keep(extreme, number))).or(extreme);
        }
    }
    Ok(keep.map(|keep| Total::Extreme(extreme, keep)))
}

fn add_texts(column: &Column, wanted: &ColumnSchema, hashes: &mut [u128]) -> Result<()> {
    let num_rows = hashes.len();
    let (mut offsets, mut codes) = (Vec::new(), Vec::new());
    let texts = match column {
        Column::String(column) => hashes_of(column.dictionary())?,
        Column::MultiString(column) => hashes_of(column.dictionary())?,
        _ => return Err(Error::defensive("a column of numbers is no column of texts")),
    };
    let list = |list: &[u32]| list.iter().fold(EMPTY_LIST, |hash, code| mixed(hash, texts[*code as usize]));
    for block in 0..num_rows.div_ceil(BLOCK_ROWS) {
        let rows = &mut hashes[block_range(block, num_rows)];
        match column {
            Column::String(column) => {
                column.read_codes(block, &mut codes)?;
                for (hash, code) in rows.iter_mut().zip(&codes) {
                    let text = texts[*code as usize];
                    // As a list of one, a null is none.
                    let value = match (wanted.multi_value, text) {
                        (true, NULL) => EMPTY_LIST,
                        (true, _) => list(&[*code]),
                        (false, text) => text,
                    };
                    *hash = mixed(*hash, value);
                }
            }
            Column::MultiString(column) => {
                column.read_codes(block, &mut offsets, &mut codes)?;
                for (hash, ends) in rows.iter_mut().zip(offsets.windows(2)) {
                    *hash = mixed(*hash, list(&codes[ends[0] as usize..ends[1] as usize]));
                }
            }
            _ => return Err(Error::defensive("a column of numbers is no column of texts")),
        }
    }
    Ok(())
}

impl Total {
    /// Of metrics alone; of firsts and lasts it cannot be told.
    fn only_of(self, column: &ColumnSchema) -> Self {
        match column.role {
            ColumnRole::Metric(MetricCombine::Sum | MetricCombine::Min | MetricCombine::Max) => self,
            _ => Self::Nothing,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Long(a), Self::Long(b)) => Self::Long(a + b),
            (Self::Double(a, amount), Self::Double(b, more)) => Self::Double(a + b, amount + more),
            (Self::Extreme(Some(a), keep), Self::Extreme(Some(b), _)) => Self::Extreme(Some(keep(a, b)), keep),
            (Self::Extreme(a, keep), Self::Extreme(b, _)) => Self::Extreme(a.or(b), keep),
            (Self::Nothing, other) | (other, _) => other,
        }
    }

    fn is_like(self, other: Self) -> bool {
        match (self, other) {
            (Self::Long(a), Self::Long(b)) => a == b,
            (Self::Double(a, amount), Self::Double(b, more)) => {
                a == b || (a - b).abs() <= amount.max(more) * ROUNDING || !(a - b).is_finite()
            }
            (Self::Extreme(a, _), Self::Extreme(b, _)) => a.map(f64::to_bits) == b.map(f64::to_bits),
            // A column that is missing, and one without values.
            (Self::Nothing, other) | (other, Self::Nothing) => match other {
                Self::Nothing => true,
                Self::Long(sum) => sum == 0,
                Self::Double(_, amount) => amount == 0.0,
                Self::Extreme(extreme, _) => extreme.is_none(),
            },
            _ => false,
        }
    }
}

impl Fingerprint {
    pub fn num_rows(&self) -> u64 {
        self.num_rows
    }

    /// That of the rows of both.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        if self.totals.is_empty() {
            return other.clone();
        }
        self.num_rows += other.num_rows;
        self.rows = self.rows.wrapping_add(other.rows);
        self.totals.iter_mut().zip(&other.totals).for_each(|(total, other)| *total = total.and(*other));
        self
    }

    /// Fails unless rows with this fingerprint are what a merge makes of rows with another: without rollup the same rows;
    /// with it not more of them, and metrics that amount to the same.
    pub fn check_made_of(&self, inputs: &Self, rollup: Rollup) -> Result<()> {
        let differ = |what: String| Err(Error::corrupt(format!("merged segments differ from their inputs: {what}")));
        match rollup {
            Rollup::Off if self.num_rows != inputs.num_rows => {
                differ(format!("{} rows of {}", self.num_rows, inputs.num_rows))
            }
            Rollup::Off if self.rows != inputs.rows => differ("values in their rows".to_owned()),
            Rollup::On if self.num_rows > inputs.num_rows => {
                differ(format!("{} rows of {}", self.num_rows, inputs.num_rows))
            }
            _ => match self.totals.iter().zip(&inputs.totals).position(|(a, b)| !a.is_like(*b)) {
                Some(column) if self.num_rows > 0 => differ(format!("the total of column {column}")),
                _ => Ok(()),
            },
        }
    }
}
