use henge_engine::model::SegmentUid;
use parking_lot::Mutex;

use crate::store::SinkRecord;

/// The rows of a stream as brokers of a cluster see them: what is recorded of them in the metadata database. Elsewhere
/// nothing is.
#[derive(Debug)]
pub struct Sink {
    /// Names the stream.
    pub uid: SegmentUid,
    pub data_source: String,
    record: Mutex<Option<SinkRecord>>,
}

impl Sink {
    pub fn new(uid: SegmentUid, data_source: &str) -> Self {
        Self { uid, data_source: data_source.to_owned(), record: Mutex::default() }
    }

    /// What is recorded, as far as is known here.
    pub fn record(&self) -> Option<SinkRecord> {
        self.record.lock().clone()
    }

    /// This was recorded.
    pub fn set(&self, record: SinkRecord) {
        *self.record.lock() = Some(record);
    }

    /// What is recorded from here on is of this term.
    pub fn set_term(&self, term: u64) {
        if let Some(record) = &mut *self.record.lock() {
            record.term = term;
        }
    }
}
