//! Expressions over columns of the data source, evaluated on the selected rows of a block.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;

use super::reader::{Reader, Rows, arrow_field};
use crate::error::Error;
use crate::model::SegmentSchema;
use crate::segment::{Dictionary, Segment};

/// A deterministic expression over some columns of the data source.
#[derive(Clone, Debug)]
pub struct Computed {
    /// Over batches of `columns`, in their order.
    pub expr: Arc<dyn PhysicalExpr>,
    /// Indexes into the data source's columns.
    pub columns: Vec<usize>,
    pub data_type: DataType,
}

impl Computed {
    /// An expression whose columns are found in the data source by `column_of`; `None` if one is not. `data_type` is its
    /// type.
    pub fn of(
        expr: &Arc<dyn PhysicalExpr>,
        data_type: DataType,
        column_of: impl Fn(usize) -> Option<usize>,
    ) -> Result<Option<Self>> {
        let mut columns = Vec::new();
        let mut unknown = false;
        let expr = Arc::clone(expr).transform(|expr| {
            let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
            let Some(index) = column_of(column.index()) else {
                unknown = true;
                return Ok(Transformed::no(expr));
            };
            let at = columns.iter().position(|known| *known == index).unwrap_or_else(|| {
                columns.push(index);
                columns.len() - 1
            });
            Ok(Transformed::yes(Arc::new(Column::new(column.name(), at)) as Arc<dyn PhysicalExpr>))
        });
        let expr = expr.data()?;
        Ok((!unknown).then_some(Self { expr, columns, data_type }))
    }
}

impl PartialEq for Computed {
    fn eq(&self, other: &Self) -> bool {
        self.expr.eq(&other.expr) && self.columns == other.columns
    }
}

/// Evaluates one expression block by block; one of a string dimension once for each value, when so many rows have wanted
/// theirs that it pays.
#[derive(Debug)]
pub(super) struct Evaluation {
    computed: Computed,
    schema: SchemaRef,
    readers: Vec<Reader>,
    by_code: ByCode,
}

/// The values of an expression of one string dimension, of a segment.
#[derive(Debug)]
enum ByCode {
    /// So many rows wanted theirs.
    NotTried(usize),
    Known(ArrayRef),
    /// It fails for some value, which no selected row need have.
    Fails,
}

/// So many times more values than rows may be evaluated.
const VALUES_PER_ROW: usize = 4;

impl Evaluation {
    pub(super) fn new(computed: Computed, columns: &SegmentSchema) -> Self {
        let fields = computed.columns.iter().filter_map(|&index| columns.column(index)).map(arrow_field);
        let schema = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
        Self { computed, schema, readers: Vec::new(), by_code: ByCode::NotTried(0) }
    }

    pub(super) fn open(&mut self, segment: &dyn Segment, columns: &SegmentSchema) -> Result<()> {
        let readers = self.computed.columns.iter().map(|&index| Reader::open(segment, columns, index));
        self.readers = readers.collect::<Result<_>>()?;
        self.by_code = ByCode::NotTried(0);
        Ok(())
    }

    /// The values for some rows of a block.
    pub(super) fn evaluate(&mut self, block: usize, rows: Rows<'_>) -> Result<ArrayRef> {
        if let [Reader::Strings(reader)] = self.readers.as_mut_slice()
            && let Some(values) = self.by_code.values(&self.computed, reader.column.dictionary(), rows.len())
        {
            reader.append(block, rows)?;
            let codes = UInt32Array::from(std::mem::take(&mut reader.codes));
            return Ok(take(values, &codes, None)?);
        }
        let mut columns = Vec::with_capacity(self.readers.len());
        for (reader, field) in self.readers.iter_mut().zip(self.schema.fields()) {
            reader.append(block, rows)?;
            columns.push(match reader {
                Reader::Strings(reader) => Arc::new(reader.finish_passing()?) as ArrayRef,
                reader => reader.finish(field)?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        self.computed.expr.evaluate(&batch)?.into_array(rows.len())
    }

    /// Of some rows of a block those for which it is true, into `left`.
    pub(super) fn filter(&mut self, block: usize, rows: Rows<'_>, left: &mut Vec<u32>) -> Result<()> {
        let truths = self.is_true(block, rows)?;
        left.clear();
        match rows {
            Rows::All(_) => left.extend(truths.set_indices().map(|row| row as u32)),
            Rows::Some(rows) => left.extend(truths.set_indices().map(|index| rows[index])),
        }
        Ok(())
    }

    /// For which of some rows of a block it is true.
    pub(super) fn is_true(&mut self, block: usize, rows: Rows<'_>) -> Result<BooleanBuffer> {
        let truths = self.evaluate(block, rows)?;
        let truths: &BooleanArray = truths
            .as_boolean_opt()
            .ok_or_else(|| Error::defensive(format!("a condition is {}", truths.data_type())))?;
        Ok(match truths.nulls() {
            Some(nulls) => truths.values() & nulls.inner(),
            None => truths.values().clone(),
        })
    }
}

impl ByCode {
    /// The values by code, where there are not many more of them than rows that wanted theirs; `num_rows` do now.
    fn values(&mut self, computed: &Computed, dictionary: &dyn Dictionary, num_rows: usize) -> Option<&ArrayRef> {
        if let Self::NotTried(rows) = self {
            *rows += num_rows;
            if dictionary.cardinality() <= *rows * VALUES_PER_ROW {
                *self = evaluate_values(computed, dictionary).map_or(Self::Fails, Self::Known);
            }
        }
        match self {
            Self::Known(values) => Some(values),
            Self::NotTried(_) | Self::Fails => None,
        }
    }
}

fn evaluate_values(computed: &Computed, dictionary: &dyn Dictionary) -> Result<ArrayRef> {
    let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Utf8View, true)]));
    let batch = RecordBatch::try_new(schema, vec![dictionary.values()?])?;
    computed.expr.evaluate(&batch)?.into_array(batch.num_rows())
}

/// The values of an expression, as they are folded.
#[derive(Debug, Default)]
pub(crate) enum Evaluated {
    #[default]
    Nothing,
    Long(Vec<i64>),
    Double(Vec<f64>),
}

impl Evaluated {
    /// Types that can be folded.
    pub(super) fn takes(data_type: &DataType) -> bool {
        matches!(data_type, DataType::Int64 | DataType::Float64)
    }

    /// The values, and which of them are valid.
    pub(super) fn of(array: &ArrayRef) -> Result<(Self, Option<NullBuffer>)> {
        let values = match array.data_type() {
            DataType::Int64 => Self::Long(array.as_primitive::<Int64Type>().values().to_vec()),
            DataType::Float64 => Self::Double(array.as_primitive::<Float64Type>().values().to_vec()),
            // Only counted.
            _ => Self::Nothing,
        };
        Ok((values, array.logical_nulls().filter(|nulls| nulls.null_count() > 0)))
    }
}
