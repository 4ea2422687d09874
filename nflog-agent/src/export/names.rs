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
