//! One question to one engine.

use std::io;
use std::path::Path;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::workload::kubernetes::{Container, Image};

/// Longest answer. Those of containers with many mounts and labels have some ten kilobytes.
const ANSWER: usize = 1 << 20;
/// Longest name.
const NAME: usize = 255;

/// Why an engine did not answer.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// There is no engine.
    #[error("it does not run")]
    Away,
    #[error("the agent may not use its socket; whoever may is as good as root, see --container-sockets")]
    Denied,
    #[error("{0}")]
    Broken(#[from] io::Error),
    #[error("it does not speak HTTP: {0}")]
    Protocol(String),
    #[error("it answers with status {0}")]
    Status(u16),
    #[error("its answer is not about a container: {0}")]
    Unreadable(String),
    #[error("it has not answered for {0} s")]
    Silent(u64),
}

/// The answer as far as it is read; the same of Docker and of Podman.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    id: String,
    name: String,
    #[serde(default)]
    config: Config,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    image: Option<String>,
}

/// Asks the engine behind a socket for a container. `None`: it does not know it.
pub(super) async fn inspect(socket: &Path, id: &str) -> Result<Option<Container>, Failure> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::Away,
            io::ErrorKind::PermissionDenied => Failure::Denied,
            _ => Failure::Broken(error),
        })?;
    let protocol = |error: &dyn std::error::Error| Failure::Protocol(error.to_string());
    let (mut sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| protocol(&error))?;
    // Ends with this function.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let request = hyper::Request::get(format!("/containers/{id}/json"))
        .header(hyper::header::HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(|error| protocol(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| protocol(&error))?;
    match response.status().as_u16() {
        200 => {}
        404 => return Ok(None),
        code => return Err(Failure::Status(code)),
    }
    let body = Limited::new(response.into_body(), ANSWER).collect().await;
    let body = body.map_err(|error| Failure::Protocol(error.to_string()))?;
    read(&body.to_bytes(), id).map(Some)
}

/// Reads an answer about a container.
fn read(body: &[u8], id: &str) -> Result<Container, Failure> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|error| Failure::Unreadable(error.to_string()))?;
    // Engines take names and beginnings of ids, too.
    if answer.id != id {
        return Err(Failure::Unreadable("it is about another one".to_owned()));
    }
    // Docker's begin with a slash.
    let name = answer.name.strip_prefix('/').unwrap_or(&answer.name);
    if name.is_empty() || name.len() > NAME || name.chars().any(char::is_control) {
        return Err(Failure::Unreadable("it has no name".to_owned()));
    }
    Ok(Container {
        name: name.to_owned(),
        image: answer.config.image.as_deref().and_then(Image::parse),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_if_it_is_about_the_container_and_names_it() {
        let answer = |id: &str, name: &str| {
            format!(r#"{{"Id":"{id}","Name":"{name}","Config":{{"Image":"nginx:1"}}}}"#)
        };
        let container = read(answer("ab", "/web").as_bytes(), "ab").unwrap();
        assert_eq!(
            (container.name.as_str(), container.image),
            ("web", Image::parse("nginx:1"))
        );
        let long = "x".repeat(NAME + 1);
        for wrong in [
            String::new(),
            "{}".to_owned(),
            "[1]".to_owned(),
            answer("abc", "/web"),
            answer("ab", "/"),
            answer("ab", r"/a\nb"),
            answer("ab", &long),
        ] {
            assert!(read(wrong.as_bytes(), "ab").is_err(), "{wrong}");
        }
        let bare = br#"{"Id":"ab","Name":"x","Config":{"Image":"sha256:00ff"}}"#;
        assert_eq!(read(bare, "ab").unwrap().image, None);
    }
}
