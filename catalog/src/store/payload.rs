use std::sync::Arc;

use henge_engine::model::{ColumnRole, SegmentSchema, ShardSpec};
use henge_engine::storage::LoadSpec;
use henge_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::SegmentRecord;

/// Druid's description of a segment, as its tools write and read it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Payload {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    data_source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    version: Option<String>,
    pub(super) load_spec: LoadSpec,
    // From here on what people leave out, or write otherwise, is not looked at.
    #[serde(default)]
    dimensions: Value,
    #[serde(default)]
    metrics: Value,
    #[serde(default = "only_one")]
    pub(super) shard_spec: ShardSpec,
    #[serde(default)]
    binary_version: Value,
    #[serde(default)]
    size: Value,
    #[serde(default)]
    identifier: Value,
}

fn only_one() -> ShardSpec {
    ShardSpec::None
}

/// The version of our own segment format that a payload names.
const BINARY_VERSION: u32 = 1;

impl Payload {
    pub(super) fn of(record: &SegmentRecord) -> Result<String> {
        let names = |wanted: fn(&ColumnRole) -> bool| {
            let columns = record.schema.columns().iter().filter(|column| wanted(&column.role));
            Value::from(columns.map(|column| column.name.as_str()).collect::<Vec<_>>().join(","))
        };
        let payload = Self {
            data_source: Some(record.id.data_source.clone()),
            interval: Some(record.id.interval.to_string()),
            version: Some(record.id.version.clone()),
            load_spec: record.load_spec.clone(),
            dimensions: names(|role| *role == ColumnRole::Dimension),
            metrics: names(|role| matches!(role, ColumnRole::Metric(_))),
            shard_spec: record.shard_spec.clone(),
            binary_version: BINARY_VERSION.into(),
            size: record.size_bytes.into(),
            identifier: record.id.to_string().into(),
        };
        to_json(&payload)
    }
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::defensive("a record is not JSON").with_source(error))
}

pub(super) fn from_json<'a, T: Deserialize<'a>>(what: &'static str, text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::corrupt("the metadata store holds what is not valid JSON").context("for", what).with_source(error)
    })
}

pub(super) fn schema_from_json(text: &str) -> Result<Arc<SegmentSchema>> {
    from_json("a segment's schema", text).map(Arc::new)
}

/// The id under which a schema is looked for first: FNV-1a of its JSON. Schemas that collide get a suffix.
pub(super) fn schema_fingerprint(json: &str) -> u64 {
    json.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
