//! The rows of lists that are still growing, as columns.
//!
//! Invariants: what is kept is nobody else's, no slice of a batch that would stay for its sake; [`Lists::size`] covers what
//! giving the lists out takes beside it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{SortOptions, and, concat, filter, interleave, is_not_null, prep_null_mask_filter, take};
use arrow::datatypes::{DataType, Field};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use datafusion::logical_expr::function::AccumulatorArgs;

use crate::error::Error;

/// What a row takes beside its values while lists are made: its group, and the place that it comes from.
const ROW_BYTES: usize = size_of::<u32>() + size_of::<(usize, usize)>();

/// A list of such items.
pub(super) fn list_of(item: &DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item.clone(), true)))
}

#[derive(Debug)]
pub(super) struct Lists {
    /// Of the values, then of what they are sorted by.
    types: Vec<DataType>,
    order: Vec<SortOptions>,
    ignore_nulls: bool,
    /// Columns of these types.
    batches: Vec<Vec<ArrayRef>>,
    /// The group of each row of each batch.
    owners: Vec<Vec<u32>>,
    groups: usize,
    rows: usize,
    bytes: usize,
}

impl Lists {
    pub(super) fn of(args: &AccumulatorArgs) -> Result<Self> {
        let mut types = vec![args.expr_fields[0].data_type().clone()];
        for by in args.order_bys {
            types.push(by.expr.data_type(args.schema)?);
        }
        let order = args.order_bys.iter().map(|by| by.options).collect();
        let ignore_nulls = args.ignore_nulls && args.expr_fields[0].is_nullable();
        Ok(Self { types, order, ignore_nulls, batches: Vec::new(), owners: Vec::new(), groups: 0, rows: 0, bytes: 0 })
    }

    pub(super) fn groups(&self) -> usize {
        self.groups
    }

    /// Adds those of these rows that are wanted.
    pub(super) fn add(
        &mut self,
        columns: &[ArrayRef],
        owners: Vec<u32>,
        wanted: Option<&BooleanArray>,
        groups: usize,
    ) -> Result<()> {
        self.groups = self.groups.max(groups);
        match self.mask(&columns[0], wanted)? {
            Some(mask) => self.keep_some(columns, owners, &mask),
            None => self.keep(columns.iter().map(owned).collect::<Result<_>>()?, owners),
        }
    }

    /// Which rows are wanted, if not all are.
    fn mask(&self, values: &ArrayRef, wanted: Option<&BooleanArray>) -> Result<Option<BooleanArray>> {
        let there = match self.ignore_nulls && values.logical_null_count() > 0 {
            true => Some(is_not_null(values)?),
            false => None,
        };
        let wanted = wanted.map(|wanted| match wanted.null_count() {
            0 => wanted.clone(),
            _ => prep_null_mask_filter(wanted),
        });
        Ok(match (wanted, there) {
            (Some(wanted), Some(there)) => Some(and(&wanted, &there)?),
            (one, other) => one.or(other),
        })
    }

    fn keep_some(&mut self, columns: &[ArrayRef], owners: Vec<u32>, mask: &BooleanArray) -> Result<()> {
        let columns = columns.iter().map(|column| owned(&filter(column, mask)?)).collect::<Result<_>>()?;
        let owners = owners.into_iter().enumerate().filter(|(row, _)| mask.value(*row)).map(|(_, owner)| owner);
        self.keep(columns, owners.collect())
    }

    fn keep(&mut self, columns: Vec<ArrayRef>, owners: Vec<u32>) -> Result<()> {
        if owners.is_empty() {
            return Ok(());
        }
        self.rows += owners.len();
        self.bytes += columns.iter().map(|column| column.get_array_memory_size()).sum::<usize>();
        self.batches.push(columns);
        self.owners.push(owners);
        Ok(())
    }

    /// Adds the items of lists, a list for each column; they stand for groups.
    pub(super) fn merge(&mut self, lists: &[ArrayRef], owners: &[usize], groups: usize) -> Result<()> {
        self.groups = self.groups.max(groups);
        let first = lists[0].as_list::<i32>();
        let mut rows = Vec::with_capacity(first.values().len());
        let mut owner_of_row = Vec::with_capacity(first.values().len());
        for (list, owner) in owners.iter().enumerate().filter(|(list, _)| first.is_valid(*list)) {
            let (start, end) = (first.value_offsets()[list], first.value_offsets()[list + 1]);
            rows.extend(start as u32..end as u32);
            owner_of_row.extend(std::iter::repeat_n(*owner as u32, (end - start) as usize));
        }
        // The lists of one row are equally long, and those of all columns lie alike where all begin at the same place.
        let alike = |list: &ArrayRef| list.as_list::<i32>().value_offsets() == first.value_offsets();
        if !lists.iter().all(alike) {
            return Err(Error::defensive("lists that belong together are not equally long").into());
        }
        let whole = rows.len() == first.values().len();
        let rows = UInt32Array::from(rows);
        let columns = lists.iter().map(|list| match whole {
            true => owned(list.as_list::<i32>().values()),
            false => owned(&take(list.as_list::<i32>().values(), &rows, None)?),
        });
        let columns = columns.collect::<Result<_>>()?;
        self.keep(columns, owner_of_row)
    }

    /// The values of the first groups, a list for each, sorted.
    pub(super) fn sorted(&self, wanted: usize) -> Result<ArrayRef> {
        let (lengths, mut places) = self.places(wanted);
        if !self.order.is_empty() {
            self.sort(&lengths, &mut places)?;
        }
        list(&self.types[0], self.gather(0, &places)?, &lengths)
    }

    /// The values of the first groups and what they are sorted by, lists for each, unsorted.
    pub(super) fn state(&self, wanted: usize) -> Result<Vec<ArrayRef>> {
        let (lengths, places) = self.places(wanted);
        let column = |(place, item)| list(item, self.gather(place, &places)?, &lengths);
        self.types.iter().enumerate().map(column).collect()
    }

    /// Each row as a list of its own.
    pub(super) fn one_by_one(&self, columns: &[ArrayRef], wanted: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mask = self.mask(&columns[0], wanted)?;
        let nulls = mask.map(|mask| NullBuffer::new(mask.values().clone()));
        let list = |(column, item): (&ArrayRef, &DataType)| {
            let offsets = OffsetBuffer::from_repeated_length(1, column.len());
            let field = Arc::new(Field::new_list_field(item.clone(), true));
            Ok(Arc::new(ListArray::try_new(field, offsets, Arc::clone(column), nulls.clone())?) as ArrayRef)
        };
        columns.iter().zip(&self.types).map(list).collect()
    }

    /// How many rows the first groups have each, and where those rows are, group by group.
    fn places(&self, wanted: usize) -> (Vec<usize>, Vec<(usize, usize)>) {
        let mut lengths = vec![0; wanted];
        for owner in self.owners.iter().flatten() {
            if let Some(length) = lengths.get_mut(*owner as usize) {
                *length += 1;
            }
        }
        let mut total = 0;
        let mut next: Vec<usize> = Vec::with_capacity(wanted);
        for length in &lengths {
            next.push(total);
            total += length;
        }
        let mut places = vec![(0, 0); total];
        for (batch, owners) in self.owners.iter().enumerate() {
            for (row, owner) in owners.iter().enumerate() {
                if let Some(next) = next.get_mut(*owner as usize) {
                    places[*next] = (batch, row);
                    *next += 1;
                }
            }
        }
        (lengths, places)
    }

    /// Sorts the places within each group. What sorts alike stays as it came.
    fn sort(&self, lengths: &[usize], places: &mut [(usize, usize)]) -> Result<()> {
        let fields = self.types[1..].iter().zip(&self.order);
        let fields = fields.map(|(item, options)| SortField::new_with_options(item.clone(), *options)).collect();
        let columns = (1..self.types.len()).map(|column| self.gather(column, places)).collect::<Result<Vec<_>>>()?;
        let keys = RowConverter::new(fields)?.convert_columns(&columns)?;
        let mut start = 0;
        for length in lengths {
            let end = start + length;
            let mut order: Vec<usize> = (start..end).collect();
            order.sort_by(|a, b| keys.row(*a).cmp(&keys.row(*b)));
            let sorted: Vec<_> = order.into_iter().map(|at| places[at]).collect();
            places[start..end].copy_from_slice(&sorted);
            start = end;
        }
        Ok(())
    }

    /// The values of a column at these places.
    fn gather(&self, column: usize, places: &[(usize, usize)]) -> Result<ArrayRef> {
        let parts: Vec<&dyn Array> = self.batches.iter().map(|batch| batch[column].as_ref()).collect();
        if parts.is_empty() {
            return Ok(arrow::array::new_empty_array(&self.types[column]));
        }
        let as_they_came = self.order.is_empty() && self.groups <= 1 && places.len() == self.rows;
        Ok(if as_they_came { concat(&parts)? } else { interleave(&parts, places)? })
    }

    /// Forgets the first groups; those after them are counted from zero.
    pub(super) fn forget(&mut self, first: usize) -> Result<()> {
        let (batches, owners) = (std::mem::take(&mut self.batches), std::mem::take(&mut self.owners));
        (self.rows, self.bytes) = (0, 0);
        self.groups = self.groups.saturating_sub(first);
        if self.groups == 0 {
            return Ok(());
        }
        for (columns, owners) in batches.into_iter().zip(owners) {
            let stays: BooleanArray = owners.iter().map(|owner| Some(*owner as usize >= first)).collect();
            let owners: Vec<u32> = owners.into_iter().map(|owner| owner.wrapping_sub(first as u32)).collect();
            match stays.true_count() == stays.len() {
                true => self.keep(columns, owners)?,
                false => self.keep_some(&columns, owners, &stays)?,
            }
        }
        Ok(())
    }

    /// Bytes that are kept, and that making lists of them takes: a copy, and when sorting one more of keys and places.
    pub(super) fn size(&self) -> usize {
        let copies = if self.order.is_empty() { 2 } else { 3 };
        let places = if self.order.is_empty() { 1 } else { 2 };
        let vectors = self.batches.capacity() * size_of::<Vec<ArrayRef>>() * 2;
        self.bytes * copies + self.rows * ROW_BYTES * places + vectors
    }
}

/// Values that hold on to nothing but themselves.
fn owned(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        _ => {
            let needed = array.to_data().get_slice_memory_size().unwrap_or(usize::MAX);
            match array.get_array_memory_size() / 2 > needed.saturating_add(1024) {
                true => take(array, &UInt32Array::from_iter_values(0..array.len() as u32), None)?,
                false => Arc::clone(array),
            }
        }
    })
}

/// A list for each length; none where there is nothing.
fn list(item: &DataType, values: ArrayRef, lengths: &[usize]) -> Result<ArrayRef> {
    if i32::try_from(values.len()).is_err() {
        let message = format!("an array of {} elements is larger than the maximum allowed", values.len());
        return Err(Error::capacity_exceeded(message).with_sqlstate("54000").into());
    }
    let mut end = 0;
    let ends = lengths.iter().map(|length| {
        end += *length as i32;
        end
    });
    let offsets: ScalarBuffer<i32> = std::iter::once(0).chain(ends).collect();
    let nulls: NullBuffer = lengths.iter().map(|length| *length > 0).collect();
    let field = Arc::new(Field::new_list_field(item.clone(), true));
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::new(offsets), values, Some(nulls))?))
}
