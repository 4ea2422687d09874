//! A tap device, held as a virtual machine's process holds it: it writes the frames that the machine sends.
//!
//! One of the files of the tests with `unsafe`: the device is made by an `ioctl`.
#![expect(unsafe_code, reason = "no safe crate makes a tap device for a file of ours")]

use std::fs::File;
use std::io::{ErrorKind, Result};
use std::os::fd::OwnedFd;

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// `TUNSETIFF`, which says `int` but takes a `struct ifreq`.
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const IFF_TAP: u16 = 0x0002;
/// Frames without a header of the device's own.
const IFF_NO_PI: u16 = 0x1000;

/// `struct ifreq`
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// Makes the device in the caller's network namespace. It is there as long as the descriptor.
pub(super) fn open(name: &str) -> Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TAP | IFF_NO_PI,
        rest: [0; 22],
    };
    // With a 0 at its end.
    let space = request.name[..15].get_mut(..name.len());
    space
        .ok_or(ErrorKind::InvalidInput)?
        .copy_from_slice(name.as_bytes());
    // SAFETY: of a file of this device TUNSETIFF reads and writes one `struct ifreq`, and `InterfaceRequest` is as large.
    unsafe { ioctl(&file, Setter::<TUNSETIFF, InterfaceRequest>::new(request)) }?;
    Ok(file.into())
}
