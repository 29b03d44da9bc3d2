//! Which limit is in the way, where there is no room.
//!
//! Knows the errors that say so. A shortage passes, and can be caused by any client: it is never taken for a disk that fails.

use super::fs::NoInodes;
use crate::descriptors;
use rustix::io::Errno;
use std::fmt;
use std::io;

/// What there is not enough of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Bytes on the disk.
    Disk,
    /// What a quota leaves of them, or of inodes.
    Quota,
    /// Inodes of the file system, which has bytes.
    Inodes,
    /// Descriptors of this process, of which it may have so many.
    Descriptors(u64),
    /// Descriptors of the whole system.
    SystemDescriptors,
    /// Memory, of which the kernel gives no more.
    Memory,
}

impl Shortage {
    /// What was lacking where something could not be written or sized.
    pub fn of_write(error: &io::Error) -> Option<Shortage> {
        match error.kind() {
            io::ErrorKind::StorageFull if is_of_inodes(error) => Some(Shortage::Inodes),
            io::ErrorKind::StorageFull => Some(Shortage::Disk),
            io::ErrorKind::QuotaExceeded => Some(Shortage::Quota),
            _ => None,
        }
    }

    /// What was lacking where a file could not be opened, made, mapped or read.
    pub fn of_open(error: &io::Error) -> Option<Shortage> {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE) => Some(Shortage::Descriptors(descriptors::limit())),
            Some(Errno::NFILE) => Some(Shortage::SystemDescriptors),
            // Also of what only the standard library refused, to read a file into.
            _ if error.kind() == io::ErrorKind::OutOfMemory => Some(Shortage::Memory),
            _ => Shortage::of_write(error),
        }
    }

    /// An error in the system's words, which leave open which limit is in the way: where one is, that in their place.
    pub fn explain(error: &io::Error) -> String {
        Shortage::of_open(error).map_or_else(|| error.to_string(), |shortage| shortage.to_string())
    }

    /// Whether it is bytes on the disk that are lacking, of which some can be given up for others.
    pub fn is_of_bytes(self) -> bool {
        matches!(self, Shortage::Disk | Shortage::Quota)
    }
}

fn is_of_inodes(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<NoInodes>()).is_some()
}

impl fmt::Display for Shortage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shortage::Disk => formatter.write_str("the disk is full"),
            Shortage::Quota => formatter.write_str("the disk quota is used up"),
            Shortage::Inodes => formatter.write_str(
                "the inodes of the file system are used up, though it has bytes left (`df -i` shows them): remove \
                 files from it",
            ),
            Shortage::Descriptors(limit) => write!(
                formatter,
                "the file descriptors of this process are used up: it may have {limit} (RLIMIT_NOFILE: `ulimit -n`, or \
                 LimitNOFILE= of its unit)"
            ),
            Shortage::SystemDescriptors => {
                formatter.write_str("the file descriptors of the whole system are used up (sysctl fs.file-max)")
            }
            Shortage::Memory => formatter.write_str(
                "the kernel gives this process no more memory (RLIMIT_AS: `ulimit -v`, or MemoryMax= of its unit, or \
                 the machine has none left)",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_known_by_the_error_and_what_else_goes_wrong_is_none() {
        let limit = Shortage::Descriptors(descriptors::limit());
        for (errno, of_write, of_open) in [
            (libc::ENOSPC, Some(Shortage::Disk), Some(Shortage::Disk)),
            (libc::EDQUOT, Some(Shortage::Quota), Some(Shortage::Quota)),
            (libc::EMFILE, None, Some(limit)),
            (libc::ENFILE, None, Some(Shortage::SystemDescriptors)),
            (libc::ENOMEM, None, Some(Shortage::Memory)),
            (libc::EIO, None, None),
            (libc::EROFS, None, None),
            (libc::EACCES, None, None),
            (libc::EFBIG, None, None),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!((Shortage::of_write(&error), Shortage::of_open(&error)), (of_write, of_open), "{error}");
        }
        let inodes = io::Error::new(io::ErrorKind::StorageFull, NoInodes);
        assert_eq!(Shortage::of_open(&inodes), Some(Shortage::Inodes));
        assert_eq!(Shortage::of_open(&io::ErrorKind::OutOfMemory.into()), Some(Shortage::Memory));
        assert!(!Shortage::Inodes.is_of_bytes() && Shortage::Quota.is_of_bytes());
    }

    #[test]
    fn each_names_what_can_be_changed() {
        let said = |shortage: Shortage| shortage.to_string();
        assert!(
            said(Shortage::Descriptors(64)).contains("64") && said(Shortage::Descriptors(64)).contains("LimitNOFILE")
        );
        assert!(said(Shortage::SystemDescriptors).contains("fs.file-max"));
        assert!(said(Shortage::Inodes).contains("inodes"));
        assert!(said(Shortage::Memory).contains("ulimit -v") && said(Shortage::Memory).contains("MemoryMax"));
    }

    #[test]
    fn a_shortage_is_told_in_place_of_the_systems_words_for_it() {
        for errno in [libc::ENOSPC, libc::EDQUOT, libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            let error = io::Error::from_raw_os_error(errno);
            let told = Shortage::explain(&error);
            assert_eq!(Some(told), Shortage::of_open(&error).map(|shortage| shortage.to_string()), "{error}");
        }
        let other = io::Error::from_raw_os_error(libc::EIO);
        assert_eq!(Shortage::explain(&other), other.to_string());
    }
}
