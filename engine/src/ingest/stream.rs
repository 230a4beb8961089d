//! Streams that are read by offset, such as the topics of Kafka.
//!
//! A [`RecordSupplier`] is one connection to one topic; a [`StreamConnector`] makes it. Both are implemented where sockets
//! may be opened. A supplier keeps no place of its own: whoever reads says from where, and remembers how far.
//!
//! Invariants: of a partition records come in the order of their offsets, none twice and none left out; an offset that is
//! not there (any more) is told, and never replaced by another one.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The number of a partition.
pub type Partition = u32;

/// How a topic is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPlace {
    /// Such as `kafka`.
    pub kind: String,
    pub topic: String,
    /// What the client library is told, such as `bootstrap.servers`.
    pub properties: BTreeMap<String, String>,
    /// By what the other side knows who reads.
    pub client: String,
    /// Whether the headers of records are wanted.
    pub with_headers: bool,
}

/// Makes connections to streams. Shared by all threads.
pub trait StreamConnector: Debug + Send + Sync {
    /// Finds what is wrong with how a topic is to be reached, without reaching it. Returns notes on what has no effect.
    fn check(&self, place: &StreamPlace) -> Result<Vec<String>>;

    /// A connection. The other side need not be there yet.
    fn connect(&self, place: &StreamPlace) -> Result<Box<dyn RecordSupplier>>;
}

/// A connection to a topic, used by one thread at a time. All calls block, for a few seconds at most.
pub trait RecordSupplier: Debug + Send + Sync {
    /// What is there now. Fails with `NotFound` if the topic is not there, and with `ServiceUnavailable` while the other
    /// side cannot be reached.
    fn survey(&mut self) -> Result<Survey>;

    /// Reads these partitions from these offsets on, and no others.
    fn assign(&mut self, from: &BTreeMap<Partition, u64>) -> Result<()>;

    /// Hands the next record to `take`, or waits for one at most so long.
    fn poll(&mut self, wait: Duration, take: &mut dyn FnMut(&Record<'_>)) -> Polled;
}

/// What asking for the next record gave.
#[derive(Debug)]
pub enum Polled {
    Record,
    Nothing,
    /// The offset that is next of one of the partitions is not there. Which one, and what is, a survey tells.
    OutOfRange,
    /// Something does not work just now; it is tried again by itself.
    Trouble(Error),
}

/// A record of a stream, as it came.
#[derive(Debug)]
pub struct Record<'a> {
    pub partition: Partition,
    pub offset: u64,
    /// When it was made or written, in milliseconds since 1970.
    pub timestamp: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Only where they are wanted.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

/// What is there of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    pub source: StreamSource,
    /// The offsets of each partition, from the first that is still there to the one that is next.
    pub partitions: BTreeMap<Partition, Range<u64>>,
}

/// Tells a topic from others that have, or had, the same name. What the other side does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamSource {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
}

impl StreamSource {
    /// Whether both say something, and not the same.
    pub fn contradicts(&self, other: &Self) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
        differ(&self.cluster_id, &other.cluster_id) || differ(&self.topic_id, &other.topic_id)
    }
}
