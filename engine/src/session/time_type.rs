//! SQL's types of time as PostgreSQL keeps them: microseconds, which hold every year that it has.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, TimezoneInfo};

use crate::error::Error;

#[derive(Debug)]
pub(super) struct PostgresTimes;

impl TypePlanner for PostgresTimes {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        let SqlType::Timestamp(digits, zone) = sql_type else { return Ok(None) };
        let unit = match digits {
            None | Some(4..=6) => TimeUnit::Microsecond,
            Some(1..=3) => TimeUnit::Millisecond,
            Some(0) => TimeUnit::Second,
            Some(other) => {
                let message = format!("`timestamp({other})` is not supported; it has at most 6 digits after the point");
                return Err(Error::invalid_input(message).with_sqlstate("22023").into());
            }
        };
        let zone = match zone {
            TimezoneInfo::Tz | TimezoneInfo::WithTimeZone => Some("+00:00".into()),
            TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => None,
        };
        Ok(Some(Arc::new(Field::new("", DataType::Timestamp(unit, zone), true))))
    }
}
