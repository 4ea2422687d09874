//! What can go wrong with a spool.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A spool that cannot be used.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// Another agent has the directory.
    #[error("the spool {} is in use by another process; give each agent its own --spool directory", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The directory cannot be made, read or written.
    #[error("cannot use the spool {}: {source}; it must be a directory that the agent may write, on a local disk", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No thread for the disk.
    #[error(
        "cannot start the thread that writes the spool: {0}; raise the limit on processes (ulimit -u, TasksMax)"
    )]
    Thread(io::Error),
}
