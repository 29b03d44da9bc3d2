//! Places where a test lets the disk refuse, a thread panic, or time pass: the fault points.
//!
//! Knows their names, each of which stands at one place of the source, and nothing of what is done there. From outside, only
//! system calls can be made to fail; these lie between them, on whichever thread is there, and after a step as well as before
//! it.
//!
//! They are in a build with the feature `fault-points` only. There the environment variable `FAILPOINTS` says what happens at
//! which, in the words of the crate `fail`: `commit-written=9*off->1*return` is an error the tenth time, and `panic` and
//! `sleep(MILLISECONDS)` are the others. In any other build a point is nothing, and that crate no part of it.

use std::io;

/// All of them, each named after what was just done, in the order of a life. A test holds the list against the source.
pub const POINTS: &[&str] = &[
    // A start.
    "start-locked",
    "start-header-read",
    "start-surveyed",
    "start-bound",
    "start-segment-opened",
    "start-replayed",
    "start-replaced-removed",
    "start-left-over-removed",
    "start-left-overs-cleared",
    "start-cut-copied",
    "start-cut-kept",
    "start-tail-cut",
    "start-unproven-rewritten",
    "start-tail-synced",
    "start-mended",
    "start-ready",
    // A batch.
    "commit-placed",
    "commit-written",
    "commit-prepared",
    "commit-synced",
    "commit-heard",
    // The next segment.
    "segment-sized-anew",
    "segment-created",
    "segment-sized",
    "segment-cut",
    "segment-sealed",
    "segment-header-written",
    "segment-header-synced",
    "segment-entry-synced",
    "segment-begun",
    // A compaction.
    "compaction-created",
    "compaction-asked",
    "compaction-answered",
    "compaction-written",
    "compaction-header-written",
    "compaction-synced",
    "compaction-settled",
    "compaction-renamed",
    "compaction-rename-synced",
    "compaction-removing",
    "compaction-removed",
    "compaction-removals-synced",
    // A stop.
    "stop-synced",
    "stop-marked",
    "stop-spare-removed",
    "stop-directory-synced",
    "stop-finished",
];

/// Reads from the environment what is to happen where. To be called once, before there are other threads.
///
/// # Panics
/// In a build with fault points, if `FAILPOINTS` says nothing that `fail` understands.
pub fn arm() {
    // Dropped, it would disarm them.
    #[cfg(feature = "fault-points")]
    std::mem::forget(fail::FailScenario::setup());
}

/// A point by itself. It stands where an error goes the way of one that the disk had given.
///
/// # Errors
/// `EIO`, if that is what is to happen here.
#[inline]
pub fn at(point: &str) -> io::Result<()> {
    #[cfg(feature = "fault-points")]
    {
        debug_assert!(POINTS.contains(&point), "{point} is not on the list");
        // For whoever counts.
        tracing::trace!("{point}");
        fail::fail_point!(point, |_| Err(rustix::io::Errno::IO.into()));
    }
    let _ = point;
    Ok(())
}

/// A point behind a step, where that did not fail.
///
/// # Errors
/// That of the step, or `EIO`, if that is what is to happen here.
#[inline]
pub fn after<T>(point: &str, step: io::Result<T>) -> io::Result<T> {
    step.and_then(|done| at(point).map(|()| done))
}
