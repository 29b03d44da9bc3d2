//! Refusals to start: which of them may pass without anybody's doing, so that a start is worth another try.
//!
//! Knows errors of the system and of the log.

use crate::cli::MAY_PASS;
use crate::log::LogError;
use rustix::io::Errno;
use std::io;

/// The log can't be read or written: `EX_IOERR` of sysexits.h.
pub(super) const EXIT_IO_ERROR: u8 = 74;

/// Whether what the system refused, it may grant later: an address that is not there yet, what somebody else has, and what
/// there is too little of. Everything else is taken to last, so that nobody tries for ever.
pub(super) fn may_pass(error: &io::Error) -> bool {
    const PASSING: [Errno; 8] = [
        Errno::ADDRINUSE,
        Errno::ADDRNOTAVAIL,
        Errno::AGAIN,
        Errno::DQUOT,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOSPC,
    ];
    match error.raw_os_error() {
        Some(code) => PASSING.contains(&Errno::from_raw_os_error(code)),
        None => matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::OutOfMemory),
    }
}

/// Whether the log may be had later: another process has it, or the system lacks something.
pub(super) fn log_may_pass(error: &LogError) -> bool {
    match error {
        LogError::Locked(_) => true,
        LogError::Directory { source, .. } | LogError::Io { source, .. } => may_pass(source),
        error => error.shortage().is_some(),
    }
}

/// What a start that the log refuses should end with, as `docs/operations.md` lists it.
pub(super) fn exit_code(error: &LogError) -> u8 {
    match error {
        // As after a panic on this thread.
        LogError::ThreadGone => 101,
        error if error.is_of_the_disk() => EXIT_IO_ERROR,
        error if log_may_pass(error) => MAY_PASS,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_has_and_what_is_short_may_pass_and_nothing_else() {
        let of = |errno: Errno| LogError::Io { action: "create", name: "a file".into(), source: errno.into() };
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN] {
            assert!(log_may_pass(&of(errno)), "{errno}");
        }
        for errno in [Errno::IO, Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::NOENT, Errno::NOTDIR, Errno::INVAL] {
            assert!(!log_may_pass(&of(errno)), "{errno}");
        }
        assert_eq!(exit_code(&of(Errno::IO)), 74);
        assert_eq!(exit_code(&LogError::Directory { directory: "data".into(), source: Errno::IO.into() }), 74);
        assert_eq!((exit_code(&of(Errno::NOSPC)), exit_code(&of(Errno::ACCESS))), (75, 1));
        assert!(may_pass(&Errno::ADDRINUSE.into()) && may_pass(&Errno::ADDRNOTAVAIL.into()));
        assert!(log_may_pass(&LogError::Locked("data".into())));
        assert!(!log_may_pass(&LogError::MissingSegment { name: "segment".into() }));
    }
}
