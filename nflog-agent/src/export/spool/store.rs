//! The segments of a spool: batches in, batches out in the same order, and how many records went missing meanwhile.
//!
//! - A segment is written until it is full, then only read, and deleted when each of its batches is settled. There is no other
//!   file: what is there is what is left to do. After a crash the batches of the segments that were not deleted come again.
//! - What is appended is durable after the next [`Store::sync`].
//! - A segment that cannot be read whole costs what cannot be read, and that is counted: each frame tells how many records came
//!   before it.
//!
//! No clock and no thread: the time is an argument, and all of it runs on the thread of [`Spool`](super::Spool).

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::frame::{BODY_MAX, Counts, FRAME_HEAD, SEGMENT_HEAD, encode, scan};
use super::fs::Directory;

/// What is given up when there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest batches, a segment at a time.
    #[default]
    DropOldest,
    /// The batch that does not fit.
    DropNewest,
}

/// Bounds of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Bytes of all segments.
    pub bytes: u64,
    /// A segment is full when it is longer, bytes. After a crash at most one segment's worth of batches is sent twice.
    pub segment: u64,
    /// Batches older than this are given up, seconds.
    pub max_age: u64,
    /// What to give up.
    pub when_full: WhenFull,
}

impl Default for SpoolLimits {
    /// 1 GiB in segments of 8 MiB, at most a day old, the oldest given up first.
    fn default() -> Self {
        Self {
            bytes: 1 << 30,
            segment: 8 << 20,
            max_age: 86_400,
            when_full: WhenFull::DropOldest,
        }
    }
}

/// Packet records that are given up, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    /// No room.
    pub(super) full: u64,
    /// Too old.
    pub(super) age: u64,
    /// Could not be read back.
    pub(super) unreadable: u64,
}

/// A batch that was spooled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) payload: Bytes,
    pub(super) counts: Counts,
    segment: u64,
    body: Range<usize>,
}

/// A segment that is not written any more.
#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    /// Packet records in it that are not handed out.
    records: u64,
    /// Seconds since the epoch of the last batch.
    written: u64,
}

/// The segment that is being written.
struct Writing<F> {
    segment: Segment,
    file: F,
    unsynced: u64,
}

/// The segment that is being handed out.
#[derive(Debug)]
struct Reading {
    number: u64,
    bytes: u64,
    written: u64,
    content: Bytes,
    frames: VecDeque<(Counts, Range<usize>)>,
    /// Handed out and neither settled nor given back.
    out: usize,
    /// Deleted already, for want of room.
    deleted: bool,
}

impl Reading {
    /// Packet records that are not handed out.
    fn records(&self) -> u64 {
        let frames = self.frames.iter();
        frames.map(|(counts, _)| u64::from(counts.records)).sum()
    }

    fn next(&mut self) -> Option<Stored> {
        let (counts, body) = self.frames.pop_front()?;
        self.out += 1;
        Some(Stored {
            payload: self.content.slice(body.clone()),
            counts,
            segment: self.number,
            body,
        })
    }

    /// Hands out no more of it; answers how many packet records that costs.
    fn forget(&mut self) -> u64 {
        let frames = self.frames.drain(..);
        frames.map(|(counts, _)| u64::from(counts.records)).sum()
    }
}

/// See the module.
pub(super) struct Store<D: Directory> {
    directory: D,
    limits: SpoolLimits,
    /// Oldest first.
    sealed: VecDeque<Segment>,
    writing: Option<Writing<D::File>>,
    /// One at a time, so that a crash sends no more than it twice, and what is missing in between is lost and not sent.
    reading: Option<Reading>,
    next_number: u64,
    /// Packet records ever spooled.
    spooled: u64,
    buffer: Vec<u8>,
}

impl<D: Directory> Store<D> {
    /// Takes up what an earlier process has left. Answers also what of that cannot be read.
    pub(super) fn open(directory: D, limits: SpoolLimits) -> io::Result<(Self, Dropped)> {
        let mut numbers: Vec<(u64, u64)> = directory
            .list()?
            .into_iter()
            .filter_map(|(name, bytes)| Some((number(name.to_str()?)?, bytes)))
            .collect();
        numbers.sort_unstable();
        let mut store = Self {
            directory,
            limits,
            sealed: VecDeque::new(),
            writing: None,
            reading: None,
            next_number: numbers.last().map_or(0, |(number, _)| number + 1),
            spooled: 0,
            buffer: Vec::new(),
        };
        let mut dropped = Dropped::default();
        let mut expected = None;
        for (number, bytes) in numbers {
            dropped.unreadable += store.take_up(number, bytes, &mut expected)?;
        }
        store.spooled = expected.unwrap_or(0);
        // The process before may have been killed before it made them durable.
        for segment in &store.sealed {
            store.directory.sync_file(&name(segment.number))?;
        }
        store.directory.sync_names()?;
        // The bound may be lower than it was.
        while store.bytes() > limits.bytes && store.drop_oldest(&mut dropped)? {}
        Ok((store, dropped))
    }

    /// Takes up one segment. `expected`: how many records came before it. Answers how many of them, or of its own, are gone.
    fn take_up(&mut self, number: u64, bytes: u64, expected: &mut Option<u64>) -> io::Result<u64> {
        let scan = scan(&self.directory.read(&name(number))?);
        let records: u64 = scan
            .frames
            .iter()
            .map(|frame| u64::from(frame.counts.records))
            .sum();
        let mut gone = 0;
        if let (Some(before), Some(after)) = (scan.before, scan.after) {
            let missing = expected.map_or(0, |expected| before.saturating_sub(expected));
            gone = missing + (after - before).saturating_sub(records);
            *expected = Some(after);
        }
        let Some(last) = scan.frames.last() else {
            self.directory.remove(&name(number))?;
            return Ok(gone);
        };
        self.sealed.push_back(Segment {
            number,
            bytes,
            records,
            written: last.written,
        });
        Ok(gone)
    }

    /// Packet records that are kept and not handed out.
    pub(super) fn records(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.records).sum::<u64>()
            + self.writing.as_ref().map_or(0, |writing| writing.segment.records)
            + self.reading.as_ref().map_or(0, Reading::records)
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        let reading = self.reading.as_ref().filter(|reading| !reading.deleted);
        self.sealed.iter().map(|segment| segment.bytes).sum::<u64>()
            + self.writing.as_ref().map_or(0, |writing| writing.segment.bytes)
            + reading.map_or(0, |reading| reading.bytes)
    }

    /// Whether there is something to hand out now.
    pub(super) fn has_next(&self) -> bool {
        if let Some(reading) = &self.reading {
            return !reading.frames.is_empty();
        }
        let written = |writing: &Writing<D::File>| writing.segment.bytes > SEGMENT_HEAD.len() as u64;
        !self.sealed.is_empty() || self.writing.as_ref().is_some_and(written)
    }

    /// Keeps a batch. Answers what had to go for it; `Err`: it is not kept, and nothing of it is.
    pub(super) fn append(
        &mut self,
        payload: &[u8],
        counts: Counts,
        now: u64,
    ) -> Result<Dropped, AppendError> {
        let size = (FRAME_HEAD + payload.len()) as u64;
        if payload.len() > BODY_MAX || size + SEGMENT_HEAD.len() as u64 > self.limits.bytes {
            return Err(AppendError::Full(Dropped::default()));
        }
        let mut dropped = Dropped::default();
        while self.bytes() + size + SEGMENT_HEAD.len() as u64 > self.limits.bytes {
            if self.limits.when_full == WhenFull::DropNewest {
                return Err(AppendError::Full(dropped));
            }
            match self.drop_oldest(&mut dropped) {
                Ok(true) => {}
                Ok(false) => return Err(AppendError::Full(dropped)),
                Err(source) => return Err(AppendError::Io { source, dropped }),
            }
        }
        self.write(payload, counts, now)
            .map_err(|source| AppendError::Io { source, dropped })?;
        Ok(dropped)
    }

    fn write(&mut self, payload: &[u8], counts: Counts, now: u64) -> io::Result<()> {
        if self.writing.is_none() {
            self.begin(now)?;
        }
        let Some(writing) = &mut self.writing else {
            return Err(io::ErrorKind::NotFound.into());
        };
        self.buffer.clear();
        encode(payload, counts, self.spooled, now, &mut self.buffer);
        let segment = &mut writing.segment;
        if let Err(error) = self.directory.append(&mut writing.file, &self.buffer) {
            // A torn frame must be the last one: readers do not look inside.
            if segment.bytes <= SEGMENT_HEAD.len() as u64
                || self.directory.cut(&mut writing.file, segment.bytes).is_err()
            {
                self.seal();
            }
            return Err(error);
        }
        segment.bytes += self.buffer.len() as u64;
        segment.records += u64::from(counts.records);
        segment.written = now;
        writing.unsynced += self.buffer.len() as u64;
        self.spooled += u64::from(counts.records);
        if segment.bytes >= self.limits.segment {
            self.seal();
        }
        Ok(())
    }

    fn begin(&mut self, now: u64) -> io::Result<()> {
        let number = self.next_number;
        self.next_number += 1;
        let mut file = self.directory.create(&name(number))?;
        if let Err(error) = self.directory.append(&mut file, SEGMENT_HEAD) {
            // Nothing is in it; if it cannot be removed the next start does.
            let _ = self.directory.remove(&name(number));
            return Err(error);
        }
        self.directory.sync_names()?;
        self.writing = Some(Writing {
            segment: Segment {
                number,
                bytes: SEGMENT_HEAD.len() as u64,
                records: 0,
                written: now,
            },
            file,
            unsynced: SEGMENT_HEAD.len() as u64,
        });
        Ok(())
    }

    /// Bytes that a crash of the machine could cost.
    pub(super) fn unsynced(&self) -> u64 {
        self.writing.as_ref().map_or(0, |writing| writing.unsynced)
    }

    /// Makes durable what was appended. After an error nobody knows what is on the disk: the segment is not written any more.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        let synced = self.directory.sync(&writing.file);
        writing.unsynced = 0;
        if synced.is_err()
            && let Some(writing) = self.writing.take()
        {
            self.sealed.push_back(writing.segment);
        }
        synced
    }

    /// Ends the segment that is being written. It is readable even if it cannot be made durable.
    fn seal(&mut self) {
        if self.unsynced() > 0
            && let Err(error) = self.sync()
        {
            tracing::warn!("the spool is not durable: {error}; a power cut now would cost records");
        }
        if let Some(writing) = self.writing.take() {
            self.sealed.push_back(writing.segment);
        }
    }

    /// The next batch, oldest first. It stays on disk until it is [`settled`](Self::settle). `None` also while batches of the
    /// segment are out and none is left in it.
    pub(super) fn next(&mut self) -> (Option<Stored>, Dropped) {
        let mut dropped = Dropped::default();
        loop {
            if let Some(reading) = &mut self.reading {
                return (reading.next(), dropped);
            }
            if self.sealed.is_empty() {
                self.seal();
            }
            let Some(segment) = self.sealed.pop_front() else {
                return (None, dropped);
            };
            dropped.unreadable += self.read(&segment);
        }
    }

    /// Reads a segment to hand it out; answers how many of its records are gone.
    fn read(&mut self, segment: &Segment) -> u64 {
        let content = match self.directory.read(&name(segment.number)) {
            Ok(content) => Bytes::from(content),
            Err(error) => {
                tracing::warn!("spool segment {} cannot be read: {error}", name(segment.number));
                Bytes::new()
            }
        };
        let scan = scan(&content);
        let reading = Reading {
            number: segment.number,
            bytes: segment.bytes,
            written: segment.written,
            content,
            frames: scan
                .frames
                .into_iter()
                .map(|frame| (frame.counts, frame.body))
                .collect(),
            out: 0,
            deleted: false,
        };
        let gone = segment.records.saturating_sub(reading.records());
        self.reading = Some(reading);
        self.clear_away();
        gone
    }

    /// The batch is settled: sent, or given up.
    pub(super) fn settle(&mut self, stored: &Stored) {
        if let Some(reading) = self.reading_of(stored) {
            reading.out -= 1;
        }
        self.clear_away();
    }

    /// The batch could not be sent: it is the next one again.
    pub(super) fn give_back(&mut self, stored: Stored) {
        if let Some(reading) = self.reading_of(&stored) {
            reading.out -= 1;
            reading.frames.push_front((stored.counts, stored.body));
        }
    }

    /// The segment that a batch is of; while one is out, it is there.
    fn reading_of(&mut self, stored: &Stored) -> Option<&mut Reading> {
        self.reading
            .as_mut()
            .filter(|reading| reading.number == stored.segment)
    }

    /// Deletes the segment of which nothing is left.
    fn clear_away(&mut self) {
        let done = |reading: &mut Reading| reading.out == 0 && reading.frames.is_empty();
        if let Some(reading) = self.reading.take_if(done)
            && !reading.deleted
        {
            delete(&self.directory, reading.number);
        }
    }

    /// Gives up the oldest segment; answers whether there was one.
    fn drop_oldest(&mut self, dropped: &mut Dropped) -> io::Result<bool> {
        if let Some(reading) = self.reading.as_mut().filter(|reading| !reading.deleted) {
            dropped.full += reading.forget();
            reading.deleted = true;
            let number = reading.number;
            self.clear_away();
            return self.directory.remove(&name(number)).map(|()| true);
        }
        if self.sealed.is_empty() {
            self.seal();
        }
        let Some(segment) = self.sealed.pop_front() else {
            return Ok(false);
        };
        dropped.full += segment.records;
        self.directory.remove(&name(segment.number)).map(|()| true)
    }

    /// Gives up what is too old.
    pub(super) fn expire(&mut self, now: u64) -> Dropped {
        let max_age = self.limits.max_age;
        let too_old = |written: u64| now.saturating_sub(written) > max_age;
        let mut dropped = Dropped::default();
        if self
            .writing
            .as_ref()
            .is_some_and(|writing| too_old(writing.segment.written))
        {
            self.seal();
        }
        if let Some(reading) = self.reading.as_mut().filter(|reading| too_old(reading.written)) {
            dropped.age += reading.forget();
        }
        while let Some(oldest) = self.sealed.pop_front_if(|oldest| too_old(oldest.written)) {
            dropped.age += oldest.records;
            delete(&self.directory, oldest.number);
        }
        self.clear_away();
        dropped
    }
}

/// A batch that is not kept.
#[derive(Debug)]
pub(super) enum AppendError {
    /// There is no room for it.
    Full(Dropped),
    /// It cannot be written.
    Io {
        source: io::Error,
        /// What had gone for it before.
        dropped: Dropped,
    },
}

/// A segment that cannot be deleted comes again at the next start.
fn delete<D: Directory>(directory: &D, number: u64) {
    if let Err(error) = directory.remove(&name(number)) {
        tracing::warn!("spool segment {} cannot be deleted: {error}", name(number));
    }
}

fn name(number: u64) -> String {
    format!("{number:016x}.spool")
}

fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".spool")?;
    (digits.len() == 16)
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}
