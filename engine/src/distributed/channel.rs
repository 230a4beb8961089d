//! Channels to other processes, whoever opens them.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_distributed::{
    ChannelResolver, CoordinatorToWorkerMsg, ExecuteTaskRequest, GetWorkerInfoResponse, SetPlanRequest,
    WorkerToCoordinatorMsg,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::codegen::http::HeaderMap;

use super::{WorkerUrl, failure};
use crate::error::Result;

pub use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
pub use datafusion_distributed::{GetWorkerInfoRequest, WorkerChannel};

/// How a process reaches workers. Fulfilled by the server, with connections that it keeps.
#[async_trait]
pub trait WorkerChannels: fmt::Debug + Send + Sync {
    /// A channel to a worker; opens no connection where there is one. It notices within some seconds that the other
    /// side is dead or hung, and then fails whatever waits for it. Requests that need the cluster's secret have it.
    async fn channel(&self, worker: &WorkerUrl) -> Result<Box<dyn WorkerChannel>>;
}

/// Channels whose failures name their worker.
#[derive(Clone, Debug)]
pub(super) struct Named(pub(super) Arc<dyn WorkerChannels>);

#[async_trait]
impl ChannelResolver for Named {
    async fn get_worker_client_for_url(&self, worker: &WorkerUrl) -> PlanResult<Box<dyn WorkerChannel>> {
        let name = |error: crate::error::Error| failure::from_wire(error.into(), worker);
        let channel = self.0.channel(worker).await.map_err(name)?;
        Ok(Box::new(NamedChannel { channel, worker: worker.clone() }))
    }
}

struct NamedChannel {
    channel: Box<dyn WorkerChannel>,
    worker: WorkerUrl,
}

impl NamedChannel {
    fn name(&self) -> impl Fn(DataFusionError) -> DataFusionError + Clone + Send + 'static {
        let worker = self.worker.clone();
        move |error| failure::from_wire(error, &worker)
    }
}

#[async_trait]
impl WorkerChannel for NamedChannel {
    async fn coordinator_channel(
        &mut self,
        headers: HeaderMap,
        plan: SetPlanRequest,
        messages: BoxStream<'static, CoordinatorToWorkerMsg>,
        metrics: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> PlanResult<BoxStream<'static, PlanResult<WorkerToCoordinatorMsg>>> {
        let name = self.name();
        let answers = self.channel.coordinator_channel(headers, plan, messages, metrics, context).await;
        Ok(answers.map_err(&name)?.map(move |answer| answer.map_err(&name)).boxed())
    }

    async fn execute_task(
        &mut self,
        headers: HeaderMap,
        request: ExecuteTaskRequest,
        metrics: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> PlanResult<Vec<BoxStream<'static, PlanResult<RecordBatch>>>> {
        let name = self.name();
        let streams = self.channel.execute_task(headers, request, metrics, context).await.map_err(&name)?;
        let named = streams.into_iter().map(|stream| {
            let name = name.clone();
            stream.map(move |batch| batch.map_err(&name)).boxed()
        });
        Ok(named.collect())
    }

    async fn get_worker_info(&mut self, request: GetWorkerInfoRequest) -> PlanResult<GetWorkerInfoResponse> {
        let name = self.name();
        self.channel.get_worker_info(request).await.map_err(name)
    }
}
