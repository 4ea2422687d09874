//! Target `conntrack`: the conntrack entry that NFLOG attaches, against what must hold for any bytes and against the oracle.

use std::hint::black_box;

use nflog_agent::nflog::{Conntrack, ConntrackBuf, Problems, Tuple};

use crate::ct_oracle::Reading;

/// Decodes a run of `CTA_*` attributes and checks the entry.
///
/// # Panics
/// If the entry contradicts itself or another implementation.
pub fn conntrack(attributes: &[u8]) {
    let entry = Conntrack::decode(attributes);
    let owned = ConntrackBuf::from(&entry);
    black_box(format!("{entry:?} {owned:?}"));
    black_box((0..=u8::MAX).filter(|bit| entry.label_bit(*bit)).count());
    assert_eq!(entry, Conntrack::decode(attributes));
    for tuple in [entry.original(), entry.reply(), entry.master()]
        .into_iter()
        .flatten()
    {
        check_tuple(tuple);
    }
    assert_eq!(
        entry.timeout().map(|timeout| timeout.as_secs()),
        owned.timeout_seconds.map(u64::from)
    );
    // The oracle reads only what is whole in every part; ours says so where a part is not.
    if !entry.problems().contains(Problems::SHORT_VALUE)
        && let Some(reading) = Reading::of_oracle(attributes)
    {
        reading.compare(&entry);
    }
}

fn check_tuple(tuple: Tuple) {
    assert_eq!(tuple.src.is_ipv4(), tuple.dst.is_ipv4());
    if let Some(inverted) = tuple.inverted() {
        assert_eq!((inverted.src, inverted.dst), (tuple.dst, tuple.src));
        assert_eq!(inverted.inverted(), Some(tuple));
    }
}
