//! What the process can still do once everything is open: capabilities, seccomp, Landlock.
//!
//! - Capabilities, `no_new_privs` and Landlock are of a thread, and inherited by the threads that it starts. So each thread has a
//!   [`Role`] from its first moment, or inherits one; the main thread takes its role last, before it starts the readers.
//! - Two roles, because Landlock also forbids to look into other processes' `/proc/PID`, which the readers must. They may write no
//!   file at all; the others, which talk to the network, may see only some files, write only the spool, and have no capability.
//! - Threads share their memory: a role is no wall between threads that run foreign code, the sum of both roles is what the process
//!   can do. The list of forbidden system calls is for all of it.
//! - What a kernel lacks is said and left out. What the settings need is tried, on a thread that ends afterwards.

mod capabilities;
mod files;
mod syscalls;

use std::io;
use std::path::PathBuf;
use std::thread;

use rustix::thread::{CapabilitySet, set_no_new_privs};
use thiserror::Error;

pub use capabilities::{Kept, allowed, described, names};
use capabilities::{drop_bounding, held, lower};
use files::{Paths, Reached};

use crate::owner::Counters;
use crate::telemetry::standard_error;

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Looks at this host: reads NFLOG, `/proc`, namespaces.
    Inward,
    /// Talks to the network and writes the spool and the output.
    Outward,
}

/// Names of the threads in the role [`Role::Outward`], the SDK's for metrics among them as the kernel cuts it; all others are inward.
pub const OUTWARD_THREADS: [&str; 6] = [
    NETWORK,
    "spool",
    "output",
    "probe messages",
    standard_error::THREAD,
    "OpenTelemetry.M",
];

/// Name of the threads of the tokio runtime.
pub const NETWORK: &str = "network";

/// What the settings need after the start.
#[derive(Default)]
pub struct Needs {
    /// Namespaces that come later are entered and read.
    pub namespaces: bool,
    /// The descriptors of other users' processes are listed: attribution by socket diagnostics.
    pub descriptors: bool,
    /// The probes' counters: to try whether maps can be read without CAP_BPF.
    pub maps: Option<Counters>,
    /// Files that are read again and again: certificates, keys, credentials.
    pub files: Vec<PathBuf>,
    /// What names namespaces.
    pub named: Vec<PathBuf>,
    /// The spool's directory. It exists.
    pub spool: Option<PathBuf>,
}

/// A thread cannot be confined.
#[derive(Debug, Error)]
pub enum ConfinementError {
    /// Capabilities.
    #[error("cannot drop capabilities: {0}")]
    Capabilities(io::Error),
    /// Landlock.
    #[error("Landlock: {0}")]
    Files(#[from] landlock::RulesetError),
    /// The list of system calls.
    #[error("seccomp: {0}; the kernel needs CONFIG_SECCOMP_FILTER")]
    Seccomp(#[from] seccompiler::Error),
    /// As before, when the filter is made.
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::BackendError),
    /// No thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// What each role is left with.
pub struct Confinement(Option<Limits>);

struct Limits {
    inward: CapabilitySet,
    outward: CapabilitySet,
    paths: Paths,
    read_only: seccompiler::BpfProgram,
    /// Landlock is in force for the outward threads.
    files: bool,
}

impl Confinement {
    /// Confines nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Forbids to the whole process what no role needs, and decides what the roles keep. Says what was reached.
    ///
    /// # Errors
    /// If the kernel refuses a thread.
    pub fn start(needs: &Needs) -> Result<Self, ConfinementError> {
        let held = held()?;
        let tried = tried(needs)?;
        let kept = |role| {
            let wanted = capabilities::wanted(role, needs, &tried);
            (capabilities::union(&wanted) & held, wanted)
        };
        let ((inward, inward_kept), (outward, outward_kept)) = (kept(Role::Inward), kept(Role::Outward));
        say_missing(held, &[&inward_kept[..], &outward_kept].concat());
        let calls = forbid(needs.namespaces).inspect_err(|error| {
            tracing::warn!("system calls are not restricted: {error}");
        });
        if let Err(error) = drop_bounding(inward | outward) {
            tracing::debug!(
                "the capability bounding set stays as it is ({error}); no_new_privs makes it useless"
            );
        }
        let mut limits = Limits {
            inward,
            outward,
            paths: Paths::of(&needs.files, needs.spool.as_deref()),
            read_only: syscalls::read_only()?,
            files: false,
        };
        let reached = on_thread(|| limits.enter(Role::Outward))?;
        let files = match &reached {
            Ok(reached) => {
                limits.files = reached.is_enforced();
                reached.to_string()
            }
            Err(error) => {
                tracing::warn!("threads of the network are not confined: {error}");
                "not confined".to_owned()
            }
        };
        tracing::info!(
            "confined: keeps {}; threads of the network {}, {files}; {} system calls forbidden",
            described(inward, &inward_kept),
            if outward.is_empty() {
                "no capability".to_owned()
            } else {
                names(outward)
            },
            calls.unwrap_or(0),
        );
        Ok(Self(Some(limits)))
    }

    /// Whether outward threads see only some files: where the kernel has Landlock.
    #[must_use]
    pub fn restricts_files(&self) -> bool {
        self.0.as_ref().is_some_and(|limits| limits.files)
    }

    /// Takes a role, for good, for this thread and those that it starts. Says what fails.
    pub fn enter(&self, role: Role) {
        if let Some(limits) = &self.0
            && let Err(error) = limits.enter(role)
        {
            tracing::error!("this thread is not confined: {error}");
        }
    }

    /// The same, unless the thread that started this one had the role [`Role::Outward`] already.
    pub fn enter_outward_once(&self) {
        let Some(limits) = &self.0 else { return };
        // A thread in no role has CAP_NET_ADMIN at least, as the agent does not start without.
        if held().is_ok_and(|held| (held - limits.outward).is_empty()) {
            return;
        }
        self.enter(Role::Outward);
    }

    /// Runs `start` in a role: the threads that it starts have the role.
    ///
    /// # Errors
    /// If the kernel refuses a thread.
    pub fn run_as<T: Send>(
        &self,
        role: Role,
        start: impl FnOnce() -> T + Send,
    ) -> Result<T, ConfinementError> {
        if self.0.is_none() {
            return Ok(start());
        }
        on_thread(|| {
            self.enter(role);
            start()
        })
    }
}

impl Limits {
    fn enter(&self, role: Role) -> Result<Reached, ConfinementError> {
        let (capabilities, reached) = match role {
            Role::Inward => (self.inward, Reached::default()),
            Role::Outward => (self.outward, self.paths.restrict()?),
        };
        lower(capabilities)?;
        if role == Role::Inward || self.paths.are_read_only() {
            seccompiler::apply_filter(&self.read_only)?;
        }
        Ok(reached)
    }
}

/// What turned out to need a capability.
#[derive(Clone, Copy, Debug, Default)]
struct Tried {
    /// Maps cannot be read without CAP_BPF: before 5.19, where `kernel.unprivileged_bpf_disabled` is set.
    maps: bool,
    /// A file that is read again belongs to another user, who alone may read it.
    files: bool,
    /// Likewise something that names a namespace.
    named: bool,
    /// The spool cannot be written.
    spool: bool,
}

/// Says what is wanted and was never there.
fn say_missing(held: CapabilitySet, wanted: &[Kept]) {
    let missing = capabilities::union(wanted) - held;
    if !missing.is_empty() {
        tracing::warn!(
            "missing: {}; grant it, or what it is for is not done",
            described(missing, wanted)
        );
    }
}

/// Tries it without any capability, on a thread of its own.
fn tried(needs: &Needs) -> Result<Tried, ConfinementError> {
    on_thread(|| {
        lower(CapabilitySet::empty())?;
        Ok(Tried {
            maps: needs.maps.as_ref().is_some_and(|maps| maps.read().is_err()),
            files: needs.files.iter().any(|path| files::is_denied(path)),
            named: needs.named.iter().any(|path| files::is_denied(path)),
            spool: needs.spool.as_deref().is_some_and(files::is_not_writable),
        })
    })?
}

fn on_thread<T: Send>(body: impl FnOnce() -> T + Send) -> Result<T, ConfinementError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("confined".to_owned())
            .spawn_scoped(scope, body)
            .map_err(ConfinementError::Thread)?;
        Ok(thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Forbids system calls to all threads that there are, and to those to come. Returns how many.
fn forbid(namespaces: bool) -> Result<usize, ConfinementError> {
    set_no_new_privs(true).map_err(|error| ConfinementError::Capabilities(error.into()))?;
    let (program, count) = syscalls::forbidden(namespaces)?;
    seccompiler::apply_filter_all_threads(&program)?;
    seccompiler::apply_filter_all_threads(&syscalls::absent()?)?;
    Ok(count)
}
