//! `top`: an agent whose records are counted and shown, live on a terminal or as plain text.
//!
//! Data flow: the agent's readers count into a `tally` each (`tallier`), which are added up in a basket; the thread of the view
//! empties it once an interval into its `model`, and shows that by `view` or `plain`. The view never makes a reader wait for
//! the terminal.

mod arguments;
mod browser;
mod keys;
mod messages;
mod model;
mod plain;
mod quantity;
mod screen;
mod tallier;
mod tally;
mod view;

use std::io::{self, ErrorKind, IsTerminal as _, Write as _, stdin, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ratatui::crossterm::style::force_color_output;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use thiserror::Error;

pub use arguments::{TopArgs, ViewArgs};
pub use messages::{Message, Messages};
pub use tally::By;

use crate::agent::{self, RunError, Viewer, colour};
use crate::exit_codes;
use crate::nflog::OpenError;
use crate::record::Encoder;
use crate::settings::Settings;
use crate::telemetry::ledger::Ledger;
use model::Model;
use tallier::{Basket, Tallier};

/// How often to look for the end.
const POLL: Duration = Duration::from_millis(50);

/// Examples and what has to be known, for `--help`.
pub(crate) const EXAMPLES: &str = "\
It reads like run, so nothing else may read the same groups: beside a running agent let a rule
log to a second group. Flags of run about the output have no effect.

Keys: q quit, 1-6 or tab another table, s sort by the next column, / filter, p or space pause,
up and down scroll. NO_COLOR is honoured.
A table has 4096 names at most; quiet ones make room, and are counted together as others.
Totals are since the start.

Examples:
  nflog-agent top --group 7
  nflog-agent top --group 7 --netns-of-cgroup '/kubepods*' --view workloads
  nflog-agent top --group 7 --batch --interval 10s --count 6 --view processes";

/// Why `top` ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TopError {
    /// Standard input or output is not one.
    #[error(
        "standard input and output are no terminal that can show a live view: use --batch for plain text"
    )]
    NoTerminal,
    /// Somebody reads the group.
    #[error(
        "{0}; a group has one reader, which may be nflog-agent run: stop it, or let a rule log to a second group for top, as \
         nflog-agent rules prints it with --group"
    )]
    Busy(Box<RunError>),
    /// The agent.
    #[error(transparent)]
    Run(Box<RunError>),
    /// No signal handlers, or no thread.
    #[error("cannot start the view: {0}; raise the limit on processes (ulimit -u, TasksMax)")]
    System(io::Error),
    /// The terminal, or standard output.
    #[error("cannot write to the terminal or standard output: {0}")]
    Output(io::Error),
    /// A bug.
    #[error("the view ended in a bug; its message is above")]
    Panicked,
}

impl TopError {
    /// Exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoTerminal => exit_codes::USAGE,
            Self::Busy(error) | Self::Run(error) => error.exit_code(),
            Self::Output(_) => exit_codes::IO,
            Self::System(_) | Self::Panicked => exit_codes::FAILED,
        }
    }
}

/// Runs an agent and shows what it reads, until a key, a signal, or the last report. `messages` is where the agent's own messages
/// are written.
///
/// # Errors
/// See [`TopError`].
pub fn run(settings: &Settings, view: &ViewArgs, messages: Messages) -> Result<(), TopError> {
    if !view.batch && !has_screen(settings) {
        return Err(TopError::NoTerminal);
    }
    let top = Arc::new(Top {
        view: view.clone(),
        reading: reading(settings),
        colour: colour(settings.args.output.color, |name| settings.variable(name)),
        messages,
        basket: Arc::default(),
        ledger: OnceLock::new(),
        thread: Mutex::default(),
        signalled: Arc::default(),
        done: AtomicBool::new(false),
        ended: AtomicBool::new(false),
    });
    if !view.batch {
        top.watch_signals().map_err(TopError::System)?;
    }
    let ran = agent::show(settings, Arc::clone(&top) as Arc<dyn Viewer>);
    let shown = top.end();
    ran.map_err(|error| match error {
        RunError::Open(OpenError::GroupBusy { .. }) => TopError::Busy(Box::new(error)),
        error => TopError::Run(Box::new(error)),
    })?;
    shown
}

fn has_screen(settings: &Settings) -> bool {
    // Keys could be read from /dev/tty, too, but the sandbox keeps that shut.
    stdin().is_terminal()
        && stdout().is_terminal()
        && settings.variable("TERM").is_none_or(|term| term != "dumb")
}

/// In the screen's first line.
fn reading(settings: &Settings) -> String {
    let args = &settings.args;
    let groups: Vec<_> = args.groups.iter().map(u16::to_string).collect();
    let patterns = args.netns_of_cgroup.iter().map(agent::CgroupPattern::as_str);
    let places: Vec<_> = args.netns.iter().map(String::as_str).chain(patterns).collect();
    let groups = groups.join(",");
    if places.is_empty() {
        format!("group {groups}")
    } else {
        format!("group {groups} in {}", places.join(","))
    }
}

/// The view, between the agent's threads and its own.
struct Top {
    view: ViewArgs,
    reading: String,
    colour: bool,
    messages: Messages,
    basket: Arc<Basket>,
    ledger: OnceLock<Arc<Ledger>>,
    /// That of the view, or why there is none.
    thread: Mutex<Option<io::Result<JoinHandle<io::Result<()>>>>>,
    /// A signal has come: the terminal must be free before a second one ends the process.
    signalled: Arc<AtomicBool>,
    /// The view is over.
    done: AtomicBool,
    /// The agent is over.
    ended: AtomicBool,
}

impl Viewer for Top {
    fn encoder(&self, ledger: &Arc<Ledger>) -> Box<dyn Encoder> {
        Box::new(Tallier::new(&self.basket, ledger))
    }

    fn begin(self: Arc<Self>, ledger: &Arc<Ledger>) {
        let _ = self.ledger.set(Arc::clone(ledger));
        let top = Arc::clone(&self);
        let thread = thread::Builder::new().name("view".to_owned()).spawn(move || {
            let _done = Done(&top.done);
            if top.view.batch {
                top.batch()
            } else {
                screen::run(&top)
            }
        });
        if thread.is_err() {
            self.done.store(true, Ordering::Release);
        }
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// Says that the view is over, also if that is by a panic.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Top {
    fn watch_signals(&self) -> io::Result<()> {
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register(signal, Arc::clone(&self.signalled))?;
        }
        // The terminal library looks at NO_COLOR by itself; the operator may have overridden it.
        force_color_output(self.colour);
        Ok(())
    }

    /// Whether the view has to end.
    fn is_over(&self) -> bool {
        self.ended.load(Ordering::Acquire) || self.signalled.load(Ordering::Acquire)
    }

    /// Ends an interval of the model.
    fn advance(&self, model: &mut Model, interval: Duration) {
        let account = self.ledger.get().map(|ledger| ledger.snapshot());
        model.advance(tallier::take(&self.basket), interval, account);
    }

    /// Prints reports: each interval, and one when the agent has ended, unless as many are printed as were asked for.
    fn batch(&self) -> io::Result<()> {
        let mut model = Model::default();
        let mut last = Instant::now();
        let mut left = self.view.count;
        while left != Some(0) {
            let due = last + self.view.interval;
            while !self.is_over() && Instant::now() < due {
                thread::sleep(due.saturating_duration_since(Instant::now()).min(POLL));
            }
            let is_last = self.is_over();
            let now = Instant::now();
            self.advance(&mut model, now - last);
            last = now;
            match self.print(&model) {
                // Nobody reads it any more.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                printed => printed?,
            }
            if is_last {
                break;
            }
            left = left.map(|left| left - 1);
        }
        Ok(())
    }

    fn print(&self, model: &Model) -> io::Result<()> {
        let views = self.view.view.map_or_else(|| By::ALL.to_vec(), |view| vec![view]);
        let rows = usize::try_from(self.view.rows).unwrap_or(usize::MAX);
        let mut out = stdout().lock();
        out.write_all(plain::report(model, &views, rows).as_bytes())?;
        out.flush()
    }

    /// The agent has ended: so does the view.
    fn end(&self) -> Result<(), TopError> {
        self.ended.store(true, Ordering::Release);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // There is none if the agent ended before it read.
        let Some(thread) = thread.transpose().map_err(TopError::System)? else {
            return Ok(());
        };
        match thread.join() {
            Ok(shown) => shown.map_err(TopError::Output),
            Err(_) => Err(TopError::Panicked),
        }
    }
}
