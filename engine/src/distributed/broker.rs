//! A process as a broker: what its sessions plan with, and what it knows of the workers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as PlanResult;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{
    DistributedExec, DistributedExt, GetWorkerInfoRequest, NetworkBoundaryExt, SessionStateBuilderExt, WorkerResolver,
    display_plan_ascii,
};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::assign::AssignReplicas;
use super::attempt::{Attempt, Avoided, Shared, counted};
use super::channel::{Named, WorkerChannels};
use super::codec::SegmentCodec;
use super::failure::Blame;
use super::guard::LimitOnce;
use super::header::{self, Order};
use super::leaf::SegmentLeafExec;
use super::worker::{QueryGuard, QueryWorker};
use super::{PLAN_VERSION, SegmentPlacement, WorkerUrl, route};
use crate::error::{Category, Error, Persona};
use crate::exec::{Cancel, HengeOptions, SharedFunctions, Shuffle};

/// Tasks of a stage that are allowed: without a number it would be that of the workers, and one task where there is one
/// worker.
const MAX_TASKS: usize = 1024;
/// How often a query may fail on workers that die, hang or break.
const FAILURES: usize = 3;
/// How often it is tried in all: that a worker does not serve a segment any more costs little to find out, and what is
/// found out is not asked again.
const TRIES: usize = 10;
/// Before the next try, by how often it failed.
const PAUSES: [Duration; FAILURES] = [Duration::from_millis(1), Duration::from_millis(10), Duration::from_millis(50)];
/// Rows from which on so many groups are possible that workers put them together, each a part.
const ROWS_FOR_SHUFFLE: usize = 1 << 22;
/// A worker that failed is asked this often whether it is well again,
const PROBE_PAUSE: Duration = Duration::from_millis(500);
/// with this much time for an answer,
const PROBE_TIME: Duration = Duration::from_secs(2);
/// and so many times.
const PROBES: usize = 60;

/// What a broker is made of.
pub struct BrokerParts {
    pub placement: Arc<dyn SegmentPlacement>,
    pub channels: Arc<dyn WorkerChannels>,
    /// Runs the parts of plans that read what only the broker has.
    pub worker: Arc<QueryWorker>,
    /// Where workers reach it.
    pub url: WorkerUrl,
}

impl fmt::Debug for BrokerParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerParts").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Plans and retries the queries of a broker's sessions.
pub(crate) struct Broker {
    shared: Arc<Shared>,
    channels: Arc<dyn WorkerChannels>,
    worker: Arc<QueryWorker>,
    usual: BTreeMap<String, Option<String>>,
    /// Names attempts: the broker, and a number.
    names: (String, AtomicU64),
    probes: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Broker {
    /// `usual` are the settings that workers have without being told; `dice` makes its names differ from those of other
    /// brokers and of this one's earlier life.
    pub(crate) fn new(parts: BrokerParts, usual: &ConfigOptions, dice: u128) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(Shared::new(parts.placement, parts.url)),
            channels: parts.channels,
            worker: parts.worker,
            usual: header::usual(usual),
            names: (format!("{dice:032x}"), AtomicU64::new(0)),
            probes: Mutex::default(),
        })
    }

    /// Makes a session's state plan for workers. `elsewhere` names the rules that are for where segments are.
    pub(crate) fn install(
        &self,
        mut builder: SessionStateBuilder,
        elsewhere: &[&str],
    ) -> PlanResult<SessionStateBuilder> {
        let mut rules = builder.physical_optimizers().take().unwrap_or_default().rules;
        rules.retain(|rule| !elsewhere.contains(&rule.name()));
        rules.push(Arc::new(LimitOnce));
        rules.push(Arc::new(AssignReplicas));
        *builder.physical_optimizers() = Some(PhysicalOptimizer::with_rules(rules));
        let functions = SharedFunctions::new(builder.scalar_functions().iter().flatten());
        let config = builder.config().get_or_insert_default();
        self.worker.as_local(config, self.shared.url.clone());
        let mut settings = HengeOptions::of(config.options());
        settings.elsewhere = Some(functions);
        config.options_mut().extensions.insert(settings);
        Ok(builder
            .with_distributed_worker_resolver(Workers(Arc::clone(&self.shared)))
            .with_distributed_planner()
            .with_distributed_user_codec(SegmentCodec)
            .with_distributed_channel_resolver(Named(Arc::clone(&self.channels)))
            // A union whose parts run apart could not be routed.
            .with_distributed_children_isolator_unions(false)?
            .with_distributed_dynamic_task_count(false)?
            .with_distributed_max_tasks_per_stage(MAX_TASKS)?
            .with_distributed_metrics_collection(false)?
            .with_distributed_desired_task_count_handler(route::desired_tasks)
            .with_distributed_scale_up_leaf_node_handler(route::scale_up)
            .with_distributed_route_tasks_handler(route::route))
    }

    /// Begins a query.
    pub(crate) fn begin(self: &Arc<Self>, cancel: &Cancel) -> Query {
        Query {
            broker: Arc::clone(self),
            cancel: cancel.clone(),
            avoided: Avoided::default(),
            tries: 0,
            failures: 0,
            told: None,
        }
    }

    fn suspect(self: &Arc<Self>, worker: &WorkerUrl) {
        if self.shared.suspect(worker) {
            let mut probes = self.probes.lock();
            while probes.try_join_next().is_some() {}
            let (shared, channels, worker) = (Arc::clone(&self.shared), Arc::clone(&self.channels), worker.clone());
            probes.spawn(probe(shared, channels, worker));
        }
    }
}

/// Asks a worker that failed until it answers.
async fn probe(shared: Arc<Shared>, channels: Arc<dyn WorkerChannels>, worker: WorkerUrl) {
    for _ in 0..PROBES {
        tokio::time::sleep(PROBE_PAUSE).await;
        let answer = tokio::time::timeout(PROBE_TIME, async {
            channels.channel(&worker).await.ok()?.get_worker_info(GetWorkerInfoRequest {}).await.ok()
        });
        if answer.await.ok().flatten().is_some_and(|info| info.version == PLAN_VERSION) {
            break;
        }
    }
    shared.trust(&worker);
}

/// For stages that nothing ties to a place.
struct Workers(Arc<Shared>);

impl WorkerResolver for Workers {
    fn get_urls(&self) -> PlanResult<Vec<WorkerUrl>> {
        Ok(self.0.workers())
    }
}

/// Whether operators' figures come back from workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figures {
    Collected,
    Left,
}

/// A query, over all attempts at it.
#[derive(Clone)]
pub(crate) struct Query {
    broker: Arc<Broker>,
    cancel: Cancel,
    avoided: Avoided,
    tries: usize,
    failures: usize,
    /// Why a worker failed at it that works otherwise, for people.
    told: Option<Arc<str>>,
}

/// What an attempt holds until its last row.
#[derive(Debug)]
pub(crate) struct Held {
    attempt: Attempt,
    _own_tasks: Option<QueryGuard>,
}

impl Held {
    /// What the answer is without, for people; `None` if it is whole.
    pub(crate) fn missing(&self) -> Option<String> {
        let (segments, intervals) = self.attempt.missing()?;
        Some(format!("the answer is without {} that no process serves just now: {intervals}", counted(segments)))
    }
}

impl Query {
    /// Sets a session's configuration up for the next attempt.
    pub(crate) fn attempt(&mut self, config: &mut SessionConfig, shape: Shape, figures: Figures) -> PlanResult<Held> {
        self.tries += 1;
        let broker = &self.broker;
        let order = Order {
            query: format!("{}-{}", broker.names.0, broker.names.1.fetch_add(1, Ordering::Relaxed)),
            deadline: self.cancel.deadline(),
            settings: header::unusual(config.options(), &broker.usual),
        };
        let headers = order.headers()?;
        let attempt = Attempt::new(Arc::clone(&broker.shared), self.avoided.clone());
        let own_tasks = broker.worker.guard(&headers);
        config.set_distributed_passthrough_headers(headers)?;
        config.set_distributed_metrics_collection(figures == Figures::Collected)?;
        config.set_extension(Arc::new(self.cancel.clone()));
        let options = config.options_mut();
        options.extensions.insert(attempt.clone());
        options.optimizer.repartition_aggregations = shape == Shape::Shuffled;
        Ok(Held { attempt, _own_tasks: own_tasks })
    }

    /// After a failure: whether another attempt may fare better. Waits a little before it says so.
    pub(crate) async fn may_retry(&mut self, error: &Error) -> bool {
        let Some(blame) = Blame::of(error) else { return false };
        if let Blame::Worker(worker) = &blame {
            self.broker.suspect(worker);
        }
        tracing::warn!(worker = %blame.worker(), attempt = self.tries, "a query failed on a worker: {error}");
        self.avoided.add(&blame);
        if matches!(blame, Blame::WorkerForThisQuery(_)) {
            self.told = for_people(error).map(Arc::from).or(self.told.take());
        }
        if !matches!(blame, Blame::Segments(..)) {
            self.failures += 1;
        }
        if self.failures >= FAILURES || self.tries >= TRIES || self.cancel.check().is_err() {
            return false;
        }
        tokio::time::sleep(PAUSES[self.failures.min(PAUSES.len() - 1)]).await;
        true
    }

    /// A failure that no further attempt is made after, as its user is told of it.
    pub(crate) fn given_up(&self, error: Error) -> Error {
        let reason = for_people(&error).or(self.told.as_deref());
        match (Blame::of(&error), &self.told) {
            // Who is left lacks segments that one who failed serves.
            (None, Some(told)) if error.category() == Category::ServiceUnavailable => {
                failed(format!("{}; a process that serves them failed: {told}", error.message()))
            }
            (None, _) => error,
            (Some(_), _) => {
                let tried = format!("processes that serve segments failed at each of {} tries", self.tries);
                failed(reason.map_or(tried.clone(), |reason| format!("{tried}: {reason}")))
            }
        }
    }

    /// A failure after rows have left, as its user is told of it: nothing can be tried again.
    pub(crate) fn failed_late(&self, error: Error) -> Error {
        let Some(blame) = Blame::of(&error) else { return error };
        if let Blame::Worker(worker) = &blame {
            self.broker.suspect(worker);
        }
        tracing::warn!(worker = %blame.worker(), "a query failed on a worker after rows had left: {error}");
        failed("a process that serves segments failed after rows of the answer had left".to_owned())
    }
}

/// What an error says, if it is for those who ask.
fn for_people(error: &Error) -> Option<&str> {
    matches!(error.persona(), Persona::User | Persona::Admin).then(|| error.message())
}

fn failed(message: String) -> Error {
    Error::new(Category::ServiceUnavailable, Persona::User, message).with_hint("try again")
}

/// Where groups of several workers are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// On the broker: each worker sends its groups there.
    Merged,
    /// On the workers, each a part of the groups.
    Shuffled,
}

impl Shape {
    /// What a session asks for; `None` to decide by the plan.
    pub(crate) fn asked(options: &ConfigOptions) -> Option<Self> {
        match HengeOptions::of(options).shuffle {
            Shuffle::Auto => None,
            Shuffle::On => Some(Self::Shuffled),
            Shuffle::Off => Some(Self::Merged),
        }
    }

    /// What fits a plan that was made for [`Shape::Merged`].
    pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>) -> Self {
        let mut shape = Self::Merged;
        let visit = plan.apply(|node| {
            let aggregate = node.downcast_ref::<AggregateExec>();
            if aggregate.is_some_and(|aggregate| *aggregate.mode() == AggregateMode::Partial && may_be_many(aggregate))
            {
                shape = Self::Shuffled;
            }
            Ok(TreeNodeRecursion::Continue)
        });
        // The closure never fails.
        drop(visit);
        shape
    }
}

/// Whether an aggregation may give very many groups: by what it groups by, and how many rows it reads.
fn may_be_many(aggregate: &AggregateExec) -> bool {
    let schema = aggregate.input_schema();
    let is_wide = aggregate.group_expr().expr().iter().any(|(key, _)| {
        let data_type = key.data_type(&schema);
        // Times are cut to buckets, of which there are few.
        data_type.is_ok_and(|data_type| !data_type.is_temporal() && data_type != arrow::datatypes::DataType::Boolean)
    });
    let held: usize = aggregate.aggr_expr().iter().map(|aggregate| usize::from(is_large(aggregate.fun()))).sum();
    (is_wide || held > 0) && rows_below(aggregate.input()) >= ROWS_FOR_SHUFFLE
}

/// Whether the state of an aggregate grows with its rows.
fn is_large(function: &AggregateUDF) -> bool {
    matches!(function.name(), "array_agg" | "string_agg" | "median" | "percentile_cont")
}

fn rows_below(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let mut rows = 0;
    let visit = plan.apply(|node| {
        let leaf = match node.downcast_ref::<datafusion_distributed::DistributedLeafExec>() {
            Some(tasked) => tasked.original().downcast_ref::<SegmentLeafExec>(),
            None => node.downcast_ref::<SegmentLeafExec>(),
        };
        if let Some(leaf) = leaf {
            rows += leaf.scan().source().segments.iter().map(|visible| visible.segment.num_rows()).sum::<usize>();
        }
        Ok(TreeNodeRecursion::Continue)
    });
    // The closure never fails.
    drop(visit);
    rows
}

/// Whether other processes take part in a plan.
pub(crate) fn is_distributed(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.exists(|node| Ok(node.is::<DistributedExec>())).unwrap_or(true)
}

/// Whether what is below runs elsewhere.
pub(crate) fn is_boundary(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is_network_boundary()
}

/// A plan for people, stage by stage.
pub(crate) fn display(plan: &Arc<dyn ExecutionPlan>) -> String {
    display_plan_ascii(plan.as_ref(), false)
}
