//! The services that Terraform expects of any plugin's process: they are there, and say as little as they may.

use futures::stream::{BoxStream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::pb::health::health_check_response::ServingStatus;
use super::pb::health::health_server::{Health, HealthServer};
use super::pb::health::{HealthCheckRequest, HealthCheckResponse};
use super::pb::plugin::grpc_broker_server::{GrpcBroker, GrpcBrokerServer};
use super::pb::plugin::grpc_controller_server::{GrpcController, GrpcControllerServer};
use super::pb::plugin::grpc_stdio_server::{GrpcStdio, GrpcStdioServer};
use super::pb::plugin::{ConnInfo, Empty, StdioData};

/// All of them, until `end`, which a call of `Shutdown` cancels.
#[derive(Clone)]
pub(super) struct Companions {
    end: CancellationToken,
}

impl Companions {
    pub(super) fn new(end: CancellationToken) -> Self {
        Self { end }
    }

    pub(super) fn broker(&self) -> GrpcBrokerServer<Self> {
        GrpcBrokerServer::new(self.clone())
    }

    pub(super) fn controller(&self) -> GrpcControllerServer<Self> {
        GrpcControllerServer::new(self.clone())
    }

    pub(super) fn stdio(&self) -> GrpcStdioServer<Self> {
        GrpcStdioServer::new(self.clone())
    }

    pub(super) fn health(&self) -> HealthServer<Self> {
        HealthServer::new(self.clone())
    }

    /// Nothing, for as long as the process serves: a stream that ended early would be taken for a plugin that has.
    fn silence<T: Send + 'static>(&self) -> BoxStream<'static, Result<T, Status>> {
        let ended = self.end.clone();
        futures::stream::pending().take_until(async move { ended.cancelled().await }).boxed()
    }
}

#[tonic::async_trait]
impl GrpcBroker for Companions {
    type StartStreamStream = BoxStream<'static, Result<ConnInfo, Status>>;

    async fn start_stream(&self, _: Request<Streaming<ConnInfo>>) -> Result<Response<Self::StartStreamStream>, Status> {
        Ok(Response::new(self.silence()))
    }
}

#[tonic::async_trait]
impl GrpcController for Companions {
    async fn shutdown(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.end.cancel();
        Ok(Response::new(Empty {}))
    }
}

#[tonic::async_trait]
impl GrpcStdio for Companions {
    type StreamStdioStream = BoxStream<'static, Result<StdioData, Status>>;

    async fn stream_stdio(&self, _: Request<Empty>) -> Result<Response<Self::StreamStdioStream>, Status> {
        Ok(Response::new(self.silence()))
    }
}

#[tonic::async_trait]
impl Health for Companions {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }
}
