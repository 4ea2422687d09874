//! The bytes of a file, part by part. Reads only as much as is asked for, and knows where it is.

use std::io::{self, BufReader, Read};

use super::error::ReadError;

/// The file, and the part of it that is being looked at.
#[derive(Debug)]
pub(super) struct Source<R> {
    input: BufReader<R>,
    /// Where the part begins.
    offset: u64,
    /// Bytes read since.
    taken: u64,
    part: Vec<u8>,
}

impl<R: Read> Source<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input: BufReader::new(input),
            offset: 0,
            taken: 0,
            part: Vec::new(),
        }
    }

    /// Where the part begins.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// The part as far as it was read.
    pub(super) fn part(&self) -> &[u8] {
        &self.part
    }

    /// Begins a part with `length` bytes; false at the end of the file.
    pub(super) fn begin(&mut self, length: u32) -> Result<bool, ReadError> {
        self.offset += self.taken;
        self.taken = 0;
        self.part.clear();
        match self.read(length)? {
            0 => Ok(false),
            _ if self.taken == u64::from(length) => Ok(true),
            _ => Err(self.truncated()),
        }
    }

    /// Reads `length` more bytes of the part.
    pub(super) fn extend(&mut self, length: u32) -> Result<(), ReadError> {
        if self.read(length)? == u64::from(length) {
            Ok(())
        } else {
            Err(self.truncated())
        }
    }

    /// Passes over `length` more bytes of the part.
    pub(super) fn skip(&mut self, length: u32) -> Result<(), ReadError> {
        let mut rest = self.input.by_ref().take(length.into());
        let skipped = io::copy(&mut rest, &mut io::sink())?;
        self.taken += skipped;
        if skipped == u64::from(length) {
            Ok(())
        } else {
            Err(self.truncated())
        }
    }

    fn read(&mut self, length: u32) -> io::Result<u64> {
        let before = self.part.len();
        let mut rest = self.input.by_ref().take(length.into());
        rest.read_to_end(&mut self.part)?;
        let read = (self.part.len() - before) as u64;
        self.taken += read;
        Ok(read)
    }

    const fn truncated(&self) -> ReadError {
        ReadError::Truncated { offset: self.offset }
    }
}
