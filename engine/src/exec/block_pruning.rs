//! Skipping segments and blocks by filters that other operators find while the query runs, such as the worst of the
//! best rows so far of `ORDER BY … LIMIT`.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::pruning::PruningStatistics;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::conjunction;
use datafusion::physical_expr::expressions::DynamicFilterTracking;
use datafusion::physical_expr_common::physical_expr::snapshot_physical_expr;
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use datafusion::scalar::ScalarValue;

use crate::model::Timestamp;
use crate::segment::{BlockStats, Column, Number, NumericColumn};

/// Filters on a scan's output that may sharpen while it runs.
#[derive(Debug)]
pub(super) struct BlockPruning {
    filter: Arc<dyn PhysicalExpr>,
    tracking: DynamicFilterTracking,
    schema: SchemaRef,
    /// From the filter as it was when last looked at; `None` where it cannot prune.
    current: Option<PruningPredicate>,
    started: bool,
}

impl BlockPruning {
    /// `filters` are over `schema`. `None` without filters.
    pub(super) fn new(filters: &[Arc<dyn PhysicalExpr>], schema: SchemaRef) -> Option<Self> {
        if filters.is_empty() {
            return None;
        }
        let filter = conjunction(filters.to_vec());
        let tracking = DynamicFilterTracking::classify(&filter);
        Some(Self { filter, tracking, schema, current: None, started: false })
    }

    fn refresh(&mut self) -> Result<()> {
        let changed = self.tracking.watcher().is_some_and(|watcher| watcher.changed());
        if changed || !self.started {
            self.started = true;
            let filter = snapshot_physical_expr(Arc::clone(&self.filter))?;
            let built = PruningPredicateBuilder::new().with_file_schema(Arc::clone(&self.schema)).try_build(filter);
            // A filter that cannot be turned into one on statistics prunes nothing; that is no error.
            self.current = built.ok().filter(|pruning| !pruning.always_true());
        }
        Ok(())
    }

    /// Whether rows between these times, both inclusive, may be wanted.
    pub(super) fn may_match_times(&mut self, times: (Timestamp, Timestamp)) -> Result<bool> {
        self.refresh()?;
        let Some(pruning) = &self.current else { return Ok(true) };
        let statistics = TimeStatistics { times, schema: &self.schema };
        Ok(pruning.prune(&statistics)?.first().copied().unwrap_or(true))
    }

    /// For each block of `blocks`, whether its rows may be wanted. `columns` are those of the schema, `None` where the
    /// segment lacks one.
    pub(super) fn may_match(&mut self, columns: &[Option<Column>], blocks: Range<usize>) -> Result<Vec<bool>> {
        self.refresh()?;
        let Some(pruning) = &self.current else { return Ok(vec![true; blocks.len()]) };
        pruning.prune(&BlocksStatistics { columns, blocks, schema: &self.schema })
    }
}

/// The time range of a segment, as the statistics of one container.
struct TimeStatistics<'a> {
    times: (Timestamp, Timestamp),
    schema: &'a SchemaRef,
}

impl TimeStatistics<'_> {
    fn value(&self, column: &datafusion::common::Column, value: Timestamp) -> Option<ArrayRef> {
        let field = self.schema.field_with_name(&column.name).ok()?;
        let is_time = matches!(field.data_type(), DataType::Timestamp(TimeUnit::Millisecond, None));
        let value = ScalarValue::TimestampMillisecond(Some(value.millis()), None);
        is_time.then(|| value.to_array().ok()).flatten()
    }
}

impl PruningStatistics for TimeStatistics<'_> {
    fn min_values(&self, column: &datafusion::common::Column) -> Option<ArrayRef> {
        self.value(column, self.times.0)
    }

    fn max_values(&self, column: &datafusion::common::Column) -> Option<ArrayRef> {
        self.value(column, self.times.1)
    }

    fn num_containers(&self) -> usize {
        1
    }

    /// The time is never null. Without knowing so, `ORDER BY __time DESC`, which wants nulls first, could skip nothing.
    fn null_counts(&self, column: &datafusion::common::Column) -> Option<ArrayRef> {
        self.value(column, self.times.0).map(|_| Arc::new(UInt64Array::from(vec![0])) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _column: &datafusion::common::Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// What blocks of a segment say of themselves. A column of a type without such statistics says nothing.
struct BlocksStatistics<'a> {
    columns: &'a [Option<Column>],
    blocks: Range<usize>,
    schema: &'a SchemaRef,
}

#[derive(Clone, Copy)]
enum End {
    Least,
    Greatest,
}

impl BlocksStatistics<'_> {
    fn find(&self, column: &datafusion::common::Column) -> Option<(&Column, &DataType)> {
        let (index, field) = self.schema.column_with_name(&column.name)?;
        Some((self.columns.get(index)?.as_ref()?, field.data_type()))
    }

    fn ends(&self, column: &datafusion::common::Column, end: End) -> Option<ArrayRef> {
        let (column, data_type) = self.find(column)?;
        let values = self.blocks.clone().map(|block| match column {
            Column::Long(numbers) => {
                let value = number_end(numbers.as_ref(), block, end);
                match data_type {
                    DataType::Timestamp(..) => ScalarValue::TimestampMillisecond(value, None),
                    _ => ScalarValue::Int64(value),
                }
            }
            Column::Float(numbers) => ScalarValue::Float32(number_end(numbers.as_ref(), block, end)),
            Column::Double(numbers) => ScalarValue::Float64(number_end(numbers.as_ref(), block, end)),
            Column::String(strings) => {
                let dictionary = strings.dictionary();
                let code = strings.code_range(block).ok().map(|(least, greatest)| match end {
                    End::Least => least,
                    End::Greatest => greatest,
                });
                let code = code.filter(|&code| dictionary.is_sorted() && !(code == 0 && dictionary.has_null()));
                let value = code.and_then(|code| dictionary.values_of(&[code]).ok());
                ScalarValue::Utf8View(value.map(|value| value.value(0).to_owned()))
            }
            Column::MultiString(_) => ScalarValue::Null,
        });
        ScalarValue::iter_to_array(values).ok().filter(|array| array.data_type() == data_type)
    }
}

/// `None` where the block has no such value, or has a NaN, which compares with nothing.
fn number_end<T: Number>(numbers: &dyn NumericColumn<T>, block: usize, end: End) -> Option<T> {
    let stats = numbers.block_stats(block).ok().filter(|stats| !stats.has_nan)?;
    let (least, greatest) = stats.min_max?;
    Some(match end {
        End::Least => least,
        End::Greatest => greatest,
    })
}

fn nulls<T: Number>(stats: crate::error::Result<BlockStats<T>>) -> Option<u64> {
    stats.ok().map(|stats| u64::from(stats.nulls))
}

impl PruningStatistics for BlocksStatistics<'_> {
    fn min_values(&self, column: &datafusion::common::Column) -> Option<ArrayRef> {
        self.ends(column, End::Least)
    }

    fn max_values(&self, column: &datafusion::common::Column) -> Option<ArrayRef> {
        self.ends(column, End::Greatest)
    }

    fn num_containers(&self) -> usize {
        self.blocks.len()
    }

    fn null_counts(&self, column: &datafusion::common::Column) -> Option<ArrayRef> {
        let (column, _) = self.find(column)?;
        let counts = self.blocks.clone().map(|block| match column {
            Column::Long(numbers) => nulls(numbers.block_stats(block)),
            Column::Float(numbers) => nulls(numbers.block_stats(block)),
            Column::Double(numbers) => nulls(numbers.block_stats(block)),
            Column::String(strings) => (!strings.dictionary().has_null()).then_some(0),
            Column::MultiString(_) => None,
        });
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _column: &datafusion::common::Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
