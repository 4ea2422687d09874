//! The Kubernetes API: whether it is to be asked, answers, and allows the question.

use super::Subject;
use super::finding::{Cause, Finding};
use crate::agent::kubernetes::{Choice, choose, files};
use crate::cli::{KubernetesArg, SandboxArg};

const CHECK: &str = "kubernetes";

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let args = &subject.settings.args;
    // Then the agent does not start.
    if args.sandbox == SandboxArg::Auto
        && let Err(error) = files(args)
    {
        return vec![Finding::error(CHECK, Cause::Usage, &error)];
    }
    let finding = match choose(args) {
        Err(error) => Finding::error(CHECK, Cause::Usage, &error),
        Ok(Choice::Off) => Finding::ok(CHECK, "not wanted: --kubernetes off"),
        Ok(Choice::Nowhere) => Finding::ok(CHECK, "none here: no service account's token, no KUBECONFIG"),
        Ok(Choice::NoNode) => Finding::warning(
            CHECK,
            "there is one, but which node this is is not known",
            "set --kubernetes-node, or K8S_NODE_NAME from spec.nodeName",
        ),
        #[cfg(feature = "kubernetes")]
        Ok(Choice::Watch { access, node }) => asked(&access, &node),
    };
    // Names of pods come later if the server does.
    vec![if args.kubernetes == KubernetesArg::On {
        finding
    } else {
        finding.soften()
    }]
}

#[cfg(feature = "kubernetes")]
fn asked(access: &crate::workload::kubernetes::Access, node: &str) -> Finding {
    use crate::workload::kubernetes::trial;

    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Finding::error(CHECK, Cause::Unavailable, &error),
    };
    match runtime.block_on(trial(access, node)) {
        Ok(0) => Finding::warning(
            CHECK,
            format!("the API knows no pod of node {node}"),
            "check the name: kubectl get nodes",
        ),
        Ok(_) => Finding::ok(CHECK, format!("the API answers for node {node}")),
        Err(error) => Finding::error(CHECK, Cause::Unavailable, &error),
    }
}
