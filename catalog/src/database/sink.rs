//! Of a realtime process of a cluster: what is recorded of its streams where brokers see it, and how rows pass from here
//! to historicals.
//!
//! A sink is recorded before its first row is taken. What is published of it is read from segments by every query whose
//! broker sees all of them, and here by every other one; here it stays until no broker can ask for it any more.

use std::sync::Arc;
use std::time::Duration;

use henge_engine::Result;
use henge_engine::model::{ColumnSchema, ColumnType, SegmentSchema, SegmentUid};

use super::{Database, Inner};
use crate::realtime::{Brokers, Closed, Found, PushSpec, Reached, Stream, Tails};
use crate::store::{SinkRecord, tail_uid};
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
}

impl Served {
    pub(super) fn new(options: RealtimeOptions, view: Arc<View>) -> Self {
        Self { options, tails: Tails::new(view) }
    }
}

/// How far what was published has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passing {
    /// Brokers cannot read all of it from segments yet.
    Waits,
    /// They can; that is recorded as of this `rev`.
    Recorded(u64),
}

impl Inner {
    /// The columns that rows of a stream have, or will.
    fn columns(&self, spec: &PushSpec) -> Result<SegmentSchema> {
        let mut schemas = vec![Arc::new(declared(spec)?)];
        for generation in self.view.generations_of(&spec.data_schema.data_source) {
            schemas.push(Arc::clone(&generation.index.snapshot()?.schema));
        }
        union(schemas.iter().map(Arc::as_ref))
    }

    /// Records a stream that is about to be opened for the first time.
    pub(super) async fn record_new_sink(&self, found: &Found) -> Result<Option<SinkRecord>> {
        let Some(served) = &self.served else { return Ok(None) };
        let sink = SinkRecord {
            uid: found.id.parse()?,
            data_source: found.spec.data_schema.data_source.clone(),
            server: served.options.server.clone(),
            schema: Arc::new(self.columns(&found.spec)?),
            settled: 0,
            published: 0,
            pending: Vec::new(),
        };
        self.store.save_sink(&sink, self.clock.now()).await?;
        Ok(Some(sink))
    }

    /// How far a stream that an earlier process declared has come.
    pub(super) async fn reached(&self, found: &Found) -> Result<(Reached, Option<SinkRecord>)> {
        let published = self.store.stream_position(&super::realtime::stream_name(&found.id), 0).await?;
        let all = Reached { settled: published, published };
        if self.served.is_none() {
            return Ok((all, None));
        }
        let uid: SegmentUid = found.id.parse()?;
        let state = self.store.state(&found.spec.data_schema.data_source).await?;
        let known = state.sinks.into_iter().find(|sink| sink.uid == uid);
        // One that a person gave up is there again, with all that was not published.
        let reached = known.as_ref().map_or(all, |sink| Reached { settled: sink.settled.min(published), published });
        Ok((reached, known))
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
        let uid: SegmentUid = stream.id().parse()?;
        if let Some(before) = before {
            served.tails.serve(tail_uid(uid, reached.settled), stream.name(), before.generation.number);
        }
        served.tails.serve(tail_uid(uid, reached.published), stream.name(), stream.generation().number);
        let sink = SinkRecord {
            uid,
            data_source: stream.name().to_owned(),
            server: served.options.server.clone(),
            schema: Arc::new(self.columns(stream.spec())?),
            settled: reached.settled,
            published: reached.published,
            pending: known.as_ref().map(|sink| sink.pending.clone()).unwrap_or_default(),
        };
        if known.as_ref() != Some(&sink) {
            self.store.save_sink(&sink, self.clock.now()).await?;
        }
        stream.set_sink(sink);
        Ok(())
    }

    /// Serves what comes after a position, before any broker asks for it.
    pub(super) fn serve_after(&self, stream: &Stream, position: u64) -> Result<()> {
        if let Some(served) = &self.served {
            served.tails.serve(tail_uid(stream.id().parse()?, position), stream.name(), stream.generation().number);
        }
        Ok(())
    }

    /// Records columns that were found since.
    pub(super) async fn record_columns(&self, stream: &Stream) -> Result<()> {
        let Some(sink) = stream.sink() else { return Ok(()) };
        let columns = self.columns(stream.spec())?;
        if *sink.schema == columns {
            return Ok(());
        }
        let sink = SinkRecord { schema: Arc::new(columns), ..sink };
        self.store.save_sink(&sink, self.clock.now()).await?;
        stream.set_sink(sink);
        Ok(())
    }

    /// What is recorded of a stream that was published by an attempt whose answer was lost.
    pub(super) async fn reread_sink(&self, stream: &Stream) -> Result<()> {
        if let Some(known) = stream.sink() {
            let state = self.store.state(stream.name()).await?;
            state.sinks.into_iter().filter(|sink| sink.uid == known.uid).for_each(|sink| stream.set_sink(sink));
        }
        Ok(())
    }

    /// Looks whether brokers can read all that was published from segments, and records it.
    pub(super) async fn pass_on(&self, stream: &Stream, closed: &Closed) -> Result<Passing> {
        let Some(sink) = stream.sink() else { return Ok(Passing::Waits) };
        let shown = self.view.sinks(stream.name()).into_iter().find(|(shown, _)| shown.uid == sink.uid);
        let is_settled = shown.is_some_and(|(shown, is_settled)| is_settled && shown.published == closed.to);
        if !is_settled || sink.published != closed.to {
            return Ok(Passing::Waits);
        }
        let sink = SinkRecord { settled: closed.to, pending: Vec::new(), ..sink };
        let rev = self.store.save_sink(&sink, self.clock.now()).await?;
        stream.set_sink(sink);
        Ok(Passing::Recorded(rev))
    }

    /// Whether no broker plans a query any more that reads here what was published.
    pub(super) async fn brokers_have_seen(&self, stream: &Stream, rev: u64) -> bool {
        match &self.served {
            Some(served) => served.options.brokers.have_seen(stream.name(), rev).await,
            None => true,
        }
    }

    /// Lets go of rows that no broker asks for any more, once the queries are done that were planned before.
    pub(super) fn retire(&self, stream: &Stream, closed: &Closed) -> Result<()> {
        let Some(served) = &self.served else { return Ok(()) };
        let uid = tail_uid(stream.id().parse()?, closed.from);
        let generation: &Generation = &closed.generation;
        let (data_source, number) = (generation.data_source.clone(), generation.number);
        let (view, tails, delay) = (Arc::clone(&self.view), served.tails.clone(), served.options.drop_delay);
        self.watching.lock().spawn(async move {
            tokio::time::sleep(delay).await;
            tails.withdraw(uid);
            view.close_generation(&data_source, number);
        });
        Ok(())
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
fn declared(spec: &PushSpec) -> Result<SegmentSchema> {
    let schema = &spec.data_schema;
    let dimensions = schema.dimensions_spec.dimensions.iter();
    let dimensions = dimensions
        .map(|dimension| ColumnSchema::dimension(&dimension.name, dimension.column_type.unwrap_or(ColumnType::String)));
    SegmentSchema::new(dimensions.chain(schema.metrics_spec.iter().flat_map(|metric| metric.columns())))
}
