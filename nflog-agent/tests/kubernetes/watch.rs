//! The watch, while the server behaves and while it does not.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nflog_agent::workload::kubernetes::{Access, Chosen, NodePods, Pace, Pods, Watch};
use tokio::runtime::Runtime;

use crate::pod_with;
use crate::server::{Fault, Server};
use crate::support::wait_for;

/// Tries that do not keep a test waiting.
pub(crate) const fn pace() -> Pace {
    Pace {
        first: Duration::from_millis(20),
        longest: Duration::from_millis(200),
        answer: Duration::from_secs(3),
        renew: 60,
    }
}

/// A watch that runs, and what it knows.
struct Running {
    pods: Arc<Pods>,
    token: PathBuf,
    server: Option<Server>,
    _directory: tempfile::TempDir,
    _runtime: Runtime,
}

impl Running {
    fn at(address: std::net::SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (config, token) = Server::kubeconfig(address, directory.path());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let pods = Arc::new(Pods::default());
        let watch = Watch {
            access: Access::Kubeconfig(config),
            of: NodePods {
                node: "node-1".to_owned(),
                chosen: Chosen::default(),
                pods: Arc::clone(&pods),
            },
            pace: pace(),
        };
        runtime.spawn(watch.run());
        Self {
            pods,
            token,
            server: None,
            _directory: directory,
            _runtime: runtime,
        }
    }

    fn of(server: &Server) -> Self {
        Self {
            server: Some(server.clone()),
            ..Self::at(server.address())
        }
    }

    fn name(&self, uid: &str) -> Option<String> {
        Some(self.pods.find(Some(uid), None)?.pod.name.clone())
    }

    #[track_caller]
    fn expect(&self, uid: &str, name: &str) {
        let requests = || self.server.as_ref().map(Server::requests);
        wait_for(&format!("{name}; requests: {:?}", requests()), || {
            (self.name(uid)? == name).then_some(())
        });
    }
}

#[test]
fn pods_are_listed_in_pages_and_followed() {
    let server = Server::start();
    for number in 0..120 {
        server.put(pod_with(
            &format!("web-{number}"),
            &format!("uid-{number:03}"),
            &format!("{number:064}"),
        ));
    }
    let running = Running::of(&server);
    for number in [0, 60, 119] {
        running.expect(&format!("uid-{number:03}"), &format!("web-{number}"));
    }
    server.put(pod_with("new", "uid-new", &"a".repeat(64)));
    running.expect("uid-new", "new");
    server.put(pod_with("new", "uid-new", &"b".repeat(64)));
    let id = "b".repeat(64);
    wait_for("the restarted container", || {
        running.pods.find(None, Some(&id))?.container
    });
    server.delete("uid-new");
    server.put(pod_with("later", "uid-later", &"c".repeat(64)));
    running.expect("uid-later", "later");
    running.expect("uid-new", "new");

    let requests = server.requests();
    let lists = requests.iter().filter(|path| !path.contains("watch=true"));
    assert_eq!(lists.clone().count(), 3, "{requests:?}");
    assert!(requests[0].contains("resourceVersion=0"), "{requests:?}");
    let selector = "fieldSelector=spec.nodeName%3Dnode-1";
    assert!(
        requests.iter().all(|path| path.contains(selector)),
        "{requests:?}"
    );
    assert!(
        requests
            .iter()
            .any(|path| path.contains("allowWatchBookmarks=true")),
        "{requests:?}"
    );
}

#[test]
fn a_connection_that_is_cut_in_the_middle_of_an_event_is_taken_up_where_it_was() {
    let server = Server::start();
    server.put(pod_with("web", "uid", &"a".repeat(64)));
    let running = Running::of(&server);
    running.expect("uid", "web");
    server.bookmark();
    for round in 0..3 {
        wait_for("a watch", || {
            let watches = server
                .requests()
                .iter()
                .filter(|path| path.contains("watch=true"))
                .count();
            (watches > round).then_some(())
        });
        server.cut();
        server.put(pod_with(&format!("web-{round}"), "uid", &"a".repeat(64)));
        running.expect("uid", &format!("web-{round}"));
    }
    let requests = server.requests();
    let lists = requests
        .iter()
        .filter(|path| !path.contains("watch=true"))
        .count();
    assert_eq!(lists, 1, "{requests:?}");
}

#[test]
fn where_the_history_is_gone_the_pods_are_listed_anew() {
    let server = Server::start();
    server.put(pod_with("old", "uid-old", &"a".repeat(64)));
    let running = Running::of(&server);
    running.expect("uid-old", "old");
    server.put(pod_with("renamed", "uid-old", &"a".repeat(64)));
    server.put(pod_with("new", "uid-new", &"b".repeat(64)));
    server.compact();
    running.expect("uid-new", "new");
    running.expect("uid-old", "renamed");
    wait_for("a list that is not from the cache", || {
        let requests = server.requests();
        let fresh = requests
            .iter()
            .any(|path| !path.contains("watch=true") && !path.contains("resourceVersion="));
        fresh.then_some(())
    });
}

#[test]
fn a_token_that_was_rotated_is_read_again() {
    let server = Server::start();
    server.put(pod_with("web", "uid", &"a".repeat(64)));
    let running = Running::of(&server);
    running.expect("uid", "web");
    server.rotate_token("second-token");
    server.cut();
    wait_for("a refusal", || (server.requests().len() > 4).then_some(()));
    std::fs::write(&running.token, "second-token").unwrap();
    server.put(pod_with("after", "uid", &"a".repeat(64)));
    running.expect("uid", "after");
}

#[test]
fn a_server_that_fails_hangs_or_forbids_is_asked_again() {
    let server = Server::start();
    server.fail(&[
        Fault::Status(500),
        Fault::HangUp,
        Fault::Status(503),
        Fault::Silence,
    ]);
    server.forbid("pods", true);
    server.put(pod_with("web", "uid", &"a".repeat(64)));
    let running = Running::of(&server);
    wait_for("refusals", || (server.requests().len() > 6).then_some(()));
    assert_eq!(running.name("uid"), None);
    server.forbid("pods", false);
    running.expect("uid", "web");
}

#[test]
fn a_server_that_is_not_there_at_start_is_waited_for() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let running = Running::at(address);
    std::thread::sleep(Duration::from_millis(200));
    let server = Server::start_at(address);
    server.put(pod_with("web", "uid", &"a".repeat(64)));
    running.expect("uid", "web");
}

#[test]
fn what_is_no_pod_is_survived() {
    let server = Server::start();
    server.put(pod_with("web", "uid", &"a".repeat(64)));
    let running = Running::of(&server);
    running.expect("uid", "web");
    let mut broken = pod_with("broken", "uid", &"a".repeat(64));
    broken["status"]["containerStatuses"] = "none".into();
    server.put(broken);
    wait_for("lists", || {
        let requests = server.requests();
        let lists = requests.iter().filter(|path| !path.contains("watch=true"));
        (lists.count() > 2).then_some(())
    });
    running.expect("uid", "web");
    server.put(pod_with("again", "uid", &"a".repeat(64)));
    running.expect("uid", "again");
}
