//! The real disk, by rustix.
//!
//! Knows system calls and which file systems lack which. Does not retry a sync: after a failed one the page
//! cache may hold what the disk does not (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).

use super::held::HeldDirectory;
use super::mapping::Mapping;
use super::{Contents, Copied, File, Fs};
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

/// A directory of the real file system, held by a descriptor: where its path leads to later does not matter.
#[derive(Clone, Debug)]
pub struct Disk {
    directory: Arc<HeldDirectory>,
    reading: Reading,
}

/// How the contents of a file are read.
#[derive(Clone, Copy, Debug)]
enum Reading {
    /// Mapped: nobody else changes the files.
    Mapped,
    /// Copied: a daemon may be running on them, and may cut a file while it is read.
    Copied,
}

impl Disk {
    /// The disk as seen from this directory, which this process alone changes.
    pub(in crate::log) fn of(directory: Arc<HeldDirectory>) -> Disk {
        Disk { directory, reading: Reading::Mapped }
    }

    /// The same, for a directory by its path.
    ///
    /// # Errors
    /// Those of the operating system: it is not there, is no directory, or may not be read.
    pub fn new(directory: &Path) -> io::Result<Disk> {
        Ok(Disk::of(Arc::new(HeldDirectory::open(directory)?)))
    }

    /// The same for a directory that is not locked by this process: files are read by copying them.
    ///
    /// # Errors
    /// As [`Disk::new`].
    pub fn unlocked(directory: &Path) -> io::Result<Disk> {
        Ok(Disk { reading: Reading::Copied, ..Disk::new(directory)? })
    }
}

impl Fs for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.directory.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(DiskFile(self.directory.create(name)?)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(DiskFile(self.directory.open_file(name, OFlags::RDWR)?)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.directory.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.directory.rename(from, to)
    }

    fn link(&self, name: &str, second: &str) -> io::Result<()> {
        self.directory.link(name, second)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync()
    }

    fn file_len(&self, name: &str) -> io::Result<u64> {
        self.directory.file_len(name)
    }

    fn beginning(&self, name: &str, bytes: usize) -> io::Result<Vec<u8>> {
        let mut beginning = Vec::new();
        self.directory.open_file(name, OFlags::RDONLY)?.take(bytes as u64).read_to_end(&mut beginning)?;
        Ok(beginning)
    }

    fn contents(&self, name: &str) -> io::Result<Box<dyn Contents>> {
        let mut file = self.directory.open_file(name, OFlags::RDONLY)?;
        Ok(match self.reading {
            Reading::Mapped => Box::new(Mapping::of(&file, &self.directory.path().join(name))?),
            Reading::Copied => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                Box::new(Copied(bytes))
            }
        })
    }
}

#[derive(Debug)]
struct DiskFile(fs::File);

impl File for DiskFile {
    fn is_named(&self) -> io::Result<bool> {
        Ok(self.0.metadata()?.nlink() > 0)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut written = 0;
        // A signal may cut a write short; a full disk does too, and then the next call says so.
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.0.write_at(rest, offset + written as u64) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let have = self.len()?;
        if have >= size {
            return Ok(());
        }
        loop {
            match fallocate(&self.0, FallocateFlags::empty(), have, size - have) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                // fallocate(2) rather than posix_fallocate(3), which would write zeros here. A sparse file keeps
                // syncs from changing the size just the same; it only can't promise that there is room.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.0.set_len(size),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync(2): it covers the size when that is needed to reach the data.
        rustix::fs::fdatasync(&self.0).map_err(io::Error::from)
    }
}
