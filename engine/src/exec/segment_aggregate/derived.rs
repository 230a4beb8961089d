//! Keys that are functions of one string dimension: evaluated once for each value, not for each row.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::error::Result;

use super::interner::ValueInterner;
use super::time_key::{from_integers, is_integral, to_integers};
use crate::exec::computed::Computed;
use crate::exec::ordinals::Numbering;

/// Values that are evaluated between two yields to the scheduler.
const VALUES_AT_ONCE: usize = 16 * 1024;

/// What the ordinals of a dimension become.
#[derive(Debug)]
pub(super) struct DerivedCodes {
    /// By ordinal.
    codes: Vec<u32>,
    /// By code.
    values: ArrayRef,
}

impl DerivedCodes {
    /// Types that a key may be of.
    pub(super) fn takes(data_type: &DataType) -> bool {
        is_integral(data_type) || matches!(data_type, DataType::Boolean | DataType::Utf8 | DataType::Utf8View)
    }

    /// Evaluates `computed`, which is of the one numbered column, for all ordinals. Fails where it fails for a value,
    /// which no selected row need have.
    pub(super) async fn of(computed: &Computed, numbering: &Numbering) -> Result<Self> {
        let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Utf8View, true)]));
        let mut interned = Interned::default();
        let mut codes = Vec::with_capacity(numbering.limit());
        for start in (0..numbering.limit()).step_by(VALUES_AT_ONCE) {
            let end = (start + VALUES_AT_ONCE).min(numbering.limit());
            let ordinals = (start as u32..end as u32).collect::<Vec<_>>();
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(numbering.values_of(&ordinals))])?;
            let values = computed.expr.evaluate(&batch)?.into_array(ordinals.len())?;
            interned.extend(&values, &mut codes)?;
            tokio::task::yield_now().await;
        }
        Ok(Self { codes, values: interned.finish(&computed.data_type)? })
    }

    pub(super) fn cardinality(&self) -> usize {
        self.values.len()
    }

    /// Replaces ordinals by their codes.
    pub(super) fn apply(&self, ordinals: &mut [u32]) {
        ordinals.iter_mut().for_each(|ordinal| *ordinal = self.codes[*ordinal as usize]);
    }

    pub(super) fn decode(&self, codes: &[u32]) -> Result<ArrayRef> {
        Ok(take(&self.values, &UInt32Array::from(codes.to_vec()), None)?)
    }
}

/// Distinct values, numbered in the order of their coming.
#[derive(Default)]
struct Interned {
    texts: HashMap<Option<Box<str>>, u32>,
    text_by_code: Vec<Option<Box<str>>>,
    integers: ValueInterner,
}

impl Interned {
    fn extend(&mut self, values: &ArrayRef, codes: &mut Vec<u32>) -> Result<()> {
        if matches!(values.data_type(), DataType::Utf8 | DataType::Utf8View) {
            let values = cast(values, &DataType::Utf8View)?;
            codes.extend(values.as_string_view().iter().map(|value| self.text(value)));
        } else {
            let integers = match values.data_type() {
                DataType::Boolean => cast(values, &DataType::Int64)?,
                _ => to_integers(values)?,
            };
            codes.extend(integers.as_primitive::<Int64Type>().iter().map(|value| self.integers.id(value)));
        }
        Ok(())
    }

    fn text(&mut self, value: Option<&str>) -> u32 {
        let value = value.map(Box::from);
        let next = self.text_by_code.len() as u32;
        let code = *self.texts.entry(value.clone()).or_insert(next);
        if code == next {
            self.text_by_code.push(value);
        }
        code
    }

    fn finish(self, data_type: &DataType) -> Result<ArrayRef> {
        if matches!(data_type, DataType::Utf8 | DataType::Utf8View) {
            let texts: StringViewArray = self.text_by_code.iter().map(Option::as_deref).collect();
            return Ok(cast(&texts, data_type)?);
        }
        let integers: ArrayRef = Arc::new(self.integers.by_id.into_iter().collect::<Int64Array>());
        match data_type {
            DataType::Boolean => Ok(cast(&integers, &DataType::Boolean)?),
            _ => from_integers(integers, data_type),
        }
    }
}
