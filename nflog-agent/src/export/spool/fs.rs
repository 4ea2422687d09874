//! The few file operations that a spool needs. Behind a trait, because full disks and failing ones are hard to come by.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Files in one directory.
pub(super) trait Directory: Send {
    /// A file that is being written.
    type File: Send;

    /// Names and lengths, bytes, of all files.
    fn list(&self) -> io::Result<Vec<(OsString, u64)>>;
    /// All of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Makes a file that does not exist.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Appends all of `bytes`, or fails with some of them written.
    fn append(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file that is being written.
    fn cut(&self, file: &mut Self::File, length: u64) -> io::Result<()>;
    /// Makes what was appended durable (`fdatasync`).
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// The same for a file that is not being written, whose writer may have been killed.
    fn sync_file(&self, name: &str) -> io::Result<()>;
    /// Makes the creation and removal of files durable.
    fn sync_names(&self) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A directory on disk, locked against other agents.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    directory: File,
}

impl Disk {
    /// Makes the directory if it is missing (only its owner may enter), and locks it. `None`: another process has it.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let directory = File::open(path)?;
        match directory.try_lock() {
            Ok(()) => Ok(Some(Self {
                path: path.to_owned(),
                directory,
            })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Directory for Disk {
    type File = File;

    fn list(&self) -> io::Result<Vec<(OsString, u64)>> {
        fs::read_dir(&self.path)?
            .map(|entry| {
                let entry = entry?;
                Ok((entry.file_name(), entry.metadata()?.len()))
            })
            .collect()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path.join(name))?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path.join(name))
    }

    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn cut(&self, file: &mut File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_file(&self, name: &str) -> io::Result<()> {
        File::open(self.path.join(name))?.sync_data()
    }

    fn sync_names(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }
}
