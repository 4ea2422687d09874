//! How the API server is reached.

use std::ffi::OsString;
use std::path::PathBuf;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use thiserror::Error;

/// Where Kubernetes mounts a pod's token.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// What the kubelet sets in every container.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";
const KUBECONFIG: &str = "KUBECONFIG";

/// Where the address and the credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// The pod's service account: its token, and no other CA than the cluster's.
    ServiceAccount,
    /// A file for `kubectl`.
    Kubeconfig(PathBuf),
}

/// Why the API server cannot be asked.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The service account's files.
    #[error("the pod's service account is not usable: {0}; set automountServiceAccountToken: true")]
    ServiceAccount(#[from] InClusterError),
    /// The kubeconfig.
    #[error("{path}: {source}", path = path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<KubeconfigError>,
    },
    /// Certificates or credentials.
    #[error("the credentials for the Kubernetes API are not usable: {0}")]
    Client(#[source] Box<kube::Error>),
}

impl Access {
    /// What there is here: KUBECONFIG before the service account. `variable` reads the environment.
    #[must_use]
    pub fn detect(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let Some(path) = set(KUBECONFIG) {
            return Some(Self::Kubeconfig(path.into()));
        }
        let in_pod = set(SERVICE_HOST).is_some() && std::path::Path::new(TOKEN).exists();
        in_pod.then_some(Self::ServiceAccount)
    }

    /// The files that credentials are read from; `None` if a program makes them. A kubeconfig that cannot be read names itself only:
    /// the watch says what is wrong with it.
    #[must_use]
    pub fn files(&self) -> Option<Vec<PathBuf>> {
        let Self::Kubeconfig(path) = self else {
            return Some(vec![TOKEN.into()]);
        };
        let mut files = vec![path.clone()];
        let Ok(config) = Kubeconfig::read_from(path) else {
            return Some(files);
        };
        let clusters = config.clusters.into_iter().filter_map(|named| named.cluster);
        files.extend(
            clusters
                .filter_map(|cluster| cluster.certificate_authority)
                .map(PathBuf::from),
        );
        for user in config.auth_infos.into_iter().filter_map(|named| named.auth_info) {
            if user.exec.is_some() {
                return None;
            }
            let named = [user.client_certificate, user.client_key, user.token_file];
            files.extend(named.into_iter().flatten().map(PathBuf::from));
        }
        Some(files)
    }

    /// A client with the credentials as they are in the files now.
    pub(super) async fn client(&self) -> Result<Client, AccessError> {
        let config = match self {
            Self::ServiceAccount => Config::incluster_env()?,
            Self::Kubeconfig(path) => kubeconfig(path.clone()).await?,
        };
        Client::try_from(config).map_err(|error| AccessError::Client(Box::new(error)))
    }
}

async fn kubeconfig(path: PathBuf) -> Result<Config, AccessError> {
    let read = match Kubeconfig::read_from(&path) {
        Ok(file) => Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await,
        Err(error) => Err(error),
    };
    read.map_err(|source| AccessError::Kubeconfig {
        path,
        source: Box::new(source),
    })
}

/// Whether a text can be a node's name: a DNS subdomain.
#[must_use]
pub fn is_node_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    (1..=253).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_comes_first_and_an_empty_variable_is_none() {
        let only = |name: &'static str, value: &'static str| {
            move |asked: &str| (asked == name).then(|| OsString::from(value))
        };
        assert_eq!(
            Access::detect(only(KUBECONFIG, "/k")),
            Some(Access::Kubeconfig("/k".into()))
        );
        assert_eq!(Access::detect(only(KUBECONFIG, "")), None);
        assert_eq!(Access::detect(|_| None), None);
    }

    #[test]
    fn node_names_are_dns_subdomains() {
        assert!(is_node_name("ip-10-0-0-1.eu-central-1.compute.internal") && is_node_name("n1"));
        assert!(
            !is_node_name("")
                && !is_node_name("a,b=c")
                && !is_node_name("Node")
                && !is_node_name(&"n".repeat(254))
        );
    }
}
