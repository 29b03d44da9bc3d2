//! Steps of the wall clock: noticed, told, and recorded in the log once each.
//!
//! T does not move with them, but dates are told by the wall clock, so the log has to know by how much the two differ. Pure: is
//! told what time it is and what became of batches.

use super::clock::Moment;
use crate::timeline::Time;
use std::time::{Duration, Instant};

/// By how many milliseconds the wall clock must have moved against T to be taken for stepped: less is how clocks run.
const STEP: u64 = 1000;
/// How often it is looked whether it was stepped, where no command asks for a date.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Whether the log knows of the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    /// It does, or will with what is in flight, if that says so for the first time.
    Made {
        /// Whether the batch in flight does.
        in_flight: bool,
    },
    /// The next batch says so.
    Due,
    /// There was no room even for a batch that says nothing else.
    Refused,
}

/// The steps of a run.
#[derive(Debug)]
pub(super) struct Steps {
    /// T minus the wall clock, as of when it was last noticed to have changed.
    offset: i64,
    look_at: Instant,
    record: Record,
}

impl Steps {
    /// None since this moment, with which a run begins on a log that recorded `last`. What a start makes of the clocks is to be
    /// recorded as well, where the log does not say so: else the next start would go on from an earlier T.
    pub fn new(moment: Moment, last: Option<Time>) -> Steps {
        let is_known = |last: Time| last.offset == moment.time.offset && last.now <= moment.time.now;
        let record = if last.is_none_or(is_known) { Record::Made { in_flight: false } } else { Record::Due };
        Steps { offset: moment.time.offset, look_at: moment.instant + LOOK_EVERY, record }
    }

    /// Looks, if that was not done for a while.
    pub fn look_if_due(&mut self, moment: Moment) {
        if self.look_at <= moment.instant {
            self.look(moment);
        }
    }

    /// Looks whether the wall clock was stepped, and tells it.
    pub fn look(&mut self, moment: Moment) {
        self.look_at = moment.instant + LOOK_EVERY;
        let step = self.offset.saturating_sub(moment.time.offset);
        if step.unsigned_abs() > STEP {
            tracing::warn!(
                "the wall clock was stepped by {:+.3} s: times to live do not change by it",
                step as f64 / 1e3
            );
            (self.offset, self.record) = (moment.time.offset, Record::Due);
        }
    }

    /// When it is to be looked next.
    pub fn wait(&self, now: Instant) -> Duration {
        self.look_at.saturating_duration_since(now)
    }

    /// Whether a batch is wanted although there is nothing else to write.
    pub fn wants_mark(&self) -> bool {
        self.record == Record::Due
    }

    /// A batch goes to the log, and says what time it is.
    pub fn submitted(&mut self) {
        self.record = Record::Made { in_flight: self.record != Record::Made { in_flight: false } };
    }

    /// The batch in flight is in the log.
    pub fn committed(&mut self) {
        if self.record == (Record::Made { in_flight: true }) {
            self.record = Record::Made { in_flight: false };
        }
    }

    /// The batch in flight found no room. Without any for a mark there is none worth a try.
    pub fn refused(&mut self, was_mark: bool) {
        if self.record == (Record::Made { in_flight: true }) {
            self.record = if was_mark { Record::Refused } else { Record::Due };
        }
    }

    /// There is room again.
    pub fn room_again(&mut self) {
        if self.record == Record::Refused {
            self.record = Record::Due;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment so many seconds after the start, as both clocks have it.
    fn at(start: Instant, seconds: u64, now: u64, wall: u64) -> Moment {
        Moment { instant: start + Duration::from_secs(seconds), time: Time::new(now, wall) }
    }

    #[test]
    fn a_step_is_noticed_once_and_recorded_once() {
        let start = Instant::now();
        let mut steps = Steps::new(at(start, 0, 5_000, 5_000), None);
        steps.look(at(start, 1, 6_000, 7_000));
        assert!(!steps.wants_mark(), "a second is no step");
        steps.look(at(start, 2, 7_000, 8_001));
        assert!(steps.wants_mark());
        steps.submitted();
        steps.look(at(start, 3, 8_000, 9_001));
        assert!(!steps.wants_mark(), "noticed once");
        steps.committed();
        // Back, and nobody asks for a date.
        steps.look_if_due(at(start, 12, 17_000, 10_000));
        assert!(!steps.wants_mark());
        steps.look_if_due(at(start, 13, 18_000, 11_000));
        assert!(steps.wants_mark());
    }

    #[test]
    fn what_found_no_room_is_recorded_by_what_comes_next() {
        let start = Instant::now();
        let mut steps = Steps::new(at(start, 0, 5_000, 5_000), None);
        steps.look(at(start, 1, 6_000, 60_000));
        steps.submitted();
        steps.refused(false);
        assert!(steps.wants_mark(), "beside a batch of changes, a mark may find room");
        steps.submitted();
        steps.refused(true);
        assert!(!steps.wants_mark(), "nothing does");
        steps.room_again();
        assert!(steps.wants_mark());
        steps.submitted();
        steps.committed();
        steps.refused(false);
        assert!(!steps.wants_mark(), "that is of a later batch");
    }

    #[test]
    fn what_a_start_made_of_the_clocks_is_recorded() {
        let begun = at(Instant::now(), 0, 9_000, 8_000);
        let wants = |last| Steps::new(begun, Some(last)).wants_mark();
        assert!(!wants(Time { now: 8_500, offset: 1_000 }));
        assert!(wants(Time { now: 8_500, offset: 0 }), "stepped while kvd was down");
        assert!(wants(Time { now: 9_500, offset: 1_000 }), "not believed");
    }
}
