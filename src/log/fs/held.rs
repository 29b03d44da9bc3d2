//! A directory that is held by a descriptor, and the files in it.
//!
//! Knows the system calls that start from a descriptor (openat, renameat, unlinkat, …). Once a directory is held, its path is a
//! name for messages and nothing else: where it is moved, or something else takes its place, whatever is done goes on in the
//! directory that is held. Files are regular files of that directory or nothing: links are not followed, and a FIFO is not
//! waited for.

use crate::descriptors::with_kept_back;
use rustix::fs::{
    Access, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat, accessat, flock, fstat, fstatvfs, linkat, open,
    openat, renameat, statat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Mode of a file that is made: nobody but its owner may read what clients stored.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// How every file is opened.
const EVERY_FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// There is no inode for another file.
#[derive(Debug, thiserror::Error)]
#[error("no inode is left for another file")]
pub struct NoInodes;

/// What has a file's name is no file.
#[derive(Debug, thiserror::Error)]
#[error("it is {0}, which kvd did not make and does not touch. Move it out of the data directory")]
struct NotAFile(&'static str);

/// A directory, held.
#[derive(Debug)]
pub struct HeldDirectory {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl HeldDirectory {
    /// Holds the directory that the path leads to now.
    pub fn open(path: &Path) -> io::Result<HeldDirectory> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = with_kept_back(|| retry_on_intr(|| open(path, flags, Mode::empty())))?;
        Ok(HeldDirectory { descriptor, path: path.to_owned() })
    }

    /// Where it was found, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes its lock, if nobody has it.
    pub fn lock(&self) -> Result<(), Errno> {
        flock(&self.descriptor, FlockOperation::NonBlockingLockExclusive)
    }

    /// Whether names in it can be made and changed.
    pub fn allows_changes(&self) -> io::Result<()> {
        Ok(accessat(&self.descriptor, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty())?)
    }

    /// The names in it. What is no UTF-8 in them is replaced, by a character that no name of kvd's has.
    pub fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in with_kept_back(|| Dir::read_from(&self.descriptor))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Makes a file that must not be there yet.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | EVERY_FILE;
        match with_kept_back(|| retry_on_intr(|| openat(&self.descriptor, name, flags, FILE_MODE))) {
            Ok(made) => Ok(made.into()),
            Err(Errno::NOSPC) if self.lacks_inodes() => Err(io::Error::new(io::ErrorKind::StorageFull, NoInodes)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a file: for reading alone, for writing too, or made if it is missing.
    pub fn open_file(&self, name: &str, how: OFlags) -> io::Result<File> {
        let opened = with_kept_back(|| retry_on_intr(|| openat(&self.descriptor, name, how | EVERY_FILE, FILE_MODE)));
        match opened {
            Ok(opened) => {
                must_be_file(&fstat(&opened)?)?;
                Ok(opened.into())
            }
            Err(errno) => {
                // What is no file is refused in as many ways as there are kinds.
                if let Ok(stat) = self.stat(name) {
                    must_be_file(&stat)?;
                }
                Err(errno.into())
            }
        }
    }

    /// The size of a file.
    pub fn file_len(&self, name: &str) -> io::Result<u64> {
        let stat = self.stat(name)?;
        must_be_file(&stat)?;
        Ok(stat.st_size.cast_unsigned())
    }

    /// The user who owns what has this name.
    pub fn owner(&self, name: &str) -> io::Result<u32> {
        Ok(self.stat(name)?.st_uid)
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        must_be_file(&self.stat(name)?)?;
        Ok(unlinkat(&self.descriptor, name, AtFlags::empty())?)
    }

    /// Gives a file another name, in place of the file that had it.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.descriptor, from, &self.descriptor, to)?)
    }

    /// Gives a file a second name, which must not be there yet.
    pub fn link(&self, name: &str, second: &str) -> io::Result<()> {
        Ok(linkat(&self.descriptor, name, &self.descriptor, second, AtFlags::empty())?)
    }

    /// Makes its entries durable. Once: the standard library's way would try again if a signal interrupts it.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.descriptor)?)
    }

    fn stat(&self, name: &str) -> io::Result<Stat> {
        Ok(statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Whether it is inodes that its file system lacks, and not bytes. (Some have no count of them.)
    fn lacks_inodes(&self) -> bool {
        fstatvfs(&self.descriptor).is_ok_and(|has| has.f_files > 0 && has.f_favail == 0 && has.f_bavail > 0)
    }
}

fn must_be_file(stat: &Stat) -> io::Result<()> {
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "no regular file",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, NotAFile(what)))
}
