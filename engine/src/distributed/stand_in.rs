//! Operators that run in the place of others without changing the shape of a plan: figures of a task come back to the
//! broker as a list, in the order of the nodes that it sent.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, EmptyRecordBatchStream, ExecutionPlan, PlanProperties};
use futures::{Stream, StreamExt};

use super::failure;
use crate::error::Error;
use crate::exec::Cancel;

/// Shows a node and runs another, which gives the same rows on no more output partitions. Ends once the query is canceled, and makes errors ready to
/// leave the process.
#[derive(Debug)]
pub(super) struct StandInExec {
    shown: Arc<dyn ExecutionPlan>,
    run: Arc<dyn ExecutionPlan>,
    cancel: Cancel,
}

impl StandInExec {
    pub(super) fn new(shown: Arc<dyn ExecutionPlan>, run: Arc<dyn ExecutionPlan>, cancel: Cancel) -> Self {
        Self { shown, run, cancel }
    }
}

impl DisplayAs for StandInExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.run.fmt_as(format, f)
    }
}

impl ExecutionPlan for StandInExec {
    fn name(&self) -> &str {
        "StandInExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.shown.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.shown.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.shown.apply_expressions(f)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Err(Error::defensive("a plan was changed after it came to its worker").into())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        // The consumer asks for as many partitions as were planned.
        if partition >= self.run.properties().partitioning.partition_count() {
            return Ok(Box::pin(EmptyRecordBatchStream::new(self.run.schema())));
        }
        let stream = self.run.execute(partition, context).map_err(failure::to_wire)?;
        Ok(Box::pin(Watched { stream, cancel: self.cancel.clone() }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.run.metrics()
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        self.shown.statistics_from_inputs(inputs, args)
    }
}

struct Watched {
    stream: SendableRecordBatchStream,
    cancel: Cancel,
}

impl Stream for Watched {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Err(error) = self.cancel.check() {
            return Poll::Ready(Some(Err(failure::to_wire(error.into()))));
        }
        self.stream.poll_next_unpin(context).map_err(failure::to_wire)
    }
}

impl RecordBatchStream for Watched {
    fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}
