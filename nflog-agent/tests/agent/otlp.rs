//! An OTLP collector for logs over gRPC: the code that the OpenTelemetry project generates from its protocol definition.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Keeps every request it gets.
pub(crate) struct Collector {
    address: SocketAddr,
    requests: Requests,
    _runtime: Runtime,
}

type Requests = Arc<Mutex<Vec<ExportLogsServiceRequest>>>;

impl Collector {
    /// Listens on a free port of the loopback address.
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    /// Listens there.
    pub(crate) fn start_at(address: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Requests::default();
        let service = LogsServiceServer::new(Service(Arc::clone(&requests)));
        runtime.spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        Self {
            address,
            requests,
            _runtime: runtime,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<ExportLogsServiceRequest> {
        self.requests.lock().unwrap().clone()
    }
}

struct Service(Requests);

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
