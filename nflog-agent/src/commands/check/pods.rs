//! The Kubernetes API: whether it is to be asked, answers, and allows the question.

use super::Subject;
use super::finding::{Cause, Finding};
use crate::agent::kubernetes::{Choice, choose, files};
use crate::cli::{KubernetesArg, RunArgs, SandboxArg};

const CHECK: &str = "kubernetes";
#[cfg(feature = "kubernetes")]
const SERVICES: &str = "kubernetes-services";

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
        Ok(Choice::Watch { access, node }) => return asked(args, &access, node),
    };
    vec![softened(args, finding)]
}

/// Names come later if the server does.
fn softened(args: &RunArgs, finding: Finding) -> Finding {
    if args.kubernetes == KubernetesArg::On {
        finding
    } else {
        finding.soften()
    }
}

#[cfg(feature = "kubernetes")]
fn asked(args: &RunArgs, access: &crate::workload::kubernetes::Access, node: String) -> Vec<Finding> {
    use std::sync::Arc;

    use crate::workload::kubernetes::{Chosen, NodePods, Pods, Services, trial};

    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![Finding::error(CHECK, Cause::Unavailable, &error)],
    };
    let pods = NodePods {
        node,
        chosen: Chosen::default(),
        pods: Arc::new(Pods::default()),
    };
    let node = &pods.node;
    let mut findings = vec![match runtime.block_on(trial(access, &pods)) {
        Ok(0) => Finding::warning(
            CHECK,
            format!("the API knows no pod of node {node}"),
            "check the name: kubectl get nodes",
        ),
        Ok(_) => Finding::ok(CHECK, format!("the API answers for node {node}")),
        Err(error) => Finding::error(CHECK, Cause::Unavailable, &error),
    }];
    if args.kubernetes_services {
        findings.push(
            match runtime.block_on(trial(access, &Arc::new(Services::default()))) {
                Ok(_) => Finding::ok(SERVICES, "the API answers for Services"),
                Err(error) => Finding::error(SERVICES, Cause::Unavailable, &error),
            },
        );
    }
    let soft = |finding| softened(args, finding);
    findings.into_iter().map(soft).collect()
}
