//! The replies of one packed message: one frame, and which parts of it wait for what.
//!
//! Knows how replies stand side by side in a list, and how to put another in the place of some of them. Knows neither who
//! gives the replies nor when they leave.

use super::backlog::Answer;
use super::progress::Wait;
use crate::command::Reply;
use crate::wire::packed;
use crate::wire::reply_frames::LARGE_FRAME;

/// Bytes of room for a list that are kept for the next one.
const KEPT_LIST: usize = 64 << 10;

/// Replies side by side that wait for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    /// Where the first begins and the last ends, in bytes of the list.
    start: usize,
    end: usize,
    replies: usize,
    wait: Wait,
    /// What is to stand there instead.
    instead: Option<Box<[u8]>>,
}

/// Which replies of a list wait, in order. Those that wait for nothing are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting(Vec<Run>);

impl Waiting {
    /// What has to come true before all of them may leave.
    pub fn together(&self) -> Wait {
        self.0.iter().fold(Wait::NOTHING, |all, run| all.and(run.wait))
    }

    /// Bytes of memory that this takes.
    pub fn memory(&self) -> usize {
        let instead = self.0.iter().filter_map(|run| run.instead.as_ref()).map(|instead| instead.len());
        size_of::<Self>() + self.0.len() * size_of::<Run>() + instead.sum::<usize>()
    }

    /// Notes that something else is to be said in the place of those replies of whose wait `is_it` says so, and which it
    /// may change. Returns whether there are any.
    pub fn note(&mut self, reply: &Reply<'_>, is_it: &mut impl FnMut(&mut Wait) -> bool) -> bool {
        let mut any = false;
        for run in &mut self.0 {
            if is_it(&mut run.wait) {
                let mut instead = Vec::new();
                (0..run.replies).for_each(|_| packed::encode(reply, &mut instead));
                run.instead = Some(instead.into());
                any = true;
            }
        }
        any
    }

    /// The list with all that was noted in its place, once nothing more can be noted but a refusal: it is copied once,
    /// however many of its flushes end one after the other.
    pub fn reword(&mut self, list: &[u8]) -> Option<Vec<u8>> {
        if self.together().sweep.is_some() {
            return None;
        }
        let (mut new, mut taken) = (Vec::new(), 0);
        for run in &mut self.0 {
            new.extend_from_slice(list.get(taken..run.start).unwrap_or_default());
            let start = new.len();
            match run.instead.take() {
                Some(instead) => new.extend_from_slice(&instead),
                None => new.extend_from_slice(list.get(run.start..run.end).unwrap_or_default()),
            }
            taken = run.end;
            (run.start, run.end) = (start, new.len());
        }
        new.extend_from_slice(list.get(taken..).unwrap_or_default());
        self.0.retain(|run| run.wait != Wait::NOTHING);
        Some(new)
    }

    fn add(&mut self, start: usize, end: usize, wait: Wait) {
        if wait == Wait::NOTHING {
            return;
        }
        match self.0.last_mut() {
            // Of a flush each has a number of its own.
            Some(run) if run.end == start && run.wait == wait && wait.sweep.is_none() => {
                run.end = end;
                run.replies += 1;
            }
            _ => self.0.push(Run { start, end, replies: 1, wait, instead: None }),
        }
    }
}

/// A list as it grows. Made once and filled again and again.
#[derive(Debug, Default)]
pub(super) struct List {
    bytes: Vec<u8>,
    /// Bytes of the last list, whose buffer may have gone with it: the next one will be as long, or nearly.
    usual: usize,
    waiting: Waiting,
}

impl List {
    /// Begins a list of so many replies.
    pub fn begin(&mut self, replies: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_LIST);
        self.bytes.reserve(self.usual + self.usual / 4);
        self.waiting.0.clear();
        packed::begin(replies, &mut self.bytes);
    }

    /// How long it is by now, in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds what `answer` says: it appends one reply, and tells what that waits for.
    pub fn add(&mut self, answer: impl FnOnce(&mut Vec<u8>) -> Wait) {
        let start = self.bytes.len();
        let wait = answer(&mut self.bytes);
        self.waiting.add(start, self.bytes.len(), wait);
    }

    /// Moves it into the answer to its message.
    pub fn finish(&mut self, answer: &mut Answer) {
        self.usual = self.bytes.len().min(KEPT_LIST);
        if self.bytes.len() >= LARGE_FRAME && self.bytes.capacity() > 2 * self.bytes.len() {
            // The buffer goes with the list, and its peer is charged for what it holds.
            self.bytes.shrink_to_fit();
        }
        answer.frames.push_from(&mut self.bytes);
        answer.wait = self.waiting.together();
        answer.waiting = (!self.waiting.0.is_empty()).then(|| Box::new(self.waiting.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Dialect, ReplyFrames};

    const FLUSHED: Reply<'_> = Reply::Number(0);

    fn flush(version: u64, batch: u64) -> Wait {
        Wait { sweep: Some(version), ..Wait::commit(batch) }
    }

    /// A list of these replies, and which of them wait.
    fn list(replies: &[(Reply<'_>, Wait)]) -> (Vec<u8>, Waiting) {
        let mut list = List::default();
        list.begin(replies.len());
        for (reply, wait) in replies {
            list.add(|bytes| {
                packed::encode(reply, bytes);
                *wait
            });
        }
        (list.bytes, list.waiting)
    }

    fn bytes(replies: &[Reply<'_>]) -> Vec<u8> {
        list(&replies.iter().map(|reply| (reply.clone(), Wait::NOTHING)).collect::<Vec<_>>()).0
    }

    #[test]
    fn only_replies_that_wait_are_remembered_and_neighbours_together() {
        let written = |version| (Reply::Stored(version), Wait::commit(3));
        let (_, waiting) = list(&[
            (Reply::Miss, Wait::NOTHING),
            written(1),
            written(300),
            (Reply::Miss, Wait::NOTHING),
            written(3),
            (Reply::Miss, Wait::commit(2)),
        ]);
        let runs: Vec<_> = waiting.0.iter().map(|run| (run.start, run.end, run.replies, run.wait.batch)).collect();
        assert_eq!(runs, [(3, 9, 2, 3), (10, 12, 1, 3), (12, 13, 1, 2)]);
        assert_eq!(waiting.together(), Wait::commit(3));
        assert_eq!(list(&[(Reply::Pong, Wait::NOTHING)]).1, Waiting::default());
    }

    #[test]
    fn each_refused_reply_is_replaced_where_it_stands() {
        let (first, mut waiting) = list(&[
            (Reply::Stored(1), Wait::commit(2)),
            (Reply::Pong, Wait::NOTHING),
            (Reply::Stored(2), Wait::commit(3)),
            (Reply::Stored(300), Wait::commit(3)),
            (Reply::Miss, Wait::NOTHING),
            (FLUSHED, flush(9, 3)),
            (Reply::Miss, Wait::commit(2)),
        ]);
        assert!(waiting.note(&Reply::Done, &mut |wait| {
            let void = wait.batch > 2;
            if void {
                *wait = Wait::NOTHING;
            }
            void
        }));
        let new = waiting.reword(&first);
        let expected = [Reply::Stored(1), Reply::Pong, Reply::Done, Reply::Done, Reply::Miss, Reply::Done, Reply::Miss];
        assert_eq!(new, Some(bytes(&expected)));
        assert_eq!(waiting.together(), Wait::commit(2));
        assert_eq!(waiting.0.len(), 2);
    }

    #[test]
    fn each_flush_hears_of_its_own_sweep() {
        let of = |version: u64| move |wait: &mut Wait| wait.sweep.take_if(|sweep| *sweep == version).is_some();
        let (first, mut waiting) = list(&[
            (FLUSHED, flush(7, 1)),
            (FLUSHED, flush(8, 1)),
            (Reply::Stored(9), Wait::commit(1)),
            (FLUSHED, flush(10, 1)),
        ]);
        assert!(!waiting.note(&Reply::Number(5), &mut of(6)), "it is of no concern here");
        for (version, removed) in [(8, 1000), (10, 3)] {
            assert!(waiting.note(&Reply::Number(removed), &mut of(version)));
            assert_eq!(waiting.reword(&first), None, "another one is not swept yet");
        }
        assert!(waiting.note(&Reply::Number(2), &mut of(7)));
        let new = waiting.reword(&first).unwrap();
        assert_eq!(new, bytes(&[Reply::Number(2), Reply::Number(1000), Reply::Stored(9), Reply::Number(3)]));
        assert_eq!(waiting.together(), Wait::commit(1));
        // And then the batch was refused.
        assert!(waiting.note(&Reply::Miss, &mut |wait| {
            *wait = Wait::NOTHING;
            true
        }));
        assert_eq!(waiting.reword(&new), Some(bytes(&[Reply::Miss, Reply::Miss, Reply::Miss, Reply::Miss])));
        assert_eq!(waiting.0, []);
    }

    #[test]
    fn a_list_moves_into_its_answer() {
        let mut list = List::default();
        let mut answer = Answer {
            frames: ReplyFrames::default(),
            envelope: 0,
            dialect: Dialect::Packed,
            wait: Wait::NOTHING,
            waiting: None,
        };
        for (wait, waits) in [(Wait::commit(4), true), (Wait::NOTHING, false)] {
            list.begin(1);
            list.add(|bytes| {
                packed::encode(&Reply::Done, bytes);
                wait
            });
            answer.frames.clear(0);
            list.finish(&mut answer);
            assert_eq!((answer.wait, answer.waiting.is_some()), (wait, waits));
            assert_eq!(answer.frames.packed(), [3, 0, 1, 1, 1], "one frame of 3 bytes");
        }
    }
}
