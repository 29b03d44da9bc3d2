//! What time it is: the store's time line and the wall clock, both read from the system here and nowhere else.
//!
//! From its start on kvd counts `CLOCK_BOOTTIME`, which also counts while the machine sleeps and which nobody sets. A step of
//! the wall clock therefore does not move T; it is noticed, told, and goes into the offset that the log records. Knows neither
//! the log nor what a deadline is.

use crate::timeline::Time;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// By how many milliseconds the wall clock must have moved against T to be taken for stepped: less is how clocks run.
const STEP: u64 = 1000;
/// How often it is looked whether it was stepped, where no command asks for a date.
const LOOK_EVERY: Duration = Duration::from_secs(10);

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

/// Notices steps of the wall clock.
#[derive(Debug)]
pub(super) struct StepDetector {
    /// T minus the wall clock, as of when it was last noticed to have changed.
    offset: i64,
    look_at: Instant,
}

impl StepDetector {
    /// None since this moment.
    pub fn new(moment: Moment) -> StepDetector {
        StepDetector { offset: moment.time.offset, look_at: moment.instant + LOOK_EVERY }
    }

    /// Whether it is time to look although no command asks for a date.
    pub fn is_due(&self, now: Instant) -> bool {
        self.look_at <= now
    }

    /// By how many milliseconds the wall clock was stepped since a step was last noticed, if it was.
    pub fn notice(&mut self, moment: Moment) -> Option<i64> {
        self.look_at = moment.instant + LOOK_EVERY;
        let step = self.offset.saturating_sub(moment.time.offset);
        (step.unsigned_abs() > STEP).then(|| {
            self.offset = moment.time.offset;
            step
        })
    }

    /// When it is to be looked next.
    pub fn wait(&self, now: Instant) -> Duration {
        self.look_at.saturating_duration_since(now)
    }
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

    #[test]
    fn a_step_is_noticed_once_and_its_size_told() {
        let instant = Instant::now();
        let at =
            |seconds, now, wall| Moment { instant: instant + Duration::from_secs(seconds), time: Time::new(now, wall) };
        let mut steps = StepDetector::new(at(0, 5_000, 5_000));
        assert_eq!(steps.notice(at(1, 6_000, 7_000)), None, "a second is no step");
        assert_eq!(steps.notice(at(2, 7_000, 8_001)), Some(1_001));
        assert_eq!(steps.notice(at(3, 8_000, 9_001)), None, "told once");
        assert_eq!(steps.notice(at(4, 9_000, 1)), Some(-10_000));
        assert!(!steps.is_due(instant + Duration::from_secs(13)) && steps.is_due(instant + Duration::from_secs(14)));
    }
}
