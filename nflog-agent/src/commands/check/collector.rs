//! The way to the collector: its name, a connection, an empty request.

use tokio::runtime::Builder;

use super::Subject;
use super::finding::{Cause, Finding};
use crate::export::OtlpConfig;
use crate::export::trial;

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let Some(config) = subject.output.otlp() else {
        let found = format!("none: the output is {}", subject.output.describe());
        return vec![Finding::ok("collector", found)];
    };
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(steps(config)),
        Err(error) => vec![failed(
            "collector",
            &error,
            "raise the limits on processes and open files",
        )],
    }
}

/// Each step only after the one before.
async fn steps(config: &OtlpConfig) -> Vec<Finding> {
    let target = config.target();
    let mut findings = Vec::new();
    // A proxy resolves it else.
    if config.proxy.is_none() {
        match trial::addresses(config).await {
            Ok(addresses) => {
                let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                findings.push(Finding::ok("collector-name", addresses.join(", ")));
            }
            Err(error) => {
                let remedy = "check the name in the endpoint, and /etc/resolv.conf";
                findings.push(failed("collector-name", &format!("{target}: {error}"), remedy));
                return findings;
            }
        }
    }
    match trial::connect(config).await {
        Ok(()) => {
            let way = if config.proxy.is_some() {
                " by the proxy"
            } else {
                ""
            };
            findings.push(Finding::ok("collector-connection", format!("{target}{way}")));
        }
        Err(error) => {
            let remedy = "check that it listens there, what is between, and for https the certificates (OTEL_EXPORTER_OTLP_CERTIFICATE)";
            findings.push(failed(
                "collector-connection",
                &format!("{target}: {error}"),
                remedy,
            ));
            return findings;
        }
    }
    findings.push(match trial::export(config).await {
        Ok(()) => Finding::ok("collector", format!("{target} takes an empty request")),
        Err(refused) => {
            let hint = refused
                .hint
                .unwrap_or("check protocol, path and headers of the endpoint (OTEL_EXPORTER_OTLP_*)");
            failed("collector", &format!("{target}: {}", refused.reason), hint)
        }
    });
    findings
}

fn failed(check: &str, error: &dyn std::fmt::Display, remedy: &str) -> Finding {
    Finding::failed(check, Cause::Unavailable, error.to_string(), remedy)
}
