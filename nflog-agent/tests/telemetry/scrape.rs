//! HTTP as a probe does it, and the text format of Prometheus, read without the agent's code.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::support::{PATIENCE, wait_for};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Sends a request's bytes and reads until the server closes the connection.
#[track_caller]
pub(crate) fn exchange(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("no answer but {answer:?}")),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

#[track_caller]
pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: agent\r\n\r\n"))
}

/// Labels of a sample, and its value.
pub(crate) type Sample = (BTreeMap<String, String>, f64);

/// Samples by name.
pub(crate) type Samples = BTreeMap<String, Vec<Sample>>;

#[track_caller]
pub(crate) fn metrics(address: SocketAddr) -> Samples {
    let answer = get(address, "/metrics");
    assert_eq!(answer.status, 200, "{}", answer.body);
    parse(&answer.body)
}

/// Waits until the metrics satisfy a condition; they are made at most once a second.
#[track_caller]
pub(crate) fn wait_for_metrics(address: SocketAddr, what: &str, good: impl Fn(&Samples) -> bool) -> Samples {
    wait_for(what, || Some(metrics(address)).filter(&good))
}

/// The sum of a metric's samples.
#[track_caller]
pub(crate) fn sum(samples: &Samples, name: &str) -> f64 {
    let of_name = samples
        .get(name)
        .unwrap_or_else(|| panic!("no {name} in {samples:#?}"));
    of_name.iter().map(|(_, value)| value).sum()
}

/// The sample of a metric that has this value of a label.
#[track_caller]
pub(crate) fn with(samples: &Samples, name: &str, label: &str, value: &str) -> f64 {
    let of_name = samples.get(name).unwrap_or_else(|| panic!("no {name}"));
    let found = of_name
        .iter()
        .find(|(labels, _)| labels.get(label).is_some_and(|other| other == value));
    found
        .unwrap_or_else(|| panic!("no {label}={value} in {of_name:?}"))
        .1
}

/// Every sample must be of a family that was announced, with a description.
#[track_caller]
fn parse(text: &str) -> Samples {
    let mut samples = Samples::new();
    let mut announced = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<_> = comment.splitn(3, ' ').collect();
            assert!(words.len() == 3 && !words[2].is_empty(), "{line}");
            announced.push((words[0], words[1]));
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        for kind in ["HELP", "TYPE"] {
            assert!(announced.contains(&(kind, name)), "{line} has no {kind}");
        }
        let labels = labels.strip_suffix('}').unwrap();
        let labels = labels
            .split("\",")
            .filter(|label| !label.is_empty())
            .map(|label| {
                let (key, value) = label.split_once("=\"").unwrap();
                (key.to_owned(), value.trim_end_matches('"').to_owned())
            });
        let of_name = samples.entry(name.to_owned()).or_default();
        of_name.push((labels.collect(), value.parse().unwrap()));
    }
    samples
}
