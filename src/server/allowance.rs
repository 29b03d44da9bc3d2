//! How much work of one kind a pass may do, so that no request waits long for it.

use std::time::{Duration, Instant};

/// How long a pass does work of one kind: requests wait so long for it at most, and as long as there is more of it, it
/// gets a good part of the time.
const MOST: Duration = Duration::from_micros(400);

/// The bound of a kind of work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    time: Duration,
    steps: usize,
}

impl Bound {
    /// What is right for a daemon: a time, however far that goes.
    pub const TIMED: Bound = Bound { time: MOST, steps: usize::MAX };

    /// So many steps, however long they take: then nothing depends on the machine.
    #[cfg(test)]
    pub fn counted(steps: usize) -> Bound {
        Bound { time: Duration::from_secs(3600), steps }
    }

    /// Begins such work now.
    pub fn begin(self) -> Allowance {
        Allowance { until: Instant::now() + self.time, steps: self.steps }
    }
}

/// What is left of it.
#[derive(Debug)]
pub(super) struct Allowance {
    until: Instant,
    steps: usize,
}

impl Allowance {
    /// Takes a step of it. Returns whether there was one left.
    pub fn take(&mut self) -> bool {
        let is_left = self.steps > 0 && Instant::now() < self.until;
        self.steps = self.steps.saturating_sub(1);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_ends() {
        let mut allowance = Bound::counted(2).begin();
        assert_eq!([(); 3].map(|()| allowance.take()), [true, true, false]);
        let mut none = Bound { time: Duration::ZERO, steps: 1 }.begin();
        assert!(!none.take());
    }
}
