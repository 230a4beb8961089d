use henge_engine::segment::druid::Nulls;

/// How the segments of Druid's are read, by data source; `*` names all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Druids {
    /// Those whose segments have an empty text where they mean null.
    pub empty_is_null: Vec<String>,
    /// Those whose segments are written in our format once they are on this machine, and served from that.
    pub convert: Vec<String>,
}

/// How the segments of one data source are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) nulls: Nulls,
    pub(super) converts: bool,
}

impl Druids {
    pub(super) fn of(&self, data_source: &str) -> Reading {
        Reading { nulls: self.nulls(data_source), converts: names(&self.convert, data_source) }
    }

    pub(crate) fn nulls(&self, data_source: &str) -> Nulls {
        match names(&self.empty_is_null, data_source) {
            true => Nulls::EmptyIsNull,
            false => Nulls::AsStored,
        }
    }
}

fn names(names: &[String], data_source: &str) -> bool {
    names.iter().any(|name| name == data_source || name == "*")
}
