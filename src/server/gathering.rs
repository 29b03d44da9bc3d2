//! Whether the forming batch waits a moment for the peers of the last one.
//!
//! Peers that have one request in flight fall into two groups, of which one waits while the other's batch is synced:
//! every request then waits for half a foreign sync, and each sync serves half of the peers. If the batch that has
//! formed is held until the peers whose replies have just left are back, all of them share one sync.
//!
//! It is a bet that they come back at once. It is limited to a few times what a commit took and to 2 ms, it is not made again for a
//! while after it was lost, and a peer that is alone never waits: its own return is all that there is to wait for.
//! (The idea is that of `commit_delay` and `commit_siblings` in `PostgreSQL`, without settings.)
//!
//! Pure: numbers of batches and times in, decisions out.

use crate::engine::BatchId;
use std::time::{Duration, Instant};

/// The longest hold, in commits as long as the last one.
const LONGEST_HOLD: u32 = 3;
/// The longest hold at all: a disk that stalls must not make the next batch wait as well.
const MOST_HOLD: Duration = Duration::from_millis(2);
/// Batches without a hold after a bet was lost: the first time, and at most, doubled from time to time.
const FEWEST_SKIPPED: u32 = 16;
const MOST_SKIPPED: u32 = 4096;

/// Who is in the forming batch, and who may yet join it.
#[derive(Debug)]
pub(super) struct Gathering {
    /// Peers with something in the forming batch.
    present: u32,
    /// Those of them that were in the last one too.
    returned: u32,
    /// Peers that were in the last one.
    expected: u32,
    submitted: Instant,
    /// How long to hold, if a bet is on.
    hold_until: Option<Instant>,
    /// Batches still to pass before the next bet.
    skip: u32,
    skip_next: u32,
}

impl Gathering {
    /// Nobody yet.
    pub fn new(now: Instant) -> Gathering {
        Gathering {
            present: 0,
            returned: 0,
            expected: 0,
            submitted: now,
            hold_until: None,
            skip: 0,
            skip_next: FEWEST_SKIPPED,
        }
    }

    /// A peer has joined the forming batch; `before` is the newest batch it was in until now.
    pub fn joined(&mut self, before: BatchId, forming: BatchId) {
        self.present += 1;
        self.returned += u32::from(before + 1 == forming);
    }

    /// The forming batch goes to the log.
    pub fn submitted(&mut self, now: Instant) {
        if self.hold_until.take().is_some() {
            if self.returned < self.expected {
                self.skip = self.skip_next;
                self.skip_next = (self.skip_next * 2).min(MOST_SKIPPED);
            } else {
                self.skip_next = FEWEST_SKIPPED;
            }
        }
        (self.expected, self.present, self.returned, self.submitted) = (self.present, 0, 0, now);
    }

    /// The log is done with the last batch, and its replies leave.
    pub fn decided(&mut self, now: Instant) {
        self.skip = self.skip.saturating_sub(1);
        if self.skip == 0 {
            self.hold_until = now.checked_add(((now - self.submitted) * LONGEST_HOLD).min(MOST_HOLD));
        }
    }

    /// Until when the forming batch should be held; `None` if it should go at once. An instant, and not what is left
    /// of it: whoever asks twice, to wait and to submit, must not be told "wait" and then "no need to wake up".
    pub fn held_until(&self) -> Option<Instant> {
        self.hold_until.filter(|_| self.returned < self.expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: Duration = Duration::from_micros(200);

    /// A commit of these peers in batch 1, just decided.
    fn after_a_commit_of(peers: u32) -> (Gathering, Instant) {
        let start = Instant::now();
        let mut gathering = Gathering::new(start);
        (0..peers).for_each(|_| gathering.joined(0, 1));
        gathering.submitted(start);
        gathering.decided(start + COMMIT);
        (gathering, start + COMMIT)
    }

    #[test]
    fn a_peer_that_is_alone_never_waits() {
        let (mut gathering, _) = after_a_commit_of(1);
        gathering.joined(1, 2);
        assert_eq!(gathering.held_until(), None);
    }

    #[test]
    fn a_batch_waits_for_the_peers_of_the_last_one() {
        let (mut gathering, now) = after_a_commit_of(2);
        gathering.joined(0, 2);
        gathering.joined(1, 2);
        assert_eq!(gathering.held_until(), Some(now + COMMIT * LONGEST_HOLD), "one of the two is not back");
        gathering.joined(1, 2);
        assert_eq!(gathering.held_until(), None);
    }

    #[test]
    fn a_disk_that_stalls_does_not_make_the_next_batch_wait_as_well() {
        let start = Instant::now();
        let mut gathering = Gathering::new(start);
        (0..2).for_each(|_| gathering.joined(0, 1));
        gathering.submitted(start);
        let now = start + Duration::from_secs(10);
        gathering.decided(now);
        gathering.joined(0, 2);
        assert_eq!(gathering.held_until(), Some(now + MOST_HOLD));
    }

    #[test]
    fn a_bet_that_was_lost_is_not_made_again_for_a_while() {
        let (mut gathering, mut now) = after_a_commit_of(2);
        for skipped in [FEWEST_SKIPPED, FEWEST_SKIPPED * 2] {
            assert!(gathering.held_until().is_some());
            for batch in 0..skipped {
                gathering.joined(0, 9);
                gathering.joined(0, 9);
                gathering.submitted(now);
                now += COMMIT;
                gathering.decided(now);
                assert_eq!(gathering.held_until().is_some(), batch + 1 == skipped, "batch {batch} of {skipped}");
            }
        }
    }
}
