//! What happens to processes: a fork, an exec, an end. The programs put each into a ring buffer, the agent reads them in order.

use core::mem::{align_of, offset_of, size_of};

use crate::COMM_LEN;

/// One program that one process ran: a process, and which of its execs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ImageId {
    /// Start of the thread group leader, ns since boot (`task_struct.start_boottime`).
    pub start_boottime: u64,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// `task_struct.self_exec_id`, modulo 2^32: one more with each exec. A child goes on from its parent's.
    pub exec_id: u32,
}

/// The head of an event; the text follows: [`ProcessEvent::path_len`] bytes of the executable's path,
/// [`ProcessEvent::cgroup_len`] of the cgroup's path, then [`ProcessEvent::args_len`] bytes of arguments.
///
/// Paths are the names of their components, each with a NUL at its end, the last one first. Arguments are as in
/// `/proc/PID/cmdline`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessEvent {
    /// The process that was made, that runs a program from now on, or that ended.
    pub image: ImageId,
    /// Fork: the process that called it, whose program the new one goes on with. Else 0.
    pub origin: ImageId,
    /// The parent at that moment (`real_parent`); 0 if it could not be read. Not for an end.
    pub parent: ImageId,
    /// cgroup id: see [`CGROUP_V1`](crate::CGROUP_V1).
    pub cgroup_id: u64,
    /// `comm` of the parent's main thread.
    pub parent_comm: [u8; COMM_LEN],
    /// One of [`process_event`].
    pub kind: u8,
    /// Not 0: there are more arguments than bytes for them.
    pub args_cut: u8,
    /// Bytes of the executable's path; 0 if it could not be read or is too long.
    pub path_len: u16,
    /// Bytes of the path of the cgroup with `cgroup_id`; 0 for the root, and if it could not be read or is too long.
    pub cgroup_len: u16,
    /// Bytes of the arguments.
    pub args_len: u16,
}

/// Most bytes of arguments in an event.
pub const ARGS_MAX: usize = 512;

/// Most bytes of an executable's path in an event.
pub const PATH_MAX: usize = 1024;

/// Most bytes of both paths in an event.
pub const PATHS_MAX: usize = 2048;

/// Room that the programs take for an event's text.
pub const TEXT_MAX: usize = 4096;

/// The text of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessText<'a> {
    /// Names of the executable's path.
    pub path: &'a [u8],
    /// Names of the cgroup's path.
    pub cgroup: &'a [u8],
    /// Arguments.
    pub args: &'a [u8],
}

/// Kinds of [`ProcessEvent`].
pub mod process_event {
    /// A process was made. It runs its maker's program.
    pub const FORK: u8 = 1;
    /// A process runs another program from now on.
    pub const EXEC: u8 = 2;
    /// The last thread of a process ended.
    pub const EXIT: u8 = 3;
}

impl ImageId {
    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            start_boottime: u64::from_ne_bytes(field(bytes, offset_of!(Self, start_boottime))?),
            tgid: u32::from_ne_bytes(field(bytes, offset_of!(Self, tgid))?),
            exec_id: u32::from_ne_bytes(field(bytes, offset_of!(Self, exec_id))?),
        })
    }
}

impl ProcessEvent {
    /// Reads an event as it lies in the ring buffer: head and text. `None` if it is shorter than it says.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<(Self, ProcessText<'_>)> {
        let image = |at: usize| ImageId::decode(bytes.get(at..)?);
        let event = Self {
            image: image(offset_of!(Self, image))?,
            origin: image(offset_of!(Self, origin))?,
            parent: image(offset_of!(Self, parent))?,
            cgroup_id: u64::from_ne_bytes(field(bytes, offset_of!(Self, cgroup_id))?),
            parent_comm: field(bytes, offset_of!(Self, parent_comm))?,
            kind: *bytes.get(offset_of!(Self, kind))?,
            args_cut: *bytes.get(offset_of!(Self, args_cut))?,
            path_len: u16::from_ne_bytes(field(bytes, offset_of!(Self, path_len))?),
            cgroup_len: u16::from_ne_bytes(field(bytes, offset_of!(Self, cgroup_len))?),
            args_len: u16::from_ne_bytes(field(bytes, offset_of!(Self, args_len))?),
        };
        let text = bytes.get(size_of::<Self>()..)?;
        let (path, text) = text.split_at_checked(event.path_len.into())?;
        let (cgroup, text) = text.split_at_checked(event.cgroup_len.into())?;
        let args = text.get(..event.args_len.into())?;
        Some((event, ProcessText { path, cgroup, args }))
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

const _: () = {
    assert!(size_of::<ImageId>() == 16 && align_of::<ImageId>() == 8);
    assert!(size_of::<ProcessEvent>() == 80 && align_of::<ProcessEvent>() == 8);
    // A name has up to 255 bytes and a NUL, and may begin before the end of what is allowed.
    assert!(PATHS_MAX + 256 <= TEXT_MAX && PATHS_MAX + ARGS_MAX <= TEXT_MAX);
};
