//! Fuzz targets of the NFLOG library, and of the grammar of cgroup paths: functions of any bytes that panic when the library is wrong.
//!
//! `fuzz_targets/` hands them to libFuzzer (`cargo xtask fuzz`); `tests/replay.rs` calls them with every committed input.
//!
//! A new target is a file here, a line in [`TARGETS`], a program in `fuzz_targets/` and `Cargo.toml`, and `seeds/<name>/`.

mod canary;
mod cgroup;
mod conntrack;
mod ct_oracle;
mod entry;
mod frames;
mod oracle;
mod pcap;

pub use canary::canary;
pub use cgroup::cgroup;
pub use conntrack::conntrack;
pub use entry::entry;
pub use frames::frames;
pub use pcap::pcap;

/// A function of any bytes; it panics when the library is wrong.
pub type Target = fn(&[u8]);

/// Every target but the canary, which is wrong on purpose: name and function.
pub const TARGETS: &[(&str, Target)] = &[
    ("cgroup", cgroup),
    ("conntrack", conntrack),
    ("entry", entry),
    ("frames", frames),
    ("pcap", pcap),
];

/// The program of a target: libFuzzer's entry point under `--cfg fuzzing`, else a `main` that replays the files named in its
/// arguments.
#[macro_export]
macro_rules! program {
    ($target:path) => {
        #[cfg(fuzzing)]
        ::libfuzzer_sys::fuzz_target!(|data: &[u8]| $target(data));

        #[cfg(not(fuzzing))]
        fn main() -> ::std::io::Result<()> {
            $crate::replay($target)
        }
    };
}

/// Calls a target with the content of each file that the program's arguments name.
///
/// # Errors
/// A file that cannot be read.
///
/// # Panics
/// If the target does: that is what it is for.
pub fn replay(target: Target) -> std::io::Result<()> {
    for path in std::env::args_os().skip(1) {
        println!("{}", path.display());
        target(&std::fs::read(&path)?);
    }
    Ok(())
}
