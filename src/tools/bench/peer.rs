//! What one connection waits for.
//!
//! Replies come in the order of the requests, so a queue says whose they are. Knows neither bytes nor sockets.

use super::requests::Step;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Commands that were asked together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub step: Step,
    /// When they were due.
    pub due: Instant,
    /// Whether their answers count.
    pub counts: bool,
    /// How many; the key is that of the first.
    pub count: usize,
}

/// A connection's requests.
#[derive(Default)]
pub(super) struct Peer {
    /// Oldest first. Commands of one kind that were due at once share an entry.
    asked: VecDeque<Asked>,
    /// Messages in flight.
    in_flight: usize,
    /// Where messages hold several commands: how many each holds, oldest first, and how many of the oldest's are answered.
    messages: Option<VecDeque<usize>>,
    answered: usize,
    /// What replies made necessary.
    following: VecDeque<Asked>,
    /// When it was last seen that the server is alive.
    heard: Option<Instant>,
}

impl Peer {
    /// Waits for nothing. `batches` is whether messages may hold several commands.
    pub fn new(batches: bool) -> Peer {
        Peer { messages: batches.then(VecDeque::new), ..Peer::default() }
    }

    /// Messages that are not answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Commands that are left of the oldest message; all of it, unless its reply came in parts.
    pub fn message(&self) -> usize {
        match &self.messages {
            None => self.in_flight.min(1),
            Some(messages) => messages.front().map_or(0, |count| count - self.answered),
        }
    }

    /// Commands that are to follow.
    pub fn following(&self) -> usize {
        self.following.len()
    }

    /// The first of them.
    pub fn take_following(&mut self) -> Option<Asked> {
        self.following.pop_front()
    }

    /// A command is to follow that belongs to what was due earlier.
    pub fn follow(&mut self, step: Step, due: Instant, counts: bool) {
        self.following.push_back(Asked { step, due, counts, count: 1 });
    }

    /// A command is about to be sent.
    pub fn expect(&mut self, step: Step, due: Instant, counts: bool) {
        if let Some(last) = self.asked.back_mut() {
            let alike = last.step.operation == step.operation && last.due == due && last.counts == counts;
            // An operation of several steps needs its own key.
            if alike && !step.second && step.next().is_none() {
                last.count += 1;
                return;
            }
        }
        self.asked.push_back(Asked { step, due, counts, count: 1 });
    }

    /// This many commands are about to be sent, in one message if it may hold several.
    pub fn sent(&mut self, commands: usize, now: Instant) {
        if self.in_flight == 0 {
            self.heard = Some(now);
        }
        match &mut self.messages {
            None => self.in_flight += commands,
            Some(messages) => {
                self.in_flight += 1;
                messages.push_back(commands);
            }
        }
    }

    /// The oldest commands that are alike.
    pub fn oldest(&self) -> Option<Asked> {
        self.asked.front().copied()
    }

    /// The oldest `count` commands, which are alike, were answered.
    pub fn answered(&mut self, count: usize) {
        if let Some(oldest) = self.asked.front_mut() {
            oldest.count -= count;
            if oldest.count == 0 {
                self.asked.pop_front();
            }
        }
        let Some(messages) = &mut self.messages else {
            self.in_flight -= count;
            return;
        };
        self.answered += count;
        while let Some(&commands) = messages.front().filter(|&&commands| commands <= self.answered) {
            self.answered -= commands;
            self.in_flight -= 1;
            messages.pop_front();
        }
    }

    /// Something was received.
    pub fn heard(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// Whether a reply has been waited for for longer than this.
    pub fn is_silent(&self, now: Instant, patience: Duration) -> bool {
        self.in_flight > 0 && self.heard.is_some_and(|heard| now.saturating_duration_since(heard) > patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::bench::mix::Operation;

    fn step(operation: Operation, key: u64) -> Step {
        Step { operation, second: false, key }
    }

    #[test]
    fn what_is_alike_is_answered_together_and_messages_one_by_one() {
        let (mut peer, now) = (Peer::new(true), Instant::now());
        for key in 0..3 {
            peer.expect(step(Operation::Get, key), now, true);
        }
        peer.expect(step(Operation::Set, 3), now, true);
        peer.sent(2, now);
        peer.sent(2, now);
        assert_eq!(peer.oldest().map(|asked| asked.count), Some(3));
        peer.answered(3);
        assert_eq!((peer.in_flight(), peer.message()), (1, 1));
        assert_eq!(peer.oldest().map(|asked| asked.step.operation), Some(Operation::Set));
        peer.answered(1);
        assert_eq!(peer.in_flight(), 0);
        assert!(peer.oldest().is_none());
    }

    #[test]
    fn operations_of_two_steps_keep_their_keys() {
        let (mut peer, now) = (Peer::new(true), Instant::now());
        for key in [7, 8] {
            peer.expect(step(Operation::ReadModifyWrite, key), now, true);
        }
        let first = peer.oldest().expect("asked");
        assert_eq!((first.step.key, first.count), (7, 1));
        let second = first.step.next().expect("a write");
        peer.follow(second, now, true);
        peer.answered(1);
        assert_eq!(peer.oldest().map(|asked| asked.step.key), Some(8));
        assert_eq!(peer.take_following().map(|asked| (asked.step.key, asked.step.next())), Some((7, None)));
    }

    #[test]
    fn who_waits_for_nothing_is_not_waited_for_in_vain() {
        let (mut peer, now) = (Peer::new(true), Instant::now());
        let (patience, later) = (Duration::from_secs(1), now + Duration::from_secs(2));
        assert!(!peer.is_silent(later, patience));
        peer.expect(step(Operation::Get, 0), now, true);
        peer.sent(1, now);
        assert!(peer.is_silent(later, patience));
        peer.heard(later);
        assert!(!peer.is_silent(later, patience));
    }
}
