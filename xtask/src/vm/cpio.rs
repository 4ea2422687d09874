//! Writes a cpio archive of the `newc` kind, the format of an initramfs.
//!
//! Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Every header field is eight hexadecimal
//! digits; names and contents are padded to four bytes.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive under construction.
#[derive(Debug)]
pub(crate) struct Archive<W> {
    out: W,
    inode: u32,
    offset: usize,
    entries: BTreeSet<String>,
}

struct Header<'a> {
    name: &'a str,
    mode: u32,
    device: (u32, u32),
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            inode: 0,
            offset: 0,
            entries: BTreeSet::new(),
        }
    }

    /// A directory and the directories above it, unless they are there.
    pub(crate) fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let directory = &path[..end];
            if !directory.is_empty() && self.entries.insert(directory.to_owned()) {
                self.entry(
                    &Header {
                        name: directory,
                        mode: DIRECTORY,
                        device: (0, 0),
                    },
                    &[],
                )?;
            }
        }
        Ok(())
    }

    /// A file with its permission bits; the second file of the same name is left out.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.leaf(path, FILE | permissions, (0, 0), content)
    }

    /// A symbolic link.
    pub(crate) fn symlink(&mut self, path: &str, destination: &str) -> io::Result<()> {
        self.leaf(path, SYMLINK, (0, 0), destination.as_bytes())
    }

    /// A character device.
    pub(crate) fn character_device(&mut self, path: &str, device: (u32, u32)) -> io::Result<()> {
        self.leaf(path, CHARACTER_DEVICE, device, &[])
    }

    /// Writes the end mark.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry(
            &Header {
                name: "TRAILER!!!",
                mode: 0,
                device: (0, 0),
            },
            &[],
        )?;
        Ok(self.out)
    }

    fn leaf(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        if let Some(parent) = Path::new(name).parent().and_then(Path::to_str) {
            self.directory(parent)?;
        }
        if self.entries.insert(name.to_owned()) {
            self.entry(&Header { name, mode, device }, content)?;
        }
        Ok(())
    }

    fn entry(&mut self, header: &Header<'_>, content: &[u8]) -> io::Result<()> {
        let Header { name, mode, device } = *header;
        let size = |length: usize| {
            u32::try_from(length).map_err(|_| io::Error::other(format!("{name}: larger than 4 GiB")))
        };
        let name_size = size(name.len() + 1)?;
        self.inode += 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        self.bytes(b"070701")?;
        // inode, mode, uid, gid, links, mtime, size, device of the file (2), device it is (2), name size, checksum
        let fields = [
            self.inode,
            mode,
            0,
            0,
            links,
            0,
            size(content.len())?,
            0,
            0,
            device.0,
            device.1,
            name_size,
            0,
        ];
        for field in fields {
            self.bytes(format!("{field:08X}").as_bytes())?;
        }
        self.bytes(name.as_bytes())?;
        self.bytes(b"\0")?;
        self.pad()?;
        self.bytes(content)?;
        self.pad()
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offset += bytes.len();
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = self.offset.next_multiple_of(4) - self.offset;
        self.bytes(&[0; 3][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and content of each entry, as the kernel's init/initramfs.c reads them.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(&bytes[..6], b"070701");
            let text = std::str::from_utf8(&bytes[6..110]).expect("hexadecimal digits");
            let field =
                |index: usize| u32::from_str_radix(&text[index * 8..][..8], 16).expect("hexadecimal digits");
            let (name_size, size) = (field(11) as usize, field(6) as usize);
            let content = (110 + name_size).next_multiple_of(4);
            let name = std::str::from_utf8(&bytes[110..110 + name_size - 1]).expect("ASCII");
            entries.push((name.to_owned(), field(1), bytes[content..content + size].to_vec()));
            bytes = &bytes[(content + size).next_multiple_of(4)..];
        }
        entries
    }

    #[test]
    fn a_file_brings_its_directories_and_everything_is_aligned() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b/c", 0o755, b"hello").expect("writes");
        let entries = read(&archive.finish().expect("writes"));
        let expected = [
            ("a", DIRECTORY, &b""[..]),
            ("a/b", DIRECTORY, b""),
            ("a/b/c", 0o100_755, b"hello"),
            ("TRAILER!!!", 0, b""),
        ];
        let expected = expected.map(|(name, mode, content)| (name.to_owned(), mode, content.to_vec()));
        assert_eq!(entries, expected);
    }

    #[test]
    fn the_first_of_two_entries_of_a_name_counts() {
        let mut archive = Archive::new(Vec::new());
        archive.symlink("bin/sh", "busybox").expect("writes");
        archive.symlink("/bin/sh", "elsewhere").expect("writes");
        let entries = read(&archive.finish().expect("writes"));
        let shells: Vec<_> = entries.iter().filter(|(name, ..)| name == "bin/sh").collect();
        assert_eq!(shells, [&("bin/sh".to_owned(), SYMLINK, b"busybox".to_vec())]);
    }
}
