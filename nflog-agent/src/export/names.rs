//! Host names to addresses, each time anew: the system's resolver, or in unit tests an address that can move.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

/// The resolver.
#[derive(Clone, Debug)]
pub(super) struct Names {
    system: GaiResolver,
    #[cfg(test)]
    pub(super) moving: Option<std::sync::Arc<std::sync::Mutex<std::net::IpAddr>>>,
}

impl Names {
    pub(super) fn system() -> Self {
        Self {
            system: GaiResolver::new(),
            #[cfg(test)]
            moving: None,
        }
    }
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        #[cfg(test)]
        if let Some(moving) = &self.moving {
            let address = SocketAddr::new(*moving.lock().unwrap(), 0);
            return Box::pin(std::future::ready(Ok(vec![address].into_iter())));
        }
        let resolving = self.system.call(name);
        Box::pin(async { Ok(resolving.await?.collect::<Vec<_>>().into_iter()) })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
        LogsService, LogsServiceServer,
    };
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse,
    };
    use tokio::net::TcpListener;
    use tonic::transport::server::TcpIncoming;

    use super::*;
    use crate::export::config::{OtlpConfig, Protocol};
    use crate::export::connect::Connector;
    use crate::export::grpc::Grpc;
    use crate::export::http::{Client, Http};

    /// Counts requests.
    #[derive(Clone, Default)]
    struct Counter(Arc<AtomicUsize>);

    #[tonic::async_trait]
    impl LogsService for Counter {
        async fn export(
            &self,
            _: tonic::Request<ExportLogsServiceRequest>,
        ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
        }
    }

    impl Counter {
        fn requests(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }

        fn serve(&self, listener: TcpListener, protocol: Protocol) {
            let counter = self.clone();
            match protocol {
                Protocol::Grpc => tokio::spawn(async move {
                    let mut server = tonic::transport::Server::builder();
                    let server = server.add_service(LogsServiceServer::new(counter));
                    let incoming = TcpIncoming::from(listener);
                    server.serve_with_incoming(incoming).await.expect("it serves");
                }),
                Protocol::HttpProtobuf => tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        let counter = counter.clone();
                        let service = service_fn(move |_| {
                            counter.0.fetch_add(1, Ordering::SeqCst);
                            std::future::ready(Ok::<_, Infallible>(http::Response::new(
                                Full::<Bytes>::default(),
                            )))
                        });
                        let http = hyper::server::conn::http1::Builder::new();
                        tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
                    }
                }),
            };
        }
    }

    /// The same port at two addresses.
    async fn two(addresses: [Ipv4Addr; 2]) -> [TcpListener; 2] {
        for _ in 0..100 {
            let first = TcpListener::bind((addresses[0], 0)).await.unwrap();
            let port = first.local_addr().unwrap().port();
            if let Ok(second) = TcpListener::bind((addresses[1], port)).await {
                return [first, second];
            }
        }
        panic!("no port is free at both {addresses:?}");
    }

    #[tokio::test]
    async fn a_name_that_moves_is_followed_though_the_old_address_still_answers() {
        let addresses = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            let [first, second] = two(addresses).await;
            let port = first.local_addr().unwrap().port();
            let (old, new) = (Counter::default(), Counter::default());
            old.serve(first, protocol);
            new.serve(second, protocol);
            let moving = Arc::new(Mutex::new(IpAddr::V4(addresses[0])));
            let names = Names {
                moving: Some(Arc::clone(&moving)),
                ..Names::system()
            };
            let endpoint = format!("http://collector.test:{port}/v1/logs");
            let config = OtlpConfig::new(protocol, endpoint.parse().unwrap());
            let connector = Connector::with_names(&config, names).unwrap();
            // Every connection is old at once.
            let age = Duration::ZERO;
            let grpc = Grpc::over(&config, connector.clone(), age);
            let http = Http::over(&config, Client::over(&config, connector, age));
            for (address, counts) in [(0, (1, 0)), (1, (1, 1)), (0, (2, 1))] {
                *moving.lock().unwrap() = IpAddr::V4(addresses[address]);
                match protocol {
                    Protocol::Grpc => grpc.send(Bytes::new()).await.unwrap(),
                    Protocol::HttpProtobuf => http.send(Bytes::new()).await.unwrap(),
                };
                assert_eq!((old.requests(), new.requests()), counts, "{protocol:?}");
            }
        }
    }
}
