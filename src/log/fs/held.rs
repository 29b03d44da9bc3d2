//! A directory that is held by a descriptor, and the files in it.
//!
//! Knows the system calls that start from a descriptor (openat, mkdirat, renameat, unlinkat, …). Once a directory is held, its path is a
//! name for messages and nothing else: where it is moved, or something else takes its place, whatever is done goes on in the
//! directory that is held. Files are regular files of that directory or nothing: links are not followed, and a FIFO is not
//! waited for.

use crate::descriptors::with_kept_back;
use rustix::fs::{
    Access, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat, accessat, flock, fstat, fstatvfs, linkat,
    mkdirat, open, openat, renameat, stat, statat, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::geteuid;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Mode of a file that is made: nobody but its owner may read what clients stored.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Mode of a directory that is made.
const DIRECTORY_MODE: Mode = FILE_MODE.union(Mode::XUSR);
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

/// What there is belongs to somebody else, who lets nobody in.
#[derive(Debug, thiserror::Error)]
#[error(
    "it belongs to user {owner}, and user {user}, as whom kvd runs, may not open it or change it. Run kvd as user {owner}, or \
     give the directory and its files to user {user} (chown -R)"
)]
struct OfAnother {
    owner: u32,
    user: u32,
}

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
        match with_kept_back(|| retry_on_intr(|| open(path, flags, Mode::empty()))) {
            Ok(descriptor) => Ok(HeldDirectory { descriptor, path: path.to_owned() }),
            Err(errno) => Err(refused(errno, stat(path).ok())),
        }
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
        let allowed = accessat(&self.descriptor, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty());
        allowed.map_err(|errno| refused(errno, fstat(&self.descriptor).ok()))
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
            Err(errno) => Err(self.not_made(errno)),
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
                let Ok(stat) = self.stat(name) else { return Err(self.not_made(errno)) };
                // What is no file is refused in as many ways as there are kinds.
                must_be_file(&stat)?;
                Err(refused(errno, Some(stat)))
            }
        }
    }

    /// The size of a file.
    pub fn file_len(&self, name: &str) -> io::Result<u64> {
        let stat = self.stat(name)?;
        must_be_file(&stat)?;
        Ok(stat.st_size.cast_unsigned())
    }

    /// Makes a directory in it, which must not be there yet.
    pub fn make_directory(&self, name: &OsStr) -> io::Result<()> {
        mkdirat(&self.descriptor, name, DIRECTORY_MODE).map_err(|errno| self.told_apart(errno))
    }

    /// Whether something has this name.
    pub fn has(&self, name: &str) -> bool {
        self.stat(name).is_ok()
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

    /// Why a file could not be made.
    fn not_made(&self, errno: Errno) -> io::Error {
        if errno == Errno::ACCESS { refused(errno, fstat(&self.descriptor).ok()) } else { self.told_apart(errno) }
    }

    /// The error of something new, with no room on the disk told apart from no inode.
    fn told_apart(&self, errno: Errno) -> io::Error {
        match errno {
            Errno::NOSPC if self.lacks_inodes() => io::Error::new(io::ErrorKind::StorageFull, NoInodes),
            errno => errno.into(),
        }
    }

    /// Whether it is inodes that its file system lacks, and not bytes. (Some have no count of them.)
    fn lacks_inodes(&self) -> bool {
        fstatvfs(&self.descriptor).is_ok_and(|has| has.f_files > 0 && has.f_favail == 0 && has.f_bavail > 0)
    }
}

/// A refusal of the system's, and where the cause is that this is somebody else's, whose.
fn refused(errno: Errno, what: Option<Stat>) -> io::Error {
    let user = geteuid().as_raw();
    match what.map(|stat| stat.st_uid) {
        Some(owner) if errno == Errno::ACCESS && owner != user => {
            io::Error::new(io::ErrorKind::PermissionDenied, OfAnother { owner, user })
        }
        _ => errno.into(),
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
