//! A stand-in for kube-apiserver that serves pods and services: pages, watches with a history, and faults at will.
//!
//! It speaks HTTP/1.1 by hand, so that it can stop in the middle of an event.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

fn forbidden(resource: &str) -> String {
    format!(
        "{resource} is forbidden: User \"system:serviceaccount:nflog-agent:nflog-agent\" cannot list resource \"{resource}\" in API \
         group \"\" at the cluster scope"
    )
}

/// What a path is about.
fn resource(path: &str) -> &str {
    let path = path.split('?').next().unwrap();
    path.rsplit('/').next().unwrap()
}

/// What an object is.
fn kind(object: &Value) -> (&'static str, &'static str) {
    match object["kind"].as_str() {
        Some("Service") => ("services", "Service"),
        _ => ("pods", "Pod"),
    }
}

/// What the next request meets instead of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// A `Status` with this code.
    Status(u16),
    /// No answer until the client gives up.
    Silence,
    /// The connection ends without an answer.
    HangUp,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By resource and UID.
    objects: BTreeMap<(&'static str, String), Value>,
    /// Version, resource and event.
    log: Vec<(u64, &'static str, Value)>,
    /// History before this version is gone.
    oldest: u64,
    faults: VecDeque<Fault>,
    forbidden: BTreeSet<&'static str>,
    unwatched: BTreeSet<&'static str>,
    token: String,
    /// Open watches of an earlier count end in the middle of an event.
    cuts: u64,
    requests: Vec<String>,
}

/// The server. Its connections end with the process.
#[derive(Clone)]
pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap())
    }

    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
        };
        server.state().token = "first-token".to_owned();
        server.state().version = 1000;
        let serving = server.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (serving, connection) = (serving.clone(), connection.unwrap());
                thread::spawn(move || serving.serve(&connection));
            }
        });
        server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A kubeconfig for this server, and the file of the token.
    pub(crate) fn kubeconfig(address: SocketAddr, directory: &Path) -> (PathBuf, PathBuf) {
        let (config, token) = (directory.join("config"), directory.join("token"));
        std::fs::write(&token, "first-token").unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: k\n  cluster:\n    server: http://{address}\n\
             users:\n- name: u\n  user:\n    tokenFile: {}\ncontexts:\n- name: c\n  context:\n    cluster: k\n    user: u\n",
            token.display()
        );
        std::fs::write(&config, text).unwrap();
        (config, token)
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds or changes a pod or a service.
    pub(crate) fn put(&self, mut object: Value) {
        let mut state = self.state();
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        let (resource, _) = kind(&object);
        let key = (resource, object["metadata"]["uid"].as_str().unwrap().to_owned());
        let change = if state.objects.contains_key(&key) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        let event = (state.version, resource, json!({"type": change, "object": object}));
        state.log.push(event);
        state.objects.insert(key, object);
    }

    /// Deletes a pod or a service.
    pub(crate) fn delete(&self, uid: &str) {
        let mut state = self.state();
        state.version += 1;
        let key = state
            .objects
            .keys()
            .find(|(_, other)| other == uid)
            .unwrap()
            .clone();
        let mut object = state.objects.remove(&key).unwrap();
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        let event = (state.version, key.0, json!({"type": "DELETED", "object": object}));
        state.log.push(event);
    }

    pub(crate) fn bookmark(&self) {
        let mut state = self.state();
        state.version += 1;
        let metadata = json!({"resourceVersion": state.version.to_string(), "creationTimestamp": null});
        let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"containers": null}, "status": {}});
        let event = (
            state.version,
            "pods",
            json!({"type": "BOOKMARK", "object": object}),
        );
        state.log.push(event);
    }

    /// Open watches end in the middle of an event.
    pub(crate) fn cut(&self) {
        self.state().cuts += 1;
    }

    /// Open watches end, and the history up to now is gone.
    pub(crate) fn compact(&self) {
        let mut state = self.state();
        state.version += 1;
        state.oldest = state.version;
        state.log.clear();
        state.cuts += 1;
    }

    pub(crate) fn fail(&self, faults: &[Fault]) {
        self.state().faults.extend(faults);
    }

    pub(crate) fn forbid(&self, resource: &'static str, forbidden: bool) {
        let all = &mut self.state().forbidden;
        if forbidden {
            all.insert(resource);
        } else {
            all.remove(resource);
        }
    }

    /// It may be listed, and not watched.
    pub(crate) fn forbid_watching(&self, resource: &'static str) {
        self.state().unwatched.insert(resource);
    }

    pub(crate) fn rotate_token(&self, token: &str) {
        self.state().token = token.to_owned();
    }

    /// Paths of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    fn serve(&self, connection: &TcpStream) {
        let mut reader = BufReader::new(connection);
        while let Some((path, token)) = read_head(&mut reader) {
            let (fault, refused, cuts) = {
                let mut state = self.state();
                state.requests.push(path.clone());
                let known = format!("Bearer {}", state.token);
                let refused = if token == known {
                    let resource = resource(&path);
                    let watches = path.contains("watch=true") && state.unwatched.contains(resource);
                    let is_forbidden = watches || state.forbidden.contains(resource);
                    is_forbidden.then(|| (403, forbidden(resource)))
                } else {
                    Some((401, "Unauthorized".to_owned()))
                };
                // Noted with the request: a cut after it is this watch's.
                (state.faults.pop_front(), refused, state.cuts)
            };
            let sent = match (fault, refused) {
                (Some(Fault::HangUp), _) => return,
                (Some(Fault::Silence), _) => {
                    thread::sleep(Duration::from_secs(30));
                    return;
                }
                (Some(Fault::Status(code)), _) => {
                    answer(connection, code, &status(code, "as the test wants it"))
                }
                (None, Some((code, message))) => answer(connection, code, &status(code, &message)),
                (None, None) if path.contains("watch=true") => self.watch(connection, &path, cuts),
                (None, None) => self.list(connection, &path),
            };
            if sent.is_err() {
                return;
            }
        }
    }

    fn list(&self, connection: &TcpStream, path: &str) -> std::io::Result<()> {
        let number = |name: &str| query(path, name).and_then(|value| value.parse::<usize>().ok());
        let (start, limit) = (
            number("continue").unwrap_or(0),
            number("limit").unwrap_or(usize::MAX),
        );
        let state = self.state();
        let all = state.objects.iter();
        let all: Vec<_> = all.filter(|((of, _), _)| *of == resource(path)).collect();
        let end = all.len().min(start.saturating_add(limit));
        let mut metadata = json!({"resourceVersion": state.version.to_string()});
        if end < all.len() {
            metadata["continue"] = end.to_string().into();
            metadata["remainingItemCount"] = (all.len() - end).into();
        }
        let items: Vec<_> = all[start..end].iter().map(|(_, object)| object).collect();
        let kind = match resource(path) {
            "services" => "ServiceList",
            _ => "PodList",
        };
        let list = json!({"kind": kind, "apiVersion": "v1", "metadata": metadata, "items": items});
        drop(state);
        answer(connection, 200, &list)
    }

    fn watch(&self, mut connection: &TcpStream, path: &str, cuts: u64) -> std::io::Result<()> {
        connection.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        let mut version: u64 = query(path, "resourceVersion").unwrap().parse().unwrap();
        loop {
            let (events, cut, oldest) = {
                let state = self.state();
                let news = state
                    .log
                    .iter()
                    .filter(|(at, of, _)| *at > version && *of == resource(path));
                (
                    news.cloned().collect::<Vec<_>>(),
                    state.cuts != cuts,
                    state.oldest,
                )
            };
            if cut {
                // Announces more than it sends.
                connection
                    .write_all(b"400\r\n{\"type\":\"MODIFIED\",\"object\":{\"metadata\":{\"name\":\"we")?;
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            if version < oldest {
                let gone = status(410, "too old resource version: 1 (2)");
                chunk(connection, &json!({"type": "ERROR", "object": gone}))?;
                return connection.write_all(b"0\r\n\r\n");
            }
            for (at, _, event) in events {
                version = at;
                chunk(connection, &event)?;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<(String, String)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&length| length > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut token = String::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok().filter(|&length| length > 0)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => token = value.to_owned(),
            Some(_) => {}
            None => return Some((path, token)),
        }
    }
}

fn query<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let pairs = path.split_once('?')?.1.split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find(|(other, _)| *other == name)
        .map(|(_, value)| value)
}

fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": "R", "code": code})
}

fn answer(mut connection: &TcpStream, code: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let length = body.len();
    let head =
        format!("HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    connection.write_all(format!("{head}{body}").as_bytes())
}

fn chunk(mut connection: &TcpStream, event: &Value) -> std::io::Result<()> {
    let line = format!("{event}\n");
    connection.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())
}
