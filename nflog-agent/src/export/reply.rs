//! What collectors answer: partial success, error status, retry delay. Reads protobuf from strangers: never panics,
//! ignores what it does not know.

use std::time::Duration;

/// `ExportLogsServiceResponse.partial_success`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartialSuccess {
    /// Records that the server did not take.
    pub(super) rejected: u64,
    /// Its reason, or a warning.
    pub(super) message: String,
}

/// `google.rpc.Status`, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RpcStatus {
    pub(super) message: String,
    /// `RetryInfo.retry_delay`.
    pub(super) retry_delay: Option<Duration>,
}

/// Reads an `ExportLogsServiceResponse`; `None` if it is none.
pub(super) fn partial_success(response: &[u8]) -> Option<PartialSuccess> {
    let mut partial = PartialSuccess::default();
    for field in Fields(response) {
        if let (1, Value::Bytes(message)) = field? {
            for field in Fields(message) {
                match field? {
                    // int64; a negative count counts nothing.
                    (1, Value::Varint(count)) => {
                        partial.rejected = u64::try_from(count.cast_signed()).unwrap_or(0);
                    }
                    (2, Value::Bytes(text)) => partial.message = String::from_utf8_lossy(text).into_owned(),
                    _ => {}
                }
            }
        }
    }
    Some(partial)
}

/// Reads a `google.rpc.Status`; `None` if it is none.
pub(super) fn rpc_status(bytes: &[u8]) -> Option<RpcStatus> {
    const RETRY_INFO: &[u8] = b"google.rpc.RetryInfo";
    let mut status = RpcStatus::default();
    for field in Fields(bytes) {
        match field? {
            (2, Value::Bytes(text)) => status.message = String::from_utf8_lossy(text).into_owned(),
            (3, Value::Bytes(any)) => {
                let (mut url, mut value) = (&b""[..], &b""[..]);
                for field in Fields(any) {
                    match field? {
                        (1, Value::Bytes(bytes)) => url = bytes,
                        (2, Value::Bytes(bytes)) => value = bytes,
                        _ => {}
                    }
                }
                if url.ends_with(RETRY_INFO) {
                    status.retry_delay = Some(retry_delay(value)?);
                }
            }
            _ => {}
        }
    }
    Some(status)
}

/// Reads a `RetryInfo`. Without a delay, or with a negative one, the server asks for none.
fn retry_delay(retry_info: &[u8]) -> Option<Duration> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields(retry_info) {
        if let (1, Value::Bytes(duration)) = field? {
            for field in Fields(duration) {
                match field? {
                    (1, Value::Varint(value)) => seconds = u64::try_from(value.cast_signed()).unwrap_or(0),
                    (2, Value::Varint(value)) => nanos = u32::try_from(value).unwrap_or(0),
                    _ => {}
                }
            }
        }
    }
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of a message: number and value. `None` as an item: not protobuf, and the end.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceResponse,
    };
    use proptest::prelude::*;
    use prost::Message as _;
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    fn response(rejected: i64, message: &str) -> Vec<u8> {
        let partial_success = Some(ExportLogsPartialSuccess {
            rejected_log_records: rejected,
            error_message: message.to_owned(),
        });
        ExportLogsServiceResponse { partial_success }.encode_to_vec()
    }

    #[test]
    fn partial_successes_are_read() {
        assert_eq!(partial_success(&[]), Some(PartialSuccess::default()));
        let read = partial_success(&response(7, "too old")).unwrap();
        assert_eq!((read.rejected, read.message.as_str()), (7, "too old"));
        assert_eq!(partial_success(&response(-7, "")).unwrap().rejected, 0);
    }

    #[test]
    fn retry_delays_are_read_among_other_details() {
        for delay in [
            Duration::ZERO,
            Duration::from_millis(1500),
            Duration::from_secs(86_400),
        ] {
            let mut details = ErrorDetails::with_retry_info(Some(delay));
            details.add_help_link("what to do", "https://example.com");
            details.set_error_info("REASON", "example.com", []);
            let status = Status::with_error_details(Code::Unavailable, "busy", details);
            let read = rpc_status(status.details()).unwrap();
            assert_eq!(read.retry_delay, Some(delay));
            assert_eq!(read.message, "busy");
        }
        let bare = Status::with_error_details(Code::Unavailable, "busy", ErrorDetails::new());
        assert_eq!(rpc_status(bare.details()).unwrap().retry_delay, None);
        assert_eq!(rpc_status(&[]), Some(RpcStatus::default()));
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        let whole = response(7, "too old");
        for end in 1..whole.len() {
            assert_eq!(
                partial_success(&whole[..end]),
                None,
                "{end} of {} bytes",
                whole.len()
            );
        }
    }

    proptest! {
        #[test]
        fn strangers_bytes_are_read_as_prost_reads_them_or_not_at_all(bytes: Vec<u8>) {
            if let (Ok(theirs), Some(ours)) = (ExportLogsServiceResponse::decode(&bytes[..]), partial_success(&bytes)) {
                let theirs = theirs.partial_success.unwrap_or_default();
                prop_assert_eq!(ours.rejected, u64::try_from(theirs.rejected_log_records).unwrap_or(0));
            }
            rpc_status(&bytes);
        }
    }
}
