//! Packs the initramfs of a guest: PID 1, the agent, the tests, the modules, and the programs the tests call, each with its
//! shared libraries. The guest has no disk and no network.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::artifacts::Artifacts;
use crate::paths::{self, find_program};
use crate::process::{output, run};
use crate::vm::cpio::Archive;
use crate::vm::kernel::Kernel;
use crate::vm::modules;
use crate::vm::protocol::{AGENT_PATH, Mode, PLAN_PATH, Plan, TESTS_DIRECTORY};

/// Integration tests that run in guests: those whose name begins with one of these.
const TEST_PREFIXES: [&str; 5] = ["agent", "attribution", "kprobe", "nflog", "sockdiag"];
/// Dynamic programs of the host that the tests call.
const PROGRAMS: [&str; 4] = ["bash", "ip", "nft", "setpriv"];
const BUSYBOX_APPLETS: [&str; 25] = [
    "ash", "cat", "chmod", "dmesg", "false", "grep", "head", "kill", "less", "ls", "lsmod", "mkdir", "mount",
    "nc", "ping", "poweroff", "ps", "sh", "sleep", "sync", "tail", "top", "true", "unshare", "vi",
];
const FILES: [(&str, &str); 5] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files\nprotocols: files\nservices: files\n",
    ),
    (
        "etc/protocols",
        "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\nsctp 132 SCTP\n",
    ),
];
const DIRECTORIES: [&str; 9] = [
    "dev",
    "proc",
    "sys",
    "tmp",
    "run/netns",
    "root",
    "var",
    "mnt",
    "usr/bin",
];

/// What goes into every guest, whatever its kernel.
pub(crate) struct Payload {
    init: Vec<u8>,
    agent: Vec<u8>,
    tests: Vec<(String, Vec<u8>)>,
}

impl Payload {
    /// Reads the programs and the integration tests that run in guests.
    pub(crate) fn new(artifacts: &Artifacts) -> Result<Self> {
        let read_test = |(name, path): (&str, &PathBuf)| anyhow::Ok((name.to_owned(), stripped(path)?));
        Ok(Self {
            init: stripped(&artifacts.program("vm_init")?)?,
            agent: stripped(&artifacts.program("nflog-agent")?)?,
            tests: artifacts
                .integration_tests(&TEST_PREFIXES)
                .into_iter()
                .map(read_test)
                .collect::<Result<_>>()?,
        })
    }

    /// Number of test binaries.
    pub(crate) fn tests(&self) -> usize {
        self.tests.len()
    }
}

/// Writes the initramfs for a kernel and returns its path.
pub(crate) fn write(kernel: &Kernel, payload: &Payload, mode: Mode) -> Result<PathBuf> {
    let path = kernel.directory.join("initramfs.cpio");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    add_system(&mut archive)?;
    archive.file("init", 0o755, &payload.init)?;
    archive.file(AGENT_PATH, 0o755, &payload.agent)?;
    archive.directory(TESTS_DIRECTORY)?;
    for (name, content) in &payload.tests {
        archive.file(&format!("{TESTS_DIRECTORY}/{name}"), 0o755, content)?;
    }
    add_directory(&mut archive, &paths::root().join("nflog-agent/tests/data"))?;
    let modules = add_modules(&mut archive, kernel)?;
    let plan = Plan {
        mode,
        modules,
        environment: environment(kernel),
    };
    archive.file(PLAN_PATH, 0o644, &serde_json::to_vec(&plan)?)?;
    archive
        .finish()?
        .into_inner()
        .context("cannot write the initramfs")?
        .sync_data()?;
    Ok(path)
}

fn environment(kernel: &Kernel) -> Vec<(String, String)> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![
        pair("NFLOG_AGENT_BIN", AGENT_PATH),
        pair("NFLOG_VM", kernel.line.name()),
        pair("RUST_BACKTRACE", "1"),
        pair("TERM", "linux"),
    ]
}

type Initramfs = Archive<BufWriter<File>>;

fn add_system(archive: &mut Initramfs) -> Result<()> {
    for directory in DIRECTORIES {
        archive.directory(directory)?;
    }
    archive.symlink("var/run", "/run")?;
    archive.character_device("dev/console", (5, 1))?;
    for (path, content) in FILES {
        archive.file(path, 0o644, content.as_bytes())?;
    }
    let busybox = find_program("busybox").context("no busybox; run `cargo xtask setup`")?;
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?)?;
    for applet in BUSYBOX_APPLETS {
        archive.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    for name in PROGRAMS {
        let program =
            find_program(name).with_context(|| format!("no program {name}; run `cargo xtask setup`"))?;
        archive.file(&format!("bin/{name}"), 0o755, &fs::read(&program)?)?;
        for library in shared_libraries(&program)? {
            archive.file(&library.to_string_lossy(), 0o755, &fs::read(&library)?)?;
        }
    }
    Ok(())
}

/// The files that a dynamic program maps, the loader included.
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

fn add_modules(archive: &mut Initramfs, kernel: &Kernel) -> Result<Vec<String>> {
    let directory = kernel.modules();
    let mut loaded = Vec::new();
    for path in modules::closure(&directory)? {
        let place = format!(
            "/lib/modules/{}/{}",
            kernel.release,
            modules::uncompressed_path(&path)
        );
        archive.file(&place, 0o644, &modules::content(&directory.join(&path))?)?;
        loaded.push(place);
    }
    Ok(loaded)
}

/// Adds a directory of the host under the same path, if it exists.
fn add_directory(archive: &mut Initramfs, directory: &Path) -> Result<()> {
    archive.directory(&directory.to_string_lossy())?;
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            add_directory(archive, &path)?;
        } else {
            archive.file(&path.to_string_lossy(), 0o644, &fs::read(&path)?)?;
        }
    }
    Ok(())
}

/// A program without its debug information, which would be most of the initramfs.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let directory = paths::vm().join("stripped");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let place = directory.join(program.file_name().context("a program has a name")?);
    run(Command::new("objcopy")
        .arg("--strip-debug")
        .arg(program)
        .arg(&place))?;
    fs::read(&place).with_context(|| format!("cannot read {}", place.display()))
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
}
