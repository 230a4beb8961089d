//! A broker and workers in this process, each with a runtime of its own, over real sockets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider,
};
use futures::StreamExt;
use henge_engine::distributed::{
    BrokerParts, MemoryPlacement, MemorySegments, QueryWorker, RemoteSegment, RowCount, ServedBy, WorkerUrl,
};
use henge_engine::model::{SegmentSchema, SegmentUid};
use henge_engine::segment::Segment;
use henge_engine::session::{Cancel, Runtime, RuntimeOptions, Session, SessionOptions, error_from_datafusion};
use henge_engine::table::{DataSourceTable, FixedSource, VisibleSegment};
use henge_server::grpc::{PeerSecurity, Peers, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Cores that each process believes it has.
const CORES: usize = 2;

/// A process: what it would lose by dying is its runtime.
#[derive(Debug)]
pub struct Node {
    runtime: Option<tokio::runtime::Runtime>,
    pub address: SocketAddr,
    pub worker: Arc<QueryWorker>,
    pub segments: Arc<MemorySegments>,
    pub engine: Arc<Runtime>,
    pub peers: Arc<Peers>,
    pub scheme: &'static str,
}

impl Node {
    /// Starts one that serves no segments yet.
    pub fn start(security: PeerSecurity) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let options = RuntimeOptions { target_partitions: NonZeroUsize::new(CORES), ..RuntimeOptions::default() };
        let engine = Runtime::new(options).expect("default options work");
        let segments = Arc::new(MemorySegments::default());
        let scheme = if security.tls.is_some() { "https" } else { "http" };
        let peers = Peers::new(security, runtime.handle().clone()).expect("the secret is plain text");
        let worker = QueryWorker::new(&engine, Arc::clone(&segments) as _, Arc::clone(&peers) as _);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        listener.set_nonblocking(true).expect("sockets can be non-blocking");
        let address = listener.local_addr().expect("it is bound");
        let (served, allowed, handle) = (Arc::clone(&worker), Arc::clone(&peers), runtime.handle().clone());
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("it was bound");
            serve(listener, served, allowed, &handle, CancellationToken::new()).await
        });
        Self { runtime: Some(runtime), address, worker, segments, engine, peers, scheme }
    }

    pub fn url(&self) -> WorkerUrl {
        format!("{}://{}", self.scheme, self.address).parse().expect("addresses make URLs")
    }

    /// Dies: its sockets are closed, whatever it was doing.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A data source that a cluster serves.
#[derive(Debug)]
pub struct Served {
    pub name: &'static str,
    pub schema: Arc<SegmentSchema>,
    pub segments: Vec<Arc<dyn Segment>>,
}

/// A broker and workers.
#[derive(Debug)]
pub struct Cluster {
    pub workers: Vec<Node>,
    pub broker: Node,
    pub placement: Arc<MemoryPlacement>,
    /// What sessions plan with.
    pub planning: Arc<Runtime>,
    catalog: Arc<MemoryCatalogProvider>,
    uids: HashMap<&'static str, Vec<SegmentUid>>,
}

impl Cluster {
    /// Each segment is served by one worker, and every second one by the next worker too.
    pub fn over(data: Vec<Served>, workers: usize) -> Self {
        Self::with(data, workers, PeerSecurity::default(), |segment| match segment % 2 {
            0 => vec![segment % workers],
            _ => vec![segment % workers, (segment + 1) % workers],
        })
    }

    /// `serving` says which workers serve a segment, by its number in all data sources.
    pub fn with(
        data: Vec<Served>,
        workers: usize,
        security: PeerSecurity,
        serving: impl Fn(usize) -> Vec<usize>,
    ) -> Self {
        let workers = (0..workers).map(|_| Node::start(security.clone())).collect::<Vec<_>>();
        let (mut announced, mut uids) = (vec![Vec::new(); workers.len()], HashMap::new());
        let schema = MemorySchemaProvider::new();
        let mut number = 0;
        for Served { name, schema: columns, segments } in data {
            let mut visible = Vec::new();
            for segment in segments {
                let uid = SegmentUid::numbered(number as u32);
                for worker in serving(number) {
                    workers[worker].segments.insert(uid, Arc::clone(&segment));
                    announced[worker].push(uid);
                }
                visible.push(known(name, uid, number as u32, segment.as_ref()));
                number += 1;
            }
            uids.insert(name, visible.iter().map(|visible| visible.uid).collect());
            let source = FixedSource::new(columns, visible);
            let table: Arc<dyn TableProvider> = Arc::new(DataSourceTable::new(name, Arc::new(source)));
            schema.register_table(name.to_owned(), table).expect("names differ");
        }
        let placement = Arc::new(MemoryPlacement::default());
        for (worker, uids) in workers.iter().zip(announced) {
            placement.announce(worker.url(), ServedBy::Historical, uids);
        }
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema("druid", Arc::new(schema)).expect("schemas can be added");
        let broker = Node::start(security);
        let parts = BrokerParts {
            placement: Arc::clone(&placement) as _,
            channels: Arc::clone(&broker.peers) as _,
            worker: Arc::clone(&broker.worker),
            url: broker.url(),
        };
        let planning = broker.engine.broker(parts, u128::from(broker.address.port())).expect("settings are valid");
        Self { workers, broker, placement, planning, catalog: Arc::new(catalog), uids }
    }

    pub fn session(&self) -> Session {
        Session::new(&self.planning, Arc::clone(&self.catalog) as _, SessionOptions::default())
    }

    /// The segments of a data source.
    pub fn uids(&self, name: &str) -> &[SegmentUid] {
        &self.uids[name]
    }
}

/// What a broker knows of a segment.
fn known(name: &str, uid: SegmentUid, partition: u32, segment: &dyn Segment) -> VisibleSegment {
    let remote =
        RemoteSegment::new(Arc::clone(segment.schema()), RowCount::Final(segment.num_rows()), segment.time_range());
    let interval = henge_engine::model::Interval::ETERNITY;
    let id =
        henge_engine::model::SegmentId { data_source: name.to_owned(), interval, version: "1".to_owned(), partition };
    VisibleSegment { id: Arc::new(id), uid, clip: interval, segment: Arc::new(remote) }
}

/// The answer of a session, by the road that the server's doors take.
pub async fn answer(session: &Session, sql: &str) -> henge_engine::Result<(SchemaRef, Vec<RecordBatch>)> {
    answer_until(session, sql, &Cancel::default()).await
}

/// The same of a query that can be canceled.
pub async fn answer_until(
    session: &Session,
    sql: &str,
    cancel: &Cancel,
) -> henge_engine::Result<(SchemaRef, Vec<RecordBatch>)> {
    let (mut schema, mut batches) = (None, Vec::new());
    for statement in session.parse(sql)? {
        let plan = session.plan(statement).await?;
        let mut stream = session.execute_until(plan, cancel).await?;
        schema = Some(stream.schema());
        batches.clear();
        while let Some(batch) = stream.next().await {
            batches.push(batch.map_err(error_from_datafusion)?);
        }
    }
    Ok((schema.expect("a statement was given"), batches))
}

/// Waits until something holds; false if it does not within `limit`.
pub async fn holds_within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(limit, wait).await.is_ok()
}
