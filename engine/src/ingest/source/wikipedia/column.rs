//! The columns of each shape: their names, and how each is read off an edit.

use super::{Edit, Place, Shape};
use crate::model::Timestamp;

/// One column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) value: Value,
}

/// How the column's value is had, and so its type.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    /// As text with seconds or with milliseconds.
    Time(Precision),
    Text(fn(&Edit<'_>) -> &'static str),
    String(for<'a> fn(&'a Edit<'_>) -> &'a str),
    MaybeString(for<'a> fn(&Edit<'a>) -> Option<&'a str>),
    Flag(fn(&Edit<'_>) -> bool),
    /// `"true"` or `"false"`, as the tutorial has it.
    FlagText(fn(&Edit<'_>) -> bool),
    Number(fn(&Edit<'_>) -> i64),
    MaybeNumber(fn(&Edit<'_>) -> Option<i64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    Seconds,
    Milliseconds,
}

impl Precision {
    /// Tutorial times are whole seconds in every format.
    pub(super) fn round(self, time: Timestamp) -> i64 {
        match self {
            Self::Seconds => time.millis() - time.millis().rem_euclid(1000),
            Self::Milliseconds => time.millis(),
        }
    }
}

const fn column(name: &'static str, value: Value) -> Column {
    Column { name, value }
}

pub(super) fn columns(shape: Shape) -> &'static [Column] {
    match shape {
        Shape::Tutorial => &TUTORIAL,
        Shape::Wikiticker => &WIKITICKER,
    }
}

static TUTORIAL: [Column; 16] = [
    column("timestamp", Value::Time(Precision::Seconds)),
    column("page", Value::String(|edit| &edit.page)),
    column("language", Value::Text(|edit| edit.language)),
    column("user", Value::String(|edit| &edit.user)),
    column("unpatrolled", Value::FlagText(|edit| edit.unpatrolled)),
    column("newPage", Value::FlagText(|edit| edit.new)),
    column("robot", Value::FlagText(|edit| edit.robot)),
    column("anonymous", Value::FlagText(|edit| edit.anonymous)),
    column("namespace", Value::Text(|edit| edit.namespace.1)),
    column("continent", Value::MaybeString(|edit| place(edit, |place| Some(place.continent)))),
    column("country", Value::MaybeString(|edit| place(edit, |place| Some(place.country)))),
    column("region", Value::MaybeString(|edit| place(edit, |place| place.region.as_deref()))),
    column("city", Value::MaybeString(|edit| place(edit, |place| place.city.as_deref()))),
    column("added", Value::Number(|edit| edit.added)),
    column("deleted", Value::Number(|edit| edit.deleted)),
    column("delta", Value::Number(|edit| edit.delta())),
];

static WIKITICKER: [Column; 20] = [
    column("time", Value::Time(Precision::Milliseconds)),
    column("channel", Value::Text(|edit| edit.channel)),
    column("cityName", Value::MaybeString(|edit| place(edit, |place| place.city.as_deref()))),
    column("comment", Value::String(|edit| &edit.comment)),
    column("countryIsoCode", Value::MaybeString(|edit| place(edit, |place| Some(place.country_code)))),
    column("countryName", Value::MaybeString(|edit| place(edit, |place| Some(place.country)))),
    column("isAnonymous", Value::Flag(|edit| edit.anonymous)),
    column("isMinor", Value::Flag(|edit| edit.minor)),
    column("isNew", Value::Flag(|edit| edit.new)),
    column("isRobot", Value::Flag(|edit| edit.robot)),
    column("isUnpatrolled", Value::Flag(|edit| edit.unpatrolled)),
    column("metroCode", Value::MaybeNumber(|edit| edit.place.and_then(|place| place.metro_code))),
    column("namespace", Value::Text(|edit| edit.namespace.0)),
    column("page", Value::String(|edit| &edit.page)),
    column("regionIsoCode", Value::MaybeString(|edit| place(edit, |place| place.region_code.as_deref()))),
    column("regionName", Value::MaybeString(|edit| place(edit, |place| place.region.as_deref()))),
    column("user", Value::String(|edit| &edit.user)),
    column("delta", Value::Number(|edit| edit.delta())),
    column("added", Value::Number(|edit| edit.added)),
    column("deleted", Value::Number(|edit| edit.deleted)),
];

fn place<'a>(edit: &Edit<'a>, value: fn(&'a Place) -> Option<&'a str>) -> Option<&'a str> {
    edit.place.and_then(value)
}
