use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, StringViewArray, StringViewBuilder};
use arrow::buffer::BooleanBuffer;

use crate::error::{Error, Result};
use crate::ingest::row::double_text;
use crate::model::ColumnType;
use crate::segment::memory::MemoryColumn;
use crate::segment::{BLOCK_ROWS, Column, Dictionary, Number, NumericColumn, Segment};

/// A whole column of a run, as a column of another type: a long may become a double, and anything text or lists of it.
pub(super) fn column(
    segment: &dyn Segment,
    index: usize,
    column_type: ColumnType,
    multi_value: bool,
) -> Result<MemoryColumn> {
    let rows = segment.num_rows();
    let column = load(segment.column(index)?, rows)?;
    Ok(match (column, column_type) {
        (MemoryColumn::Long { values, validity }, ColumnType::Double) => {
            MemoryColumn::Double { values: values.into_iter().map(|value| value as f64).collect(), validity }
        }
        (MemoryColumn::String { values, codes, .. }, ColumnType::Double) => parse_doubles(&values, &codes)?,
        (MemoryColumn::Long { values, validity }, ColumnType::String) => {
            as_text(&values, validity.as_ref(), |value| value.to_string(), multi_value)
        }
        (MemoryColumn::Double { values, validity }, ColumnType::String) => {
            as_text(&values, validity.as_ref(), |value| double_text(*value), multi_value)
        }
        (MemoryColumn::String { values, has_null, sorted, codes }, ColumnType::String) if multi_value => {
            as_lists(values, has_null, sorted, &codes)
        }
        (column, _) => column,
    })
}

fn load(column: Column, rows: usize) -> Result<MemoryColumn> {
    let blocks = 0..rows.div_ceil(BLOCK_ROWS);
    Ok(match column {
        Column::Long(numbers) => {
            let (values, validity) = numbers_of(numbers.as_ref(), rows)?;
            MemoryColumn::Long { values, validity }
        }
        Column::Float(numbers) => {
            let (values, validity) = numbers_of(numbers.as_ref(), rows)?;
            MemoryColumn::Float { values, validity }
        }
        Column::Double(numbers) => {
            let (values, validity) = numbers_of(numbers.as_ref(), rows)?;
            MemoryColumn::Double { values, validity }
        }
        Column::String(texts) => {
            let (mut codes, mut block_codes) = (Vec::with_capacity(rows), Vec::new());
            for block in blocks {
                texts.read_codes(block, &mut block_codes)?;
                codes.extend_from_slice(&block_codes);
            }
            let (values, has_null, sorted) = dictionary_of(texts.dictionary())?;
            MemoryColumn::String { values, has_null, sorted, codes }
        }
        Column::MultiString(lists) => {
            let (mut offsets, mut codes) = (vec![0], Vec::new());
            let (mut block_offsets, mut block_codes) = (Vec::new(), Vec::new());
            for block in blocks {
                lists.read_codes(block, &mut block_offsets, &mut block_codes)?;
                let base = codes.len() as u32;
                offsets.extend(block_offsets.iter().skip(1).map(|offset| base + offset));
                codes.extend_from_slice(&block_codes);
            }
            let (values, has_null, sorted) = dictionary_of(lists.dictionary())?;
            MemoryColumn::MultiString { values, has_null, sorted, offsets, codes }
        }
    })
}

fn dictionary_of(dictionary: &dyn Dictionary) -> Result<(Arc<StringViewArray>, bool, bool)> {
    Ok((dictionary.values()?, dictionary.has_null(), dictionary.is_sorted()))
}

fn numbers_of<T: Number>(numbers: &dyn NumericColumn<T>, rows: usize) -> Result<(Vec<T>, Option<BooleanBuffer>)> {
    let (mut values, mut block_values) = (Vec::with_capacity(rows), Vec::new());
    let mut valid = Vec::with_capacity(rows);
    for block in 0..rows.div_ceil(BLOCK_ROWS) {
        let validity = numbers.read(block, &mut block_values)?;
        valid.extend((0..block_values.len()).map(|i| validity.as_ref().is_none_or(|valid| valid.value(i))));
        values.extend_from_slice(&block_values);
    }
    let nulls = valid.contains(&false);
    Ok((values, nulls.then(|| BooleanBuffer::from(valid))))
}

fn parse_doubles(values: &StringViewArray, codes: &[u32]) -> Result<MemoryColumn> {
    let parse = |text: Option<&str>| text.map(str::parse::<f64>).transpose();
    let numbers = values.iter().map(parse).collect::<Result<Vec<_>, _>>();
    let numbers = numbers.map_err(|e| Error::defensive("a run's numeric text is not a number").with_source(e))?;
    let by_row = codes.iter().map(|code| numbers[*code as usize]).collect::<Vec<_>>();
    let nulls = by_row.contains(&None);
    let validity = nulls.then(|| by_row.iter().map(Option::is_some).collect());
    Ok(MemoryColumn::Double { values: by_row.into_iter().map(Option::unwrap_or_default).collect(), validity })
}

fn as_text<T>(
    values: &[T],
    validity: Option<&BooleanBuffer>,
    written: impl Fn(&T) -> String,
    multi_value: bool,
) -> MemoryColumn {
    let is_valid = |row: usize| validity.is_none_or(|valid| valid.value(row));
    let texts = values.iter().enumerate().map(|(row, value)| is_valid(row).then(|| written(value)));
    let texts = texts.collect::<Vec<_>>();
    let distinct = texts.iter().flatten().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    let has_null = texts.contains(&None);
    let mut dictionary = StringViewBuilder::with_capacity(distinct.len() + 1);
    if has_null {
        dictionary.append_null();
    }
    distinct.iter().for_each(|text| dictionary.append_value(text));
    let code = |text: &Option<String>| match text {
        Some(text) => distinct.partition_point(|other| *other < text) as u32 + u32::from(has_null),
        None => 0,
    };
    let codes = texts.iter().map(code).collect::<Vec<_>>();
    let values = Arc::new(dictionary.finish());
    match multi_value {
        true => as_lists(values, has_null, true, &codes),
        false => MemoryColumn::String { values, has_null, sorted: true, codes },
    }
}

/// Each value as a list of one; null as the empty list.
fn as_lists(values: Arc<StringViewArray>, has_null: bool, sorted: bool, codes: &[u32]) -> MemoryColumn {
    let shift = u32::from(has_null);
    let mut offsets = vec![0];
    let mut items = Vec::with_capacity(codes.len());
    for code in codes {
        items.extend((!has_null || *code != 0).then(|| code - shift));
        offsets.push(items.len() as u32);
    }
    let values = match has_null {
        true => Arc::new(values.slice(1, values.len() - 1)),
        false => values,
    };
    MemoryColumn::MultiString { values, has_null: false, sorted, offsets, codes: items }
}
