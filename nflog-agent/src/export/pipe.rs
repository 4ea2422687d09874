//! Lines to stdout or a file. The writer has a thread of its own, so that a reader that stops reading holds up that
//! thread and nothing else.

use std::io::{ErrorKind, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::reply::PartialSuccess;
use super::retry::Failure;

/// Pause after `EAGAIN`: stdout may share a file description that someone else made non-blocking.
const BUSY: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Pipe {
    jobs: mpsc::Sender<Job>,
}

struct Job {
    payload: Bytes,
    done: oneshot::Sender<Result<(), ErrorKind>>,
}

impl Pipe {
    pub(super) fn new(mut output: Box<dyn Write + Send>) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            for job in queue {
                let outcome = write(&mut output, &job.payload);
                // Nobody waits for the outcome any more after the exporter's deadline.
                let _ = job.done.send(outcome);
                if outcome.is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { jobs })
    }

    pub(super) async fn send(&self, payload: Bytes) -> Result<PartialSuccess, Failure> {
        let (done, outcome) = oneshot::channel();
        // The thread ends at its first error: afterwards nobody takes jobs.
        let outcome = match self.jobs.send(Job { payload, done }) {
            Ok(()) => outcome.await.unwrap_or(Err(ErrorKind::BrokenPipe)),
            Err(_) => Err(ErrorKind::BrokenPipe),
        };
        outcome
            .map(|()| PartialSuccess::default())
            .map_err(Failure::Output)
    }
}

fn write(output: &mut dyn Write, payload: &[u8]) -> Result<(), ErrorKind> {
    let mut rest = payload;
    while !rest.is_empty() {
        match output.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero),
            Ok(written) => rest = &rest[written..],
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => thread::sleep(BUSY),
                kind => return Err(kind),
            },
        }
    }
    output.flush().map_err(|error| error.kind())
}
