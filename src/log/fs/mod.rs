//! The few things that the log asks of a disk, so that tests can run it on one that forgets and fails.
//!
//! [`Disk`] is the real one, [`FakeDisk`] keeps live and durable bytes apart and fails on demand. Nothing here
//! knows what the bytes mean. All names are relative to the one data directory, and name regular files: what else has one of
//! them is refused.

mod disk;
mod fake;
mod held;
mod mapping;

pub use disk::Disk;
pub use fake::{Crash, FakeDisk, FaultPlan};
pub(super) use held::{HeldDirectory, NoInodes};

use std::fmt::Debug;
use std::io;

/// A directory of files.
pub trait Fs: Debug + Send + Sync {
    /// The names in the directory, in no order. Those that are not UTF-8 have replacement characters, and can't be used.
    ///
    /// # Errors
    /// Those of the operating system, here and below.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a file that must not be there yet.
    #[allow(clippy::missing_errors_doc)]
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Opens a file for reading and writing.
    #[allow(clippy::missing_errors_doc)]
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Removes a file.
    #[allow(clippy::missing_errors_doc)]
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Gives a file another name, in place of the file that had it, if there was one.
    #[allow(clippy::missing_errors_doc)]
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file a second name, which must not be there yet.
    #[allow(clippy::missing_errors_doc)]
    fn link(&self, name: &str, second: &str) -> io::Result<()>;
    /// Makes the directory's entries durable.
    #[allow(clippy::missing_errors_doc)]
    fn sync_dir(&self) -> io::Result<()>;
    /// The size of a file in bytes.
    #[allow(clippy::missing_errors_doc)]
    fn file_len(&self, name: &str) -> io::Result<u64>;
    /// The first so many bytes of a file, or all of them if it has fewer.
    #[allow(clippy::missing_errors_doc)]
    fn beginning(&self, name: &str, bytes: usize) -> io::Result<Vec<u8>>;
    /// The contents of a file that nobody changes meanwhile.
    #[allow(clippy::missing_errors_doc)]
    fn contents(&self, name: &str) -> io::Result<Box<dyn Contents>>;
}

/// An open file.
#[allow(clippy::len_without_is_empty)]
pub trait File: Debug + Send {
    /// Its size in bytes.
    ///
    /// # Errors
    /// Those of the operating system, here and below.
    fn len(&self) -> io::Result<u64>;
    /// Whether a name leads to it, here or anywhere else.
    #[allow(clippy::missing_errors_doc)]
    fn is_named(&self) -> io::Result<bool>;
    /// Reads at this offset into `bytes` until it is full or the file ends, and returns how much was read.
    #[allow(clippy::missing_errors_doc)]
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at this offset and returns how much was written, which may be less than was given.
    #[allow(clippy::missing_errors_doc)]
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Sizes the file ahead to `size` bytes, so that writes up to there find room and a sync need not change
    /// the size. New bytes are zeros. Never shrinks.
    #[allow(clippy::missing_errors_doc)]
    fn allocate(&self, size: u64) -> io::Result<()>;
    /// Cuts or extends the file to `size` bytes.
    #[allow(clippy::missing_errors_doc)]
    fn set_len(&self, size: u64) -> io::Result<()>;
    /// Makes the contents durable, and the size where it matters to them.
    #[allow(clippy::missing_errors_doc)]
    fn sync(&self) -> io::Result<()>;
}

/// The bytes of a file, for reading.
pub trait Contents: Send + Sync {
    /// The bytes up to the last that may be other than zero.
    fn bytes(&self) -> &[u8];
    /// The size of the file; beyond [`Contents::bytes`] it is zeros.
    fn file_len(&self) -> u64;
}

/// A copy of a file's bytes.
struct Copied(Vec<u8>);

impl Contents for Copied {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn file_len(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Makes a file, in place of one of this name that was left over.
///
/// # Errors
/// Those of the operating system.
pub fn create_anew(fs: &dyn Fs, name: &str) -> io::Result<Box<dyn File>> {
    match fs.create(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs.remove(name)?;
            fs.create(name)
        }
        created => created,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_left_over_gives_way_and_other_errors_are_told_as_they_are() {
        let disk = FakeDisk::new();
        disk.write("a", b"left over");
        assert_eq!(create_anew(&disk, "a").and_then(|file| file.len()).expect("made"), 0);
        disk.plan(FaultPlan { fail: Some((0, io::ErrorKind::StorageFull)), ..FaultPlan::default() });
        assert_eq!(create_anew(&disk, "b").expect_err("refused").kind(), io::ErrorKind::StorageFull);
    }
}
