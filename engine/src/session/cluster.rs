//! Sessions of a broker, and the runtime of a worker.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result as PlanResult;
use datafusion::error::DataFusionError;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream, replace_children_if_necessary};
use futures::{Stream, StreamExt};

use super::cancel::{self, Canceling};
use super::{Runtime, Session, builder, error_from_datafusion, planning};
use crate::distributed::{
    Broker, BrokerParts, Figures, Held, LocalSegments, Query, QueryWorker, Shape, WorkerChannels, display, is_boundary,
    is_distributed,
};
use crate::error::Result;
use crate::exec::Cancel;
use crate::optimizer::{self, SegmentPartialRule};

impl QueryWorker {
    /// A worker over `segments`, within the limits of `runtime`. It reaches others by `channels`.
    pub fn new(
        runtime: &Arc<Runtime>,
        segments: Arc<dyn LocalSegments>,
        channels: Arc<dyn WorkerChannels>,
    ) -> Arc<Self> {
        let rules = vec![Arc::new(SegmentPartialRule) as _];
        Self::over(runtime.template.clone(), rules, cancel::watch_node, segments, channels)
    }
}

impl Runtime {
    /// A runtime whose sessions plan for workers, within the limits of this one. `dice` makes the names of its queries
    /// differ from those of all other brokers.
    pub fn broker(&self, parts: BrokerParts, dice: u128) -> Result<Arc<Self>> {
        let broker = Broker::new(parts, self.template.config_options(), dice);
        let builder = builder(self.template.config().clone(), Arc::clone(self.environment()));
        let ours = optimizer::physical_rules();
        let ours = ours.iter().map(|rule| rule.name()).collect::<Vec<_>>();
        let template = broker.install(builder, &ours).map_err(error_from_datafusion)?.build();
        Ok(Arc::new(Self { template, admission: Arc::clone(&self.admission), broker: Some(broker) }))
    }
}

/// The answer to a query, from its first rows on. Until these are there, it is tried again where a worker fails.
pub(super) async fn stream(
    session: &Session,
    broker: &Arc<Broker>,
    plan: LogicalPlan,
    cancel: &Cancel,
) -> Result<SendableRecordBatchStream> {
    let mut query = broker.begin(cancel);
    let attempts = async {
        loop {
            match attempt(session, &mut query, &plan, cancel).await {
                Ok(stream) => return Ok(stream),
                Err(error) if query.may_retry(&error).await => {}
                Err(error) => return Err(query.given_up(error)),
            }
        }
    };
    match cancel.deadline() {
        None => attempts.await,
        Some(deadline) => match tokio::time::timeout_at(deadline.into(), attempts).await {
            Ok(answer) => answer,
            Err(_) => Err(Cancel::out_of_time()),
        },
    }
}

async fn attempt(
    session: &Session,
    query: &mut Query,
    plan: &LogicalPlan,
    cancel: &Cancel,
) -> Result<SendableRecordBatchStream> {
    let Planned { state, plan, held } = planned(session, query, plan, cancel).await?;
    if let Some(notice) = held.missing() {
        session.notices.lock().push(notice);
    }
    let plan = watch_here(plan, cancel).map_err(error_from_datafusion)?;
    let is_distributed = is_distributed(&plan);
    let stream = execute_stream(plan, state.task_ctx()).map_err(error_from_datafusion)?;
    let mut answer = Answer { first: None, stream, query: query.clone(), _held: held };
    // What runs here alone cannot fail elsewhere.
    if is_distributed {
        answer.first = answer.first_rows().await.map_err(error_from_datafusion)?;
    }
    let stream: SendableRecordBatchStream = Box::pin(answer);
    Ok(Box::pin(Canceling { stream, cancel: cancel.clone() }))
}

struct Planned {
    state: SessionState,
    plan: Arc<dyn ExecutionPlan>,
    held: Held,
}

/// The plan of the next attempt. Groups are put together on the broker, unless there may be too many for that.
async fn planned(session: &Session, query: &mut Query, plan: &LogicalPlan, cancel: &Cancel) -> Result<Planned> {
    let asked = Shape::asked(session.context.state_ref().read().config_options());
    let first = planned_as(session, query, plan, asked.unwrap_or(Shape::Merged), cancel).await?;
    match asked {
        None if Shape::of(&first.plan) == Shape::Shuffled => {
            drop(first);
            planned_as(session, query, plan, Shape::Shuffled, cancel).await
        }
        _ => Ok(first),
    }
}

async fn planned_as(
    session: &Session,
    query: &mut Query,
    plan: &LogicalPlan,
    shape: Shape,
    cancel: &Cancel,
) -> Result<Planned> {
    let mut state = session.context.state();
    let figures = if matches!(plan, LogicalPlan::Analyze(_)) { Figures::Collected } else { Figures::Left };
    let held = query.attempt(state.config_mut(), shape, figures).map_err(error_from_datafusion)?;
    let plan = planning::optimize(plan, &state, cancel).map_err(error_from_datafusion)?;
    cancel.check()?;
    let plan = state.query_planner().create_physical_plan(&plan, &state).await.map_err(error_from_datafusion)?;
    Ok(Planned { state, plan, held })
}

/// How a query would be run, stage by stage.
pub(super) async fn explain(
    session: &Session,
    broker: &Arc<Broker>,
    plan: &LogicalPlan,
    cancel: &Cancel,
) -> Result<String> {
    let planned = planned(session, &mut broker.begin(cancel), plan, cancel).await?;
    Ok(display(&planned.plan))
}

/// The part of a plan that runs in this process, with points at which it ends when it is canceled.
fn watch_here(plan: Arc<dyn ExecutionPlan>, cancel: &Cancel) -> PlanResult<Arc<dyn ExecutionPlan>> {
    if is_boundary(&plan) {
        return Ok(plan);
    }
    let children = plan.children().into_iter().map(|child| watch_here(Arc::clone(child), cancel));
    let children = children.collect::<PlanResult<Vec<_>>>()?;
    cancel::watch_node(replace_children_if_necessary(plan, children)?, cancel)
}

/// Rows of which the first were waited for.
struct Answer {
    first: Option<RecordBatch>,
    stream: SendableRecordBatchStream,
    query: Query,
    _held: Held,
}

impl Answer {
    async fn first_rows(&mut self) -> PlanResult<Option<RecordBatch>> {
        while let Some(batch) = self.stream.next().await {
            let batch = batch?;
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

impl Stream for Answer {
    type Item = PlanResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.first.take() {
            Some(batch) => Poll::Ready(Some(Ok(batch))),
            None => {
                let polled = self.stream.poll_next_unpin(context);
                polled.map_err(|error| DataFusionError::from(self.query.failed_late(error_from_datafusion(error))))
            }
        }
    }
}

impl RecordBatchStream for Answer {
    fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}
