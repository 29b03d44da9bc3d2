//! How much disk the log may take beyond what counts, and what is done as it comes near.
//!
//! Pure: the accounts in, decisions out. Does not know files, threads or clocks.
//!
//! *The bound.* The directory never holds more than twice the live bytes and four segments. Two segments are sized
//! ahead, the active one and the spare; the output of a compaction takes at most what counts in its victims, and at
//! most one segment; a rotation makes a sealed segment out of the active one. So as long as the sealed segments stay
//! within
//!
//! ```text
//! ceiling = 2 x live + 1 segment - min(live, 1 segment)
//! ```
//!
//! whenever a rotation begins, the bound holds. Well below the ceiling compaction keeps a pace; near it there is none;
//! and a batch that would rotate above it waits, for a while, for a compaction that is going on.

use super::ledger::Ledger;
use std::time::Duration;

/// The longest that one batch is held up.
const LONGEST_DELAY: Duration = Duration::from_millis(20);
/// The longest that a batch is held up which would begin a new segment above the ceiling, or lead beyond `--max-log-size`.
const LONGEST_STOP: Duration = Duration::from_secs(1);

/// What the log may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of a segment.
    pub segment_size: u64,
    /// Bytes that the log may take at all, those sized ahead included; `u64::MAX` where only the disk limits it.
    pub max_log_size: u64,
}

/// How urgent compaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Not at all: only what costs nothing is worth it.
    None,
    /// At its pace.
    Paced,
    /// As fast as it goes.
    Pressed,
}

impl Budget {
    /// How urgent compaction is.
    pub fn urgency(&self, ledger: &Ledger) -> Urgency {
        let (live, sealed) = (ledger.live_bytes(), ledger.sealed_bytes());
        if sealed > self.ceiling(live).saturating_sub(self.segment_size / 2) || self.is_short(ledger, 0) {
            Urgency::Pressed
        } else if sealed > live + live / 2 + self.segment_size / 4 {
            Urgency::Paced
        } else {
            Urgency::None
        }
    }

    /// How long a batch of this length should be held up for the compaction that is going on: nothing in the first half of the
    /// active segment, then more and more, so that writers meet no wall. Where `--max-log-size` leaves no room for the
    /// batch, until there is some.
    pub fn delay(&self, ledger: &Ledger, length: u64) -> Option<Duration> {
        if self.is_short(ledger, length) {
            return Some(LONGEST_STOP);
        }
        let end = ledger.segments().last()?.bytes + length;
        let half = self.segment_size / 2;
        if ledger.sealed_bytes() <= self.ceiling(ledger.live_bytes()).saturating_sub(half) || end <= half {
            return None;
        }
        if end > self.segment_size && ledger.sealed_bytes() > self.ceiling(ledger.live_bytes()) {
            return Some(LONGEST_STOP);
        }
        let share = ((end - half) as f64 / half as f64).min(1.0);
        Some(LONGEST_DELAY.mul_f64(share * share))
    }

    /// Whether this many more bytes would lead beyond `--max-log-size`. Of that, two segments are sized ahead, of which one is the
    /// reserve for removals, and a third for a moment when a new one is begun; one is left for compaction.
    pub fn is_short(&self, ledger: &Ledger, more: u64) -> bool {
        let active = ledger.segments().last().map_or(0, |active| active.bytes);
        self.exceeds(ledger.sealed_bytes().saturating_add(active).saturating_add(more))
    }

    /// Whether this many more bytes would lead beyond `--max-log-size` even if all that does not count were compacted away.
    pub fn is_beyond(&self, ledger: &Ledger, more: u64) -> bool {
        self.exceeds(ledger.live_bytes().saturating_add(more))
    }

    fn exceeds(&self, used: u64) -> bool {
        used > self.max_log_size.saturating_sub(4 * self.segment_size)
    }

    fn ceiling(&self, live: u64) -> u64 {
        2 * live + self.segment_size - live.min(self.segment_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::Tally;

    const SEGMENT: u64 = 1 << 20;
    const BUDGET: Budget = Budget { segment_size: SEGMENT, max_log_size: u64::MAX };

    /// Sealed segments of which this much counts, and an active one of which nothing does.
    fn ledger(sealed: u64, live: u64, active: u64) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.appended(1, 1, sealed - 4096, Tally { puts: 1, put_bytes: live, ..Tally::default() });
        ledger.appended(2, 2, active - 4096, Tally::default());
        ledger
    }

    #[test]
    fn urgency_rises_with_garbage() {
        let urgency = |sealed, live| BUDGET.urgency(&ledger(sealed, live, 5000));
        // Much that counts: paced from half as much garbage on, pressed near as much.
        assert_eq!(urgency(10 * SEGMENT, 9 * SEGMENT), Urgency::None);
        assert_eq!(urgency(16 * SEGMENT, 10 * SEGMENT), Urgency::Paced);
        assert_eq!(urgency(20 * SEGMENT, 10 * SEGMENT), Urgency::Pressed);
        // Little that counts: one segment of garbage is too much already.
        assert_eq!(urgency(SEGMENT, SEGMENT / 10), Urgency::Pressed);
        assert_eq!(urgency(SEGMENT / 10, SEGMENT / 10), Urgency::None);
    }

    #[test]
    fn writers_are_slowed_step_by_step_and_only_near_the_ceiling() {
        let near = |active| BUDGET.delay(&ledger(SEGMENT, SEGMENT / 10, active), 1000);
        assert_eq!(near(SEGMENT / 4), None);
        let (little, more) = (near(SEGMENT * 5 / 8).expect("some"), near(SEGMENT * 7 / 8).expect("more"));
        assert!(little < more && more < LONGEST_DELAY);
        assert_eq!(near(SEGMENT), Some(LONGEST_DELAY), "the rotation is still within the ceiling");
        assert_eq!(BUDGET.delay(&ledger(2 * SEGMENT, SEGMENT / 10, SEGMENT), 1000), Some(LONGEST_STOP));
        assert_eq!(BUDGET.delay(&ledger(10 * SEGMENT, 9 * SEGMENT, SEGMENT), 1000), None);
    }

    #[test]
    fn each_border_is_where_it_is_said_to_be() {
        let urgency = |sealed, live| BUDGET.urgency(&ledger(sealed, live, 5000));
        for live in [SEGMENT / 8, 10 * SEGMENT] {
            let paced = live + live / 2 + SEGMENT / 4;
            assert_eq!((urgency(paced, live), urgency(paced + 1, live)), (Urgency::None, Urgency::Paced));
            let pressed = 2 * live + SEGMENT - live.min(SEGMENT) - SEGMENT / 2;
            assert_eq!((urgency(pressed, live), urgency(pressed + 1, live)), (Urgency::Paced, Urgency::Pressed));
        }
        let ceiling = BUDGET.ceiling(SEGMENT / 8);
        let delay = |sealed, end| BUDGET.delay(&ledger(sealed, SEGMENT / 8, end - 1000), 1000);
        assert_eq!(delay(ceiling - SEGMENT / 2, SEGMENT), None);
        assert_eq!(delay(ceiling - SEGMENT / 2 + 1, SEGMENT), Some(LONGEST_DELAY));
        assert_eq!(delay(ceiling, SEGMENT / 2), None);
        assert!(delay(ceiling, SEGMENT / 2 + 1).is_some_and(|delay| delay < LONGEST_DELAY / 1000));
        assert_eq!(delay(ceiling, SEGMENT / 2 + SEGMENT / 4), Some(LONGEST_DELAY / 4));
        assert_eq!(delay(ceiling, SEGMENT + 1), Some(LONGEST_DELAY));
        assert_eq!(
            (delay(ceiling + 1, SEGMENT), delay(ceiling + 1, SEGMENT + 1)),
            (Some(LONGEST_DELAY), Some(LONGEST_STOP))
        );
        let limited = Budget { max_log_size: 8 * SEGMENT, ..BUDGET };
        let short = |sealed, end| limited.is_short(&ledger(sealed, sealed / 2, end - 1000), 1000);
        assert!(!short(3 * SEGMENT, SEGMENT) && short(3 * SEGMENT, SEGMENT + 1));
    }

    #[test]
    fn the_bound_holds_at_the_moment_of_a_rotation() {
        for live in [0, SEGMENT / 10, SEGMENT, 3 * SEGMENT, 100 * SEGMENT] {
            // Active, spare, what the rotation seals, and the output of a compaction.
            let most = BUDGET.ceiling(live) + 3 * SEGMENT + live.min(SEGMENT);
            assert!(most <= 2 * live + 4 * SEGMENT, "live {live}");
        }
    }

    #[test]
    fn a_limit_leaves_a_reserve() {
        let budget = Budget { max_log_size: 8 * SEGMENT, ..BUDGET };
        assert!(!budget.is_short(&ledger(3 * SEGMENT, 3 * SEGMENT, SEGMENT / 2), 1000));
        assert!(budget.is_short(&ledger(3 * SEGMENT, 3 * SEGMENT, SEGMENT), 1000));
        assert_eq!(budget.delay(&ledger(3 * SEGMENT, 3 * SEGMENT, SEGMENT / 2), 1000), None);
        assert_eq!(budget.delay(&ledger(3 * SEGMENT, 3 * SEGMENT, SEGMENT), 1000), Some(LONGEST_STOP));
        assert_eq!(budget.urgency(&ledger(6 * SEGMENT, 6 * SEGMENT, 5000)), Urgency::Pressed);
        assert!(!BUDGET.is_short(&ledger(6 * SEGMENT, 6 * SEGMENT, SEGMENT), u64::MAX / 2));
    }
}
