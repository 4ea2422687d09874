//! Target `entry`: one message body, decoded, against what must hold for any bytes and against the oracle.

use std::hint::black_box;

use nflog_agent::nflog::{EncodeError, Entry, EntryBuf, Hook, Problems, Vlan};

use crate::oracle::Reading;

/// Decodes the body of a packet message and checks the entry.
///
/// # Panics
/// If the entry contradicts itself or another implementation.
pub fn entry(body: &[u8]) {
    let Some(entry) = Entry::decode(body) else {
        assert!(body.len() < 4, "a body with an nfgenmsg is an entry");
        return;
    };
    touch(&entry);
    check(&entry);
    check_encoded(&entry);
    if let Some(reading) = Reading::of_oracle(body) {
        assert_eq!(Reading::of_entry(&entry), reading);
    }
}

/// Calls what [`check`] does not call; formatting calls every accessor of an attribute.
fn touch(entry: &Entry<'_>) {
    black_box(format!("{entry:?}"));
    black_box((entry.family().name(), entry.hook().map(Hook::name)));
    black_box((entry.vlan().map(Vlan::id), entry.ct_state()));
    if let Some(ct) = entry.ct() {
        crate::conntrack(ct);
    }
}

fn check(entry: &Entry<'_>) {
    assert_eq!(
        entry.hook().is_none(),
        entry.problems().contains(Problems::NO_PACKET_HDR)
    );
    assert_eq!(entry.hook().is_some(), entry.hw_protocol().is_some());
    assert!(entry.payload().ends_with(entry.network_payload()));
    assert!(entry.hwaddr().is_none_or(|address| address.len() <= 8));
    assert_eq!(
        entry.timestamp().map(|time| time.as_nanos()),
        entry.timestamp_unix_nano().map(u128::from)
    );
    assert_eq!(entry.lost_before(), 0, "known to a batch only");
}

/// What was decoded is written and read back the same, except for what is said about the message and not in it.
fn check_encoded(entry: &Entry<'_>) {
    let said = |entry: &Entry<'_>| EntryBuf {
        unknown_attributes: 0,
        problems: Problems::NONE,
        ..entry.to_buf()
    };
    let owned = said(entry);
    assert_eq!(owned.network_payload(), entry.network_payload());
    match owned.encode() {
        Ok(body) => {
            let again = Entry::decode(&body).expect("a whole nfgenmsg");
            assert_eq!(said(&again), owned);
            assert_eq!(again.unknown_attributes(), 0);
            let allowed = if owned.hook.is_some() {
                Problems::NONE
            } else {
                Problems::NO_PACKET_HDR
            };
            assert_eq!(again.problems(), allowed);
        }
        // A prefix of the greatest length without its NUL.
        Err(EncodeError::TooLong { length, .. }) => assert!(length > 65_531),
        Err(error) => panic!("{error}: {owned:?}"),
    }
}
