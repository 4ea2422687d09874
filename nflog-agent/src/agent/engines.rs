//! Who is asked for the names of containers outside of Kubernetes.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::cli::RunArgs;
use crate::workload::engines::{Engines, Inquiry, Pace};

/// In place of sockets: nobody.
const OFF: &str = "off";

/// Starts to ask the engines, if any are named. Whether they run shows when the first container is seen.
pub(super) fn ask(args: &RunArgs, runtime: &Handle) -> Option<Arc<Engines>> {
    let sockets = args.container_sockets.iter();
    let sockets: Vec<_> = sockets.filter(|path| path.as_os_str() != OFF).cloned().collect();
    if sockets.is_empty() {
        return None;
    }
    let (engines, asked) = Engines::new();
    let inquiry = Inquiry {
        sockets,
        engines: Arc::clone(&engines),
        asked,
        pace: Pace::default(),
    };
    drop(runtime.spawn(inquiry.run()));
    Some(engines)
}
