//! What time it is, in Unix milliseconds: a wall clock that is read once and then only moves forward.
//!
//! Steps of the wall clock while kvd runs do not matter, because from its start on it counts
//! `CLOCK_BOOTTIME`, which also counts while the machine sleeps. Steps while kvd was down are met by the last
//! time that the log holds: a key once seen expired stays gone. Knows neither the log nor what a deadline is.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How far ahead of the wall clock the log may be and still be believed, in milliseconds. Further, and it is
/// taken that the clock was wrong back then: believing it would expire every key set since.
const BELIEVED_AHEAD: u64 = 60 * 60 * 1000;

/// A point in time, as both clocks have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// For waits within this run.
    pub instant: Instant,
    /// Unix milliseconds, for deadlines.
    pub unix: u64,
}

/// A clock that was started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Unix milliseconds when it was started.
    started: u64,
    /// `CLOCK_BOOTTIME` when it was started.
    booted: Duration,
}

impl Clock {
    /// Starts it, not before the latest time that the log holds (Unix milliseconds, 0 for none).
    pub fn start(last_recorded: u64) -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let started = starting_time(wall, last_recorded);
        if started < last_recorded {
            tracing::warn!(
                "the log was last written {} s in the future: the clock was wrong then or is wrong now; going by the \
                 clock",
                (last_recorded - wall) / 1000
            );
        }
        Clock { started, booted: since_boot() }
    }

    /// Unix time in milliseconds.
    pub fn now(&self) -> u64 {
        self.started + since_boot().saturating_sub(self.booted).as_millis() as u64
    }

    /// This moment.
    pub fn moment(&self) -> Moment {
        Moment { instant: Instant::now(), unix: self.now() }
    }
}

/// The later of both, unless the log is further ahead than can be believed.
pub(super) fn starting_time(wall: u64, last_recorded: u64) -> u64 {
    if last_recorded > wall.saturating_add(BELIEVED_AHEAD) { wall } else { wall.max(last_recorded) }
}

fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_takes_the_later_time_within_reason() {
        let wall = 1_700_000_000_000;
        assert_eq!(starting_time(wall, 0), wall, "an empty log");
        assert_eq!(starting_time(wall, wall - 5), wall, "time has passed");
        assert_eq!(starting_time(wall, wall + 5), wall + 5, "the clock was stepped back a little");
        assert_eq!(starting_time(wall, wall + BELIEVED_AHEAD), wall + BELIEVED_AHEAD, "just believed");
        assert_eq!(starting_time(wall, wall + BELIEVED_AHEAD + 1), wall, "the log is from a wrong clock");
        assert_eq!(starting_time(wall, u64::MAX), wall, "as wrong as can be");
    }

    #[test]
    fn a_clock_never_goes_back() {
        let clock = Clock::start(0);
        let first = clock.now();
        assert!(clock.now() >= first && first > 1_600_000_000_000);
    }
}
