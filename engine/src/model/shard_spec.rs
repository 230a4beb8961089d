use serde::{Deserialize, Serialize};

/// How one interval's rows are divided among segments, and which part this one is. Druid's JSON.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ShardSpec {
    /// The only segment of its interval and version.
    None,
    /// One of any number of partitions; each may be used without the others.
    #[serde(rename_all = "camelCase")]
    Linear { partition_num: u32 },
    /// One of `partitions` that belong together: none is used without all of them. Partitions numbered
    /// `partitions` and up were appended later; with `partitions` 0 all were.
    #[serde(rename_all = "camelCase")]
    Numbered { partition_num: u32, partitions: u32 },
    /// Of Druid's: as [`ShardSpec::Numbered`], rows divided by a hash of some dimensions.
    #[serde(rename_all = "camelCase")]
    Hashed {
        partition_num: u32,
        partitions: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bucket_id: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        num_buckets: Option<u32>,
        #[serde(default)]
        partition_dimensions: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        partition_function: Option<String>,
    },
    /// Of Druid's: rows whose value of a dimension is not below `start` and is below `end`; `None` is open.
    #[serde(rename_all = "camelCase")]
    Single {
        dimension: String,
        start: Option<String>,
        end: Option<String>,
        #[serde(default)]
        partition_num: u32,
        /// How many belong together; missing, or -1, where that was not recorded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        num_core_partitions: Option<i32>,
    },
    /// The same by the values of several dimensions.
    #[serde(rename_all = "camelCase")]
    Range {
        dimensions: Vec<String>,
        start: Option<Vec<Option<String>>>,
        end: Option<Vec<Option<String>>>,
        partition_num: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        num_core_partitions: Option<i32>,
    },
}

impl ShardSpec {
    pub fn partition_num(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Linear { partition_num }
            | Self::Numbered { partition_num, .. }
            | Self::Hashed { partition_num, .. }
            | Self::Single { partition_num, .. }
            | Self::Range { partition_num, .. } => *partition_num,
        }
    }

    /// How many partitions, from 0, must be there before any is used; 0 where each stands alone.
    pub fn core_size(&self) -> u32 {
        match self {
            Self::None => 1,
            Self::Linear { .. } => 0,
            Self::Numbered { partitions, .. } | Self::Hashed { partitions, .. } => *partitions,
            Self::Single { num_core_partitions, .. } | Self::Range { num_core_partitions, .. } => {
                num_core_partitions.and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_druids() {
        let json = r#"{"type":"numbered","partitionNum":1,"partitions":2}"#;
        let spec: ShardSpec = serde_json::from_str(json).expect("valid JSON");
        assert_eq!(spec, ShardSpec::Numbered { partition_num: 1, partitions: 2 });
        assert_eq!(serde_json::to_string(&spec).expect("plain data"), json);
        assert_eq!(serde_json::to_string(&ShardSpec::None).expect("plain data"), r#"{"type":"none"}"#);
    }

    #[test]
    fn specs_that_only_druid_writes_are_kept_as_they_are() {
        for (json, partition_num, core_size) in [
            (
                r#"{"type":"hashed","partitionNum":1,"partitions":3,"partitionDimensions":["a"],"partitionFunction":"murmur3_32_abs"}"#,
                1,
                3,
            ),
            (
                r#"{"type":"hashed","partitionNum":2,"partitions":3,"bucketId":2,"numBuckets":3,"partitionDimensions":[]}"#,
                2,
                3,
            ),
            (r#"{"type":"single","dimension":"a","start":null,"end":"m","partitionNum":0}"#, 0, 0),
            (
                r#"{"type":"single","dimension":"a","start":"m","end":null,"partitionNum":1,"numCorePartitions":2}"#,
                1,
                2,
            ),
            (
                r#"{"type":"range","dimensions":["a","b"],"start":["m",null],"end":null,"partitionNum":1,"numCorePartitions":-1}"#,
                1,
                0,
            ),
        ] {
            let spec: ShardSpec = serde_json::from_str(json).expect("valid JSON");
            assert_eq!((spec.partition_num(), spec.core_size()), (partition_num, core_size), "{json}");
            assert_eq!(serde_json::to_string(&spec).expect("plain data"), json);
        }
        assert!(serde_json::from_str::<ShardSpec>(r#"{"type":"numbered_overwrite","partitionId":32768}"#).is_err());
    }
}
