use henge_engine::model::Timestamp;
use henge_engine::segment::druid::Nulls;
use henge_engine::segment::{OpenSegment, Segment};
use henge_engine::{Error, Result};

use super::{Inner, lost};
use crate::database::ingest::new_uid;
use crate::publish::fits;
use crate::store::{Change, HandRow, Inserted, SegmentRecord, Settlement};
use crate::view::Problem;

impl Inner {
    /// Takes note of rows that somebody inserted, or marked used or unused, with SQL of their own. What cannot be served
    /// is reported, and disturbs nothing else.
    pub(super) async fn settle_by_hand(&self) -> Result<()> {
        let mut after = String::new();
        let mut failing = Vec::new();
        loop {
            let rows = self.store.by_hand(&after).await?;
            let Some(last) = rows.last() else { break };
            after.clone_from(&last.id);
            for row in rows {
                let (segment_id, data_source) = (row.id.clone(), row.data_source.clone());
                if self.problems.is_recent(&segment_id) {
                    failing.push(segment_id);
                    continue;
                }
                match self.settle(row).await {
                    Ok(()) => {}
                    // The database, not the row.
                    Err(error) if error.is_retryable() => return Err(error),
                    Err(error) => {
                        let problem =
                            Problem { segment_id, data_source, reason: error.to_string(), since: self.clock.now() };
                        failing.push(problem.segment_id.clone());
                        self.report(problem);
                    }
                }
            }
        }
        self.problems.retain(|id| failing.iter().any(|failing| failing == id));
        Ok(())
    }

    fn report(&self, problem: Problem) {
        let Problem { segment_id, reason, .. } = problem.clone();
        if self.problems.note(problem) {
            tracing::warn!(segment_id, reason, "a segment that was put into the metadata store by hand is not served");
        }
    }

    async fn settle(&self, row: HandRow) -> Result<()> {
        let HandRow { id, data_source, change } = row;
        let now = self.clock.now();
        let (settlement, done) = match change {
            Change::Inserted(inserted) => (Settlement::Adopt(self.read_inserted(*inserted?, now).await?), "inserted"),
            Change::MarkedUsed(Some(record)) => {
                let standing = self.standing();
                (Settlement::Use(SegmentRecord { standing, ..*record }), "marked used")
            }
            Change::MarkedUsed(None) => {
                return Err(Error::corrupt("its row was damaged by hand; delete and insert it"));
            }
            Change::MarkedUsedTooLate => {
                return Err(Error::conflict("it was killed: its bytes are gone, or are about to be; mark it unused"));
            }
            Change::MarkedUnused(id) => (Settlement::Unuse(id?), "marked unused"),
        };
        let decide = |overlap: &crate::store::Overlap| match &settlement {
            Settlement::Adopt(record) | Settlement::Use(record) => fits(record, overlap),
            Settlement::Unuse(_) => Ok(crate::store::Decision::default()),
        };
        let settled = self.store.settle(&settlement, now, &decide).await;
        if let Settlement::Adopt(record) = &settlement
            && (settled.is_err() || self.mode.publishes_for_others())
        {
            self.storage.forget(record.uid)?;
        }
        if settled?.is_some() {
            tracing::warn!(
                segment_id = id,
                data_source,
                "a segment was {done} by hand in the metadata database: taken note of"
            );
        }
        Ok(())
    }

    /// Fetches a segment that was inserted by hand, and reads all of it once: what its row does not say, the file does.
    pub(super) async fn read_inserted(&self, inserted: Inserted, now: Timestamp) -> Result<SegmentRecord> {
        let uid = new_uid(now);
        let path = self.storage.fetch(uid, &inserted.load_spec, None).await.map_err(|error| error.retryable(false))?;
        let storage = self.storage.clone();
        let standing = self.standing();
        let read = move || {
            let file = OpenSegment::open(&path, Nulls::AsStored)?;
            if let OpenSegment::Ours(file) = &file {
                file.verify()?;
            }
            // Of Druid's, one column that cannot be read is no reason to refuse the others.
            let measured = storage.measure(&path)?;
            let Inserted { id, created, load_spec, shard_spec } = inserted;
            let outside =
                file.time_range().filter(|(first, last)| !id.interval.contains(*first) || !id.interval.contains(*last));
            if let Some((first, last)) = outside {
                return Err(Error::invalid_input(format!(
                    "it holds rows from {first} to {last}, which is not within its interval"
                )));
            }
            Ok(SegmentRecord {
                id,
                uid,
                shard_spec,
                load_spec,
                schema: std::sync::Arc::clone(file.schema()),
                num_rows: file.num_rows() as u64,
                size_bytes: measured.size_bytes,
                hash: measured.hash,
                time_range: file.time_range(),
                created,
                created_rev: 0,
                standing,
            })
        };
        let record = tokio::task::spawn_blocking(read).await.map_err(lost)?;
        match &record {
            Ok(SegmentRecord { id, load_spec, num_rows, size_bytes, .. }) => {
                tracing::info!(segment_id = %id, from = %load_spec, num_rows, size_bytes, "a segment was fetched and read");
            }
            Err(_) => self.storage.forget(uid)?,
        }
        record
    }
}
