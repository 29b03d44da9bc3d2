//! The data directory: one daemon has it, for as long as it runs.
//!
//! Knows the lock and what makes a directory usable. Does not know what is in it.

use super::error::LogError;
use super::fs::{Disk, Fs, sync_directory};
use crate::fault;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The lock's file.
pub const LOCK_NAME: &str = "LOCK";

/// A data directory that this process alone may write to, until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    // Never read: the kernel drops the lock with the descriptor, however the process ends.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is missing, takes its lock, and makes sure that files can be made in it.
    /// Nothing in it is read before the lock is held.
    ///
    /// # Errors
    /// [`LogError::Locked`] if another process has it, [`LogError::Directory`] if it can't be made or written.
    pub fn open(path: &Path) -> Result<DataDir, LogError> {
        let unusable = |source| LogError::Directory { directory: path.to_owned(), source };
        make(path).map_err(unusable)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK_NAME)).map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LogError::Locked(path.to_owned())),
            Err(errno) => return Err(unusable(errno.into())),
        }
        fault::at("start-locked").map_err(unusable)?;
        // LOCK may be writable, left by another user, in a directory that is not.
        rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .map_err(|errno| unusable(errno.into()))?;
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    /// The disk, seen from here.
    pub fn disk(&self) -> Arc<dyn Fs> {
        Arc::new(Disk::new(&self.path))
    }
}

/// Makes a directory and those above it, each durable: its entry is synced in its parent.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(io::ErrorKind::InvalidInput.into()),
    };
    make(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    sync_directory(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("made/on/the/way");
        let first = DataDir::open(&path).expect("the first");
        assert!(matches!(DataDir::open(&path), Err(LogError::Locked(_))));
        drop(first);
        DataDir::open(&path).expect("free again");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("file");
        File::create_new(&path).expect("a file");
        let refused = DataDir::open(&path).expect_err("not a directory");
        assert!(refused.to_string().contains("file"), "{refused}");
    }

    #[test]
    fn two_who_make_it_at_one_time_both_have_it() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        for round in 0..50 {
            let path = parent.path().join(format!("{round}/on/the/way"));
            let together = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        together.wait();
                        make(&path).expect("made by one of them");
                    });
                }
            });
        }
    }
}
