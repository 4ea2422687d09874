//! `record`: the packets of NFLOG groups as a capture file.
//!
//! The file has whole records at any time that the program may be interrupted: it is flushed after each batch.

use std::fs::File;
use std::io::{self, BufWriter, Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use signal_hook::consts::{SIGINT, SIGTERM};
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
    pub(super) const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Exists { .. } => exit_codes::USAGE,
            Self::Open(error) => open_exit_code(error),
            Self::Create { .. } | Self::Write { .. } => exit_codes::IO,
            Self::Recv(_) | Self::Close(_) | Self::Signals(_) => 1,
        }
    }
}

pub(super) fn record(args: &RecordArgs) -> Result<(), RecordError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(RecordError::Signals)?;
    }
    let nflog = Nflog::open(&config(args)?)?;
    for warning in &nflog.effective().warnings {
        eprintln!("warning: {warning}");
    }
    let writer = Writer::new(create(&args.file, args.overwrite)?);
    let recording = Recording {
        writer: writer.map_err(|source| RecordError::Write { packets: 0, source })?,
        left: args.count.unwrap_or(u64::MAX),
        packets: 0,
    };
    eprintln!("recording to {}", args.file.display());
    let deadline = args.duration.map(|duration| Instant::now() + duration);
    match recording.run(nflog, &stop, deadline) {
        // Who read the packets has seen enough.
        Err(RecordError::Write {
            source: WriteError::Io { source },
            ..
        }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(error),
        Ok((packets, loss)) => {
            eprintln!("{packets} packets recorded, {}", lost(&loss));
            Ok(())
        }
    }
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

fn create(path: &Path, overwrite: bool) -> Result<Box<dyn Write>, RecordError> {
    if path == Path::new("-") {
        return Ok(Box::new(BufWriter::new(stdout())));
    }
    let file = if overwrite {
        File::create(path)
    } else {
        File::create_new(path)
    };
    match file {
        Ok(file) => Ok(Box::new(BufWriter::new(file))),
        Err(source) => Err(if source.kind() == io::ErrorKind::AlreadyExists {
            RecordError::Exists { path: path.into() }
        } else {
            RecordError::Create {
                path: path.into(),
                source,
            }
        }),
    }
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
    /// Packets still to be recorded.
    left: u64,
    packets: u64,
}

impl Recording {
    fn run(
        mut self,
        mut nflog: Nflog,
        stop: &AtomicBool,
        deadline: Option<Instant>,
    ) -> Result<(u64, Loss), RecordError> {
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
        Ok((self.packets, loss))
    }

    fn batch(&mut self, batch: &mut Batch<'_>) -> Result<(), RecordError> {
        let received = SystemTime::now();
        let packets = self.packets;
        let failed = |source| RecordError::Write { packets, source };
        for entry in batch {
            if self.left == 0 {
                break;
            }
            self.writer.write(&entry, received).map_err(failed)?;
            self.left -= 1;
            self.packets += 1;
        }
        self.writer.flush().map_err(failed)
    }
}
