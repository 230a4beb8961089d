//! How many queries run at one time; the others wait for their turn, first come, first served.
//!
//! Counted is what reads data sources. What asks for settings, catalogs or system tables never waits: a tool that looks
//! around, and whoever looks why queries wait, is answered. A query has its turn until its last row was taken.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result as PlanResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::logical_expr::LogicalPlan;
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::exec::Cancel;
use crate::table::DataSourceTable;

/// Who has no time limit waits no longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many queries over data sources a process runs at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    pub running: NonZeroUsize,
    /// So many more may wait; others are refused at once.
    pub waiting: usize,
}

/// Lets queries in, one process's worth.
#[derive(Debug, Default)]
pub(super) struct Admission {
    limited: Option<(QueryLimits, Arc<Semaphore>)>,
    waiting: AtomicUsize,
}

/// A query's turn; the next one has it when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    pub(super) fn new(limits: Option<QueryLimits>) -> Self {
        let limited = limits.map(|limits| (limits, Arc::new(Semaphore::new(limits.running.get()))));
        Self { limited, waiting: AtomicUsize::new(0) }
    }

    /// Waits until a query may run. `None` if it need not be counted.
    pub(super) async fn enter(&self, plan: &LogicalPlan, cancel: &Cancel) -> Result<Option<Turn>> {
        let Some((limits, slots)) = &self.limited else { return Ok(None) };
        if !reads_data_sources(plan) {
            return Ok(None);
        }
        if let Ok(permit) = Arc::clone(slots).try_acquire_owned() {
            return Ok(Some(Turn { _permit: permit }));
        }
        let _waiting = Waiting::begin(&self.waiting, limits)?;
        let patience = Instant::now() + PATIENCE;
        let deadline = cancel.deadline().map(Instant::from_std).filter(|deadline| *deadline < patience);
        match tokio::time::timeout_at(deadline.unwrap_or(patience), Arc::clone(slots).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(Turn { _permit: permit })),
            Ok(Err(_)) => Err(Error::canceled("the server ends")),
            Err(_) if deadline.is_some() => Err(Cancel::out_of_time()),
            Err(_) => Err(busy(format!(
                "{} queries run already (`--max-queries`), and none has ended for {} s",
                limits.running,
                PATIENCE.as_secs()
            ))),
        }
    }
}

/// Counts one that waits, for as long as it does.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize, limits: &QueryLimits) -> Result<Self> {
        let waiting = Self(count);
        match count.fetch_add(1, Ordering::Relaxed) < limits.waiting {
            true => Ok(waiting),
            false => Err(busy(format!(
                "{} queries run (`--max-queries`), and {} wait already (`--max-waiting-queries`)",
                limits.running, limits.waiting
            ))),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn busy(message: String) -> Error {
    Error::capacity_exceeded(message).with_sqlstate("53400").with_hint("try again a little later")
}

fn reads_data_sources(plan: &LogicalPlan) -> bool {
    if matches!(plan, LogicalPlan::Explain(_)) {
        return false;
    }
    let mut reads = false;
    let visited = plan.apply_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(TreeNodeRecursion::Continue) };
        reads = source_as_provider(&scan.source).is_ok_and(|table| table.is::<DataSourceTable>());
        Ok(if reads { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    // The closure never fails.
    drop(visited);
    reads
}

/// Rows of a query that has its turn until they were all taken.
pub(super) struct Admitted {
    pub(super) stream: SendableRecordBatchStream,
    pub(super) turn: Option<Turn>,
}

impl Stream for Admitted {
    type Item = PlanResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.stream.poll_next_unpin(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.turn = None;
        }
        polled
    }
}

impl RecordBatchStream for Admitted {
    fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}
