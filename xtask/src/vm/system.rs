//! The programs that tests call in a guest, with the shared libraries they need: the host's own for a guest of its architecture, those
//! of Debian's packages for another.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::arch::Arch;
use crate::paths::{self, find_program};
use crate::process::output;
use crate::vm::apt::Apt;
use crate::vm::kernel::remove_directory;

/// Dynamic programs that the tests call.
const PROGRAMS: [&str; 5] = ["bash", "ip", "nft", "setpriv", "wg"];
/// The packages of these and of busybox.
const PACKAGES: [&str; 6] = [
    "bash",
    "busybox-static",
    "iproute2",
    "nftables",
    "util-linux",
    "wireguard-tools",
];
/// Where Debian's arm64 packages have programs, and libraries.
const PROGRAM_DIRECTORIES: [&str; 5] = ["bin", "sbin", "usr/bin", "usr/sbin", "usr/lib"];
const LIBRARY_DIRECTORIES: [&str; 4] = [
    "lib",
    "lib/aarch64-linux-gnu",
    "usr/lib",
    "usr/lib/aarch64-linux-gnu",
];

/// A file for the guest: its place there, and where it is here.
pub(crate) type Placed = (String, PathBuf);

/// busybox, the programs and their libraries.
pub(crate) fn files(arch: Arch) -> Result<Vec<Placed>> {
    match arch {
        Arch::X86_64 => of_host(),
        Arch::Arm64 => of_packages(&unpacked(arch)?),
    }
}

fn of_host() -> Result<Vec<Placed>> {
    let find =
        |name| find_program(name).with_context(|| format!("no program {name}; run `cargo xtask setup`"));
    let mut files = vec![("bin/busybox".to_owned(), find("busybox")?)];
    for name in PROGRAMS {
        let program = find(name)?;
        for library in shared_libraries(&program)? {
            files.push((library.display().to_string(), library));
        }
        files.push((format!("bin/{name}"), program));
    }
    Ok(files)
}

/// The directory with Debian's packages, fetched and unpacked once; another list of packages is another directory.
fn unpacked(arch: Arch) -> Result<PathBuf> {
    let place = paths::vm().join(format!("{}-{}", arch.debian(), PACKAGES.join("+")));
    if !place.exists() {
        let staging = place.with_added_extension("new");
        remove_directory(&staging)?;
        fs::create_dir_all(&staging).with_context(|| format!("cannot create {}", staging.display()))?;
        Apt::update(arch)?.unpack_with_dependencies(&PACKAGES, &staging)?;
        fs::rename(&staging, &place).with_context(|| format!("cannot move to {}", place.display()))?;
    }
    Ok(place)
}

fn of_packages(root: &Path) -> Result<Vec<Placed>> {
    let mut files = vec![(
        "bin/busybox".to_owned(),
        find(root, &PROGRAM_DIRECTORIES, "busybox")?,
    )];
    let mut libraries = BTreeSet::new();
    let mut work = Vec::new();
    for name in PROGRAMS {
        let program = find(root, &PROGRAM_DIRECTORIES, name)?;
        work.push(program.clone());
        files.push((format!("bin/{name}"), program));
    }
    while let Some(file) = work.pop() {
        for name in needed(&file)? {
            if libraries.insert(name.clone()) {
                let library = find(root, &LIBRARY_DIRECTORIES, &name)?;
                work.push(library.clone());
                // The loader looks there, whatever else it is told.
                files.push((format!("lib/{name}"), library));
            }
        }
    }
    Ok(files)
}

/// The file that a name leads to below `root`, where a link's absolute path is meant.
fn find(root: &Path, directories: &[&str], name: &str) -> Result<PathBuf> {
    for directory in directories {
        let path = root.join(directory).join(name);
        match fs::read_link(&path) {
            Ok(to) if to.is_absolute() => return Ok(root.join(to.strip_prefix("/")?)),
            _ if path.exists() => return Ok(path),
            _ => {}
        }
    }
    bail!("Debian's packages below {} have no {name}", root.display())
}

/// Names of the shared libraries that an ELF file of any architecture asks for.
fn needed(file: &Path) -> Result<Vec<String>> {
    let listing = output(Command::new("readelf").args(["--dynamic", "--wide"]).arg(file))?;
    Ok(listing.lines().filter_map(needed_in).collect())
}

/// The name in a line ` 0x01 (NEEDED)  Shared library: [libc.so.6]` of readelf.
fn needed_in(line: &str) -> Option<String> {
    let (_, name) = line.split_once("(NEEDED)")?.1.split_once('[')?;
    Some(name.strip_suffix(']')?.to_owned())
}

/// The files that a dynamic program of the host maps, the loader included.
fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listing = output(Command::new("ldd").arg(program))?;
    Ok(listing.lines().filter_map(library_in).collect())
}

/// The path in a line of ldd: `libc.so.6 => /lib/libc.so.6 (0x..)` or `/lib64/ld-linux-x86-64.so.2 (0x..)`.
fn library_in(line: &str) -> Option<PathBuf> {
    let words = line.split_once("=>").map_or(line, |(_, path)| path);
    words
        .split_whitespace()
        .next()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_both_kinds_of_lines_of_ldd() {
        let path = |line| library_in(line).map(|path| path.display().to_string());
        assert_eq!(
            path("\tlibc.so.6 => /lib/libc.so.6 (0x00007f00)").as_deref(),
            Some("/lib/libc.so.6")
        );
        assert_eq!(
            path("\t/lib64/ld-linux-x86-64.so.2 (0x00007f00)").as_deref(),
            Some("/lib64/ld-linux-x86-64.so.2")
        );
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007ffd)"), None);
    }

    #[test]
    fn needed_libraries_are_read_from_readelf() {
        let line = " 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]";
        assert_eq!(needed_in(line).as_deref(), Some("libc.so.6"));
        assert_eq!(
            needed_in(" 0x000000000000000e (SONAME) Library soname: [x]"),
            None
        );
    }
}
