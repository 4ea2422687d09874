//! One question to the API server, for `check`.

use std::time::Duration;

use kube::core::Request;
use kube::core::params::ListParams;
use tokio::time::timeout;

use super::Access;
use super::failure::Failure;
use super::object::List;

/// Longest time for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for one pod of the node: how many came, or why not, with the remedy.
///
/// # Errors
/// What is in the way, in words.
pub(crate) async fn trial(access: &Access, node: &str) -> Result<usize, String> {
    let asked = timeout(PATIENCE, ask(access, node)).await;
    match asked {
        Ok(answer) => answer.map_err(|failure| failure.to_string()),
        Err(_) => Err(Failure::Silent(PATIENCE.as_secs()).to_string()),
    }
}

async fn ask(access: &Access, node: &str) -> Result<usize, Failure> {
    let client = access.client().await?;
    let params = ListParams::default()
        .fields(&format!("spec.nodeName={node}"))
        .limit(1);
    let request = Request::new("/api/v1/pods")
        .list(&params)
        .map_err(kube::Error::BuildRequest)?;
    let page: List = client.request(request).await?;
    Ok(page.items.len())
}
