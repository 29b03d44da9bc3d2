//! The data directory: one daemon has it, for as long as it runs.
//!
//! Knows the locks and what makes a directory usable. Does not know what is in it, but whether that is a log.
//!
//! The directory itself is locked, by the descriptor through which everything in it is reached from then on: removing, replacing
//! or renaming something lets nobody in, and moving the directory splits nothing. `LOCK` is locked beside that, for programs
//! that know nothing else.

use super::error::LogError;
use super::fs::{Disk, Fs, HeldDirectory};
use super::recovery::survey;
use crate::fault;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The lock's file.
pub const LOCK_NAME: &str = "LOCK";
/// A data directory that this process alone may write to, until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    // Its lock, like that of the file, goes with the descriptor, however the process ends.
    directory: Arc<HeldDirectory>,
    is_made: bool,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is missing, takes its locks, and makes sure that files can be made in it.
    /// Nothing in it is read before the locks are held.
    ///
    /// # Errors
    /// [`LogError::Locked`] if another process has it, [`LogError::Directory`] or another one if it can't be made or written.
    pub fn open(path: &Path) -> Result<DataDir, LogError> {
        let is_made = make(path)?;
        let directory = hold(path)?;
        DataDir::lock_file(directory, is_made)
    }

    /// Takes the locks of a directory that has a log, and makes nothing where there is none.
    ///
    /// # Errors
    /// [`LogError::NoLog`], and those of [`DataDir::open`].
    pub fn open_existing(path: &Path) -> Result<DataDir, LogError> {
        must_be_directory(path)?;
        let directory = hold(path)?;
        // Where there is no log, not even LOCK is made.
        must_have_log(&Disk::of(Arc::clone(&directory)), path)?;
        DataDir::lock_file(directory, false)
    }

    /// The disk, seen from here.
    pub fn disk(&self) -> Arc<dyn Fs> {
        Arc::new(Disk::of(Arc::clone(&self.directory)))
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Whether it was not there before.
    pub fn is_made(&self) -> bool {
        self.is_made
    }

    fn lock_file(directory: Arc<HeldDirectory>, is_made: bool) -> Result<DataDir, LogError> {
        let lock = directory.open_file(LOCK_NAME, OFlags::WRONLY | OFlags::CREATE);
        let lock = lock.map_err(|source| unlockable(&directory, source))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LogError::Locked(directory.path().to_owned())),
            Err(errno) => return Err(unlockable(&directory, errno.into())),
        }
        let unusable = |source| LogError::Directory { directory: directory.path().to_owned(), source };
        fault::at("start-locked").map_err(unusable)?;
        // LOCK may be writable, left by another user, in a directory that is not.
        directory.allows_changes().map_err(unusable)?;
        Ok(DataDir { directory, is_made, _lock: lock })
    }
}

/// Opens a log to read it, without a lock: for tools, beside a daemon.
///
/// # Errors
/// [`LogError::NoLog`] where there is none, and what the system refuses.
pub fn open_unlocked(path: &Path) -> Result<Disk, LogError> {
    must_be_directory(path)?;
    let unusable = |source| LogError::Directory { directory: path.to_owned(), source };
    let disk = Disk::unlocked(path).map_err(unusable)?;
    must_have_log(&disk, path)?;
    Ok(disk)
}

/// Holds the directory and takes its own lock.
fn hold(path: &Path) -> Result<Arc<HeldDirectory>, LogError> {
    let unusable = |source| LogError::Directory { directory: path.to_owned(), source };
    let directory = HeldDirectory::open(path).map_err(unusable)?;
    match directory.lock() {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(LogError::Locked(path.to_owned())),
        // NFS locks nothing that is not open for writing; others may have no locks for directories.
        Err(errno) => tracing::warn!(
            "{} can't be locked on this file system ({errno}): only its file {LOCK_NAME} keeps a second kvd out, so leave that alone",
            path.display()
        ),
    }
    Ok(Arc::new(directory))
}

/// Why [`LOCK_NAME`] can't be locked.
fn unlockable(directory: &HeldDirectory, source: io::Error) -> LogError {
    let path = directory.path().to_owned();
    if directory.has(LOCK_NAME) {
        LogError::Lock { directory: path, source }
    } else {
        // It can't even be made: that is the directory's fault.
        LogError::Directory { directory: path, source }
    }
}

fn must_be_directory(path: &Path) -> Result<(), LogError> {
    let no_log = |why: &'static str| LogError::NoLog { directory: path.to_owned(), why };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(no_log("it is no directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(dangling_link(path).unwrap_or_else(|| no_log("it is not there")))
        }
        Err(source) => Err(LogError::Directory { directory: path.to_owned(), source }),
    }
}

/// There is no log where a start would begin a new one: with no segment, or with nothing but what was being made.
fn must_have_log(disk: &dyn Fs, path: &Path) -> Result<(), LogError> {
    let why = match survey(disk) {
        Ok(survey) if !survey.segments.is_empty() => return Ok(()),
        Ok(survey) if survey.spares.is_empty() && survey.torn_headers.is_empty() => {
            "no file in it has the name of a segment"
        }
        Ok(_) => "no segment in it holds anything",
        // What is wrong with it is for whoever reads it to say.
        Err(_) => return Ok(()),
    };
    Err(LogError::NoLog { directory: path.to_owned(), why })
}

/// The refusal of a link that leads nowhere.
fn dangling_link(path: &Path) -> Option<LogError> {
    let target = fs::read_link(path).ok()?;
    Some(LogError::DanglingLink { directory: path.to_owned(), target })
}

/// Makes a directory and those above it, each durable: its entry is synced in its parent. Returns whether it was missing.
fn make(path: &Path) -> Result<bool, LogError> {
    let unusable = |source| LogError::Directory { directory: path.to_owned(), source };
    if path.is_dir() {
        return Ok(false);
    }
    let parent: PathBuf = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => ".".into(),
        Some(parent) => parent.to_owned(),
        None => return Err(unusable(io::ErrorKind::InvalidInput.into())),
    };
    make(&parent)?;
    let name = path.file_name().unwrap_or("..".as_ref());
    let parent = HeldDirectory::open(&parent).map_err(unusable)?;
    match parent.make_directory(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // By another one, who makes it at the same time, or it is something else.
            if !path.is_dir() {
                return Err(dangling_link(path).unwrap_or_else(|| unusable(io::ErrorKind::NotADirectory.into())));
            }
        }
        made => made.map_err(unusable)?,
    }
    parent.sync().map_err(unusable)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
    }

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("made/on/the/way");
        let first = DataDir::open(&path).expect("the first");
        assert!(first.is_made());
        assert!(matches!(DataDir::open(&path), Err(LogError::Locked(_))));
        drop(first);
        assert!(!DataDir::open(&path).expect("free again").is_made());
    }

    #[test]
    fn whatever_becomes_of_the_file_lock_the_directory_stays_locked() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("data");
        let _first = DataDir::open(&path).expect("the first");
        let lock = path.join(LOCK_NAME);
        fs::remove_file(&lock).expect("removed");
        assert!(matches!(DataDir::open(&path), Err(LogError::Locked(_))));
        assert!(!lock.exists(), "the second one touches nothing");
        fs::write(&lock, "another one").expect("replaced");
        assert!(matches!(DataDir::open(&path), Err(LogError::Locked(_))));
    }

    #[test]
    fn an_older_program_that_knows_only_the_file_lock_keeps_others_out() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let lock = File::create_new(parent.path().join(LOCK_NAME)).expect("a file");
        flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("locked");
        assert!(matches!(DataDir::open(parent.path()), Err(LogError::Locked(_))));
    }

    #[test]
    fn a_lock_that_is_no_file_is_refused_and_left_alone() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let (lock, target) = (parent.path().join(LOCK_NAME), parent.path().join("target"));
        let refused = |what: &str| {
            let refused = DataDir::open(parent.path()).expect_err("no file").to_string();
            assert!(refused.contains(LOCK_NAME) && refused.contains(what), "{refused}");
        };
        rustix::fs::mknodat(rustix::fs::CWD, &lock, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a FIFO");
        refused("FIFO");
        fs::remove_file(&lock).expect("removed");
        symlink(&target, &lock).expect("a link");
        refused("symbolic link");
        assert!(!target.exists(), "what the link leads to is not made");
        fs::remove_file(&lock).expect("removed");
        fs::create_dir(&lock).expect("a directory");
        refused("a directory");
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
    fn a_link_that_leads_nowhere_is_named_with_what_it_leads_to() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let link = parent.path().join("link");
        symlink("/nowhere/at/all", &link).expect("a link");
        for path in [link.clone(), link.join("below")] {
            let refused = DataDir::open(&path).expect_err("nothing there").to_string();
            assert!(refused.contains("/nowhere/at/all") && refused.contains(&*link.to_string_lossy()), "{refused}");
        }
        assert!(matches!(DataDir::open_existing(&link), Err(LogError::DanglingLink { .. })));
    }

    #[test]
    fn nobody_else_may_read_what_is_made_and_what_is_there_keeps_its_mode() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let there = parent.path().join("there");
        fs::create_dir(&there).expect("a directory");
        fs::set_permissions(&there, fs::Permissions::from_mode(0o750)).expect("a mode");
        let path = there.join("made/here");
        let directory = DataDir::open(&path).expect("made");
        directory.disk().create("file").expect("made");
        assert_eq!((mode(&path), mode(&there.join("made")), mode(&there)), (0o700, 0o700, 0o750));
        assert_eq!((mode(&path.join("file")), mode(&path.join(LOCK_NAME))), (0o600, 0o600));
    }

    #[test]
    fn where_there_is_no_log_nothing_is_made() {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("data");
        assert!(matches!(DataDir::open_existing(&path), Err(LogError::NoLog { .. })));
        assert!(matches!(open_unlocked(&path), Err(LogError::NoLog { .. })));
        assert!(!path.exists());
        fs::create_dir(&path).expect("a directory");
        assert!(matches!(DataDir::open_existing(&path), Err(LogError::NoLog { .. })));
        assert!(matches!(open_unlocked(&path), Err(LogError::NoLog { .. })));
        assert_eq!(fs::read_dir(&path).expect("a directory").count(), 0);
        let segment = path.join(super::super::segment::file_name(1));
        // Nothing in it, a spare, and a header that was never finished: a start makes it anew.
        for blank in
            [vec![], vec![0; 65_536], [super::super::segment::SEGMENT_MAGIC.to_vec(), vec![0; 65_528]].concat()]
        {
            fs::write(&segment, blank).expect("a file");
            assert!(matches!(DataDir::open_existing(&path), Err(LogError::NoLog { .. })));
            assert!(matches!(open_unlocked(&path), Err(LogError::NoLog { .. })));
            assert_eq!(fs::read_dir(&path).expect("a directory").count(), 1, "nothing was made");
        }
        // Bytes behind a header that is gone are damage.
        fs::write(&segment, [vec![0; 65_536], vec![1]].concat()).expect("a file");
        DataDir::open_existing(&path).expect("a log");
        open_unlocked(&path).expect("a log");
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
