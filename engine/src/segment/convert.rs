//! Segments of another make, written in our format, and compared row for row.

use std::io::Write;
use std::sync::Arc;

use super::batch::read_block;
use super::{BLOCK_ROWS, MergeInput, Rollup, RowOrder, Segment, SegmentSummary, WriteOptions, write_segment};
use crate::error::{Error, Result};
use crate::model::SegmentSchema;

/// Writes the rows of a segment in our format, in their order, without some of its columns. Fails where another column
/// cannot be read.
pub fn convert(segment: &Arc<dyn Segment>, without: &[String], out: &mut dyn Write) -> Result<SegmentSummary> {
    let schema = segment.schema();
    if let Some(unknown) = without.iter().find(|name| schema.index_of(name).is_none_or(|index| index == 0)) {
        return Err(Error::not_found(format!("the segment has no column `{unknown}` to leave out")));
    }
    let kept = schema.columns().iter().skip(1).filter(|column| !without.contains(&column.name)).cloned();
    let schema = Arc::new(SegmentSchema::new(kept)?);
    let input = MergeInput { segment: Arc::clone(segment), rows: 0..segment.num_rows() };
    let order = RowOrder::of(vec![input], &schema, Rollup::Off)?;
    write_segment(&order, 0..order.num_rows(), &WriteOptions::default(), out)
}

/// Compares all rows of `copy` with those of the segment that it was made from. The first difference is named.
pub fn check_same_rows(copy: &dyn Segment, original: &dyn Segment) -> Result<()> {
    let differ = |what: &str| Err(Error::corrupt(format!("the converted segment differs from the original: {what}")));
    if (copy.num_rows(), copy.time_range()) != (original.num_rows(), original.time_range()) {
        return differ("another number of rows, or other times");
    }
    for (index, column) in copy.schema().columns().iter().enumerate() {
        let Some(from) = original.schema().index_of(&column.name) else {
            return differ(&format!("column `{}` is new", column.name));
        };
        for block in 0..copy.num_rows().div_ceil(BLOCK_ROWS) {
            if read_block(copy, &[index], block)?.column(0) != read_block(original, &[from], block)?.column(0) {
                return differ(&format!("block {block} of column `{}`", column.name));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentFile;
    use crate::segment::druid::Nulls;
    use crate::segment::druid::tests::genuine;

    fn converted(segment: &Arc<dyn Segment>, without: &[String]) -> Result<SegmentFile> {
        let mut bytes = Vec::new();
        convert(segment, without, &mut bytes)?;
        SegmentFile::from_bytes("converted", bytes)
    }

    #[test]
    fn genuine_segments_are_converted_row_for_row() {
        for name in genuine::NAMES {
            for nulls in [Nulls::AsStored, Nulls::EmptyIsNull] {
                let Some(segment) = genuine::open(name, nulls) else { return };
                let segment: Arc<dyn Segment> = Arc::new(segment);
                let without = if name.contains("Damaged") { vec!["count".to_owned()] } else { Vec::new() };
                let copy = converted(&segment, &without).unwrap();
                copy.verify().unwrap();
                check_same_rows(&copy, segment.as_ref()).unwrap();
                assert_eq!(copy.schema().columns().len() + without.len(), segment.schema().columns().len());
            }
        }
    }

    #[test]
    fn a_column_that_cannot_be_read_must_be_left_out_by_name() {
        let Some(segment) = genuine::open("v9SegmentPersistDir/segmentWithDamagedFile", Nulls::AsStored) else {
            return;
        };
        let segment: Arc<dyn Segment> = Arc::new(segment);
        assert!(converted(&segment, &[]).unwrap_err().to_string().contains("`count`"));
        assert!(converted(&segment, &["nothing".to_owned()]).is_err());
        assert!(converted(&segment, &["__time".to_owned()]).is_err());
    }

    #[test]
    fn what_differs_is_found() {
        let (Some(one), Some(other)) = (
            genuine::open("v8SegmentPersistDir", Nulls::AsStored),
            genuine::open("v8SegmentPersistDir", Nulls::EmptyIsNull),
        ) else {
            return;
        };
        assert!(check_same_rows(&one, &other).unwrap_err().to_string().contains("column `dim0`"));
    }
}
