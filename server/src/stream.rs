//! Streams that are read by offset, behind the engine's `RecordSupplier`. One file a kind, each an optional dependency.

#[cfg(feature = "kafka")]
pub mod kafka;

use std::sync::Arc;

use henge_engine::ingest::stream::{RecordSupplier, StreamConnector, StreamPlace};
use henge_engine::{Error, Result};

/// Reaches all kinds of streams that this program was built for.
#[derive(Debug)]
struct Streams;

/// What reaches streams.
pub fn connector() -> Arc<dyn StreamConnector> {
    Arc::new(Streams)
}

impl StreamConnector for Streams {
    fn check(&self, place: &StreamPlace) -> Result<Vec<String>> {
        match place.kind.as_str() {
            #[cfg(feature = "kafka")]
            "kafka" => kafka::check(place),
            kind => Err(not_built(kind)),
        }
    }

    fn connect(&self, place: &StreamPlace) -> Result<Box<dyn RecordSupplier>> {
        match place.kind.as_str() {
            #[cfg(feature = "kafka")]
            "kafka" => Ok(Box::new(kafka::KafkaSupplier::new(place)?)),
            kind => Err(not_built(kind)),
        }
    }
}

fn not_built(kind: &str) -> Error {
    Error::unsupported(format!("this henge was built without `{kind}`; build it with `--features {kind}`"))
}
