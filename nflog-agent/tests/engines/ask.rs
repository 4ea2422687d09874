//! The inquiry, while the engines behave and while they do not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nflog_agent::workload::engines::{Engines, Inquiry, Pace, Told};
use tokio::runtime::Runtime;

use crate::engine::{DOCKER, Engine, Fault, PODMAN, id};
use crate::support::wait_for;

/// An inquiry that runs.
struct Asking {
    engines: Arc<Engines>,
    _runtime: Runtime,
}

impl Asking {
    fn at(sockets: &[&Path]) -> Self {
        Self::every(Duration::from_millis(10), Duration::from_millis(50), sockets)
    }

    /// With these pauses.
    fn every(first: Duration, longest: Duration, sockets: &[&Path]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (engines, asked) = Engines::new();
        let inquiry = Inquiry {
            sockets: sockets.iter().map(PathBuf::from).collect(),
            engines: Arc::clone(&engines),
            asked,
            pace: Pace {
                first,
                longest,
                answer: Duration::from_secs(1),
            },
        };
        runtime.spawn(inquiry.run());
        Self {
            engines,
            _runtime: runtime,
        }
    }

    fn name(&self, id: &str) -> Option<String> {
        match self.engines.find(id, Instant::now()) {
            Told::Named(container) => Some(container.name.clone()),
            Told::Nothing | Told::Busy => None,
        }
    }

    #[track_caller]
    fn expect(&self, id: &str, name: &str) {
        wait_for(name, || (self.name(id)? == name).then_some(()));
    }
}

#[test]
fn docker_and_podman_are_asked_for_their_containers_and_once_for_each() {
    let directory = tempfile::tempdir().unwrap();
    let docker = Engine::start(&directory.path().join("docker"), DOCKER);
    let podman = Engine::start(&directory.path().join("podman"), PODMAN);
    let asking = Asking::at(&[docker.socket(), podman.socket()]);
    for (answer, name, image) in [
        (DOCKER, "shop-web-1", "registry.example:5000/nginx"),
        (PODMAN, "backup", "docker.io/library/busybox"),
    ] {
        asking.expect(&id(answer), name);
        let Told::Named(container) = asking.engines.find(&id(answer), Instant::now()) else {
            panic!("it is known");
        };
        assert_eq!(container.image.as_ref().unwrap().name, image);
    }
    assert_eq!(asking.engines.generation(), 2);
    let question = |answer: &str| format!("/containers/{}/json", id(answer));
    assert_eq!(docker.requests(), [question(DOCKER), question(PODMAN)]);
    assert_eq!(podman.requests(), [question(PODMAN)]);
}

#[test]
fn a_container_that_no_engine_knows_is_not_asked_for_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let docker = Engine::start(&directory.path().join("docker"), DOCKER);
    // An engine that does not run is no reason to ask again.
    let asking = Asking::at(&[&directory.path().join("away"), docker.socket()]);
    let unknown = "ab".repeat(32);
    for _ in 0..10 {
        assert_eq!(asking.name(&unknown), None);
    }
    asking.expect(&id(DOCKER), "shop-web-1");
    for _ in 0..10 {
        assert_eq!(asking.name(&unknown), None);
    }
    assert_eq!(docker.requests().len(), 2, "{:?}", docker.requests());
}

#[test]
fn an_engine_that_fails_hangs_or_talks_nonsense_is_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let docker = Engine::start(&directory.path().join("docker"), DOCKER);
    let another = DOCKER.replace(&id(DOCKER), &"cd".repeat(32));
    docker.fail([
        Fault::Status(500),
        Fault::Silence,
        Fault::Bytes(b"\x15\x03\x01 no HTTP\r\n\r\n".to_vec()),
        Fault::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n{\"Id\":".to_vec()),
        Fault::Body(b"{".to_vec()),
        Fault::Body(another.into_bytes()),
        Fault::Body(vec![b' '; 2 << 20]),
    ]);
    let asking = Asking::at(&[docker.socket()]);
    asking.expect(&id(DOCKER), "shop-web-1");
    assert_eq!(docker.requests().len(), 8, "{:?}", docker.requests());
}

#[test]
fn a_container_on_which_an_engine_fails_for_good_does_not_stop_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let docker = Engine::start(&directory.path().join("docker"), DOCKER);
    docker.fail(std::iter::repeat_n(Fault::Status(500), 8));
    let asking = Asking::at(&[docker.socket()]);
    let bad = "ab".repeat(32);
    assert_eq!(asking.name(&bad), None);
    wait_for("the end of patience", || {
        (docker.requests().len() == 8).then_some(())
    });
    asking.expect(&id(DOCKER), "shop-web-1");
    assert_eq!((asking.name(&bad), docker.requests().len()), (None, 9));
}

#[test]
fn containers_that_come_all_the_time_do_not_put_off_the_next_try() {
    let directory = tempfile::tempdir().unwrap();
    let docker = Engine::start(&directory.path().join("docker"), DOCKER);
    docker.fail([Fault::Status(500)]);
    let pause = Duration::from_millis(200);
    let asking = Asking::every(pause, pause, &[docker.socket()]);
    // Not as many as may wait.
    let mut more = (0..200).map(|number| format!("{number:064x}"));
    wait_for("the second question", || {
        std::thread::sleep(Duration::from_millis(10));
        assert_eq!(asking.name(&more.next().expect("it comes before")), None);
        (docker.requests().len() > 1).then_some(())
    });
}

#[test]
fn an_engine_that_starts_later_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker");
    let asking = Asking::at(&[&socket]);
    assert_eq!(asking.name(&id(DOCKER)), None);
    std::thread::sleep(Duration::from_millis(100));
    let docker = Engine::start(&socket, DOCKER);
    asking.expect(&id(DOCKER), "shop-web-1");
    assert_eq!(docker.requests().len(), 1);
}
