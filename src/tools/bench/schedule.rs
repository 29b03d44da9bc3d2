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
        // From the count and not from the moment before, so that nothing adds up.
        let next = Duration::try_from_secs_f64(self.taken as f64 / self.rate).ok()?;
        (next < self.end).then_some(next)
    }

    /// Takes the next moment if it has come after `elapsed`.
    pub fn take(&mut self, elapsed: Duration) -> Option<Duration> {
        let next = self.next().filter(|next| *next <= elapsed)?;
        self.taken += 1;
        Some(next)
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
}
