//! Dates, times and intervals as PostgreSQL (style ISO) prints them, and its epoch.

use bytes::{BufMut, BytesMut};
use chrono::Offset;
use chrono::TimeZone;
use henge_engine::{Error, Result};

use super::Span;
use super::number::{put_decimal_integer, put_padded};

const DAY_MICROS: i64 = 86_400_000_000;
/// 2000-01-01, from which PostgreSQL counts, in days since 1970.
const PG_EPOCH_DAYS: i64 = 10_957;
const PG_EPOCH_MICROS: i64 = PG_EPOCH_DAYS * DAY_MICROS;

/// The session's time zone, in which `timestamptz` is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Zone {
    #[default]
    Utc,
    Named(chrono_tz::Tz),
}

impl Zone {
    /// The zone a client names, as in `SET TIME ZONE 'Europe/Paris'`.
    pub(crate) fn parse(name: &str) -> Result<Zone> {
        let plain = name.trim().trim_matches('\'');
        if ["utc", "gmt", "z", "etc/utc", "default", "local"].contains(&plain.to_ascii_lowercase().as_str()) {
            return Ok(Zone::Utc);
        }
        let known = chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(plain));
        known
            .map(|zone| Zone::Named(*zone))
            .ok_or_else(|| Error::invalid_input(format!("invalid value for parameter \"TimeZone\": \"{plain}\"")))
    }

    fn offset_seconds(self, micros: i64) -> i64 {
        match self {
            Zone::Utc => 0,
            Zone::Named(zone) => {
                let utc = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default().naive_utc();
                i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc())
            }
        }
    }
}

/// Year, month and day of a day since 1970 (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u64, day as u64)
}

/// Writes the date; true when its year is before Christ, which is said at the very end.
fn put_civil(days: i64, out: &mut BytesMut) -> bool {
    let (year, month, day) = civil(days);
    let (year, before_christ) = if year > 0 { (year, false) } else { (1 - year, true) };
    put_padded(year as u64, 4, out);
    out.put_u8(b'-');
    put_padded(month, 2, out);
    out.put_u8(b'-');
    put_padded(day, 2, out);
    before_christ
}

fn put_clock(micros_of_day: i64, out: &mut BytesMut) {
    let seconds = micros_of_day / 1_000_000;
    put_padded((seconds / 3_600) as u64, 2, out);
    out.put_u8(b':');
    put_padded((seconds / 60 % 60) as u64, 2, out);
    out.put_u8(b':');
    put_padded((seconds % 60) as u64, 2, out);
    put_fraction(micros_of_day % 1_000_000, out);
}

fn put_fraction(micros: i64, out: &mut BytesMut) {
    if micros == 0 {
        return;
    }
    out.put_u8(b'.');
    put_padded(micros.unsigned_abs(), 6, out);
    while out.last() == Some(&b'0') {
        out.truncate(out.len() - 1);
    }
}

pub(super) fn put_date(days: i64, out: &mut BytesMut) {
    if put_civil(days, out) {
        out.put_slice(b" BC");
    }
}

pub(super) fn put_time(micros: i64, out: &mut BytesMut) {
    put_clock(micros, out);
}

pub(super) fn put_timestamp(micros: i64, out: &mut BytesMut) {
    let before_christ = put_civil(micros.div_euclid(DAY_MICROS), out);
    out.put_u8(b' ');
    put_clock(micros.rem_euclid(DAY_MICROS), out);
    if before_christ {
        out.put_slice(b" BC");
    }
}

pub(super) fn put_timestamptz(micros: i64, zone: &Zone, out: &mut BytesMut) {
    let offset = zone.offset_seconds(micros);
    let local = micros.saturating_add(offset * 1_000_000);
    let before_christ = put_civil(local.div_euclid(DAY_MICROS), out);
    out.put_u8(b' ');
    put_clock(local.rem_euclid(DAY_MICROS), out);
    out.put_u8(if offset < 0 { b'-' } else { b'+' });
    let (hours, minutes, seconds) = (offset.abs() / 3_600, offset.abs() / 60 % 60, offset.abs() % 60);
    put_padded(hours as u64, 2, out);
    if minutes > 0 || seconds > 0 {
        out.put_u8(b':');
        put_padded(minutes as u64, 2, out);
    }
    if seconds > 0 {
        out.put_u8(b':');
        put_padded(seconds as u64, 2, out);
    }
    if before_christ {
        out.put_slice(b" BC");
    }
}

pub(super) fn put_interval(span: Span, out: &mut BytesMut) {
    let start = out.len();
    let mut negative_before = false;
    for (amount, unit) in [(span.months / 12, "year"), (span.months % 12, "mon"), (span.days, "day")] {
        if amount == 0 {
            continue;
        }
        if out.len() > start {
            out.put_u8(b' ');
        }
        if negative_before && amount > 0 {
            out.put_u8(b'+');
        }
        put_decimal_integer(i128::from(amount), out);
        out.put_u8(b' ');
        out.put_slice(unit.as_bytes());
        if amount != 1 {
            out.put_u8(b's');
        }
        negative_before = amount < 0;
    }
    if span.micros == 0 && out.len() > start {
        return;
    }
    if out.len() > start {
        out.put_u8(b' ');
    }
    if span.micros < 0 {
        out.put_u8(b'-');
    } else if negative_before {
        out.put_u8(b'+');
    }
    let micros = span.micros.unsigned_abs();
    put_padded(micros / 3_600_000_000, 2, out);
    out.put_u8(b':');
    put_padded(micros / 60_000_000 % 60, 2, out);
    out.put_u8(b':');
    put_padded(micros / 1_000_000 % 60, 2, out);
    put_fraction((micros % 1_000_000) as i64, out);
}

pub(super) fn put_date_binary(days: i64, out: &mut BytesMut) {
    out.put_i32((days - PG_EPOCH_DAYS).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32);
}

pub(super) fn put_timestamp_binary(micros: i64, out: &mut BytesMut) {
    out.put_i64(micros.saturating_sub(PG_EPOCH_MICROS));
}

pub(super) fn put_interval_binary(span: Span, out: &mut BytesMut) {
    out.put_i64(span.micros);
    out.put_i32(span.days);
    out.put_i32(span.months);
}

/// Microseconds since 1970 of PostgreSQL's binary timestamp.
pub(crate) fn micros_from_pg(micros: i64) -> i64 {
    micros.saturating_add(PG_EPOCH_MICROS)
}

/// Days since 1970 of PostgreSQL's binary date.
pub(crate) fn days_from_pg(days: i32) -> i32 {
    days.saturating_add(PG_EPOCH_DAYS as i32)
}
