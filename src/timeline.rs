//! The store's time line: T = wall clock + offset, in milliseconds, which never goes backwards.
//!
//! Deadlines are points of T. Steps of the wall clock go into the offset, so that they change no deadline; the log records
//! both, and a start goes on from the last ones. Knows no clocks: whoever has read one passes in what it said.
//!
//! ```text
//! wall clock  ... 1000 | 1001 | stepped to 5001 | 5002 ...
//! offset             0 |    0 |           -4000 | -4000
//! T               1000 | 1001 |            1001 |  1002
//! ```

/// How far the last recorded T may lie ahead of wall clock + offset, in milliseconds, and still be believed. Further, and
/// the clock is taken to have been wrong then: to go on from there would expire every key with a deadline.
const BELIEVED_AHEAD: u64 = 60 * 60 * 1000;

/// By how many milliseconds two clocks that are read one after the other may seem to differ although neither was set.
const READING: u64 = 10;

/// A moment: T, and by how much it differs from the wall clock.
///
/// ```
/// use kvd::timeline::Time;
/// let time = Time::new(1_001, 5_001);
/// assert_eq!((time.offset, time.wall()), (-4_000, 5_001));
/// // A date told by the wall clock as it is now, as a deadline and back.
/// assert_eq!(time.from_wall(6_000), 2_000);
/// assert_eq!(time.to_wall(2_000), 6_000);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// T, in milliseconds. Where the wall clock was never stepped, Unix time.
    pub now: u64,
    /// T minus the wall clock, in milliseconds.
    pub offset: i64,
}

impl From<u64> for Time {
    /// T where the wall clock was never stepped: Unix time in milliseconds.
    fn from(unix: u64) -> Time {
        Time { now: unix, offset: 0 }
    }
}

impl Time {
    /// The moment at which T is `now` and the wall clock says `wall`, both in milliseconds.
    pub fn new(now: u64, wall: u64) -> Time {
        let offset = i128::from(now) - i128::from(wall);
        Time { now, offset: offset.clamp(i64::MIN.into(), i64::MAX.into()) as i64 }
    }

    /// The moment at which T is `now` and the wall clock says `wall`, where the offset was this one before: what is within the
    /// reading of two clocks does not change it.
    pub fn near(offset: i64, now: u64, wall: u64) -> Time {
        let exact = Time::new(now, wall);
        if exact.offset.abs_diff(offset) <= READING { Time { now, offset } } else { exact }
    }

    /// Where T goes on at a start, when the log recorded `last` and the wall clock says `wall`: not before the last T, unless
    /// that can't be believed ([`Time::is_disbelieved`]).
    pub fn at_start(last: Time, wall: u64) -> Time {
        let expected = wall.saturating_add_signed(last.offset);
        let now = if last.is_disbelieved(wall) { expected } else { expected.max(last.now) };
        Time::near(last.offset, now, wall)
    }

    /// Whether a start at `wall` goes on before this recorded moment, since it lies over an hour ahead.
    pub fn is_disbelieved(self, wall: u64) -> bool {
        self.now > wall.saturating_add_signed(self.offset).saturating_add(BELIEVED_AHEAD)
    }

    /// What the wall clock says at this moment.
    pub fn wall(self) -> u64 {
        self.to_wall(self.now)
    }

    /// The T of a date that is told by the wall clock as it is at this moment.
    pub fn from_wall(self, date: u64) -> u64 {
        date.saturating_add_signed(self.offset)
    }

    /// The date by the wall clock as it is at this moment, of a T.
    pub fn to_wall(self, at: u64) -> u64 {
        at.saturating_add_signed(self.offset.saturating_neg())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_700_000_000_000;
    const MINUTE: u64 = 60_000;

    fn started(last: Time, wall: u64) -> (u64, i64) {
        let time = Time::at_start(last, wall);
        (time.now, time.offset)
    }

    #[test]
    fn a_start_goes_on_from_the_last_time_within_reason() {
        assert_eq!(started(Time::default(), WALL), (WALL, 0), "an empty log");
        assert_eq!(started(Time::from(WALL - 5), WALL), (WALL, 0), "time has passed");
        assert_eq!(started(Time::from(WALL + 5), WALL), (WALL + 5, 0), "two clocks, read one after the other");
        assert_eq!(started(Time::from(WALL + 50), WALL), (WALL + 50, 50), "stepped back a little while down");
        let hour = BELIEVED_AHEAD;
        assert_eq!(started(Time::from(WALL + hour), WALL), (WALL + hour, hour.cast_signed()), "just believed");
        assert_eq!(started(Time::from(WALL + hour + 1), WALL), (WALL, 0), "the log is from a wrong clock");
        assert_eq!(started(Time::from(u64::MAX), WALL), (WALL, 0), "as wrong as can be");
    }

    #[test]
    fn a_step_of_the_wall_clock_outlives_a_restart() {
        // Begun two days behind, and corrected since: T goes on two days behind.
        let behind = 2 * 24 * 60 * MINUTE;
        let last = Time::new(WALL - behind + MINUTE, WALL + MINUTE);
        assert_eq!(started(last, WALL + 3 * MINUTE), (WALL - behind + 3 * MINUTE, -behind.cast_signed()));
        // Begun fifty minutes ahead: a date by the right clock is a deadline so far ahead.
        let ahead = Time::at_start(Time::from(WALL + 50 * MINUTE), WALL);
        assert_eq!(ahead.from_wall(WALL + MINUTE), WALL + 51 * MINUTE);
        assert_eq!(ahead.to_wall(WALL + 51 * MINUTE), WALL + MINUTE);
    }

    #[test]
    fn extremes_saturate() {
        assert_eq!(Time::new(u64::MAX, 0).offset, i64::MAX);
        assert_eq!(Time::new(0, u64::MAX).offset, i64::MIN);
        let least = Time { now: 5, offset: i64::MIN };
        assert_eq!((least.from_wall(7), least.to_wall(7)), (0, 7 + i64::MAX as u64));
    }
}
