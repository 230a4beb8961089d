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
}

impl ShardSpec {
    pub fn partition_num(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Linear { partition_num } | Self::Numbered { partition_num, .. } => *partition_num,
        }
    }

    /// How many partitions, from 0, must be there before any is used; 0 where each stands alone.
    pub fn core_size(&self) -> u32 {
        match self {
            Self::None => 1,
            Self::Linear { .. } => 0,
            Self::Numbered { partitions, .. } => *partitions,
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
}
