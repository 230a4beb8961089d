//! Ends a query that is no longer wanted, also where an operator computes for long before it looks up.
//!
//! A query that is dropped ends at the next point where its operators give control back. A join that finds nothing may come
//! to no such point for minutes, so its condition is asked through [`Watched`], which fails once the query is canceled;
//! and operators that make many rows of few give control back by themselves.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::common::Result as PlanResult;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use futures::{Stream, StreamExt};

use super::error_from_datafusion;
use crate::error::Result;
use crate::exec::Cancel;

/// Operators that may give many rows for one that they take.
const MULTIPLYING: &[&str] = &[
    "CrossJoinExec",
    "HashJoinExec",
    "NestedLoopJoinExec",
    "PiecewiseMergeJoinExec",
    "SortMergeJoinExec",
    "UnnestExec",
];

/// The plan with every such point in it.
pub(super) fn watch(plan: Arc<dyn ExecutionPlan>, cancel: &Cancel) -> Result<Arc<dyn ExecutionPlan>> {
    let watched = plan.transform_up(|node| {
        let watched = watch_node(Arc::clone(&node), cancel)?;
        Ok(if Arc::ptr_eq(&watched, &node) { Transformed::no(node) } else { Transformed::yes(watched) })
    });
    Ok(watched.map_err(error_from_datafusion)?.data)
}

/// One operator with such points, or as it is if it needs none.
pub(super) fn watch_node(node: Arc<dyn ExecutionPlan>, cancel: &Cancel) -> PlanResult<Arc<dyn ExecutionPlan>> {
    let node = match node.downcast_ref::<NestedLoopJoinExec>() {
        Some(join) if join.filter().is_some() => watch_condition(join, cancel)?,
        _ => node,
    };
    Ok(match MULTIPLYING.contains(&node.name()) {
        true => Arc::new(CooperativeExec::new(node)),
        false => node,
    })
}

fn watch_condition(join: &NestedLoopJoinExec, cancel: &Cancel) -> PlanResult<Arc<dyn ExecutionPlan>> {
    let watched = join.filter().map(|filter| {
        let condition = Watched { inner: Arc::clone(filter.expression()), cancel: cancel.clone() };
        JoinFilter::new(Arc::new(condition), filter.column_indices().to_vec(), Arc::clone(filter.schema()))
    });
    Ok(Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(watched).build()?))
}

/// An expression that fails once its query is canceled.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn PhysicalExpr>,
    cancel: Cancel,
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

impl PhysicalExpr for Watched {
    fn data_type(&self, schema: &Schema) -> PlanResult<DataType> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> PlanResult<bool> {
        self.inner.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> PlanResult<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> PlanResult<ColumnarValue> {
        self.cancel.check()?;
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> PlanResult<Arc<dyn PhysicalExpr>> {
        let inner = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.inner));
        Ok(Arc::new(Self { inner, cancel: self.cancel.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

/// A stream that cancels its query when it is dropped.
pub(super) struct Canceling {
    pub(super) stream: SendableRecordBatchStream,
    pub(super) cancel: Cancel,
}

impl Drop for Canceling {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Stream for Canceling {
    type Item = PlanResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.poll_next_unpin(context)
    }
}

impl RecordBatchStream for Canceling {
    fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}
