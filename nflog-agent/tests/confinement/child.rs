//! A process that begins in a namespace of its own: `clone(2)` and `clone3(2)`.
//!
//! One of the files of the tests with `unsafe`.
#![expect(
    unsafe_code,
    reason = "no safe crate makes a process in a namespace of its own"
)]

use std::io::{Error, ErrorKind, Result};

use nix::sched::{CloneFlags, clone};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

const FLAGS: CloneFlags = CloneFlags::CLONE_NEWUTS;

/// By `clone`.
pub(crate) fn by_clone() -> Result<()> {
    let mut stack = vec![0; 64 << 10];
    let nothing = Box::new(|| 0);
    // SAFETY: the child shares no memory, and does nothing but end, on the stack that it is given.
    let child = unsafe { clone(nothing, &mut stack, FLAGS, Some(libc::SIGCHLD)) }?;
    waitpid(child, None)?;
    Ok(())
}

/// By `clone3`. That there is no such call is what those are told who may not use it, so that the C library uses `clone`.
pub(crate) fn by_clone3() -> Result<()> {
    // `struct clone_args` of Linux 5.3: flags, five that are not needed, of which the fourth is the signal, and the rest.
    let mut words = [0_u64; 8];
    words[0] = u64::try_from(FLAGS.bits()).expect("flags are positive");
    words[4] = u64::try_from(libc::SIGCHLD).expect("signals are positive");
    // SAFETY: the structure is whole and as long as is said; the child shares no memory, goes on with a copy of this stack and ends.
    let child = unsafe {
        let child = libc::syscall(libc::SYS_clone3, words.as_ptr(), size_of_val(&words));
        if child == 0 {
            libc::_exit(0);
        }
        child
    };
    match i32::try_from(child) {
        Ok(-1) => {
            let error = Error::last_os_error();
            Err(if error.raw_os_error() == Some(libc::ENOSYS) {
                ErrorKind::PermissionDenied.into()
            } else {
                error
            })
        }
        Ok(child) => {
            waitpid(Pid::from_raw(child), None)?;
            Ok(())
        }
        Err(error) => Err(Error::other(error)),
    }
}
