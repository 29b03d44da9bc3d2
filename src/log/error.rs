//! Everything that keeps a log from being opened or written, told so that an operator knows what to do.

use super::directory::LOCK_NAME;
use super::scan::Fault;
use super::shortage::Shortage;
use std::io;
use std::path::PathBuf;

/// Why the log can't be used, or can't be used any more.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another daemon has the directory.
    #[error("another kvd is running on {}: one daemon per directory. Stop it first, or name another directory", .0.display())]
    Locked(PathBuf),
    /// The directory can't be made, read or written.
    #[error("the data directory {} can't be used: {}", directory.display(), why_unusable(source))]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory is a link that leads nowhere.
    #[error(
        "{} is a link to {}, which is not there: nothing was made. Mount or make what it leads to, or name another directory",
        directory.display(),
        target.display()
    )]
    DanglingLink {
        /// The link.
        directory: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// `LOCK` can't be locked.
    #[error("{LOCK_NAME} in {} can't be locked: {}", directory.display(), Shortage::explain(source))]
    Lock {
        /// The directory.
        directory: PathBuf,
        /// What the system said, or what it is in place of a file.
        source: io::Error,
    },
    /// There is no log where one is to be read.
    #[error("there is no log in {}: {why}. Is this the data directory, and is its disk mounted?", directory.display())]
    NoLog {
        /// The directory.
        directory: PathBuf,
        /// What is there instead.
        why: &'static str,
    },
    /// A system call failed.
    #[error("can't {action} {name}: {}", Shortage::explain(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file of the data directory.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that had been durable are not what was written.
    #[error(
        "{name} is damaged at offset {offset}: {fault}. Nothing was changed. `kvd check` on the data directory shows more, and `kvd repair` what can be saved; or restore the directory from a copy"
    )]
    Damage {
        /// The segment's file.
        name: String,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        fault: Fault,
    },
    /// A number between the first and the last segment is not there.
    #[error(
        "{name} is missing, while later segments are there. Nothing was changed. Put the file back, restore the whole directory from a copy, or see what `kvd repair` can save"
    )]
    MissingSegment {
        /// The name it would have.
        name: String,
    },
    /// A file with a segment's name that kvd did not write.
    #[error(
        "{name} has a segment's name, but kvd did not write it. Nothing was changed. Move it out of the data directory"
    )]
    Foreign {
        /// The file.
        name: String,
    },
    /// Something that this program does not know.
    #[error("{name} was written by a newer kvd: it has {what}. Nothing was changed. Start the newer program")]
    Newer {
        /// The file.
        name: String,
        /// What in it.
        what: Unknown,
    },
    /// Files of two moments, as a copy has that was made file by file while kvd ran.
    #[error(
        "{name} is not of the same moment as the rest of the directory: {why}. Nothing was changed. Restore a copy that was made while kvd was stopped, or of a snapshot; `kvd repair` goes on with what there is"
    )]
    TornCopy {
        /// The file that tells.
        name: String,
        /// What does not fit.
        why: Mismatch,
    },
    /// A segment that was renamed.
    #[error(
        "{name} says that it is segment {says}: it was renamed or copied here. Nothing was changed. Give it its own name back"
    )]
    Misplaced {
        /// The file.
        name: String,
        /// The number in its header.
        says: u64,
    },
    /// A segment of another store.
    #[error(
        "{name} belongs to another store ({found:032x}; the first segment here is of {expected:032x}). Nothing was changed. Move it out of the data directory"
    )]
    OtherStore {
        /// The file.
        name: String,
        /// The identity of the first segment.
        expected: u128,
        /// Its own identity.
        found: u128,
    },
    /// The log thread, or that of compaction, is gone.
    #[error("a thread of the log ended unexpectedly; the lines above say why")]
    ThreadGone,
}

/// What only a newer program can have written. Displays as a noun phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// A format version.
    #[error("format version {0}, and this program reads up to {max}", max = super::segment::FORMAT_VERSION)]
    Format(u16),
    /// A kind of segment.
    #[error("segment kind {0}, which this program does not know")]
    SegmentKind(u16),
    /// A header with a history of epochs.
    #[error("a history of epochs, which this program does not know")]
    EpochHistory,
    /// A kind of batch.
    #[error("batch kind {0}, which this program does not know")]
    BatchKind(u16),
    /// A kind of record, or a mark of one.
    #[error("a record of kind {kind} with marks {marks:#04x}, which this program does not know")]
    Record {
        /// Its kind.
        kind: u8,
        /// Its marks.
        marks: u8,
    },
}

/// Why files are not of one moment. Displays as a clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// A compacted segment relies on a later state of an older one than is there.
    #[error(
        "it relies on segment {number} as compacted {generation} times, but what is there was compacted {found} times"
    )]
    Generation {
        /// The older segment.
        number: u64,
        /// Its generation, at least.
        generation: u32,
        /// The generation of what stands for it.
        found: u32,
    },
    /// The log ends before what a compacted segment relies on.
    #[error("it relies on versions up to {durable}, but the log ends with version {last}")]
    Ends {
        /// The version up to which it relies on the log.
        durable: u64,
        /// The last one in the log.
        last: u64,
    },
}

/// What keeps a directory from being used, and what is needed, where that is not said yet.
fn why_unusable(source: &io::Error) -> String {
    let why = Shortage::explain(source);
    let says_little = matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
    // What kvd found out itself, it has told.
    if says_little && source.raw_os_error().is_some() {
        format!("{why}. kvd must be able to create files in it")
    } else {
        why
    }
}

impl LogError {
    /// Whether it was for want of something that may be there again later.
    pub fn shortage(&self) -> Option<Shortage> {
        match self {
            LogError::Directory { source, .. } | LogError::Lock { source, .. } | LogError::Io { source, .. } => {
                Shortage::of_open(source)
            }
            _ => None,
        }
    }

    /// Whether the disk could not give what is on it.
    pub fn is_of_the_disk(&self) -> bool {
        match self {
            LogError::Directory { source, .. } | LogError::Lock { source, .. } | LogError::Io { source, .. } => {
                source.raw_os_error() == Some(libc::EIO)
            }
            _ => false,
        }
    }

    /// Makes an [`LogError::Io`] of a failed system call.
    pub fn io(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> LogError {
        let name = name.to_owned();
        move |source| LogError::Io { action, name, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_directory(errno: i32) -> String {
        LogError::Directory { directory: "data".into(), source: io::Error::from_raw_os_error(errno) }.to_string()
    }

    fn of_lock(errno: i32) -> String {
        LogError::Lock { directory: "data".into(), source: io::Error::from_raw_os_error(errno) }.to_string()
    }

    #[test]
    fn a_shortage_is_told_alone_and_what_is_not_allowed_with_what_is_needed() {
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOSPC, libc::EDQUOT] {
            let shortage = Shortage::explain(&io::Error::from_raw_os_error(errno));
            assert_eq!(of_directory(errno), format!("the data directory data can't be used: {shortage}"));
            assert_eq!(of_lock(errno), format!("LOCK in data can't be locked: {shortage}"));
        }
        for errno in [libc::EACCES, libc::EROFS] {
            assert!(of_directory(errno).ends_with("kvd must be able to create files in it"));
        }
        assert!(!of_directory(libc::EIO).contains("must be able"));
    }
}
