//! A stand-in for Docker or Podman behind a socket: answers about one container, and faults at will.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::Value;

pub(crate) const DOCKER: &str = include_str!("../data/docker-container.json");
pub(crate) const PODMAN: &str = include_str!("../data/podman-container.json");

/// What the next question meets instead of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Status(u16),
    /// No answer until the client gives up.
    Silence,
    /// These bytes, then the end of the connection.
    Bytes(Vec<u8>),
    /// A good status with this body.
    Body(Vec<u8>),
}

#[derive(Default)]
struct State {
    faults: VecDeque<Fault>,
    requests: Vec<String>,
}

/// An engine. Its connections end with the process.
#[derive(Clone)]
pub(crate) struct Engine {
    socket: PathBuf,
    id: String,
    answer: String,
    state: Arc<Mutex<State>>,
}

/// The id in an answer.
pub(crate) fn id(answer: &str) -> String {
    let answer: Value = serde_json::from_str(answer).unwrap();
    answer["Id"].as_str().unwrap().to_owned()
}

impl Engine {
    pub(crate) fn start(socket: &Path, answer: &str) -> Self {
        let engine = Self {
            socket: socket.to_owned(),
            id: id(answer),
            answer: answer.to_owned(),
            state: Arc::default(),
        };
        let listener = UnixListener::bind(socket).unwrap();
        let serving = engine.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (serving, connection) = (serving.clone(), connection.unwrap());
                thread::spawn(move || serving.serve(&connection));
            }
        });
        engine
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// Paths that were asked for.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self, connection: &UnixStream) {
        let mut lines = BufReader::new(connection).lines();
        let Some(Ok(line)) = lines.next() else { return };
        while lines
            .next()
            .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
        {}
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let fault = {
            let mut state = self.state();
            state.requests.push(path.clone());
            state.faults.pop_front()
        };
        // The client may be gone by now.
        let _ = self.answer(connection, &path, fault.as_ref());
    }

    fn answer(&self, mut connection: &UnixStream, path: &str, fault: Option<&Fault>) -> std::io::Result<()> {
        let missing = br#"{"message":"No such container"}"#.as_slice();
        let (code, body) = match fault {
            Some(Fault::Silence) => {
                thread::sleep(Duration::from_secs(30));
                return Ok(());
            }
            Some(Fault::Bytes(bytes)) => return connection.write_all(bytes),
            Some(Fault::Status(code)) => (*code, missing),
            Some(Fault::Body(body)) => (200, body.as_slice()),
            None if path == format!("/containers/{}/json", self.id) => (200, self.answer.as_bytes()),
            None => (404, missing),
        };
        if fault.is_none() && code == 200 {
            // As both do: in chunks, of which none need end where a value does.
            let (first, rest) = body.split_at(body.len() / 2);
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            connection.write_all(head.as_bytes())?;
            for chunk in [first, rest, &[]] {
                let head = format!("{:x}\r\n", chunk.len());
                connection.write_all(&[head.as_bytes(), chunk, b"\r\n"].concat())?;
            }
            return Ok(());
        }
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        connection.write_all(&[head.as_bytes(), body].concat())
    }
}
