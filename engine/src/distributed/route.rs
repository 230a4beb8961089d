//! What `datafusion-distributed` asks about scans while it cuts a plan into stages: how many tasks, what each reads, and
//! where each runs. It takes the answers as advice; what makes them hold is that a scan fails anywhere else.

use std::sync::Arc;

use datafusion::common::exec_err;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion_distributed::{
    DesiredTaskCountEvent, DesiredTaskCountEventResponse, DistributedLeafExec, NetworkBoundaryExt, NetworkCoalesceExec,
    RouteTasksEvent, RouteTasksEventResponse, ScaleUpLeafNodeEvent, ScaleUpLeafNodeEventResponse, Stage,
};

use super::WorkerUrl;
use super::attempt::Attempt;
use super::leaf::SegmentLeafExec;
use crate::exec::HengeOptions;

pub(super) fn desired_tasks(event: DesiredTaskCountEvent<'_>) -> Option<Result<DesiredTaskCountEventResponse>> {
    if let Some(leaf) = event.plan.downcast_ref::<SegmentLeafExec>() {
        return Some(Ok(DesiredTaskCountEventResponse::desired(leaf.num_tasks())));
    }
    // What has a function that only this session has runs on the broker: that is where stages of one task run.
    let settings = HengeOptions::of(event.session_config.options());
    let mut travels = true;
    let visit = event.plan.apply_expressions(&mut |expr| {
        travels &= settings.travels(expr);
        Ok(TreeNodeRecursion::Continue)
    });
    match visit {
        Err(error) => Some(Err(error)),
        Ok(_) => (!travels).then(|| Ok(DesiredTaskCountEventResponse::maximum(1))),
    }
}

pub(super) fn scale_up(event: ScaleUpLeafNodeEvent<'_>) -> Option<Result<ScaleUpLeafNodeEventResponse>> {
    let leaf = event.plan.downcast_ref::<SegmentLeafExec>()?;
    Some(tasks_of(event.plan, leaf, event.task_count).map(ScaleUpLeafNodeEventResponse::new))
}

fn tasks_of(
    plan: &Arc<dyn ExecutionPlan>,
    leaf: &SegmentLeafExec,
    task_count: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    let tasks = task_count.max(leaf.num_tasks());
    let variants = (0..tasks).map(|task| Arc::new(leaf.variant(task)) as Arc<dyn ExecutionPlan>);
    let tasked: Arc<dyn ExecutionPlan> = Arc::new(DistributedLeafExec::try_new(Arc::clone(plan), variants)?);
    if task_count >= leaf.num_tasks() {
        return Ok(tasked);
    }
    // Something else in the stage can only run in one place. The scan still runs where its segments are, behind a
    // boundary of its own. What is between keeps the fetch of a sort above from being applied before it sorts.
    let boundary = NetworkCoalesceExec::try_new(tasked, tasks, task_count)?;
    Ok(Arc::new(CoalescePartitionsExec::new(Arc::new(boundary))))
}

/// Stages with scans run where those are; others where the stages below them ran, so that no more machines take part
/// than must.
pub(super) fn route(event: RouteTasksEvent<'_>) -> Option<Result<RouteTasksEventResponse>> {
    match scanned(event.plan) {
        Ok(Some(workers)) => return Some(Ok(RouteTasksEventResponse::new(workers))),
        Ok(None) if event.task_count > 1 => {}
        Ok(None) => return None,
        Err(error) => return Some(Err(error)),
    }
    let options = event.task_ctx.session_config().options();
    let shared = options.extensions.get::<Attempt>().and_then(Attempt::shared);
    let mut workers = below(event.plan);
    workers.retain(|worker| shared.is_none_or(|shared| shared.url != *worker));
    if workers.is_empty() {
        workers = shared.map(|shared| shared.workers()).unwrap_or_default();
    }
    if workers.is_empty() {
        return None;
    }
    let tasks = (0..event.task_count).map(|task| workers[task % workers.len()].clone());
    Some(Ok(RouteTasksEventResponse::new(tasks.collect())))
}

/// The workers of the scans of a stage, one a task.
fn scanned(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Vec<WorkerUrl>>> {
    let mut found: Option<Vec<WorkerUrl>> = None;
    plan.apply(|node| {
        let Some(tasked) = node.downcast_ref::<DistributedLeafExec>() else { return Ok(TreeNodeRecursion::Continue) };
        let leaves = tasked.variants().iter().filter_map(|variant| variant.downcast_ref::<SegmentLeafExec>());
        let workers = leaves.filter_map(|leaf| leaf.assigned().map(|(worker, _)| worker.clone())).collect::<Vec<_>>();
        if workers.is_empty() {
            return Ok(TreeNodeRecursion::Continue);
        }
        if found.as_ref().is_some_and(|found| *found != workers) {
            return exec_err!("two scans of one stage want different workers");
        }
        found = Some(workers);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The workers of the stages that feed this one, each once.
fn below(plan: &Arc<dyn ExecutionPlan>) -> Vec<WorkerUrl> {
    let mut workers = Vec::new();
    let visit = plan.apply(|node| {
        if let Some(boundary) = node.as_network_boundary()
            && let Stage::Remote(stage) = boundary.input_stage()
        {
            workers.extend(stage.workers.iter().cloned());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    // The closure never fails.
    drop(visit);
    workers.sort();
    workers.dedup();
    workers
}
