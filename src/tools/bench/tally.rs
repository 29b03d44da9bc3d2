//! What a load came to: counts and latencies, and when counting begins and ends.

use super::mix::Operation;
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What came of the operations of one kind.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Answered, refusals included.
    pub count: u64,
    /// Those of them that said that the key is absent.
    pub misses: u64,
    /// Those of them that were refused.
    pub refused: u64,
    /// Nanoseconds until the reply was read, of those that were not refused: from when the request was due, or in a
    /// closed loop from when it was handed to the socket.
    pub latency: Histogram<u64>,
}

impl Default for Figures {
    fn default() -> Figures {
        let latency = Histogram::new_with_bounds(1_000, 1_000_000_000_000, 3).expect("bounds that fit each other");
        Figures { count: 0, misses: 0, refused: 0, latency }
    }
}

/// What a load came to.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// In the order of [`Operation::ALL`].
    figures: [Figures; Operation::ALL.len()],
    /// From the beginning to the end of counting.
    pub elapsed: Duration,
    /// Processor time of the generator's thread meanwhile.
    pub client: Duration,
    /// Refusals by their code.
    pub refusals: BTreeMap<String, u64>,
}

impl Measured {
    /// What came of one kind of operation.
    pub fn of(&self, operation: Operation) -> &Figures {
        &self.figures[operation as usize]
    }

    /// All kinds together.
    pub fn overall(&self) -> Figures {
        let mut sum = Figures::default();
        for figures in &self.figures {
            sum.count += figures.count;
            sum.misses += figures.misses;
            sum.refused += figures.refused;
            // The bounds are the same, so there is nothing to refuse.
            sum.latency += &figures.latency;
        }
        sum
    }

    /// Answered operations.
    pub fn count(&self) -> u64 {
        self.figures.iter().map(|figures| figures.count).sum()
    }

    /// Operations that said that a key is absent.
    pub fn misses(&self) -> u64 {
        self.figures.iter().map(|figures| figures.misses).sum()
    }

    /// Answered operations a second.
    pub fn rate(&self) -> f64 {
        self.count() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// When a load ends: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// After this time. What is in flight then is waited for. It counts, unless the load is a closed loop that nothing
    /// else ends: its rate is that of the time.
    pub elapsed: Duration,
    /// After this many operations, all of them answered.
    pub count: u64,
}

impl Until {
    /// After this time.
    pub fn elapsed(elapsed: Duration) -> Until {
        Until { elapsed, count: u64::MAX }
    }

    /// After this many operations.
    pub fn count(count: u64) -> Until {
        Until { elapsed: Duration::MAX, count }
    }
}

/// Counts.
pub(super) struct Tally {
    until: Until,
    /// Counting begins here.
    opens: Instant,
    /// Nothing is asked from here on, if there is such a moment.
    ends: Option<Instant>,
    /// Replies are counted up to the end of the time only, since that is what a rate is.
    by_time: bool,
    phase: Phase,
    /// That moment has come.
    expired: bool,
    processor: Duration,
    asked: u64,
    measured: Measured,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmingUp,
    Counting,
    /// Counting is over; what still comes is only waited for.
    Closed,
}

impl Tally {
    /// Begins to count `warm_up` after `start`. Where requests have a moment at which they are due, what is late at the
    /// end may still be asked for as long as `grace`.
    pub fn new(until: Until, start: Instant, warm_up: Duration, grace: Option<Duration>) -> Tally {
        let opens = start + warm_up;
        let asking = until.elapsed.saturating_add(grace.unwrap_or_default());
        Tally {
            until,
            opens,
            ends: opens.checked_add(asking),
            by_time: grace.is_none() && until.count == u64::MAX,
            phase: if warm_up.is_zero() { Phase::Counting } else { Phase::WarmingUp },
            expired: false,
            processor: thread_time(),
            asked: 0,
            measured: Measured::default(),
        }
    }

    /// Tells the time.
    pub fn at(&mut self, now: Instant) {
        if self.phase == Phase::WarmingUp && now >= self.opens {
            self.phase = Phase::Counting;
            self.processor = thread_time();
        }
        if self.phase == Phase::Counting && self.ends.is_some_and(|end| now >= end) {
            self.expire(now);
        }
    }

    /// Nothing is asked from here on.
    pub fn expire(&mut self, now: Instant) {
        self.expired = true;
        if self.by_time {
            self.close(now);
        }
    }

    /// How many of `wanted` operations, which are due at `due`, may still be asked now, all of which then are.
    pub fn admit(&mut self, wanted: usize, due: Instant) -> usize {
        if self.phase == Phase::Closed || self.expired {
            return 0;
        }
        if due < self.opens {
            return wanted;
        }
        let count = wanted.min(usize::try_from(self.left()).unwrap_or(usize::MAX));
        self.asked += count as u64;
        count
    }

    /// How many operations that count there may still be.
    pub fn left(&self) -> u64 {
        self.until.count - self.asked
    }

    /// Whether nothing will be admitted any more.
    pub fn is_exhausted(&self) -> bool {
        self.phase == Phase::Closed || self.expired || self.left() == 0
    }

    /// Whether what is asked at `due` will count.
    pub fn counts(&self, due: Instant) -> bool {
        self.by_time || due >= self.opens
    }

    /// Counts `count` answers that took as long as this; `refused` of them are not timed.
    pub fn record(&mut self, operation: Operation, latency: Duration, count: u64, misses: u64, refused: u64) {
        if self.phase != Phase::Counting {
            return;
        }
        let figures = &mut self.measured.figures[operation as usize];
        figures.count += count;
        figures.misses += misses;
        figures.refused += refused;
        figures.latency.saturating_record_n(latency.as_nanos() as u64, count - refused);
    }

    /// Counts why something was refused.
    pub fn refusal(&mut self, why: &str) {
        if self.phase == Phase::Counting {
            let code = why.split(' ').next().unwrap_or_default();
            match self.measured.refusals.get_mut(code) {
                Some(count) => *count += 1,
                None => _ = self.measured.refusals.insert(code.to_owned(), 1),
            }
        }
    }

    /// What has been counted so far.
    pub fn so_far(&self) -> u64 {
        self.measured.count()
    }

    fn close(&mut self, now: Instant) {
        if self.phase == Phase::Counting {
            self.measured.elapsed = now - self.opens;
            self.measured.client = thread_time().saturating_sub(self.processor);
        }
        self.phase = Phase::Closed;
    }

    /// What it came to, now.
    pub fn finish(mut self) -> Measured {
        self.close(Instant::now());
        self.measured
    }
}

fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_in_the_warm_up_is_none_of_what_counts_however_late_it_is_asked() {
        let (late, warm_up) = (Instant::now(), Duration::from_secs(1));
        let mut tally = Tally::new(Until::count(10), late, warm_up, Some(warm_up));
        let opens = late + warm_up;
        tally.at(opens + warm_up);
        assert_eq!((tally.admit(7, late), tally.counts(late)), (7, false));
        assert_eq!((tally.admit(7, opens), tally.counts(opens)), (7, true));
        assert_eq!(tally.admit(7, opens), 3);
        assert!(tally.is_exhausted());
    }

    #[test]
    fn at_the_end_a_closed_loop_ends_and_a_pace_makes_up_for_its_delay() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let until = Until::elapsed(second);
        let end = start + second;
        let mut closed = Tally::new(until, start, Duration::ZERO, None);
        closed.at(end);
        assert_eq!((closed.is_exhausted(), closed.admit(5, end)), (true, 0));
        let mut paced = Tally::new(until, start, Duration::ZERO, Some(second));
        paced.at(end + second / 2);
        assert_eq!((paced.is_exhausted(), paced.admit(5, start + second / 2)), (false, 5));
        paced.at(end + second);
        assert_eq!((paced.is_exhausted(), paced.admit(5, start + second / 2)), (true, 0));
    }
}
