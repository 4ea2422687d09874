//! Every committed input through its target, without libFuzzer, so that a regression fails the ordinary tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nflog_fuzz::TARGETS;

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Paths of the files in a directory, in order of their names; none if there is no directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    paths.sort();
    paths
}

#[test]
fn every_target_passes_its_seeds_and_regressions() {
    for (name, target) in TARGETS {
        let seeds = files(&directory("seeds").join(name));
        assert!(!seeds.is_empty(), "target {name} has no seeds");
        let regressions = files(&directory("regressions").join(name));
        for path in seeds.iter().chain(&regressions) {
            // Shown if the target panics.
            println!("{name}: {}", path.display());
            target(&fs::read(path).expect("a readable file"));
        }
    }
}

#[test]
fn the_canary_panics_on_its_magic_only() {
    let mark = |mark: &[u8; 4]| [&[2, 0, 0, 5, 8, 0, 2, 0], &mark[..]].concat();
    nflog_fuzz::canary(b"");
    nflog_fuzz::canary(&mark(b"fuss"));
    let caught = std::panic::catch_unwind(|| nflog_fuzz::canary(&mark(b"fuzz")));
    assert!(caught.is_err());
}

#[test]
fn every_target_has_a_program_and_no_input_is_for_nobody() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = |folder: &str| -> BTreeSet<_> {
        files(&directory(folder))
            .iter()
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect()
    };
    let mut programs = names("fuzz_targets");
    assert!(programs.remove("canary"));
    assert_eq!(programs, targets);
    assert_eq!(names("seeds"), targets);
    assert!(names("regressions").is_subset(&targets));
}
