//! The authentication header (AH), which IPv4 and IPv6 share. What it protects is not encrypted.

use etherparse::IpAuthHeaderSlice;
use etherparse::err::ip_auth::HeaderSliceError;

/// An authentication header.
pub(super) enum Authentication<'a> {
    /// It is whole.
    Header {
        /// Protocol number of what it protects.
        next: u8,
        /// What it protects.
        rest: &'a [u8],
    },
    /// It is cut off.
    Cut,
    /// Its length is impossible.
    Malformed,
}

/// Skips an authentication header.
pub(super) fn skip(data: &[u8]) -> Authentication<'_> {
    match IpAuthHeaderSlice::from_slice(data) {
        Ok(header) => Authentication::Header {
            next: header.next_header().0,
            rest: &data[header.slice().len()..],
        },
        Err(HeaderSliceError::Len(_)) => Authentication::Cut,
        Err(HeaderSliceError::Content(_)) => Authentication::Malformed,
    }
}
