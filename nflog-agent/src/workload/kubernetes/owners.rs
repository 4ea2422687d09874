//! What a pod belongs to: read from the pod alone, so that no other permission than for pods is needed.
//!
//! - ReplicaSet, StatefulSet, DaemonSet, Job: the pod's controller names it. Certain.
//! - Deployment: its ReplicaSets are named `DEPLOYMENT-HASH`, and its pods have that hash as the label `pod-template-hash`. Both must
//!   agree; wrong only if somebody gave the label to pods of a ReplicaSet of their own.
//! - CronJob: its Jobs are named `CRONJOB-MINUTES`, the scheduled time in minutes since 1970, and the pod was created within a week
//!   after it. A Job that was made from a CronJob by hand has another name, and no CronJob then.
//! - Anything else, such as an operator's own resource, or the node for a static pod: nothing.

use std::time::{Duration, SystemTime};

/// The controller among a pod's owner references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controller<'a> {
    /// Group and version, such as `apps/v1`.
    pub api_version: &'a str,
    /// `ReplicaSet`, `Job`, …
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// Names of what a pod belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owners {
    /// `k8s.deployment.name`.
    pub deployment: Option<String>,
    /// `k8s.replicaset.name`.
    pub replica_set: Option<String>,
    /// `k8s.statefulset.name`.
    pub stateful_set: Option<String>,
    /// `k8s.daemonset.name`.
    pub daemon_set: Option<String>,
    /// `k8s.cronjob.name`.
    pub cron_job: Option<String>,
    /// `k8s.job.name`.
    pub job: Option<String>,
}

impl Owners {
    /// By the rules above. `template_hash`: the pod's label `pod-template-hash`; `created`: the pod's creation, RFC 3339.
    #[must_use]
    pub fn of(
        controller: Option<Controller<'_>>,
        template_hash: Option<&str>,
        created: Option<&str>,
    ) -> Self {
        let mut owners = Self::default();
        let Some(Controller {
            api_version,
            kind,
            name,
        }) = controller
        else {
            return owners;
        };
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let own = Some(name.to_owned());
        match (group, kind) {
            ("apps", "ReplicaSet") => {
                owners.replica_set = own;
                owners.deployment = template_hash
                    .and_then(|hash| deployment(name, hash))
                    .map(str::to_owned);
            }
            ("apps", "StatefulSet") => owners.stateful_set = own,
            ("apps", "DaemonSet") => owners.daemon_set = own,
            ("batch", "Job") => {
                owners.job = own;
                owners.cron_job = created
                    .and_then(|created| cron_job(name, created))
                    .map(str::to_owned);
            }
            _ => {}
        }
        owners
    }

    /// The one that people name: Deployment before ReplicaSet, CronJob before Job.
    #[must_use]
    pub fn topmost(&self) -> Option<&str> {
        let order = [
            &self.deployment,
            &self.replica_set,
            &self.stateful_set,
            &self.daemon_set,
            &self.cron_job,
            &self.job,
        ];
        order.into_iter().find_map(|name| name.as_deref())
    }
}

fn deployment<'a>(replica_set: &'a str, hash: &str) -> Option<&'a str> {
    let name = replica_set.strip_suffix(hash)?.strip_suffix('-')?;
    (!hash.is_empty() && !name.is_empty()).then_some(name)
}

/// Longest time between a CronJob's scheduled time and its pod: late starts and retries.
const LATEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// A pod's clock may be behind the controller's.
const SKEW: Duration = Duration::from_secs(3600);

fn cron_job<'a>(job: &'a str, created: &str) -> Option<&'a str> {
    let (name, minutes) = job.rsplit_once('-').filter(|(name, _)| !name.is_empty())?;
    if minutes.len() != 8 || !minutes.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let scheduled = SystemTime::UNIX_EPOCH + Duration::from_secs(minutes.parse::<u64>().ok()? * 60);
    let created = humantime::parse_rfc3339(created).ok()?;
    (scheduled <= created + SKEW && created <= scheduled + LATEST).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: &str = "2026-11-24T20:00:07Z";

    fn names(api_version: &str, kind: &str, name: &str, hash: Option<&str>) -> Vec<(&'static str, String)> {
        let owners = Owners::of(
            Some(Controller {
                api_version,
                kind,
                name,
            }),
            hash,
            Some(CREATED),
        );
        let all = [
            ("deployment", owners.deployment),
            ("replicaset", owners.replica_set),
            ("statefulset", owners.stateful_set),
            ("daemonset", owners.daemon_set),
            ("cronjob", owners.cron_job),
            ("job", owners.job),
        ];
        all.into_iter()
            .filter_map(|(kind, name)| Some((kind, name?)))
            .collect()
    }

    #[test]
    fn each_kind_of_controller_gives_its_names() {
        let minutes = humantime::parse_rfc3339(CREATED).unwrap();
        let minutes = minutes.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 60;
        let scheduled = |before: u64| format!("backup-{}", minutes - before);
        let hash = Some("5d4f8c7b9");
        for (api_version, kind, name, hash, expected) in [
            (
                "apps/v1",
                "ReplicaSet",
                "web-5d4f8c7b9",
                hash,
                "deployment=web replicaset=web-5d4f8c7b9",
            ),
            (
                "apps/v1",
                "ReplicaSet",
                "a-b-5d4f8c7b9",
                hash,
                "deployment=a-b replicaset=a-b-5d4f8c7b9",
            ),
            // No Deployment: made by hand, by another controller, or a name that only ends alike.
            (
                "apps/v1",
                "ReplicaSet",
                "web-5d4f8c7b9",
                None,
                "replicaset=web-5d4f8c7b9",
            ),
            ("apps/v1", "ReplicaSet", "web-other", hash, "replicaset=web-other"),
            (
                "apps/v1",
                "ReplicaSet",
                "web5d4f8c7b9",
                hash,
                "replicaset=web5d4f8c7b9",
            ),
            (
                "apps/v1",
                "ReplicaSet",
                "-5d4f8c7b9",
                hash,
                "replicaset=-5d4f8c7b9",
            ),
            ("apps/v1", "ReplicaSet", "web-", Some(""), "replicaset=web-"),
            ("apps/v1", "StatefulSet", "db", hash, "statefulset=db"),
            (
                "apps/v1",
                "DaemonSet",
                "nflog-agent",
                hash,
                "daemonset=nflog-agent",
            ),
            ("batch/v1", "Job", "migrate", None, "job=migrate"),
            // A date is no time of a schedule.
            ("batch/v1", "Job", "report-20261124", None, "job=report-20261124"),
            ("batch/v1", "Job", "shard-7", None, "job=shard-7"),
            ("v1", "Node", "node-1", None, ""),
            ("argoproj.io/v1alpha1", "Rollout", "web", hash, ""),
            ("example.org/v1", "ReplicaSet", "web-5d4f8c7b9", hash, ""),
        ] {
            let found = names(api_version, kind, name, hash);
            let found: Vec<_> = found
                .iter()
                .map(|(kind, name)| format!("{kind}={name}"))
                .collect();
            assert_eq!(found.join(" "), expected, "{kind} {name}");
        }
        for (before, cron) in [
            (0, true),
            (30, true),
            (7 * 24 * 60 - 1, true),
            (8 * 24 * 60, false),
        ] {
            let found = names("batch/v1", "Job", &scheduled(before), None);
            assert_eq!(
                found
                    .iter()
                    .any(|(kind, name)| *kind == "cronjob" && name == "backup"),
                cron,
                "{before}"
            );
        }
        assert_eq!(Owners::of(None, hash, Some(CREATED)), Owners::default());
    }

    #[test]
    fn a_service_is_named_after_the_topmost() {
        let topmost = |kind, name| {
            let controller = Some(Controller {
                api_version: "apps/v1",
                kind,
                name,
            });
            Owners::of(controller, Some("77"), Some(CREATED))
                .topmost()
                .map(str::to_owned)
        };
        assert_eq!(topmost("ReplicaSet", "web-77").as_deref(), Some("web"));
        assert_eq!(topmost("ReplicaSet", "web-78").as_deref(), Some("web-78"));
        assert_eq!(topmost("Node", "n"), None);
    }
}
