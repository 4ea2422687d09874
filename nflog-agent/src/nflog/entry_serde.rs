//! How an [`EntryBuf`] is serialised. Pure.
//!
//! In formats that people read (JSON) what is absent, empty or zero is left out, except family and group. In the others every
//! field is written, in the order of the struct: some of them know fields by their position only.

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use super::byte_text::{Bytes, Text};
use super::entry_buf::EntryBuf;

/// Serialises the struct `$entry`: the `always` fields, and the others unless they have their default and `$all` is false.
macro_rules! serialize_fields {
    ($serializer:ident, $entry:ident, always { $($key:ident,)* } others { $($name:ident: $value:expr,)* }) => {{
        let all = !$serializer.is_human_readable();
        let has = |absent: bool| all || !absent;
        let count = [$(stringify!($key)),*].len()
            $(+ usize::from(has(is_default(&$entry.$name))))*;
        let mut out = $serializer.serialize_struct("EntryBuf", count)?;
        $(out.serialize_field(stringify!($key), &$entry.$key)?;)*
        $(
            if has(is_default(&$entry.$name)) {
                out.serialize_field(stringify!($name), &$value)?;
            } else {
                out.skip_field(stringify!($name))?;
            }
        )*
        out.end()
    }};
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Serialize for EntryBuf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_fields!(serializer, self, always {
            family,
            group,
        } others {
            lost_before: self.lost_before,
            hook: self.hook,
            hw_protocol: self.hw_protocol,
            prefix: Text(&self.prefix),
            mark: self.mark,
            timestamp: self.timestamp,
            indev: self.indev,
            outdev: self.outdev,
            physindev: self.physindev,
            physoutdev: self.physoutdev,
            hwaddr: self.hwaddr.as_deref().map(Bytes),
            hwtype: self.hwtype,
            hwheader: self.hwheader.as_deref().map(Bytes),
            hwlen: self.hwlen,
            uid: self.uid,
            gid: self.gid,
            seq: self.seq,
            seq_global: self.seq_global,
            ct: self.ct.as_deref().map(Bytes),
            ct_info: self.ct_info,
            vlan: self.vlan,
            l2hdr: self.l2hdr.as_deref().map(Bytes),
            payload: Bytes(&self.payload),
            unknown_attributes: self.unknown_attributes,
            problems: self.problems,
        })
    }
}
