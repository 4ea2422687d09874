//! Packs the initramfs of a guest: PID 1, the agent, the tests, the modules, and the programs the tests call, each with its
//! shared libraries. The guest has no disk and no network.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::artifacts::Artifacts;
use crate::paths;
use crate::process::run;
use crate::vm::cpio::Archive;
use crate::vm::kernel::Kernel;
use crate::vm::modules;
use crate::vm::protocol::{AGENT_PATH, Mode, PLAN_PATH, Plan, TESTS_DIRECTORY};
use crate::vm::system::{self, Placed};

/// Integration tests that run in guests: those whose name begins with one of these.
pub(crate) const TEST_PREFIXES: [&str; 6] = [
    "agent",
    "attribution",
    "confinement",
    "kprobe",
    "nflog",
    "sockdiag",
];
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
    system: Vec<Placed>,
}

impl Payload {
    /// Reads the programs and the integration tests that run in guests.
    pub(crate) fn new(artifacts: &Artifacts, arch: Arch) -> Result<Self> {
        let read_test = |(name, path): (&str, &PathBuf)| anyhow::Ok((name.to_owned(), stripped(path, arch)?));
        Ok(Self {
            init: stripped(&artifacts.program("vm_init")?, arch)?,
            agent: stripped(&artifacts.program("nflog-agent")?, arch)?,
            tests: artifacts
                .integration_tests(&TEST_PREFIXES)
                .into_iter()
                .map(read_test)
                .collect::<Result<_>>()?,
            system: system::files(arch)?,
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
    add_system(&mut archive, &payload.system)?;
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
        pair("NFLOG_TEST_AGENT", AGENT_PATH),
        pair("NFLOG_VM", kernel.line.name()),
        pair("RUST_BACKTRACE", "1"),
        pair("TERM", "linux"),
    ]
}

type Initramfs = Archive<BufWriter<File>>;

fn add_system(archive: &mut Initramfs, system: &[Placed]) -> Result<()> {
    for directory in DIRECTORIES {
        archive.directory(directory)?;
    }
    archive.symlink("var/run", "/run")?;
    archive.character_device("dev/console", (5, 1))?;
    for (path, content) in FILES {
        archive.file(path, 0o644, content.as_bytes())?;
    }
    for applet in BUSYBOX_APPLETS {
        archive.symlink(&format!("bin/{applet}"), "busybox")?;
    }
    for (place, file) in system {
        let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        archive.file(place, 0o755, &content)?;
    }
    Ok(())
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
fn stripped(program: &Path, arch: Arch) -> Result<Vec<u8>> {
    let (directory, objcopy) = match arch {
        Arch::X86_64 => ("stripped", "objcopy"),
        Arch::Arm64 => ("stripped-arm64", "aarch64-linux-gnu-objcopy"),
    };
    let directory = paths::vm().join(directory);
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let place = directory.join(program.file_name().context("a program has a name")?);
    run(Command::new(objcopy)
        .arg("--strip-debug")
        .arg(program)
        .arg(&place))?;
    fs::read(&place).with_context(|| format!("cannot read {}", place.display()))
}
