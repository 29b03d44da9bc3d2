//! The real disk, by rustix.
//!
//! Knows system calls and which file systems lack which. Does not retry a sync: after a failed one the page
//! cache may hold what the disk does not (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).

use super::mapping::Mapping;
use super::{Contents, Copied, File, Fs};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// A directory of the real file system.
#[derive(Debug)]
pub struct Disk {
    directory: PathBuf,
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
    /// The disk as seen from this directory, which exists.
    pub fn new(directory: &Path) -> Self {
        Disk { directory: directory.to_owned(), reading: Reading::Mapped }
    }

    /// The same for a directory that is not locked by this process: files are read by copying them.
    pub fn unlocked(directory: &Path) -> Self {
        Disk { directory: directory.to_owned(), reading: Reading::Copied }
    }
}

impl Fs for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(self.directory.join(name))?;
        Ok(Box::new(DiskFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).open(self.directory.join(name))?;
        Ok(Box::new(DiskFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.directory.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn sync_dir(&self) -> io::Result<()> {
        sync_directory(&self.directory)
    }

    fn file_len(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.directory.join(name))?.len())
    }

    fn beginning(&self, name: &str, bytes: usize) -> io::Result<Vec<u8>> {
        let mut beginning = Vec::new();
        fs::File::open(self.directory.join(name))?.take(bytes as u64).read_to_end(&mut beginning)?;
        Ok(beginning)
    }

    fn contents(&self, name: &str) -> io::Result<Box<dyn Contents>> {
        let path = self.directory.join(name);
        Ok(match self.reading {
            Reading::Mapped => Box::new(Mapping::open(&path)?),
            Reading::Copied => Box::new(Copied(fs::read(&path)?)),
        })
    }
}

/// Makes the entries of a directory durable. Once: the standard library's way would try again if a signal interrupts it.
///
/// # Errors
/// What the disk refuses. After that its entries can't be relied on.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::fsync(fs::File::open(path)?)?)
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
