//! When to try again for peers that had no room: soon, and less often the longer nothing moves.
//!
//! A ROUTER does not tell which of its peers has room again, so somebody has to look. Pure: time is passed in.

use std::time::{Duration, Instant};

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(50);

/// The next try, if there is anything to try.
#[derive(Debug)]
pub(super) struct Retry {
    at: Option<Instant>,
    delay: Duration,
}

impl Retry {
    /// Nothing to try.
    pub fn new() -> Retry {
        Retry { at: None, delay: SHORTEST }
    }

    /// A reply found no room: try before long.
    pub fn begin(&mut self, now: Instant) {
        if self.at.is_none() {
            self.again(now, SHORTEST);
        }
    }

    /// A try was made: whether something is still stuck, and whether anything moved.
    pub fn tried(&mut self, now: Instant, stuck: bool, moved: bool) {
        if !stuck {
            self.at = None;
        } else if moved {
            self.again(now, SHORTEST);
        } else if self.due(now) || self.at.is_none() {
            self.again(now, (self.delay * 2).min(LONGEST));
        }
    }

    /// Whether it is time for a try.
    pub fn due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    /// How long until it is.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        self.at.map(|at| at.saturating_duration_since(now))
    }

    fn again(&mut self, now: Instant, delay: Duration) {
        self.delay = delay;
        self.at = Some(now + delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_less_often_until_something_moves() {
        let (mut retry, mut now) = (Retry::new(), Instant::now());
        assert_eq!(retry.wait(now), None);
        retry.begin(now);
        for expected in [1, 2, 4, 8, 16, 32, 50, 50] {
            let wait = retry.wait(now).expect("a try is due");
            assert_eq!(wait, Duration::from_millis(expected));
            assert!(!retry.due(now));
            now += wait;
            assert!(retry.due(now));
            retry.tried(now, true, false);
        }
        retry.tried(now, true, true);
        assert_eq!(retry.wait(now), Some(SHORTEST));
        retry.tried(now, false, true);
        assert_eq!(retry.wait(now), None);
    }

    #[test]
    fn a_try_made_for_another_reason_does_not_slow_it_down() {
        let (mut retry, now) = (Retry::new(), Instant::now());
        retry.begin(now);
        retry.tried(now, true, false);
        assert_eq!(retry.wait(now), Some(SHORTEST));
    }
}
