//! What the kernel counts about the loaded programs: runs and their time, and the runs that it left out.
//!
//! Read from `/proc/self/fdinfo`, where the kernel shows the same as `bpf_prog_info` and `bpf_link_info` for each descriptor of
//! this process, so that no descriptor has to be kept and no `bpf(2)` call be made by hand. Programs and their attachments
//! are told apart by the program's id.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use procfs::sys::kernel::Version;

/// Where the kernel describes the descriptors of this process.
const FDINFO: &str = "/proc/self/fdinfo";

/// The first kernel that counts a kprobe program that it does not run because another program runs on that CPU.
/// `recursion_misses` is shown since 5.12, but stays 0 for kprobes.
const COUNTS_SKIPPED: (u8, u8) = (6, 7);

/// What the kernel counts about one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramStatistics {
    /// Name in the eBPF object.
    pub program: &'static str,
    /// Runs while statistics were on (`sysctl kernel.bpf_stats_enabled=1`).
    pub runs: u64,
    /// Time that these took.
    pub run_time: Duration,
    /// Runs left out because another program was running on that CPU, or a `bpf(2)` call was at a map there
    /// (`bpf_prog_info.recursion_misses`). Counted since Linux 6.7.
    pub skipped: Option<u64>,
    /// Runs left out because the CPU was in another kprobe, or because a kretprobe had no instance left (`nmissed`), over all
    /// functions that the program is attached to. Shown since Linux 6.17.
    pub missed: Option<u64>,
}

impl ProgramStatistics {
    /// All runs left out, as far as this kernel counts them.
    #[must_use]
    pub fn left_out(&self) -> Option<u64> {
        match (self.skipped, self.missed) {
            (None, None) => None,
            (skipped, missed) => Some(skipped.unwrap_or(0) + missed.unwrap_or(0)),
        }
    }
}

/// A handle to read [`ProgramStatistics`] from any thread.
#[derive(Clone)]
pub struct Statistics {
    /// Kernel ids and names of the loaded programs.
    programs: Arc<[(u32, &'static str)]>,
    counts_skipped: bool,
}

impl Statistics {
    pub(super) fn of(programs: Vec<(u32, &'static str)>) -> Self {
        let counts_skipped =
            Version::current().is_ok_and(|version| (version.major, version.minor) >= COUNTS_SKIPPED);
        Self {
            programs: programs.into(),
            counts_skipped,
        }
    }

    /// One entry for each loaded program; nothing for one that is not loaded any longer.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn read(&self) -> io::Result<Vec<ProgramStatistics>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(FDINFO)? {
            match fs::read_to_string(entry?.path()) {
                Ok(text) if text.contains("prog_id:") => files.push(text),
                Ok(_) => {}
                // Closed meanwhile by another thread, like the descriptor of this directory itself.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.statistics(&files))
    }

    fn statistics(&self, files: &[String]) -> Vec<ProgramStatistics> {
        let of = |id: u32| {
            files
                .iter()
                .filter(move |file| field(file, "prog_id") == Some(id.into()))
        };
        self.programs
            .iter()
            .filter_map(|&(id, program)| {
                let own = of(id).find(|file| field(file, "prog_type").is_some())?;
                let missed = of(id)
                    .filter(|file| file.contains("link_type:"))
                    .filter_map(|file| field(file, "missed"))
                    .reduce(u64::saturating_add);
                Some(ProgramStatistics {
                    program,
                    runs: field(own, "run_cnt").unwrap_or(0),
                    run_time: Duration::from_nanos(field(own, "run_time_ns").unwrap_or(0)),
                    skipped: field(own, "recursion_misses").filter(|_| self.counts_skipped),
                    missed,
                })
            })
            .collect()
    }
}

/// The number in a line `name:<tab>number`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (before, value) = line.split_once(':')?;
        (before == name).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t1057\nprog_type:\t2\nprog_jited:\t1\n\
                           prog_tag:\t34ad8a3c4d2d7a6d\nmemlock:\t4096\nprog_id:\t31\nrun_time_ns:\t900\nrun_cnt:\t3\n\
                           recursion_misses:\t5\nverified_insns:\t612\n";
    const LINK: &str = "pos:\t0\nlink_type:\tperf\nlink_id:\t4\nprog_tag:\t34ad8a3c4d2d7a6d\nprog_id:\t31\n\
                        name:\ttcp_connect\noffset:\t0x0\nmissed:\t2\naddr:\t0xffffffff81000000\nevent_type:\tkprobe\n";

    fn statistics(files: &[&str], counts_skipped: bool) -> Vec<ProgramStatistics> {
        let programs = Arc::from([(31, "tcp_connect"), (32, "gone")]);
        let files: Vec<_> = files.iter().map(ToString::to_string).collect();
        Statistics {
            programs,
            counts_skipped,
        }
        .statistics(&files)
    }

    #[test]
    fn a_program_and_its_attachments_are_put_together_by_id() {
        let other = LINK.replace("prog_id:\t31", "prog_id:\t9");
        let [one] = statistics(&[LINK, PROGRAM, &other, LINK], true)[..] else {
            panic!("one program is loaded");
        };
        let expected = ProgramStatistics {
            program: "tcp_connect",
            runs: 3,
            run_time: Duration::from_nanos(900),
            skipped: Some(5),
            missed: Some(4),
        };
        assert_eq!(one, expected);
        assert_eq!(one.left_out(), Some(9));
    }

    #[test]
    fn a_kernel_that_does_not_count_is_told_from_one_that_counted_nothing() {
        let old_link = "link_type:\tperf\nlink_id:\t4\nprog_id:\t31\n";
        let [one] = statistics(&[old_link, PROGRAM], false)[..] else {
            panic!("one program is loaded");
        };
        assert_eq!((one.skipped, one.missed, one.left_out()), (None, None, None));
        let [one] = statistics(&[old_link, PROGRAM], true)[..] else {
            panic!("one program is loaded");
        };
        assert_eq!(
            (one.skipped, one.missed, one.left_out()),
            (Some(5), None, Some(5))
        );
    }
}
