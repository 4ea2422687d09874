//! Where things are: the workspace, cargo's target directory, and what setup installs below it.
//!
//! Everything xtask downloads, installs or generates lies below the target directory.

use std::env;
use std::path::{Path, PathBuf};

/// The workspace's root directory.
///
/// cargo sets the variable for `cargo xtask`; the constant serves a binary started by hand.
pub(crate) fn root() -> PathBuf {
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_owned)
}

/// cargo's target directory, absolute.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |directory| root().join(directory))
}

/// Where setup installs programs that do not come from the distribution.
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}

/// Kernels, initramfs archives and consoles of the virtual machines.
pub(crate) fn vm() -> PathBuf {
    target().join("vm")
}

/// A program in PATH or in the administrator's directories, which a user's PATH may lack.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}
