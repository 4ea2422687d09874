//! Questions to the API server, for `check`.

use std::time::Duration;

use kube::core::Request;
use kube::core::params::{ListParams, WatchParams};
use tokio::time::timeout;

use super::failure::Failure;
use super::page::Page;
use super::{Access, Followed};

/// Longest time for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for one object of a kind, and to follow it: how many came, or why not, with the remedy.
///
/// # Errors
/// What is in the way, in words.
pub(crate) async fn trial<F: Followed>(access: &Access, of: &F) -> Result<usize, String> {
    let asked = timeout(PATIENCE, ask(access, of)).await;
    match asked {
        Ok(answer) => answer.map_err(|failure| failure.told::<F>()),
        Err(_) => Err(Failure::Silent(PATIENCE.as_secs()).to_string()),
    }
}

async fn ask<F: Followed>(access: &Access, of: &F) -> Result<usize, Failure> {
    let client = access.client().await?;
    let params = ListParams {
        field_selector: of.fields(),
        limit: Some(1),
        ..ListParams::default()
    };
    let request = Request::new(F::URL)
        .list(&params)
        .map_err(kube::Error::BuildRequest)?;
    let page: Page<F::Object> = client.request(request).await?;
    // It may be allowed to list and not to watch.
    let params = WatchParams {
        field_selector: of.fields(),
        timeout: Some(1),
        ..WatchParams::default()
    };
    let request = Request::new(F::URL)
        .watch(&params, &page.metadata.resource_version)
        .map_err(kube::Error::BuildRequest)?;
    drop(client.request_events::<F::Object>(request).await?);
    Ok(page.items.len())
}
