//! `DATE_TRUNC(unit, timestamp [, time zone])`. Of a timestamp without a zone it is [`super::time_floor`] by that unit, so
//! that operators and rules need to know one function; of anything else it is DataFusion's.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions::datetime::date_trunc as stock;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, lit,
};

use super::argument::{self, TIME};
use super::time_floor;
use crate::error::Error;

const NAME: &str = "date_trunc";

pub(super) fn date_trunc() -> ScalarUDF {
    ScalarUDF::new_from_impl(DateTrunc { signature: argument::signature(), stock: stock() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    signature: Signature,
    stock: Arc<ScalarUDF>,
}

/// A unit as the period and, where buckets are not counted from 1970, the origin of `TIME_FLOOR`.
fn period(unit: &str) -> Result<(&'static str, Option<i64>)> {
    /// 2001-01-01, where PostgreSQL's centuries and millennia begin.
    const CENTURY: i64 = 978_307_200_000;
    let unit = unit.to_lowercase();
    Ok(match unit.as_str() {
        "microsecond" | "microseconds" | "millisecond" | "milliseconds" => ("PT0.001S", None),
        "second" | "seconds" => ("PT1S", None),
        "minute" | "minutes" => ("PT1M", None),
        "hour" | "hours" => ("PT1H", None),
        "day" | "days" => ("P1D", None),
        "week" | "weeks" => ("P1W", None),
        "month" | "months" => ("P1M", None),
        "quarter" => ("P3M", None),
        "year" | "years" => ("P1Y", None),
        "decade" | "decades" => ("P10Y", None),
        "century" | "centuries" => ("P100Y", Some(CENTURY)),
        "millennium" | "millennia" => ("P1000Y", Some(CENTURY)),
        other => {
            let message = format!("`date_trunc` knows no unit `{other}`; it knows millisecond to millennium");
            return Err(Error::invalid_input(message).with_sqlstate("22023").into());
        }
    })
}

/// Whether `date_trunc` of this type is ours to do.
fn is_zoneless(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, None) | DataType::Null) || argument::is_string(data_type)
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [_, time, _] if time.is_temporal() || is_zoneless(time) => Ok(vec![DataType::Utf8, TIME, DataType::Utf8]),
            [_, time] if is_zoneless(time) => Ok(vec![DataType::Utf8, TIME]),
            _ => {
                let fields: Vec<FieldRef> = arg_types
                    .iter()
                    .map(|data_type| Arc::new(arrow::datatypes::Field::new("", data_type.clone(), true)))
                    .collect();
                let fields = fields_with_udf(&fields, self.stock.as_ref())?;
                Ok(fields.iter().map(|field| field.data_type().clone()).collect())
            }
        }
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[1].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if *args.arg_fields[1].data_type() == TIME {
            return Ok(Arc::new(arrow::datatypes::Field::new(NAME, TIME, true)));
        }
        self.stock.return_field_from_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        if info.get_data_type(&args[1])? != TIME {
            return Ok(ExprSimplifyResult::Original(args));
        }
        let Some(unit) = argument::literal(&args, 0) else { return Ok(ExprSimplifyResult::Original(args)) };
        let (period, origin) = period(unit)?;
        let mut floor = vec![args[1].clone(), lit(period)];
        if origin.is_some() || args.len() > 2 {
            floor.push(lit(ScalarValue::TimestampMillisecond(origin, None)));
        }
        floor.extend(args.get(2).cloned());
        let call = ScalarFunction::new_udf(Arc::new(time_floor::time_floor()), floor);
        Ok(ExprSimplifyResult::Simplified(Expr::ScalarFunction(call)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if *args.arg_fields[1].data_type() != TIME {
            return self.stock.invoke_with_args(args);
        }
        let Some(unit) = argument::constant(NAME, &args.args, 0)? else { return argument::null(&TIME) };
        let (period, origin) = period(unit)?;
        let scalar = |value: ScalarValue| ColumnarValue::Scalar(value);
        let mut floor = vec![
            args.args[1].clone(),
            scalar(ScalarValue::from(period)),
            scalar(ScalarValue::TimestampMillisecond(origin, None)),
        ];
        floor.extend(args.args.get(2).cloned());
        time_floor::time_floor().invoke_with_args(ScalarFunctionArgs { args: floor, ..args })
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        let constant =
            inputs.iter().enumerate().all(|(i, input)| i == 1 || input.sort_properties == SortProperties::Singleton);
        Ok(if constant { inputs[1].sort_properties } else { SortProperties::Unordered })
    }
}
