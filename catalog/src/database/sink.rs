//! Of a realtime process of a cluster: what is recorded of its streams where brokers see it, and how rows pass from here
//! to historicals.
//!
//! A sink is recorded before its first row is taken. What is published of it is read from segments by every query whose
//! broker sees all of them, and here by every other one; here it stays until no broker can ask for it any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use henge_engine::Result;
use henge_engine::model::{ColumnSchema, ColumnType, DataSchema, SegmentSchema, SegmentUid};

use parking_lot::Mutex;

use super::{Database, Inner};
use crate::realtime::{Brokers, Closed, Found, Reached, Sink, Stream, Tails};
use crate::store::{Lease, SinkRecord, tail_uid};
use crate::view::{Generation, View, union};

/// How a realtime process of a cluster is opened.
#[derive(Clone, Debug)]
pub struct RealtimeOptions {
    /// By which the others reach it: `host:port`.
    pub server: String,
    pub brokers: Arc<dyn Brokers>,
    /// How long rows that no new query reads here stay readable, for queries that were planned before.
    pub drop_delay: Duration,
}

/// What brokers read here.
#[derive(Debug)]
pub(super) struct Served {
    options: RealtimeOptions,
    pub(super) tails: Tails,
    /// By what its leases are known.
    pub(super) holder: String,
    /// Those of the supervisors that run here, by their ids.
    pub(super) leases: Mutex<BTreeMap<String, Lease>>,
}

impl Served {
    /// `incarnation` tells this process from earlier ones at the same address.
    pub(super) fn new(options: RealtimeOptions, view: Arc<View>, incarnation: SegmentUid) -> Self {
        let holder = format!("{}/{incarnation}", options.server);
        Self { options, tails: Tails::new(view), holder, leases: Mutex::default() }
    }
}

/// A stream whose lease was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakenOver {
    pub(super) reached: Reached,
    /// Whether there may have been rows elsewhere that have to be read again before anybody reads here.
    pub(super) had_rows: bool,
}

/// How far what was published has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// Brokers cannot read all of it from segments yet.
    Waits,
    /// They can; that is recorded as of this `rev`.
    Recorded(u64),
}

/// How far rows are that nothing is added to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Closed,
    /// In a cluster: brokers read them here until they can read them elsewhere.
    Published,
    /// They can, as of this `rev`.
    PassedOn(u64),
}

impl Inner {
    /// The columns that rows of a stream have, or will.
    fn columns(&self, sink: &Sink, declared: &DataSchema) -> Result<SegmentSchema> {
        let mut schemas = vec![Arc::new(columns_of(declared)?)];
        for generation in self.view.generations_of(&sink.data_source) {
            if generation.stream == sink.uid {
                schemas.push(Arc::clone(&generation.index.snapshot()?.schema));
            }
        }
        union(schemas.iter().map(Arc::as_ref))
    }

    /// What is recorded of a stream of this process that stands so.
    fn sink_record(&self, served: &Served, sink: &Sink, declared: &DataSchema, reached: Reached) -> Result<SinkRecord> {
        Ok(SinkRecord {
            uid: sink.uid,
            data_source: sink.data_source.clone(),
            server: served.options.server.clone(),
            term: 0,
            schema: Arc::new(self.columns(sink, declared)?),
            settled: reached.settled,
            published: reached.published,
            pending: Vec::new(),
        })
    }

    async fn record(&self, sink: &Sink, record: SinkRecord) -> Result<u64> {
        let rev = self.store.save_sink(&record, self.clock.now()).await?;
        sink.set(record);
        Ok(rev)
    }

    /// Records a stream that is about to be opened for the first time.
    pub(super) async fn record_new_sink(&self, found: &Found) -> Result<Option<SinkRecord>> {
        let Some(served) = &self.served else { return Ok(None) };
        let declared = &found.spec.data_schema;
        let sink = Sink::new(found.id.parse()?, &declared.data_source);
        let record = self.sink_record(served, &sink, declared, Reached { settled: 0, published: 0 })?;
        self.record(&sink, record).await?;
        Ok(sink.record())
    }

    /// How far a stream that an earlier process declared has come.
    pub(super) async fn reached(&self, found: &Found) -> Result<(Reached, Option<SinkRecord>)> {
        let published = self.store.stream_position(&super::realtime::stream_name(&found.id), 0).await?;
        let all = Reached { settled: published, published };
        if self.served.is_none() {
            return Ok((all, None));
        }
        let known = self.recorded(found.id.parse()?, &found.spec.data_schema.data_source).await?;
        // One that a person gave up is there again, with all that was not published.
        let reached = known.as_ref().map_or(all, |sink| Reached { settled: sink.settled.min(published), published });
        Ok((reached, known))
    }

    async fn recorded(&self, uid: SegmentUid, data_source: &str) -> Result<Option<SinkRecord>> {
        let state = self.store.state(data_source).await?;
        Ok(state.sinks.into_iter().find(|sink| sink.uid == uid))
    }

    /// Serves a stream that was just opened, and records it as it is now.
    pub(super) async fn serve_sink(
        &self,
        stream: &Stream,
        known: Option<SinkRecord>,
        before: Option<&Closed>,
        reached: Reached,
    ) -> Result<()> {
        let Some(served) = &self.served else { return Ok(()) };
        let sink = stream.sink();
        if let Some(before) = before {
            served.tails.serve(tail_uid(sink.uid, reached.settled), &before.generation);
        }
        served.tails.serve(tail_uid(sink.uid, reached.published), &stream.generation());
        let pending = known.as_ref().map(|known| known.pending.clone()).unwrap_or_default();
        let record = self.sink_record(served, sink, &stream.spec().data_schema, reached)?;
        let record = SinkRecord { pending, ..record };
        if known.as_ref() == Some(&record) {
            sink.set(record);
            return Ok(());
        }
        self.record(sink, record).await.map(drop)
    }

    /// Records a stream that no other process writes any more, as the holder of its lease, whose term this is. Nothing of
    /// it was read here yet, and nothing is served. What was published and cannot all be read from segments yet is
    /// nowhere until it can, since who had it is gone: queries fail meanwhile.
    pub(super) async fn take_over(&self, sink: &Sink, declared: &DataSchema, term: u64) -> Result<Option<TakenOver>> {
        let Some(served) = &self.served else { return Ok(None) };
        let known = self.recorded(sink.uid, &sink.data_source).await?;
        // Where no other holder of the lease ever was, whatever is served elsewhere yet.
        let published = known.as_ref().map_or(0, |known| known.published + 1).max(term << 32);
        let pending = known.as_ref().map(|known| known.pending.clone()).unwrap_or_default();
        let settled = match &known {
            Some(known) if !pending.is_empty() => known.settled,
            _ => published,
        };
        let reached = Reached { settled, published };
        let record = self.sink_record(served, sink, declared, reached)?;
        self.record(sink, SinkRecord { term, pending, ..record }).await?;
        Ok(Some(TakenOver { reached, had_rows: known.is_some() }))
    }

    /// Serves nothing of a stream any more.
    pub(super) fn withdraw_sink(&self, sink: &Sink) {
        if let Some(served) = &self.served {
            served.tails.withdraw_all(sink.uid);
        }
    }

    /// Serves what comes after a position, before any broker asks for it.
    pub(super) fn serve_after(&self, sink: &Sink, position: u64, generation: &Generation) {
        if let Some(served) = &self.served {
            served.tails.serve(tail_uid(sink.uid, position), generation);
        }
    }

    /// Records columns that were found since.
    pub(super) async fn record_columns(&self, sink: &Sink, declared: &DataSchema) -> Result<()> {
        let Some(record) = sink.record() else { return Ok(()) };
        let columns = self.columns(sink, declared)?;
        if *record.schema == columns {
            return Ok(());
        }
        self.record(sink, SinkRecord { schema: Arc::new(columns), ..record }).await.map(drop)
    }

    /// What is recorded of a stream that was published by an attempt whose answer was lost.
    pub(super) async fn reread_sink(&self, sink: &Sink) -> Result<()> {
        if sink.record().is_some() {
            self.recorded(sink.uid, &sink.data_source).await?.into_iter().for_each(|record| sink.set(record));
        }
        Ok(())
    }

    /// Looks whether brokers can read all that was published up to a position from segments, and records it.
    pub(super) async fn pass_on(&self, sink: &Sink, to: u64) -> Result<Passage> {
        let Some(record) = sink.record() else { return Ok(Passage::Waits) };
        let shown = self.view.sinks(&sink.data_source).into_iter().find(|(shown, _)| shown.uid == sink.uid);
        let is_settled = shown.is_some_and(|(shown, is_settled)| is_settled && shown.published == to);
        if !is_settled || record.published != to {
            return Ok(Passage::Waits);
        }
        let record = SinkRecord { settled: to, pending: Vec::new(), ..record };
        self.record(sink, record).await.map(Passage::Recorded)
    }

    /// Whether no broker plans a query any more that reads here what was published.
    pub(super) async fn brokers_have_seen(&self, sink: &Sink, rev: u64) -> bool {
        match &self.served {
            Some(served) => served.options.brokers.have_seen(&sink.data_source, rev).await,
            None => true,
        }
    }

    /// Lets go of the rows after a position, which no broker asks for any more, once the queries are done that were
    /// planned before.
    pub(super) fn retire(&self, sink: &Sink, after: u64, generation: Option<&Generation>) {
        let Some(served) = &self.served else { return };
        let uid = tail_uid(sink.uid, after);
        let generation = generation.map(|generation| (generation.data_source.clone(), generation.number));
        let (view, tails, delay) = (Arc::clone(&self.view), served.tails.clone(), served.options.drop_delay);
        self.watching.lock().spawn(async move {
            tokio::time::sleep(delay).await;
            tails.withdraw(uid);
            if let Some((data_source, number)) = generation {
                view.close_generation(&data_source, number);
            }
        });
    }
}

impl Database {
    /// Has queries do without what a realtime process alone has of a data source. Returns how many sinks that were. A
    /// process that comes back records them again.
    pub async fn give_up_sinks(&self, data_source: &str, server: &str) -> Result<usize> {
        self.check_writes()?;
        let _in_order = self.inner.publishing.lock().await;
        let store = &self.inner.store;
        let mut sinks = store.state(data_source).await?.sinks;
        sinks.retain(|sink| sink.server == server);
        for sink in &sinks {
            store.remove_sink(sink, self.now()).await?;
            tracing::warn!(data_source, server, sink = %sink.uid, "rows that are not published are given up");
        }
        self.inner.view.replace(data_source, store.state(data_source).await?)?;
        Ok(sinks.len())
    }
}

/// The columns that a spec names.
fn columns_of(schema: &DataSchema) -> Result<SegmentSchema> {
    let dimensions = schema.dimensions_spec.dimensions.iter();
    let dimensions = dimensions
        .map(|dimension| ColumnSchema::dimension(&dimension.name, dimension.column_type.unwrap_or(ColumnType::String)));
    SegmentSchema::new(dimensions.chain(schema.metrics_spec.iter().flat_map(|metric| metric.columns())))
}
