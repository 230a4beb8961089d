//! A process as a worker: its side of a plan that came.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::Result as PlanResult;
use datafusion::execution::SessionState;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{
    BroadcastExec, DistributedConfig, DistributedExt, Worker, WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse,
    WorkerQueryContext, WorkerSessionBuilder,
};

use tonic::codegen::http::HeaderMap;

use super::channel::{Named, WorkerChannels};
use super::codec::SegmentCodec;
use super::header::Order;
use super::running::{RunningQueries, RunningQuery};
use super::stand_in::StandInExec;
use super::{LocalSegments, PLAN_VERSION, WorkerUrl, failure};
use crate::exec::{Cancel, OrdinalCache};

/// What makes the points in a plan at which a query that is no longer wanted ends: the session's.
pub(crate) type Watch = fn(Arc<dyn ExecutionPlan>, &Cancel) -> PlanResult<Arc<dyn ExecutionPlan>>;

/// A process that runs parts of plans over its segments. One without segments is a broker's, for the parts that read
/// what only the broker has.
pub struct QueryWorker {
    worker: Worker,
    running: Arc<RunningQueries>,
    local: Arc<dyn LocalSegments>,
}

impl fmt::Debug for QueryWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryWorker").field("local", &self.local).finish_non_exhaustive()
    }
}

/// Ends a query in this process when it is dropped, unless other requests of the same query are there.
#[derive(Debug)]
pub struct QueryGuard(Arc<RunningQuery>);

impl Drop for QueryGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl QueryWorker {
    /// `template` is the state of every task's session, `rules` are those for plans over segments.
    pub(crate) fn over(
        template: SessionState,
        rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>,
        watch: Watch,
        local: Arc<dyn LocalSegments>,
        channels: Arc<dyn WorkerChannels>,
    ) -> Arc<Self> {
        let running = Arc::new(RunningQueries::default());
        let environment = Arc::clone(template.runtime_env());
        let sessions = TaskSessions {
            template,
            rewrite: Arc::new(Rewrite { rules, watch }),
            running: Arc::clone(&running),
            local: Arc::clone(&local),
            channels: Named(channels),
        };
        let worker = Worker::from_session_builder(sessions).with_runtime_env(environment).with_version(PLAN_VERSION);
        Arc::new(Self { worker, running, local })
    }

    /// The service to put on a socket.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Guards an attempt of a query by the headers of its request: its tasks here end with the guard. `None` if it is
    /// no such request, or one that will be refused.
    pub fn guard(&self, headers: &HeaderMap) -> Option<QueryGuard> {
        let order = Order::read(headers).ok()?;
        let query = self.running.enter(&order.query, || self.query(&order));
        query.begin();
        Some(QueryGuard(query))
    }

    fn query(&self, order: &Order) -> RunningQuery {
        RunningQuery::new(Arc::clone(&self.local), Cancel::until(order.deadline))
    }

    /// How many queries have tasks here.
    pub fn num_running(&self) -> usize {
        self.running.len()
    }

    /// As the broker whose own tasks it runs, reached by others at `url`.
    pub(crate) fn as_local(&self, config: &mut SessionConfig, url: WorkerUrl) {
        config.set_distributed_local_worker_context(self.worker.to_local_worker_context(url));
    }
}

/// Makes the session of a task.
struct TaskSessions {
    template: SessionState,
    rewrite: Arc<Rewrite>,
    running: Arc<RunningQueries>,
    local: Arc<dyn LocalSegments>,
    channels: Named,
}

#[async_trait]
impl WorkerSessionBuilder for TaskSessions {
    async fn build_session_state(&self, context: WorkerQueryContext) -> PlanResult<SessionState> {
        self.state(context).map_err(failure::to_wire)
    }
}

impl TaskSessions {
    fn state(&self, mut context: WorkerQueryContext) -> PlanResult<SessionState> {
        let order = Order::read(&context.headers)?;
        let query = self
            .running
            .enter(&order.query, || RunningQuery::new(Arc::clone(&self.local), Cancel::until(order.deadline)));
        // It has what the task is told by its stage; the rest is the template's and the broker's.
        let mut config = context.builder.config().take().unwrap_or_default();
        let distributed = config.options().extensions.get::<DistributedConfig>().cloned();
        *config.options_mut() = ConfigOptions::clone(self.template.config_options());
        if let Some(distributed) = distributed {
            config.options_mut().extensions.insert(distributed);
        }
        // The dialect first: it sets others.
        let is_dialect = |key: &&String| key.as_str() == "henge.dialect";
        let (first, rest): (Vec<_>, Vec<_>) = order.settings.keys().partition(is_dialect);
        for key in first.into_iter().chain(rest) {
            config.options_mut().set(key, &order.settings[key])?;
        }
        config = OrdinalCache::shared(config, self.template.config());
        config.set_extension(Arc::clone(&query));
        config.set_extension(Arc::new(query.cancel().clone()));
        config.set_distributed_user_codec(SegmentCodec);
        config.set_distributed_channel_resolver(self.channels.clone());
        config.set_distributed_passthrough_headers(order.headers()?)?;
        let (rewrite, cancel) = (Arc::clone(&self.rewrite), query.cancel().clone());
        config.set_distributed_worker_plan_rewrite_handler(move |event: WorkerPlanRewriteEvent<'_>| {
            let plan = rewrite.apply(event.plan, event.session_config.options(), &cancel);
            plan.map(WorkerPlanRewriteEventResponse::new).map_err(failure::to_wire)
        });
        let mut state = self.template.clone();
        *state.config_mut() = config;
        Ok(state)
    }
}

/// What is done with a plan before it runs here.
struct Rewrite {
    rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>,
    watch: Watch,
}

impl Rewrite {
    /// The same plan, node for node, in which other operators run.
    fn apply(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        options: &ConfigOptions,
        cancel: &Cancel,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let stand_in = |shown: &Arc<dyn ExecutionPlan>, run| {
            Arc::new(StandInExec::new(Arc::clone(shown), run, cancel.clone())) as Arc<dyn ExecutionPlan>
        };
        let aggregated = plan.transform_down(|node| {
            let aggregate = node.downcast_ref::<AggregateExec>();
            if aggregate.is_none_or(|aggregate| *aggregate.mode() != AggregateMode::Partial) {
                return Ok(Transformed::no(node));
            }
            let mut run = Arc::clone(&node);
            for rule in &self.rules {
                run = rule.optimize(run, options)?;
            }
            let partitions = |plan: &Arc<dyn ExecutionPlan>| plan.properties().partitioning.partition_count();
            Ok(match run.is::<AggregateExec>() || partitions(&run) > partitions(&node) {
                true => Transformed::no(node),
                false => Transformed::new(stand_in(&node, run), true, TreeNodeRecursion::Jump),
            })
        });
        let watched = aggregated.data()?.transform_up(|node| {
            let run = (self.watch)(Arc::clone(&node), cancel)?;
            Ok(match Arc::ptr_eq(&run, &node) {
                true => Transformed::no(node),
                false => Transformed::yes(stand_in(&node, run)),
            })
        });
        let plan = watched.data()?;
        // What sends rows to several tasks stays on top, where it is looked for.
        if plan.is::<RepartitionExec>() || plan.is::<BroadcastExec>() {
            let children = plan.children().into_iter().map(|child| stand_in(child, Arc::clone(child))).collect();
            return datafusion::physical_plan::replace_children_if_necessary(plan, children);
        }
        Ok(stand_in(&plan, Arc::clone(&plan)))
    }
}
