//! Compression of whole HTTP bodies. tonic does it for gRPC.

use std::io::Write as _;

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::HeaderValue;

use super::config::Compression;

/// The fastest: requests go out while packets come in.
const ZSTD_LEVEL: i32 = 1;

/// `Content-Encoding`.
pub(crate) fn encoding(compression: Compression) -> Option<HeaderValue> {
    match compression {
        Compression::None => None,
        Compression::Gzip => Some(HeaderValue::from_static("gzip")),
        Compression::Zstd => Some(HeaderValue::from_static("zstd")),
    }
}

/// The body to send.
pub(crate) fn compress(compression: Compression, payload: &Bytes) -> Bytes {
    match compression {
        Compression::None => payload.clone(),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            let written = encoder.write_all(payload).and_then(|()| encoder.finish());
            Bytes::from(written.expect("writing to a Vec does not fail"))
        }
        Compression::Zstd => {
            let compressed = zstd::bulk::compress(payload, ZSTD_LEVEL);
            Bytes::from(compressed.expect("the buffer has the size that zstd asks for"))
        }
    }
}
