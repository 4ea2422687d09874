//! Numbers and flags as text, without allocation, and text made safe for a terminal.

use std::fmt::{self, Write as _};
use std::io::Write as _;

/// Short ASCII text on the stack. Writing more than `N` bytes is an error and changes nothing.
#[derive(Clone, Copy)]
pub(super) struct Ascii<const N: usize> {
    pub(super) bytes: [u8; N],
    pub(super) len: usize,
}

impl<const N: usize> Ascii<N> {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    pub(super) fn push(&mut self, text: &[u8]) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes
            .get_mut(self.len..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(text);
        self.len = end;
        Ok(())
    }
}

impl<const N: usize> fmt::Write for Ascii<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.is_ascii() {
            self.push(text.as_bytes())
        } else {
            Err(fmt::Error)
        }
    }
}

pub(super) const HEX: &[u8; 16] = b"0123456789abcdef";

/// The protocol of a name as [`protocol`] gives it.
pub(crate) fn protocol_number(name: &str) -> Option<u8> {
    (0..=u8::MAX).find(|number| protocol(*number).as_str() == name)
}

/// Transport protocol: IANA keyword in lower case, else `proto-N`.
pub(super) fn protocol(number: u8) -> Ascii<16> {
    let mut text = Ascii::new();
    let keyword = match number {
        1 => "icmp",
        2 => "igmp",
        4 => "ipv4",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        41 => "ipv6",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "ipv6-icmp",
        132 => "sctp",
        136 => "udplite",
        _ => "",
    };
    let written = if keyword.is_empty() {
        write!(text, "proto-{number}")
    } else {
        text.push(keyword.as_bytes())
    };
    written.expect("the longest keyword has 9 characters");
    text
}

/// `SYN,ACK`; `NONE` for no flag. `FIN` is bit 0, `CWR` bit 7.
pub(super) fn tcp_flags(flags: u8) -> Ascii<31> {
    const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let mut text = Ascii::new();
    let mut write = |part: &str| {
        text.push(part.as_bytes())
            .expect("8 names and 7 commas are 31 characters");
    };
    if flags == 0 {
        write("NONE");
    }
    let mut rest = flags;
    for (bit, name) in NAMES.into_iter().enumerate() {
        if flags >> bit & 1 == 1 {
            write(name);
            rest &= !(1 << bit);
            if rest != 0 {
                write(",");
            }
        }
    }
    text
}

/// Lower-case hex with colons. Addresses longer than 32 bytes, which the kernel does not have, are cut.
pub(super) fn hwaddr(bytes: &[u8]) -> Ascii<95> {
    let mut text = Ascii::new();
    for (at, byte) in bytes.iter().take(32).enumerate() {
        let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
        let colon: &[u8] = if at == 0 { b"" } else { b":" };
        text.push(colon)
            .and_then(|()| text.push(&digits))
            .expect("32 bytes are 95 characters");
    }
    text
}

/// Appends a number in decimal.
pub(super) fn push_decimal(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; 20];
    let len = decimal_into(&mut digits, value);
    out.extend_from_slice(&digits[..len]);
}

pub(super) fn decimal_into(out: &mut [u8], value: u64) -> usize {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let len = digits.len() - at;
    out[..len].copy_from_slice(&digits[at..]);
    len
}

/// Appends text that others chose (prefix, `comm`, device name): control characters as `\x1b`, line separators and
/// direction overrides as `\u{202e}`, so that it can neither break the line nor command a terminal nor look like other
/// text.
pub(crate) fn push_escaped(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| matches!(byte, 0x20..0x7f)) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let mut utf8 = [0; 4];
    for character in text.chars() {
        let code = u32::from(character);
        if character.is_control() {
            write!(out, "\\x{code:02x}").expect("writing to a Vec does not fail");
        } else if matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            write!(out, "\\u{{{code:x}}}").expect("writing to a Vec does not fail");
        } else {
            out.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_combination_fits() {
        assert_eq!(tcp_flags(0).as_str(), "NONE");
        assert_eq!(tcp_flags(0x02).as_str(), "SYN");
        assert_eq!(tcp_flags(0x12).as_str(), "SYN,ACK");
        assert_eq!(tcp_flags(0xff).as_str(), "FIN,SYN,RST,PSH,ACK,URG,ECE,CWR");
        for flags in 0..=u8::MAX {
            assert_eq!(
                tcp_flags(flags).as_str().split(',').count(),
                flags.count_ones().max(1) as usize,
                "{flags:#x}"
            );
        }
    }

    #[test]
    fn every_protocol_fits() {
        assert_eq!(protocol(6).as_str(), "tcp");
        assert_eq!(protocol(255).as_str(), "proto-255");
        for number in 0..=u8::MAX {
            assert!(!protocol(number).as_str().is_empty());
        }
    }

    #[test]
    fn hardware_addresses_have_colons() {
        assert_eq!(hwaddr(&[]).as_str(), "");
        assert_eq!(
            hwaddr(&[0x02, 0x42, 0xac, 0x11, 0x00, 0x0f]).as_str(),
            "02:42:ac:11:00:0f"
        );
        assert_eq!(hwaddr(&[0xff; 40]).as_bytes().len(), 95);
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for value in [0, 7, 10, 99, 100, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            push_decimal(&mut out, value);
            assert_eq!(out, value.to_string().as_bytes());
        }
    }

    #[test]
    fn terminal_commands_are_defused() {
        let mut out = Vec::new();
        push_escaped(&mut out, "a\x1b[31m\nü\u{9b}\u{202e}");
        assert_eq!(String::from_utf8(out).unwrap(), "a\\x1b[31m\\x0aü\\x9b\\u{202e}");
    }
}
