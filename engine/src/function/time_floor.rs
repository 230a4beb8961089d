//! `TIME_FLOOR(timestamp, period [, origin [, time zone]])`: the start of the bucket of time that an instant lies in.

use std::str::FromStr;

use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::interval_arithmetic::Interval as Bounds;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::argument::{self, TIME};
use crate::model::{Granularity, Interval, Period, TimeZone, Timestamp};

pub(crate) const NAME: &str = "time_floor";

/// `time_floor(timestamp, period [, origin [, time zone]])`. `date_trunc` and `FLOOR(x TO unit)` become this.
pub fn time_floor() -> ScalarUDF {
    ScalarUDF::new_from_impl(TimeFloor { signature: argument::signature() })
}

/// The buckets that a call `time_floor(x, …)` cuts `x` into, if all but `x` are literals. For operators that fold by
/// bucket: `constants` are the arguments after the first.
pub fn buckets(constants: &[Option<&ScalarValue>]) -> Option<Granularity> {
    let text = |index: usize| constants.get(index).map(|value| value.and_then(|value| value.try_as_str().flatten()));
    let period = Period::from_str(text(0)??).ok()?;
    let origin = match constants.get(1) {
        None => None,
        Some(Some(ScalarValue::TimestampMillisecond(origin, None))) => origin.map(Timestamp::from_millis),
        Some(Some(value)) if value.is_null() => None,
        Some(_) => return None,
    };
    let zone = match constants.get(2) {
        None => TimeZone::Utc,
        Some(Some(value)) if value.is_null() => TimeZone::Utc,
        Some(_) => TimeZone::from_str(text(2)??).ok()?,
    };
    Granularity::of(period, origin, zone).ok()
}

/// The granularity that the arguments after the first ask for; `None` if the period is null.
pub(super) fn granularity(function: &str, args: &[ColumnarValue]) -> Result<Option<Granularity>> {
    let zone = argument::zone(function, args, 3)?;
    let origin = argument::instant(args, 2);
    match argument::constant(function, args, 1)? {
        Some(period) => Ok(Some(Granularity::of(Period::from_str(period)?, origin, zone)?)),
        None => Ok(None),
    }
}

/// Finds the bucket of one instant after another. Rows mostly come in the order of time: the last bucket is tried first.
pub(super) struct Finder {
    granularity: Granularity,
    last: Option<Interval>,
}

impl Finder {
    pub(super) fn new(granularity: Granularity) -> Self {
        Self { granularity, last: None }
    }

    pub(super) fn bucket(&mut self, instant: Timestamp) -> Interval {
        match self.last {
            Some(bucket) if bucket.contains(instant) => bucket,
            _ => {
                let bucket = self.granularity.bucket(instant);
                self.last = Some(bucket);
                bucket
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeFloor {
    signature: Signature,
}

impl ScalarUDFImpl for TimeFloor {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        argument::coerce(NAME, arg_types, 2, &[TIME, DataType::Utf8, TIME, DataType::Utf8])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(TIME)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(granularity) = granularity(NAME, &args.args)? else { return argument::null(&TIME) };
        let mut finder = Finder::new(granularity);
        argument::map_time(&args, |instant| Ok(finder.bucket(instant).start()))
    }

    /// Buckets follow each other as time does.
    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        let constant = inputs[1..].iter().all(|input| input.sort_properties == SortProperties::Singleton);
        Ok(if constant { inputs[0].sort_properties } else { SortProperties::Unordered })
    }

    /// `TIME_FLOOR(x, …) = start` means that `x` lies in the bucket of `start`.
    fn preimage(&self, args: &[Expr], value: &Expr, _info: &SimplifyContext) -> Result<PreimageResult> {
        let constants: Vec<_> = args[1..].iter().map(Expr::as_literal).collect();
        let (Some(granularity), Some(ScalarValue::TimestampMillisecond(Some(start), None))) =
            (buckets(&constants), value.as_literal())
        else {
            return Ok(PreimageResult::None);
        };
        let bucket = granularity.bucket(Timestamp::from_millis(*start));
        if bucket.start().millis() != *start {
            return Ok(PreimageResult::None);
        }
        let bound = |instant: Timestamp| ScalarValue::TimestampMillisecond(Some(instant.millis()), None);
        let interval = Box::new(Bounds::try_new(bound(bucket.start()), bound(bucket.end()))?);
        Ok(PreimageResult::Range { expr: args[0].clone(), interval })
    }
}
