//! How many files and connections a process may have open, and the descriptors that are kept back for the log.
//!
//! Connections come from outside, as many as somebody likes; files are what acknowledged writes go to. So a daemon's soft limit
//! stays a little below its hard one, and is raised for as long as it takes to open a file that finds no descriptor: files may
//! have the numbers in between, connections may not. Knows neither files nor connections.

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::ops::Range;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Descriptors kept back: the active segment, the two after it, what a compaction has open, and some to spare.
const KEPT_BACK: u64 = 16;
/// Of a limit that is low, a part of this size is kept back.
const LEAST_PART: u64 = 4;
/// How often it is looked whether connections find descriptors.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is said that they find none.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Held while the limit is raised: one at a time. Whether some are kept back at all.
static KEEPS_BACK: Mutex<bool> = Mutex::new(false);

/// How many descriptors this process may have, those kept back included.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Raises the limit as far as the system lets it be raised. A connection takes a descriptor, and the usual soft limit is low
/// for the sake of programs that use `select`, which this one does not.
pub fn raise_limit() {
    set_soft_limit(getrlimit(Resource::Nofile).maximum);
}

/// Raises the limit likewise, but for what is kept back for [`with_kept_back`].
pub fn raise_limit_and_keep_back() {
    let mut keeps_back = KEEPS_BACK.lock().unwrap_or_else(PoisonError::into_inner);
    set_soft_limit(getrlimit(Resource::Nofile).maximum.map(below));
    *keeps_back = true;
}

/// What is left of a limit for connections.
fn below(limit: u64) -> u64 {
    limit - KEPT_BACK.min(limit / LEAST_PART)
}

fn set_soft_limit(current: Option<u64>) {
    let limit = rustix::process::Rlimit { current, ..getrlimit(Resource::Nofile) };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!("the limit of descriptors stays as it is: {error}");
    }
}

/// Opens something, with one of the descriptors that are kept back if there is no other.
///
/// # Errors
/// Those of `open`; [`Errno::MFILE`] only where those kept back are used up as well.
pub fn with_kept_back<T>(open: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    let opened = open();
    if !matches!(opened, Err(Errno::MFILE)) {
        return opened;
    }
    let keeps_back = KEEPS_BACK.lock().unwrap_or_else(PoisonError::into_inner);
    if !*keeps_back {
        return opened;
    }
    let lowered = getrlimit(Resource::Nofile);
    let (Some(soft), Some(hard)) = (lowered.current, lowered.maximum) else { return opened };
    let kept_back = RawFd::try_from(soft).unwrap_or(RawFd::MAX)..RawFd::try_from(hard).unwrap_or(RawFd::MAX);
    let before: Vec<RawFd> = kept_back.clone().filter(|number| is_open(*number)).collect();
    set_soft_limit(Some(hard));
    let opened = open();
    set_soft_limit(Some(soft));
    end_connections(kept_back, &before);
    opened
}

/// A connection may have been accepted while the limit was raised. It is ended, and then closed by whoever accepted it, so
/// that its number is free again for a file.
fn end_connections(within: Range<RawFd>, but_for: &[RawFd]) {
    for number in within.filter(|number| !but_for.contains(number)) {
        // SAFETY: no memory is touched. Of a number that is not open, or is no connection's, nothing comes but an error; and
        // with the limit lowered again, one that is closed meanwhile is not given to anything else.
        unsafe { libc::shutdown(number, libc::SHUT_RDWR) };
    }
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: no memory is touched; of a number that is not open nothing comes but an error.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Looks now and then whether connections find descriptors, and says so where they don't.
#[derive(Debug, Default)]
pub struct Watch {
    looked: Option<Instant>,
    said: Option<Instant>,
}

impl Watch {
    /// Looks, if it is time to; `any` is a descriptor of this process.
    pub fn look(&mut self, any: BorrowedFd<'_>, now: Instant) {
        let is_due = |last: Option<Instant>, every| last.is_none_or(|last| now.duration_since(last) >= every);
        if !is_due(self.looked, LOOK_EVERY) {
            return;
        }
        self.looked = Some(now);
        if matches!(fcntl_dupfd_cloexec(any, 0), Err(Errno::MFILE)) && is_due(self.said, SAY_EVERY) {
            self.said = Some(now);
            let limit = limit();
            tracing::warn!(
                "connections are refused, since the file descriptors are used up: this process may have {limit} \
                 (RLIMIT_NOFILE: `ulimit -n`, or LimitNOFILE= of its unit), of which {} are kept back for the log",
                limit - below(limit)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_leaves_most_to_connections_and_a_high_one_loses_little() {
        assert_eq!([0, 1, 20, 64, 1024, u64::MAX].map(|limit| limit - below(limit)), [0, 0, 5, 16, 16, 16]);
    }
}
