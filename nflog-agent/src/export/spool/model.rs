//! Tests of the store against a directory in memory that fails, fills up, and loses power, as a model predicts.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::frame::{Counts, SEGMENT_HEAD};
use super::fs::Directory;
use super::store::{AppendError, Dropped, SpoolLimits, Store, Stored, WhenFull};

const ROOM: u64 = 4096;

/// A file: what a power cut leaves of it at least, and what is written.
#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: usize,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<String, Content>,
    /// Names that a power cut leaves.
    durable_names: BTreeSet<String>,
    /// Removed, but not durably: a power cut may bring them back.
    removed: BTreeMap<String, Content>,
    /// The n-th operation from now fails.
    fail_in: Option<u32>,
    /// Room on the disk, bytes.
    room: u64,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
struct Memory(Arc<Mutex<Inner>>);

impl Memory {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            room: u64::MAX,
            ..Inner::default()
        })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    fn attempt<T>(&self, act: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        self.with(|inner| {
            if let Some(left) = &mut inner.fail_in {
                if *left == 0 {
                    inner.fail_in = None;
                    return Err(ErrorKind::Other.into());
                }
                *left -= 1;
            }
            act(inner)
        })
    }

    /// Power is cut: what was not synced is there up to some length, with its last bytes scrambled.
    fn power_cut(&self, kept: usize) {
        self.with(|inner| {
            let names = inner.durable_names.clone();
            inner.files.retain(|name, _| names.contains(name));
            for (name, content) in std::mem::take(&mut inner.removed) {
                inner.files.insert(name, content);
            }
            for content in inner.files.values_mut() {
                let length = content.bytes.len().min(content.durable + kept);
                content.bytes.truncate(length);
                if length > content.durable {
                    content.bytes[length - 1] ^= 0x55;
                }
                content.durable = length;
            }
            inner.fail_in = None;
            inner.room = u64::MAX;
        });
    }
}

impl Directory for Memory {
    type File = String;

    fn list(&self) -> io::Result<Vec<(OsString, u64)>> {
        self.attempt(|inner| {
            let files = inner.files.iter();
            Ok(files
                .map(|(name, content)| (name.into(), content.bytes.len() as u64))
                .collect())
        })
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.attempt(|inner| {
            inner
                .files
                .get(name)
                .map(|content| content.bytes.clone())
                .ok_or_else(|| ErrorKind::NotFound.into())
        })
    }

    fn create(&self, name: &str) -> io::Result<String> {
        self.attempt(|inner| {
            assert!(
                inner.files.insert(name.to_owned(), Content::default()).is_none(),
                "{name} again"
            );
            Ok(name.to_owned())
        })
    }

    fn append(&self, file: &mut String, bytes: &[u8]) -> io::Result<()> {
        let failed = self.attempt(|_| Ok(())).is_err();
        self.with(|inner| {
            let used: u64 = inner
                .files
                .values()
                .map(|content| content.bytes.len() as u64)
                .sum();
            let left = usize::try_from(inner.room.saturating_sub(used)).unwrap_or(usize::MAX);
            let written = if failed {
                bytes.len() / 2
            } else {
                bytes.len().min(left)
            };
            inner
                .files
                .get_mut(file)
                .expect("being written")
                .bytes
                .extend(&bytes[..written]);
            if written == bytes.len() {
                Ok(())
            } else {
                Err(ErrorKind::StorageFull.into())
            }
        })
    }

    fn cut(&self, file: &mut String, length: u64) -> io::Result<()> {
        self.attempt(|inner| {
            let length = usize::try_from(length).expect("small");
            inner
                .files
                .get_mut(file)
                .expect("being written")
                .bytes
                .truncate(length);
            Ok(())
        })
    }

    fn sync(&self, file: &String) -> io::Result<()> {
        self.attempt(|inner| {
            let content = inner.files.get_mut(file).expect("being written");
            content.durable = content.bytes.len();
            Ok(())
        })
    }

    fn sync_file(&self, name: &str) -> io::Result<()> {
        self.sync(&name.to_owned())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.attempt(|inner| {
            inner.durable_names = inner.files.keys().cloned().collect();
            inner.removed.clear();
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.attempt(|inner| {
            let content = inner.files.remove(name).ok_or(ErrorKind::NotFound)?;
            if inner.durable_names.contains(name) {
                inner.removed.insert(name.to_owned(), content);
            }
            Ok(())
        })
    }
}

/// The batch with this number: its content and its records follow from it.
fn batch(id: u32) -> (Vec<u8>, Counts) {
    let mut payload = id.to_le_bytes().repeat(usize::try_from(3 + id % 40).unwrap());
    payload.truncate(payload.len() - usize::try_from(id % 4).unwrap());
    let counts = Counts {
        records: 1 + id % 5,
        reports: id % 2,
    };
    (payload, counts)
}

fn id(stored: &Stored) -> u32 {
    let id = u32::from_le_bytes(stored.payload[..4].try_into().unwrap());
    assert_eq!(
        (stored.payload.to_vec(), stored.counts),
        batch(id),
        "not as it was written"
    );
    id
}

fn limits(when_full: WhenFull) -> SpoolLimits {
    SpoolLimits {
        bytes: ROOM,
        segment: 700,
        max_age: 50,
        when_full,
    }
}

/// What becomes of a store.
#[derive(Clone, Debug)]
enum Act {
    Append,
    Next,
    Settle(usize),
    GiveBack(usize),
    Sync,
    Expire,
    Later(u64),
    FailIn(u32),
    DiskOf(u64),
    Kill,
    PowerCut(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => Just(Act::Append),
        5 => Just(Act::Next),
        4 => any::<usize>().prop_map(Act::Settle),
        1 => any::<usize>().prop_map(Act::GiveBack),
        2 => Just(Act::Sync),
        1 => Just(Act::Expire),
        1 => (1..30_u64).prop_map(Act::Later),
        1 => (0..6_u32).prop_map(Act::FailIn),
        1 => (100..3000_u64).prop_map(Act::DiskOf),
        1 => Just(Act::Kill),
        1 => (0..300_usize).prop_map(Act::PowerCut),
    ];
    proptest::collection::vec(act, 1..120)
}

/// What must be true of the store, whatever it does inside.
struct Model {
    disk: Memory,
    store: Store<Memory>,
    limits: SpoolLimits,
    now: u64,
    next: u32,
    out: Vec<Stored>,
    /// Kept, by the store's word, and not settled or out.
    kept: BTreeMap<u32, Kept>,
    settled: BTreeSet<u32>,
    /// Packet records that the store gave up, by its own account.
    dropped: u64,
    faults: bool,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    synced: bool,
}

impl Model {
    fn new(limits: SpoolLimits) -> Self {
        let disk = Memory::new();
        let (store, dropped) = Store::open(disk.clone(), limits).unwrap();
        assert_eq!(dropped, Dropped::default());
        Self {
            disk,
            store,
            limits,
            now: 1000,
            next: 0,
            out: Vec::new(),
            kept: BTreeMap::new(),
            settled: BTreeSet::new(),
            dropped: 0,
            faults: false,
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Append => self.append(),
            Act::Next => self.take(),
            Act::Settle(which) if !self.out.is_empty() => {
                let stored = self.out.swap_remove(which % self.out.len());
                self.settled.insert(id(&stored));
                self.store.settle(&stored);
            }
            Act::GiveBack(which) if !self.out.is_empty() => {
                let stored = self.out.swap_remove(which % self.out.len());
                self.kept.insert(id(&stored), Kept { synced: false });
                self.store.give_back(stored);
            }
            Act::Settle(_) | Act::GiveBack(_) => {}
            Act::Sync => {
                // After a fault a segment may have been ended without.
                if self.store.sync().is_ok() && !self.faults {
                    self.kept.values_mut().for_each(|kept| kept.synced = true);
                }
            }
            Act::Expire => {
                let dropped = self.store.expire(self.now);
                self.gave_up(dropped);
            }
            Act::Later(seconds) => self.now += seconds,
            Act::FailIn(operations) => {
                self.faults = true;
                self.disk.with(|inner| inner.fail_in = Some(*operations));
            }
            Act::DiskOf(room) => {
                self.faults = true;
                self.disk.with(|inner| inner.room = *room);
            }
            Act::Kill => self.restart(),
            Act::PowerCut(kept) => {
                self.disk.power_cut(*kept);
                // The others may be there, or not.
                self.kept.retain(|_, kept| kept.synced);
                self.restart();
            }
        }
        assert!(
            self.store.bytes() <= self.limits.bytes,
            "{} bytes",
            self.store.bytes()
        );
    }

    fn append(&mut self) {
        let id = self.next;
        self.next += 1;
        let (payload, counts) = batch(id);
        match self.store.append(&payload, counts, self.now) {
            Ok(dropped) => {
                self.kept.insert(id, Kept { synced: false });
                self.gave_up(dropped);
            }
            Err(AppendError::Full(dropped)) => {
                assert!(self.limits.when_full == WhenFull::DropNewest || self.faults || !self.out.is_empty());
                self.gave_up(dropped);
            }
            Err(AppendError::Io { dropped, .. }) => {
                assert!(self.faults, "an error of a disk that has none");
                self.gave_up(dropped);
            }
        }
    }

    fn take(&mut self) {
        let (stored, dropped) = self.store.next();
        self.gave_up(dropped);
        if let Some(stored) = stored {
            let id = id(&stored);
            self.kept.remove(&id);
            self.out.push(stored);
        }
    }

    fn gave_up(&mut self, dropped: Dropped) {
        assert!(dropped.unreadable == 0 || self.faults);
        self.dropped += dropped.full + dropped.age + dropped.unreadable;
    }

    /// The process ends and another takes up what is there. What was out may come again.
    fn restart(&mut self) {
        self.out.clear();
        self.disk.with(|inner| {
            inner.fail_in = None;
            inner.room = u64::MAX;
        });
        let (store, dropped) = Store::open(self.disk.clone(), self.limits).unwrap();
        self.store = store;
        self.gave_up_at_start(dropped);
        self.faults = false;
        self.kept.values_mut().for_each(|kept| kept.synced = false);
    }

    fn gave_up_at_start(&mut self, dropped: Dropped) {
        self.dropped += dropped.full + dropped.age + dropped.unreadable;
    }

    /// Takes all that is left; ids in order of handing out.
    fn drain(&mut self) -> Vec<u32> {
        self.disk.with(|inner| {
            inner.fail_in = None;
            inner.room = u64::MAX;
        });
        let mut ids = Vec::new();
        loop {
            let (stored, dropped) = self.store.next();
            self.dropped += dropped.full + dropped.age + dropped.unreadable;
            let Some(stored) = stored else { return ids };
            ids.push(id(&stored));
            self.store.settle(&stored);
        }
    }
}

fn records(ids: impl IntoIterator<Item = u32>) -> u64 {
    ids.into_iter().map(|id| u64::from(batch(id).1.records)).sum()
}

fn policies() -> impl Strategy<Value = WhenFull> {
    prop_oneof![Just(WhenFull::DropOldest), Just(WhenFull::DropNewest)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(400)))]

    /// On a sound disk, without restarts: each batch comes out once, in order, or is counted.
    #[test]
    fn every_batch_is_handed_out_once_or_counted(acts in acts(), when_full in policies()) {
        let mut model = Model::new(limits(when_full));
        for act in &acts {
            if !matches!(act, Act::Kill | Act::PowerCut(_) | Act::FailIn(_) | Act::DiskOf(_)) {
                model.act(act);
            }
        }
        let kept: BTreeSet<u32> = model.kept.keys().copied().collect();
        for stored in std::mem::take(&mut model.out) {
            model.store.settle(&stored);
        }
        let left = model.drain();
        prop_assert_eq!(left.iter().copied().collect::<BTreeSet<_>>().len(), left.len(), "twice");
        let missing = kept.difference(&left.iter().copied().collect()).copied().collect::<Vec<_>>();
        prop_assert_eq!(records(missing), model.dropped);
        prop_assert!(!model.store.has_next());
        let files = model.disk.with(|inner| inner.files.values().map(|file| file.bytes.len()).sum::<usize>());
        prop_assert!(files <= SEGMENT_HEAD.len(), "{} bytes are left behind", files);
    }

    /// Whatever fails: what was made durable and is not given up comes out; nothing that was not put in does.
    #[test]
    fn what_is_durable_outlives_kills_power_cuts_and_a_failing_disk(acts in acts(), when_full in policies()) {
        let mut model = Model::new(limits(when_full));
        for act in &acts {
            model.act(act);
        }
        let before = model.dropped;
        model.restart();
        let kept: BTreeSet<u32> = model.kept.keys().copied().collect();
        let next = model.next;
        let left: BTreeSet<u32> = model.drain().into_iter().collect();
        prop_assert!(left.iter().all(|id| *id < next), "spurious");
        let missing = records(kept.difference(&left).copied());
        prop_assert!(missing <= model.dropped, "{} of {:?} missing, {} given up, {} before", missing, kept, model.dropped, before);
    }
}
