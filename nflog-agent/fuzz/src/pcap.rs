//! Target `pcap`: a capture file, read to its end, written again and read again.

use std::time::Duration;

use nflog_agent::nflog::pcap::{Reader, WriteError, Writer};

/// A record: time, message, original length.
type Kept = (Duration, Vec<u8>, u32);

/// Reads a capture file.
///
/// # Panics
/// If reading does not end, or what was read cannot be written and read again.
pub fn pcap(file: &[u8]) {
    let Ok(reader) = Reader::new(file) else {
        return;
    };
    let (kept, written) = rewrite(reader, file.len());
    let reader = Reader::new(&written[..]).expect("what the writer wrote begins well");
    let (again, _) = rewrite(reader, written.len());
    assert_eq!(kept.len(), again.len());
    for ((time, body, original), (time_again, body_again, original_again)) in kept.iter().zip(&again) {
        assert_eq!(time, time_again);
        // Whole messages are padded to 4 bytes.
        let padding = body_again.strip_prefix(&body[..]).expect("the same message");
        assert!(
            padding.len() < 4 && padding.iter().all(|byte| *byte == 0),
            "{padding:?}"
        );
        let length = u32::try_from(body_again.len()).expect("a short message");
        assert_eq!(*original_again, length.max(*original));
    }
}

/// Every record that has a time which fits a file, and a file of them.
fn rewrite(mut reader: Reader<&[u8]>, length: usize) -> (Vec<Kept>, Vec<u8>) {
    let mut writer = Writer::new(Vec::new()).expect("memory takes everything");
    let mut kept = Vec::new();
    // Each call but the last takes a record's header at least, or ends the file.
    for _ in 0..=length {
        let record = match reader.next_entry() {
            Ok(Some(record)) => record,
            Ok(None) => return (kept, writer.into_inner().expect("memory takes everything")),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        crate::entry(record.entry.as_bytes());
        match writer.write_record(&record) {
            Ok(()) => kept.push((
                record.timestamp,
                record.entry.as_bytes().to_vec(),
                record.original_length,
            )),
            Err(WriteError::Time { timestamp }) => assert!(u32::try_from(timestamp.as_secs()).is_err()),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no end after {length} records of a file of {length} bytes");
}
