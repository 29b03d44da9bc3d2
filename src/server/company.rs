//! Whether one peer alone speaks, one message at a time. Pure: time is passed in.

use super::peers::PeerId;
use std::time::{Duration, Instant};

/// How long no other peer must have been heard, for one to be alone.
const ALONE_AFTER: Duration = Duration::from_secs(1);

/// Who was heard lately.
#[derive(Debug)]
pub(super) struct Company {
    last: Option<PeerId>,
    /// Since when nobody but the last one was heard.
    since: Instant,
    /// Messages taken in since the pass began.
    in_pass: usize,
}

impl Company {
    /// Nobody yet.
    pub fn new(now: Instant) -> Company {
        Company { last: None, since: now, in_pass: 0 }
    }

    /// What is heard from here on is heard in a new pass.
    pub fn begin_pass(&mut self) {
        self.in_pass = 0;
    }

    /// A peer was heard.
    pub fn heard(&mut self, peer: PeerId, now: Instant) {
        self.in_pass += 1;
        if self.last != Some(peer) {
            (self.last, self.since) = (Some(peer), now);
        }
    }

    /// Whether the pass brought one message, and nobody else has been heard for a while.
    pub fn is_one_alone(&self, now: Instant) -> bool {
        self.in_pass == 1 && now.saturating_duration_since(self.since) >= ALONE_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_is_who_sends_one_by_one_when_no_other_was_heard_for_a_second() {
        let start = Instant::now();
        let (one, other) = (PeerId::of_test(1), PeerId::of_test(2));
        let mut company = Company::new(start);
        assert!(!company.is_one_alone(start + ALONE_AFTER), "nobody speaks");
        company.heard(one, start);
        assert!(!company.is_one_alone(start), "not for long enough");
        let later = start + ALONE_AFTER;
        company.begin_pass();
        company.heard(one, later);
        assert!(company.is_one_alone(later));
        company.heard(one, later);
        assert!(!company.is_one_alone(later), "it does not wait for each reply");
        company.begin_pass();
        assert!(!company.is_one_alone(later), "what is to be committed is of an earlier pass");
        company.heard(other, later);
        company.begin_pass();
        company.heard(one, later);
        assert!(!company.is_one_alone(later));
    }
}
