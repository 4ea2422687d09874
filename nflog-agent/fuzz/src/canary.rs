//! A target that is wrong on purpose: unless libFuzzer finds this, it would not find anything else either.

use nflog_agent::nflog::Entry;

/// "fuzz" as a packet mark.
const MAGIC: u32 = u32::from_be_bytes(*b"fuzz");

/// Panics for an entry whose mark is `MAGIC`. To get there from nothing takes coverage of the library's decoder, not only
/// of this file, and the operands of its comparisons.
///
/// # Panics
/// As said.
pub fn canary(body: &[u8]) {
    let mark = Entry::decode(body).and_then(|entry| entry.mark());
    assert_ne!(mark, Some(MAGIC), "the canary is found");
}
