//! Everything that keeps a log from being opened or written, told so that an operator knows what to do.

use super::scan::Fault;
use std::io;
use std::path::PathBuf;

/// Why the log can't be used, or can't be used any more.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another daemon has the directory.
    #[error("another kvd is running on {}: one daemon per directory. Stop it first, or choose another --data-dir", .0.display())]
    Locked(PathBuf),
    /// The directory can't be made, read or written.
    #[error("the data directory {} can't be used: {source}. kvd must be able to create files in it", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A system call failed.
    #[error("can't {action} {name}: {source}")]
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
    /// A format that this program does not know.
    #[error(
        "{name} was written by a newer kvd (format version {version}; this one reads up to {}). Nothing was changed. Start the newer program",
        super::segment::FORMAT_VERSION
    )]
    Newer {
        /// The file.
        name: String,
        /// Its format version.
        version: u16,
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

impl LogError {
    /// Makes an [`LogError::Io`] of a failed system call.
    pub fn io(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> LogError {
        let name = name.to_owned();
        move |source| LogError::Io { action, name, source }
    }
}
