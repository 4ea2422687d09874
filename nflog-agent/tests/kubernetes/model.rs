//! The store against a model without any cleverness.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use nflog_agent::workload::kubernetes::{Container, Observed, Pod, Pods};
use proptest::prelude::*;

const LINGER: u64 = 10;
const CAPACITY: usize = 4;
/// The node has the address of these two pods.
const NODE: u8 = 6;

#[derive(Clone, Debug)]
enum Step {
    See(u8, u8, Vec<u8>),
    Delete(u8),
    KeepOnly(Vec<u8>),
    Wait(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..8_u8, 0..3_u8, prop::collection::vec(0..3_u8, 0..3)).prop_map(|(uid, name, ids)| Step::See(uid, name, ids)),
        2 => (0..8_u8).prop_map(Step::Delete),
        1 => prop::collection::vec(0..8_u8, 0..6).prop_map(Step::KeepOnly),
        2 => (0..6_u8).prop_map(Step::Wait),
    ]
}

/// UID, name, when it went, in the order of arrival.
#[derive(Default)]
struct Model(Vec<(u8, u8, Option<u64>)>);

impl Model {
    fn expire(&mut self, now: u64) {
        self.0
            .retain(|(_, _, gone)| gone.is_none_or(|gone| now - gone < LINGER));
    }

    fn mark(&mut self, is_gone: impl Fn(u8) -> bool, now: u64) {
        for (uid, _, gone) in &mut self.0 {
            if is_gone(*uid) {
                gone.get_or_insert(now);
            }
        }
    }

    /// `None`: it is full, and which of several that went at once makes room is open.
    fn see(&mut self, uid: u8, name: u8) -> Option<bool> {
        if let Some(known) = self.0.iter_mut().find(|known| known.0 == uid) {
            *known = (uid, name, None);
            return Some(true);
        }
        if self.0.len() >= CAPACITY {
            let Some(first) = self.0.iter().filter_map(|known| known.2).min() else {
                return Some(false);
            };
            if self.0.iter().filter(|known| known.2 == Some(first)).count() > 1 {
                return None;
            }
            self.0.retain(|known| known.2 != Some(first));
        }
        self.0.push((uid, name, None));
        Some(true)
    }
}

fn uid(number: u8) -> String {
    format!("uid-{number}")
}

/// Container ids are a pod's own.
fn container(pod: u8, number: u8) -> String {
    format!("container-{pod}-{number}")
}

fn address(pod: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, pod / 2])
}

fn observed(number: u8, name: u8, ids: &[u8]) -> Observed {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let named = |id: &u8| Container {
        name: format!("c{id}"),
        image: None,
    };
    Observed {
        uid: uid(number),
        pod: Pod {
            name: format!("pod-{name}"),
            ..Pod::default()
        },
        containers: ids.iter().map(|id| (container(number, *id), named(id))).collect(),
        // Two pods share each address.
        addresses: vec![address(number)],
        of_node: vec![address(NODE)],
    }
}

proptest! {
    #[test]
    fn the_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let (start, mut now) = (Instant::now(), 0);
        let pods = Pods::new(CAPACITY, Duration::from_secs(LINGER));
        let mut model = Model::default();
        for step in steps {
            let at = start + Duration::from_secs(now);
            let before: Vec<_> = (0..8).map(|number| pods.find(Some(&uid(number)), None)).collect();
            let (generation, moves, addresses) = (pods.generation(), pods.moves(), pods.addresses());
            match step {
                Step::See(number, name, ids) => {
                    model.expire(now);
                    let Some(fits) = model.see(number, name) else { return Ok(()) };
                    prop_assert_eq!(pods.see(observed(number, name, &ids), at), fits);
                    for id in ids.iter().filter(|_| fits) {
                        let found = pods.find(None, Some(&container(number, *id))).unwrap();
                        prop_assert_eq!(&found.pod.name, &format!("pod-{name}"));
                        prop_assert_eq!(&found.container.unwrap().name, &format!("c{id}"));
                    }
                }
                Step::Delete(number) => {
                    model.mark(|uid| uid == number, now);
                    pods.delete(&uid(number), at);
                    model.expire(now);
                }
                Step::KeepOnly(there) => {
                    model.mark(|uid| !there.contains(&uid), now);
                    pods.keep_only(|name| there.iter().any(|number| uid(*number) == name), at);
                    model.expire(now);
                }
                Step::Wait(seconds) => now += u64::from(seconds),
            }
            let changed = (0..8).map(address).any(|address| pods.addresses().find(address) != addresses.find(address));
            prop_assert!(!changed || pods.moves() > moves, "readers do not look again");
            prop_assert!(pods.len() <= CAPACITY);
            prop_assert_eq!(pods.len(), model.0.len());
            for number in 0..8_u8 {
                let found = pods.find(Some(&uid(number)), None);
                let expected = model.0.iter().find(|known| known.0 == number);
                prop_assert_eq!(
                    found.as_ref().map(|found| found.pod.name.clone()),
                    expected.map(|(_, name, _)| format!("pod-{name}"))
                );
                let sharing = model.0.iter().filter(|(uid, _, gone)| gone.is_none() && uid / 2 == number / 2);
                let sharing: Vec<_> = sharing.map(|(uid, name, _)| (self::uid(*uid), format!("pod-{name}"))).collect();
                let addresses = pods.addresses();
                let of_node = number / 2 == NODE / 2 && model.0.iter().any(|(_, _, gone)| gone.is_none());
                let peer = addresses.find(address(number)).map(|peer| (peer.uid.to_string(), peer.pod.name.clone()));
                prop_assert_eq!(peer, sharing.first().filter(|_| sharing.len() == 1 && !of_node).cloned());
                prop_assert_eq!(addresses.has(address(number)), of_node || !sharing.is_empty());
                if let Some(found) = found.filter(|found| before[usize::from(number)].as_ref() != Some(found)) {
                    prop_assert!(pods.generation() > generation, "{found:?} is new, and readers do not look again");
                }
            }
        }
    }
}

#[test]
fn a_pod_that_is_unknown_by_its_uid_is_not_guessed_by_its_container() {
    let pods = Pods::default();
    pods.see(observed(1, 1, &[1]), Instant::now());
    assert!(pods.find(None, Some(&container(1, 1))).is_some());
    assert_eq!(pods.find(Some("another"), Some(&container(1, 1))), None);
    let found = pods.find(Some(&uid(1)), Some("another")).unwrap();
    assert_eq!(found.container, None);
}

#[test]
fn a_pod_keeps_its_former_containers_but_not_without_end() {
    let pods = Pods::default();
    let now = Instant::now();
    for id in 0..200 {
        pods.see(observed(1, 1, &[id]), now);
    }
    assert!(pods.find(None, Some(&container(1, 199))).is_some());
    assert!(pods.find(None, Some(&container(1, 190))).is_some());
    assert_eq!(pods.find(None, Some(&container(1, 100))), None);
}
