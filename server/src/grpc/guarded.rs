use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use henge_engine::distributed::{QueryGuard, QueryWorker};
use http_body::{Body as HttpBody, Frame};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;

use super::Peers;

/// A worker's service that answers peers only, works on the runtime for queries, and ends what runs for a request that is
/// gone.
#[derive(Clone)]
pub(super) struct Guarded<S> {
    service: S,
    worker: Arc<QueryWorker>,
    peers: Arc<Peers>,
    queries: Handle,
}

impl<S> Guarded<S> {
    pub(super) fn new(service: S, worker: Arc<QueryWorker>, peers: Arc<Peers>, queries: Handle) -> Self {
        Self { service, worker, peers, queries }
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The clone that works is asked.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !self.peers.admits(request.headers()) {
            let refused = Status::unauthenticated("this process answers only processes of its cluster");
            return Box::pin(async move { Ok(refused.into_http()) });
        }
        // This request lasts as long as its query; others of the same query come and go.
        let brings_a_plan = request.uri().path().ends_with(BRINGS_A_PLAN);
        let guard = brings_a_plan.then(|| self.worker.guard(request.headers())).flatten();
        let request = request.map(|body| match guard {
            Some(guard) => Body::new(Guarding { body, _guard: guard }),
            None => body,
        });
        let mut service = self.service.clone();
        let answer = self.queries.spawn(async move {
            std::future::poll_fn(|context| service.poll_ready(context)).await?;
            service.call(request).await
        });
        Box::pin(Answer(answer))
    }
}

/// The end of the path of the method that brings a plan.
const BRINGS_A_PLAN: &str = "/CoordinatorChannel";

/// An answer that is made on another runtime, for as long as somebody waits for it.
struct Answer(JoinHandle<Result<Response<Body>, Infallible>>);

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| match answer {
            Ok(answer) => answer,
            Err(_) => Ok(Status::internal("the request ended without an answer").into_http()),
        })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of a request. When it is read to its end, or the client is gone, the query is over.
struct Guarding {
    body: Body,
    _guard: QueryGuard,
}

impl HttpBody for Guarding {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
