//! What time it is: the store's time line and the wall clock, both read from the system here and nowhere else.
//!
//! From its start on kvd counts `CLOCK_BOOTTIME`, which also counts while the machine sleeps and which nobody sets. A step of
//! the wall clock therefore does not move T ([`super::steps`]). Knows neither the log nor what a deadline is.

use crate::timeline::Time;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time, as both clocks have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// For waits within this run.
    pub instant: Instant,
    /// For deadlines.
    pub time: Time,
}

/// A clock that was started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// T when it was started.
    started: u64,
    /// `CLOCK_BOOTTIME` when it was started.
    booted: Duration,
    /// T minus the wall clock when it was started.
    offset: i64,
}

impl Clock {
    /// Starts it, where the log that is gone on with recorded this time last.
    pub fn start(last: Option<Time>) -> Clock {
        let (wall, last) = (wall_clock(), last.unwrap_or_default());
        if last.is_disbelieved(wall) {
            tracing::warn!(
                "the log was last written {} s in the future: the clock was wrong then or is wrong now; going by the \
                 clock",
                (last.now - last.from_wall(wall)) / 1000
            );
        }
        let Time { now: started, offset } = Time::at_start(last, wall);
        Clock { started, booted: since_boot(), offset }
    }

    /// What time it is.
    pub fn time(&self) -> Time {
        let passed = since_boot().saturating_sub(self.booted).as_millis() as u64;
        Time::near(self.offset, self.started + passed, wall_clock())
    }

    /// This moment.
    pub fn moment(&self) -> Moment {
        Moment { instant: Instant::now(), time: self.time() }
    }
}

fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_never_goes_back() {
        let clock = Clock::start(None);
        let first = clock.time().now;
        assert!(clock.time().now >= first && first > 1_600_000_000_000);
    }

    #[test]
    fn a_clock_goes_on_from_what_the_log_recorded() {
        let last = Time { now: wall_clock() + 1_800_000, offset: 0 };
        assert!(Clock::start(Some(last)).time().now >= last.now);
        let behind = Time { now: 5, offset: -1_000_000 };
        let time = Clock::start(Some(behind)).time();
        assert!((-1_000_100..=-999_900).contains(&time.offset), "{time:?}");
    }
}
