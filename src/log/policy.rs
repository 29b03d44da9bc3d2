//! When a written batch is synced: durability as data.
//!
//! Pure: the time is a parameter.

use std::time::{Duration, Instant};

/// What `--fsync` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before its replies leave.
    Always,
    /// At most this long after it was written.
    Every(Duration),
    /// When the kernel likes; at rotation and at an orderly stop only.
    Never,
}

impl SyncPolicy {
    /// When what was written at `written` must be synced, as of then. `None` is never.
    ///
    /// ```
    /// use kvd::log::SyncPolicy;
    /// use std::time::{Duration, Instant};
    /// let now = Instant::now();
    /// assert_eq!(SyncPolicy::Always.due(now), Some(now));
    /// assert_eq!(SyncPolicy::Every(Duration::from_secs(1)).due(now), Some(now + Duration::from_secs(1)));
    /// assert_eq!(SyncPolicy::Never.due(now), None);
    /// ```
    pub fn due(self, written: Instant) -> Option<Instant> {
        match self {
            SyncPolicy::Always => Some(written),
            // A duration that the clock can't hold is as good as never.
            SyncPolicy::Every(interval) => written.checked_add(interval),
            SyncPolicy::Never => None,
        }
    }
}
