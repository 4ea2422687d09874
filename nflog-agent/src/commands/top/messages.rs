//! The agent's messages while the screen has the terminal: the last ones are kept, and go to standard error when it is free again.

use std::collections::VecDeque;
use std::io::{self, Write, stderr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Messages kept.
const KEPT: usize = 100;

/// Where messages go: a writer for `tracing_subscriber`.
#[derive(Clone, Debug, Default)]
pub struct Messages(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The screen is there.
    held: bool,
    lines: VecDeque<String>,
    dropped: u64,
}

impl Messages {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on messages are kept.
    pub(super) fn hold(&self) {
        self.state().held = true;
    }

    /// What was kept goes to standard error, and so does what comes.
    pub(super) fn release(&self) {
        let State { lines, dropped, .. } = std::mem::take(&mut *self.state());
        let mut error = stderr().lock();
        // Where there is no standard error there is nobody to tell.
        if dropped > 0 {
            let _ = writeln!(error, "({dropped} older messages are not shown)");
        }
        for line in lines {
            let _ = error.write_all(line.as_bytes());
        }
    }

    /// The last one kept, on one line.
    pub(super) fn last(&self) -> Option<String> {
        self.state().lines.back().map(|line| line.trim().to_owned())
    }
}

impl<'a> MakeWriter<'a> for Messages {
    type Writer = Message;

    fn make_writer(&'a self) -> Message {
        Message(self.clone())
    }
}

/// One message, which is written as a whole.
#[derive(Debug)]
pub struct Message(Messages);

impl Write for Message {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        if !state.held {
            drop(state);
            return stderr().write(text);
        }
        if state.lines.len() == KEPT {
            state.lines.pop_front();
            state.dropped += 1;
        }
        state.lines.push_back(String::from_utf8_lossy(text).into_owned());
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_messages_are_kept_while_the_screen_is_there() {
        let messages = Messages::default();
        messages.hold();
        for number in 0..KEPT + 2 {
            let line = format!("message {number}\n");
            messages.make_writer().write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(messages.last().as_deref(), Some("message 101"));
        let state = messages.state();
        assert_eq!((state.lines.len(), state.dropped), (KEPT, 2));
        drop(state);
        messages.release();
        assert_eq!(messages.last(), None);
    }
}
