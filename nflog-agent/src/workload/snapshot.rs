//! What `/proc` says of a process that is still there.

use std::fs;
use std::io;
use std::sync::Arc;

use super::membership::{self, Membership};
use crate::owner::{ProcFs, ProcessStat};
use crate::process::{Arguments, Parent};

/// A pid and the clock tick it started at: one process for the life of the boot.
pub(super) type Identity = (u32, u64);

/// Most bytes of arguments that are taken, as the probes do.
const ARGUMENTS_MAX: usize = 512;

/// A running process.
pub(super) struct Snapshot {
    pub(super) membership: Membership,
    /// The file that this was read from.
    pub(super) cgroup: Vec<u8>,
    pub(super) stat: ProcessStat,
    /// Target of `exe`, without ` (deleted)`.
    pub(super) executable: Option<String>,
    pub(super) arguments: Option<Arc<Arguments>>,
    pub(super) parent: Option<Parent>,
}

impl Snapshot {
    /// Reads the process; `None` if it is gone or its pid is another process's now.
    ///
    /// # Errors
    /// When it is neither read nor known to be gone: no descriptors left, no permission.
    pub(super) fn read(proc: &ProcFs, identity: Identity, arguments: bool) -> io::Result<Option<Self>> {
        let (pid, _) = identity;
        if running(proc, identity)?.is_none() {
            return Ok(None);
        }
        let Some(cgroup) = unless_gone(proc.read(pid, "cgroup"))? else {
            return Ok(None);
        };
        // A kernel thread has no executable; another's may be hidden. Neither makes the rest less true.
        let executable = fs::read_link(proc.path(pid, "exe")).ok();
        let cmdline = if arguments {
            proc.read(pid, "cmdline").ok()
        } else {
            None
        };
        let Some(stat) = running(proc, identity)? else {
            return Ok(None);
        };
        let Some(membership) = membership::read(&cgroup) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "cgroup"));
        };
        Ok(Some(Self {
            membership,
            cgroup,
            executable: executable.map(|path| {
                let path = path.to_string_lossy();
                path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned()
            }),
            arguments: cmdline.filter(|bytes| !bytes.is_empty()).map(|bytes| {
                let taken = &bytes[..bytes.len().min(ARGUMENTS_MAX)];
                Arc::new(Arguments::new(taken, taken.len() < bytes.len()))
            }),
            parent: parent(proc, stat.parent),
            stat,
        }))
    }
}

fn running(proc: &ProcFs, (pid, start_ticks): Identity) -> io::Result<Option<ProcessStat>> {
    Ok(unless_gone(proc.stat(pid))?.filter(|stat| stat.start_ticks == start_ticks))
}

/// The parent, if it is there; pid 0 is none.
fn parent(proc: &ProcFs, pid: u32) -> Option<Parent> {
    let stat = (pid != 0).then(|| proc.stat(pid).ok())??;
    Some(Parent { pid, comm: stat.comm })
}

/// `None` for the errors that `/proc/PID` gives once the process is gone.
fn unless_gone<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        Err(error) => Err(error),
    }
}
