//! SQL functions, one file each.
//!
//! Owns scalar functions; DataFusion's stand where none of ours has their name. Invariants: a function of `__time` gives
//! `__time`'s type, `Timestamp(Millisecond, None)`; a pattern or unit that is not known is an error, never a wrong answer.

mod argument;
pub mod arithmetic;
pub(crate) mod array;
mod by_row;
mod date_trunc;
mod div;
mod format;
mod interval;
pub mod json;
mod make_timestamp;
mod md5;
mod millis_to_timestamp;
mod pattern;
mod regexp;
pub mod round_whole;
mod time_ceil;
mod time_extract;
pub mod time_floor;
mod time_format;
mod time_in_interval;
mod time_parse;
mod time_shift;
mod timestamp_to_millis;
mod timezone;
mod to_char;
mod to_date;
mod to_number;
mod to_timestamp;
pub(crate) mod uuid;
mod width_bucket;

use std::sync::Arc;

use datafusion::functions::math::signum;
use datafusion::logical_expr::ScalarUDF;

/// Every scalar function of Henge. Some replace DataFusion's of the same name.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    let named = [
        date_trunc::date_trunc(),
        div::div(),
        format::format(),
        make_timestamp::make_timestamp(),
        md5::md5(),
        millis_to_timestamp::millis_to_timestamp(),
        round_whole::round_whole(),
        time_ceil::time_ceil(),
        time_extract::time_extract(),
        time_floor::time_floor(),
        time_format::time_format(),
        time_in_interval::time_in_interval(),
        time_parse::time_parse(),
        time_shift::time_shift(),
        timestamp_to_millis::timestamp_to_millis(),
        timezone::timezone(),
        to_char::to_char(),
        to_date::to_date(),
        to_number::to_number(),
        to_timestamp::to_timestamp(),
        uuid::uuid(),
        width_bucket::width_bucket(),
    ];
    let aliased = [signum().as_ref().clone().with_aliases(["sign"])];
    named
        .into_iter()
        .chain(array::all())
        .chain(interval::all())
        .chain(json::all())
        .chain(regexp::all())
        .chain(aliased)
        .map(Arc::new)
        .chain(arithmetic::all())
        .collect()
}
