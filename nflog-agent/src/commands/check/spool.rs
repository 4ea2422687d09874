//! The spool's directory: there, writable, with room.

use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};

use super::Subject;
use super::finding::{Cause, Finding};

const CHECK: &str = "spool";

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let args = &subject.settings.args;
    let Some(directory) = &args.spool else {
        let found = "none: what the collector does not take is lost and counted";
        return vec![Finding::ok(CHECK, found)];
    };
    if subject.output.otlp().is_none() {
        let found = "named, but only OTLP has one";
        return vec![Finding::warning(
            CHECK,
            found,
            "name an endpoint, or leave --spool away",
        )];
    }
    vec![room(directory, args.spool_bytes)]
}

fn room(directory: &Path, wanted: u64) -> Finding {
    let shown = directory.display();
    let failed = |found: String, remedy: &str| Finding::failed(CHECK, Cause::Io, found, remedy);
    // `run` makes what is missing.
    let Some(there) = directory.ancestors().find(|path| path.exists()) else {
        return failed(format!("{shown}: no part of it exists"), "make the directory");
    };
    if !there.is_dir() {
        return failed(
            format!("{} is not a directory", there.display()),
            "name a directory",
        );
    }
    if let Err(error) = access(there, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        let error = std::io::Error::from(error);
        let remedy = match error.kind() {
            ErrorKind::ReadOnlyFilesystem => "mount it for writing, or name another directory",
            _ => "give it to the agent's user (StateDirectory= in a unit), or name another directory",
        };
        return failed(format!("{}: {error}", there.display()), remedy);
    }
    match statvfs(there) {
        Ok(system) => {
            let free = system.f_bavail.saturating_mul(system.f_frsize);
            let found = format!("{shown}: {free} bytes are free, {wanted} may be used");
            if free < wanted {
                let remedy = "make room, or lower --spool-bytes; what is there already counts as used";
                Finding::warning(CHECK, found, remedy)
            } else {
                Finding::ok(CHECK, found)
            }
        }
        Err(error) => failed(format!("{shown}: {error}"), "name a directory on a disk"),
    }
}
