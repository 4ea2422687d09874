//! `record`: the packets of NFLOG groups as a capture file.
//!
//! The file has whole records at any time that the program may be interrupted: it is flushed after each batch, and where that fails, what
//! was written of the batch is taken back.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Seek as _, Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use thiserror::Error;

use crate::agent::open_exit_code;
use crate::cli::{ConntrackArg, RecordArgs, netns_path};
use crate::exit_codes;
use crate::nflog::pcap::{WriteError, Writer};
use crate::nflog::{Batch, CloseError, Config, ConfigError, Flags, Loss, Netns, Nflog, OpenError, RecvError};

/// Longest time until a signal is heeded.
const LOOK: Duration = Duration::from_millis(100);

/// Why packets were not recorded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// NFLOG settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A group cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is a file already.
    #[error("{} is there already: name another file, or write over it with --overwrite", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Bytes on a terminal help nobody.
    #[error("standard output is a terminal: name a file, or pass it on, as in record ... - | tcpdump -nr -")]
    Terminal,
    /// The file cannot be made.
    #[error("cannot write {}: {source}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The file cannot be written on.
    #[error("{source}; {packets} packets are in the file")]
    Write {
        /// Packets written before.
        packets: u64,
        /// Cause.
        source: WriteError,
    },
    /// Receiving failed.
    #[error(transparent)]
    Recv(#[from] RecvError),
    /// The groups could not be left cleanly.
    #[error(transparent)]
    Close(#[from] CloseError),
    /// The kernel refuses a signal handler.
    #[error("cannot heed signals: {0}")]
    Signals(io::Error),
}

impl RecordError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Exists { .. } | Self::Terminal => exit_codes::USAGE,
            Self::Open(error) => open_exit_code(error),
            Self::Create { .. } | Self::Write { .. } => exit_codes::IO,
            Self::Recv(_) | Self::Close(_) | Self::Signals(_) => exit_codes::FAILED,
        }
    }
}

pub(super) fn record(args: &RecordArgs) -> Result<(), RecordError> {
    let stop = watch_signals().map_err(RecordError::Signals)?;
    let nflog = Nflog::open(&config(args)?)?;
    for warning in &nflog.effective().warnings {
        tell(format_args!("warning: {warning}"));
    }
    let file = create(&args.file, args.overwrite)?;
    let mut recording = Recording::begin(file, args.count.unwrap_or(u64::MAX))?;
    tell(format_args!("recording to {}", args.file.display()));
    let deadline = args.duration.map(|duration| Instant::now() + duration);
    let ran = recording.run(nflog, &stop, deadline);
    let packets = recording.end(ran.is_ok());
    match ran {
        // Who read the packets has seen enough.
        Err(RecordError::Write {
            source: WriteError::Io { source },
            ..
        }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(error),
        Ok(loss) => {
            tell(format_args!("{packets} packets recorded, {}", lost(&loss)));
            Ok(())
        }
    }
}

/// A line on standard error; if nobody reads that, there is nobody to tell.
fn tell(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(stderr(), "{line}");
}

/// The first signal asks for the end; the second one ends the program at once, for it may be waiting for who reads its output.
fn watch_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first time the flag is not set yet.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn config(args: &RecordArgs) -> Result<Config, ConfigError> {
    let netns = args.netns.as_deref().map(netns_path);
    let numbered = Flags::SEQ | Flags::SEQ_GLOBAL;
    Config::builder()
        .netns(netns.map_or(Netns::Current, Netns::Path))
        .groups(args.groups.iter().copied())
        .copy_range(args.copy_range)
        .flags(match args.conntrack {
            ConntrackArg::Auto => numbered | Flags::CONNTRACK,
            ConntrackArg::Off => numbered,
        })
        .build()
}

/// `None`: standard output.
fn create(path: &Path, overwrite: bool) -> Result<Option<File>, RecordError> {
    if path == Path::new("-") {
        return if stdout().is_terminal() {
            Err(RecordError::Terminal)
        } else {
            Ok(None)
        };
    }
    let file = if overwrite {
        File::create(path)
    } else {
        File::create_new(path)
    };
    file.map(Some).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => RecordError::Exists { path: path.into() },
        _ => RecordError::Create {
            path: path.into(),
            source,
        },
    })
}

fn lost(loss: &Loss) -> String {
    let unsure = if loss.pending {
        ", and it is not known yet how many more"
    } else {
        ""
    };
    format!("{} lost in the kernel{unsure}", loss.gaps)
}

struct Recording {
    writer: Writer<Box<dyn Write>>,
    /// What is written, if it has a length.
    file: Option<File>,
    /// Length of the file up to the last whole batch.
    whole: u64,
    /// Packets still to be recorded.
    left: u64,
    packets: u64,
}

impl Recording {
    fn begin(file: Option<File>, left: u64) -> Result<Self, RecordError> {
        let failed = |source| RecordError::Write { packets: 0, source };
        let out: Box<dyn Write> = match &file {
            Some(file) => Box::new(BufWriter::new(
                file.try_clone().map_err(WriteError::from).map_err(failed)?,
            )),
            None => Box::new(BufWriter::new(stdout())),
        };
        let mut recording = Self {
            writer: Writer::new(out).map_err(failed)?,
            file: file.filter(|file| file.metadata().is_ok_and(|file| file.is_file())),
            whole: 0,
            left,
            packets: 0,
        };
        recording.flush().map_err(failed)?;
        Ok(recording)
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        self.writer.flush()?;
        if let Some(file) = &mut self.file {
            self.whole = file.stream_position()?;
        }
        Ok(())
    }

    /// Returns how many packets there are in the file.
    fn end(self, whole: bool) -> u64 {
        let Self { writer, file, .. } = self;
        // Tries once more to write what it has.
        drop(writer);
        if let Some(file) = file.filter(|_| !whole) {
            // The error that led here is said.
            let _ = file.set_len(self.whole);
        }
        self.packets
    }

    fn run(
        &mut self,
        mut nflog: Nflog,
        stop: &AtomicBool,
        deadline: Option<Instant>,
    ) -> Result<Loss, RecordError> {
        while self.left > 0 && !stop.load(Ordering::Relaxed) {
            let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if rest.is_some_and(|rest| rest.is_zero()) {
                break;
            }
            let wait = rest.map_or(LOOK, |rest| rest.min(LOOK));
            if let Some(mut batch) = nflog.recv(Some(wait))? {
                self.batch(&mut batch)?;
            }
        }
        // What was logged before the end still belongs to it.
        let mut written = Ok(());
        let loss = nflog.close(|batch| {
            if written.is_ok() {
                written = self.batch(batch);
            }
        })?;
        written?;
        Ok(loss)
    }

    fn batch(&mut self, batch: &mut Batch<'_>) -> Result<(), RecordError> {
        let received = SystemTime::now();
        let packets = self.packets;
        let failed = |source| RecordError::Write { packets, source };
        let mut more = 0;
        for entry in batch {
            if self.left == 0 {
                break;
            }
            self.writer.write(&entry, received).map_err(failed)?;
            self.left -= 1;
            more += 1;
        }
        self.flush().map_err(failed)?;
        self.packets += more;
        Ok(())
    }
}
