//! When requests are due that wait for no reply.
//!
//! Pure: time comes in as what has passed since the start. Latency runs from when a request was due, so a server
//! that stands still is charged for every request that should have been asked meanwhile. (A closed loop asks nothing
//! during a pause and sees it once: "coordinated omission", as Gil Tene named it.)

use std::time::Duration;

/// Moments at equal distances, from 0 on.
///
/// ```
/// use kvd::tools::bench::schedule::Schedule;
/// use std::time::Duration;
/// let mut schedule = Schedule::new(4.0, Duration::from_secs(1));
/// assert_eq!(schedule.take(Duration::ZERO), Some(Duration::ZERO));
/// assert_eq!(schedule.take(Duration::ZERO), None);
/// assert_eq!(schedule.next(), Some(Duration::from_millis(250)));
/// // Late as it is asked, it tells when that was due.
/// assert_eq!(schedule.take(Duration::from_millis(300)), Some(Duration::from_millis(250)));
/// ```
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Moments a second.
    rate: f64,
    end: Duration,
    /// How many moments have been taken.
    taken: u64,
}

impl Schedule {
    /// `rate` moments a second, until just before `end`.
    pub fn new(rate: f64, end: Duration) -> Schedule {
        Schedule { rate, end, taken: 0 }
    }

    /// The next moment; `None` if there is none before the end.
    pub fn next(&self) -> Option<Duration> {
        self.moment(self.taken).filter(|next| *next < self.end)
    }

    /// Takes the next moment if it has come after `elapsed`.
    pub fn take(&mut self, elapsed: Duration) -> Option<Duration> {
        let next = self.next().filter(|next| *next <= elapsed)?;
        self.taken += 1;
        Some(next)
    }

    /// Leaves out the moments from `end` on.
    pub fn end_by(&mut self, end: Duration) {
        self.end = self.end.min(end);
    }

    /// How many moments there are from `from` to just before `to` that have not been taken.
    pub fn left(&self, from: Duration, to: Duration) -> u64 {
        self.before(to.min(self.end)).saturating_sub(self.before(from).max(self.taken))
    }

    /// How many moments there are before `time`.
    #[expect(clippy::cast_sign_loss, reason = "times and rates are positive")]
    fn before(&self, time: Duration) -> u64 {
        let precedes = |moment: u64| self.moment(moment).is_some_and(|moment| moment < time);
        // A product is rounded another way than the quotients that the moments are, so it may be one off.
        let mut count = (time.as_secs_f64() * self.rate) as u64;
        while count > 0 && !precedes(count - 1) {
            count -= 1;
        }
        while precedes(count) {
            count += 1;
        }
        count
    }

    /// From the number and not from the moment before, so that nothing adds up. `None` if that is for nobody to see.
    fn moment(&self, number: u64) -> Option<Duration> {
        Duration::try_from_secs_f64(number as f64 / self.rate).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_postpones_nothing() {
        let mut schedule = Schedule::new(1000.0, Duration::from_secs(2));
        let mut taken: Vec<_> = std::iter::from_fn(|| schedule.take(Duration::from_millis(10))).collect();
        assert_eq!(taken.len(), 11);
        // Nobody asked for a second: everything of that second is due, each at its own moment.
        taken.extend(std::iter::from_fn(|| schedule.take(Duration::from_millis(1010))));
        assert_eq!(taken.len(), 1011);
        assert!(taken.iter().zip(0..).all(|(due, i)| *due == Duration::from_millis(i)), "{taken:?}");
    }

    #[test]
    fn it_ends_where_it_was_told_and_drifts_nowhere() {
        let mut schedule = Schedule::new(3.0, Duration::from_secs(1000));
        let taken = std::iter::from_fn(|| schedule.take(Duration::MAX)).count();
        assert_eq!((taken, schedule.next()), (3000, None));
    }

    #[test]
    fn what_was_not_taken_is_known() {
        let second = Duration::from_secs(1);
        for (rate, first) in [(1.0, 2), (3.0, 4), (7.0, 8), (100.0, 101), (333.3, 334)] {
            let mut schedule = Schedule::new(rate, 10 * second);
            let all = schedule.left(Duration::ZERO, Duration::MAX);
            assert_eq!(schedule.left(second, Duration::MAX), all - schedule.left(Duration::ZERO, second), "{rate}");
            assert_eq!(std::iter::from_fn(|| schedule.take(second)).count(), first, "{rate}");
            assert_eq!(schedule.left(Duration::ZERO, second), 0, "{rate}");
            let rest = schedule.left(Duration::ZERO, Duration::MAX);
            assert_eq!(rest, std::iter::from_fn(|| schedule.take(Duration::MAX)).count() as u64, "{rate}");
            assert_eq!(schedule.left(Duration::ZERO, Duration::MAX), 0, "{rate}");
        }
    }
}
