//! Standard error, as far as the agent's own messages go there: who says something does not wait for who reads it.
//!
//! - Before [`start`] a line is written at once: there is one thread. From then on a thread of its own writes, and a reader of packets
//!   never waits for a pipe that nobody reads, nor for a disk.
//! - What waits is bounded. What finds no room, or cannot be written, is counted; how much is missing is said once lines get through.
//! - The lock is held for memory operations only.

use std::io::{self, Write, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait: some thousand lines.
const ROOM: usize = 1 << 20;

/// Name of the thread that writes.
pub const THREAD: &str = "messages";

static LINES: Lines = Lines::new(ROOM);

/// From now on a thread writes, in the role of the calling one.
///
/// # Errors
/// If the kernel refuses a thread.
pub fn start() -> io::Result<()> {
    thread::Builder::new()
        .name(THREAD.to_owned())
        .spawn(|| LINES.write_on(stderr()))?;
    LINES.lines().threaded = true;
    Ok(())
}

/// Waits until all lines are written, at most so long.
pub fn finish(patience: Duration) {
    LINES.finish(patience);
}

/// Lines that were not written.
pub(super) fn unwritten() -> u64 {
    LINES.unwritten.load(Ordering::Relaxed)
}

/// A writer of whole lines.
#[derive(Clone, Copy, Debug)]
pub struct StandardError;

impl Write for StandardError {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !LINES.put(line) {
            let written = stderr().write_all(line);
            if written.is_err() {
                LINES.account(line, &written);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for StandardError {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

/// Lines on their way.
#[derive(Debug)]
struct Lines {
    room: usize,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    unwritten: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    threaded: bool,
    lines: Vec<u8>,
    /// Lines that were taken are not written yet.
    writing: bool,
    /// Unwritten lines of which nothing was said.
    unsaid: u64,
}

impl Lines {
    const fn new(room: usize) -> Self {
        Self {
            room,
            waiting: Mutex::new(Waiting {
                threaded: false,
                lines: Vec::new(),
                writing: false,
                unsaid: 0,
            }),
            changed: Condvar::new(),
            unwritten: AtomicU64::new(0),
        }
    }

    fn lines(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a line to the thread, or counts it. `false`: there is no thread.
    fn put(&self, line: &[u8]) -> bool {
        let mut waiting = self.lines();
        if !waiting.threaded {
            return false;
        }
        if waiting.lines.len() + line.len() > self.room {
            waiting.unsaid += 1;
            self.unwritten.fetch_add(1, Ordering::Relaxed);
        } else {
            waiting.lines.extend(line);
            self.changed.notify_all();
        }
        true
    }

    /// Counts lines that could not be written. Returns what is to be said now.
    fn account(&self, lines: &[u8], written: &io::Result<()>) -> u64 {
        let mut waiting = self.lines();
        waiting.writing = false;
        self.changed.notify_all();
        if written.is_ok() {
            return std::mem::take(&mut waiting.unsaid);
        }
        let lost = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        waiting.unsaid += lost;
        self.unwritten.fetch_add(lost, Ordering::Relaxed);
        0
    }

    /// Writes what comes, for ever.
    fn write_on(&self, mut to: impl Write) {
        let mut lines = Vec::new();
        loop {
            self.take(&mut lines);
            let written = to.write_all(&lines);
            let missing = self.account(&lines, &written);
            if missing > 0 {
                tracing::warn!("{missing} messages before this one are missing: standard error took no more");
            }
        }
    }

    /// Waits for lines.
    fn take(&self, lines: &mut Vec<u8>) {
        lines.clear();
        let waiting = self
            .changed
            .wait_while(self.lines(), |waiting| waiting.lines.is_empty());
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut waiting.lines, lines);
        waiting.writing = true;
    }

    fn finish(&self, patience: Duration) {
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        // Whether or not it was enough: the process ends.
        drop(self.changed.wait_timeout_while(self.lines(), patience, busy));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Takes something each time that it is allowed to.
    struct Gate {
        open: Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.open.recv().map_err(io::Error::other)?;
            self.taken.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_who_reads_and_what_finds_no_room_is_counted() {
        let lines: &'static Lines = Box::leak(Box::new(Lines::new(100)));
        assert!(!lines.put(b"before the thread\n"));
        lines.lines().threaded = true;
        let (allow, open) = channel();
        let taken = Arc::default();
        let gate = Gate {
            open,
            taken: Arc::clone(&taken),
        };
        thread::spawn(|| lines.write_on(gate));
        assert!(lines.put(b"first\n"));
        while !lines.lines().writing {
            thread::yield_now();
        }
        for number in 0..15 {
            assert!(lines.put(format!("number {number:02}\n").as_bytes()));
        }
        assert_eq!(lines.unwritten.load(Ordering::Relaxed), 5);
        lines.finish(Duration::from_millis(1));
        assert!(taken.lock().unwrap().is_empty(), "that was the end of patience");
        (0..2).for_each(|_| allow.send(()).unwrap());
        lines.finish(PATIENCE);
        let expected: String = (0..10).map(|number| format!("number {number:02}\n")).collect();
        assert_eq!(*taken.lock().unwrap(), format!("first\n{expected}").as_bytes());
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_that_is_said_once_others_can() {
        let lines = Lines::new(100);
        let full = Err(io::ErrorKind::StorageFull.into());
        assert_eq!(lines.account(b"one\ntwo\n", &full), 0);
        assert_eq!(lines.account(b"three\n", &Ok(())), 2);
        assert_eq!(lines.account(b"four\n", &Ok(())), 0);
        assert_eq!(lines.unwritten.load(Ordering::Relaxed), 2);
    }
}
