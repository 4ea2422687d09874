//! `log.record.uid`: an id that stays with a record through retries and the spool, so that a backend can drop what comes twice.
//!
//! A ULID (<https://github.com/ulid/spec>): 48 bits of milliseconds, when the agent received the packet, then 80 bits: 45 random ones
//! of the encoder, 35 of a counter. Ids of one encoder are unique as the counter does not come round within a millisecond; those
//! of different encoders as far as their random bits are.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Characters of a ULID.
const LENGTH: usize = 26;
/// Of the time.
const TIME: usize = 10;
/// Of the counter: 35 bits.
const COUNTER: usize = 7;
/// Crockford's base 32.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The ids of one encoder's records.
#[derive(Clone, Debug)]
pub struct RecordIds {
    text: [u8; LENGTH],
    millis: u64,
    counter: u64,
}

impl RecordIds {
    /// # Errors
    /// When the kernel has no random bytes to give (`getrandom(2)`).
    pub fn new() -> io::Result<Self> {
        let mut random = [0; 8];
        let filled = getrandom(&mut random, GetRandomFlags::empty())?;
        if filled < random.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self::with(u64::from_ne_bytes(random)))
    }

    /// `random`: its lower 45 bits tell this encoder from others.
    fn with(random: u64) -> Self {
        let mut ids = Self {
            text: [b'0'; LENGTH],
            millis: 0,
            counter: 0,
        };
        digits(&mut ids.text[TIME..LENGTH - COUNTER], random);
        ids
    }

    /// The id of the next record, received at a time in ns since the Unix epoch.
    pub(super) fn next(&mut self, observed_unix_nano: u64) -> &str {
        let millis = observed_unix_nano / 1_000_000;
        if millis != self.millis {
            self.millis = millis;
            digits(&mut self.text[..TIME], millis);
        }
        digits(&mut self.text[LENGTH - COUNTER..], self.counter);
        self.counter = self.counter.wrapping_add(1);
        // Digits are ASCII.
        std::str::from_utf8(&self.text).unwrap_or_default()
    }
}

/// The lowest digits of a number.
fn digits(out: &mut [u8], value: u64) {
    let mut rest = value;
    for digit in out.iter_mut().rev() {
        *digit = DIGITS[(rest & 31) as usize];
        rest >>= 5;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_id_is_the_time_the_encoder_and_the_count() {
        let mut ids = RecordIds::with(1 << 44 | 31);
        // The specification's example of a time: 01ARZ3NDEK is 1469922850259 ms.
        assert_eq!(ids.next(1_469_922_850_259_999_999), "01ARZ3NDEKG0000000Z0000000");
        assert_eq!(ids.next(1_469_922_850_260_000_000), "01ARZ3NDEMG0000000Z0000001");
    }

    #[test]
    fn ids_are_unique_within_and_between_encoders_and_ascend() {
        let mut all = BTreeSet::new();
        for _ in 0..4 {
            let mut ids = RecordIds::new().unwrap();
            let mut last = String::new();
            for at in 0..2_000 {
                let id = ids.next(1_700_000_000_000_000_000 + at * 1_000).to_owned();
                assert!(id > last, "{id} after {last}");
                assert_eq!(id.len(), LENGTH);
                last.clone_from(&id);
                assert!(all.insert(id));
            }
        }
    }
}
