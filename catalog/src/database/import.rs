use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use henge_engine::storage::LoadSpec;
use henge_engine::{Error, Result};
use serde::Serialize;

use super::{Database, Inner};
use crate::database::ingest::new_uid;
use crate::publish::fit;
use crate::store::{DruidRow, Inserted, MetadataUrl, Publication, Publish, SegmentRecord, druid_rows};

/// Segments fetched and read at one time.
const READ_AT_ONCE: usize = 4;

/// What an import did with one data source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportedDataSource {
    pub data_source: String,
    pub num_segments: usize,
    /// Those that were there already.
    pub num_known: usize,
    pub num_rows: u64,
}

impl Database {
    /// Registers the used segments of a Druid, as the table `table` of its metadata database names them, and serves them
    /// from where Druid keeps them; each is fetched and read once. Of all data sources, or of those named. What is there
    /// already is left as it is, so that it can be repeated. Nothing is written to Druid's database or storage.
    ///
    /// A data source comes with all its segments or not at all: the first that cannot be read is the failure, and data
    /// sources that were done before stay.
    pub async fn import_druid(
        &self,
        metadata: &MetadataUrl,
        table: &str,
        data_sources: &[String],
    ) -> Result<Vec<ImportedDataSource>> {
        let rows = druid_rows(metadata, table).await?;
        let mut by_source: BTreeMap<String, Vec<DruidRow>> = BTreeMap::new();
        for row in rows {
            if data_sources.is_empty() || data_sources.contains(&row.data_source) {
                by_source.entry(row.data_source.clone()).or_default().push(row);
            }
        }
        if let Some(missing) = data_sources.iter().find(|name| !by_source.contains_key(*name)) {
            return Err(Error::not_found(format!("there is no used segment of `{missing}` in `{table}`")));
        }
        let mut imported = Vec::with_capacity(by_source.len());
        for (data_source, rows) in by_source {
            imported.push(self.inner.import(&data_source, rows).await?);
        }
        Ok(imported)
    }
}

impl Inner {
    async fn import(&self, data_source: &str, rows: Vec<DruidRow>) -> Result<ImportedDataSource> {
        let num_segments = rows.len();
        let (_, used) = self.store.used(data_source).await?;
        let known = used.into_iter().map(|record| record.id).collect::<HashSet<_>>();
        let mut new = Vec::new();
        for DruidRow { id, segment, .. } in rows {
            let segment = segment.map_err(|error| error.context("segment", &id))?;
            if !known.contains(&segment.id) {
                new.push(segment);
            }
        }
        let num_known = num_segments - new.len();
        let read = new.into_iter().map(|segment| self.read_druids(segment));
        let records = stream::iter(read).buffer_unordered(READ_AT_ONCE).try_collect::<Vec<_>>().await?;
        let num_rows = records.iter().map(|record| record.num_rows).sum();
        if !records.is_empty() {
            self.publish_imported(data_source, records).await?;
        }
        Ok(ImportedDataSource { data_source: data_source.to_owned(), num_segments, num_known, num_rows })
    }

    async fn read_druids(&self, segment: Inserted) -> Result<SegmentRecord> {
        let id = segment.id.clone();
        let now = self.clock.now();
        let read = match segment.load_spec {
            LoadSpec::Tombstone => self.tombstone(segment, now),
            _ => self.read_inserted(segment, now).await,
        };
        read.map_err(|error| error.context("segment", id))
    }

    /// A segment without rows, which hides older ones.
    fn tombstone(&self, segment: Inserted, now: henge_engine::model::Timestamp) -> Result<SegmentRecord> {
        let Inserted { id, created, load_spec, shard_spec } = segment;
        let schema = Arc::new(henge_engine::model::SegmentSchema::new([])?);
        let (uid, hash) = (new_uid(now), String::new());
        let (num_rows, size_bytes, created_rev, time_range) = (0, 0, 0, None);
        Ok(SegmentRecord {
            id,
            uid,
            shard_spec,
            load_spec,
            schema,
            num_rows,
            size_bytes,
            hash,
            time_range,
            created,
            created_rev,
            standing: self.standing(),
        })
    }

    async fn publish_imported(&self, data_source: &str, records: Vec<SegmentRecord>) -> Result<()> {
        let now = self.clock.now();
        let publication = Publication {
            publish_id: format!("import_druid_{data_source}_{}", new_uid(now)),
            data_source: data_source.to_owned(),
            spans: records.iter().map(|record| record.id.interval).collect(),
            intended_pushes: 0,
            advances: Vec::new(),
            sink: None,
            now,
        };
        let _in_order = self.publishing.lock().await;
        let published = self.store.publish(&publication, &|overlap| fit(&records, overlap)).await;
        match published {
            Ok(Publish::Done(done)) => self.view.apply(data_source, done.rev, done.added, &done.marked_unused),
            Ok(Publish::DoneBefore { .. }) => Err(Error::defensive("an import was published before it began")),
            Err(error) => {
                for record in &records {
                    self.storage.forget(record.uid)?;
                }
                Err(error)
            }
        }
    }
}
