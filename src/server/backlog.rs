//! Replies that are not yet handed over to one peer, oldest first, in as little memory as they need.
//!
//! Knows what each waits for and how to say it in other words, and nothing of peers and sockets. Small frames stand
//! one reply behind the other in a few large pieces of memory, so that a reply that waits costs no allocation of its own.

use super::list::Waiting;
use super::progress::{Durable, Wait};
use crate::command::Reply;
#[cfg(test)]
use crate::engine::BatchId;
use crate::wire::reply_frames::{Parcel, first_of};
use crate::wire::{Dialect, ReplyFrames};
use std::collections::VecDeque;

/// Bytes of a piece of memory that replies share. A reply that needs more gets its own.
const PIECE: usize = 64 << 10;
/// Bytes of a piece, and number of replies, that an empty backlog keeps room for.
const KEPT_PIECE: usize = 8 << 10;
const KEPT_REPLIES: usize = 64;

/// A reply that was encoded, and how to say the same in other words if it must not be sent.
#[derive(Debug)]
pub(super) struct Answer {
    /// The frames, envelope included.
    pub frames: ReplyFrames,
    /// How many packed bytes of them are the envelope.
    pub envelope: usize,
    /// The dialect of the rest.
    pub dialect: Dialect,
    /// What must be durable before it may leave.
    pub wait: Wait,
    /// Where it is a list, some of which waits: which parts of it, and for what.
    pub waiting: Option<Box<Waiting>>,
}

/// What is known of a reply whose frames stand in the pieces.
#[derive(Debug)]
struct Parked {
    wait: Wait,
    dialect: Dialect,
    /// Packed bytes of the envelope.
    envelope: u16,
    /// Packed bytes in all.
    packed: u32,
    /// Frames, how many of them are large, and what these hold.
    frames: u32,
    large: u32,
    large_bytes: usize,
    /// As in [`Answer`].
    waiting: Option<Box<Waiting>>,
    /// What is said in its place.
    instead: Option<Box<ReplyFrames>>,
}

impl Parked {
    /// Bytes of memory that the reply takes.
    fn memory(&self) -> usize {
        let instead = self.instead.as_ref().map_or(0, |instead| instead.packed().len() + instead.large_bytes());
        let waiting = self.waiting.as_ref().map_or(0, |waiting| waiting.memory());
        size_of::<Parked>() + self.packed as usize + self.large_bytes + instead + waiting
    }

    /// Says something else in its place, or in that of parts of it. `packed` are its frames as they came, `large` the
    /// first of its large ones. Returns whether anything is new.
    fn reword(
        &mut self,
        packed: &[u8],
        large: Option<&Vec<u8>>,
        reply: &Reply<'_>,
        is_it: &mut impl FnMut(&mut Wait) -> bool,
    ) -> bool {
        let (envelope, body) = packed.split_at_checked(self.envelope.into()).unwrap_or_default();
        let mut instead = ReplyFrames::from_packed(envelope);
        match &mut self.waiting {
            None if is_it(&mut self.wait) => self.dialect.encode(reply, &mut instead),
            None => return false,
            Some(waiting) => {
                if !waiting.note(reply, is_it) {
                    return false;
                }
                self.wait = waiting.together();
                let said = match &self.instead {
                    None => first_of(body, large),
                    Some(instead) => instead.frame_at(envelope.len()),
                };
                let Some(mut list) = waiting.reword(said.unwrap_or_default()) else { return true };
                instead.push_from(&mut list);
            }
        }
        self.instead = Some(Box::new(instead));
        true
    }
}

/// The replies, oldest first.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    replies: VecDeque<Parked>,
    /// The packed frames of all replies. None spans two pieces.
    pieces: VecDeque<Vec<u8>>,
    /// Where the first reply begins in the first piece.
    start: usize,
    large: VecDeque<Vec<u8>>,
    memory: usize,
}

impl Backlog {
    /// How many replies there are.
    pub fn len(&self) -> usize {
        self.replies.len()
    }

    /// Bytes of memory that all replies take.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// What the oldest reply waits for.
    pub fn first_wait(&self) -> Option<Wait> {
        self.replies.front().map(|first| first.wait)
    }

    /// Bytes of memory that the oldest reply takes.
    pub fn first_memory(&self) -> usize {
        self.replies.front().map_or(0, Parked::memory)
    }

    /// Takes an answer in. Its frames are emptied, and keep their room where that is worth something.
    pub fn push(&mut self, answer: &mut Answer) {
        let Answer { frames, .. } = answer;
        let (count, packed, large_bytes) = (frames.len(), frames.packed().len(), frames.large_bytes());
        let large = self.large.len();
        if self.replies.is_empty() && packed > PIECE {
            // The empty piece that was kept would stand before it.
            self.pieces.clear();
        }
        match self.pieces.back_mut().filter(|piece| piece.len() + packed <= PIECE) {
            Some(piece) => {
                piece.extend_from_slice(frames.packed());
                frames.take_large(&mut self.large);
            }
            None if packed < PIECE => {
                self.pieces.push_back(frames.packed().to_vec());
                frames.take_large(&mut self.large);
            }
            None => self.pieces.push_back(frames.take(&mut self.large)),
        }
        let reply = Parked {
            wait: answer.wait,
            dialect: answer.dialect,
            envelope: answer.envelope as u16,
            packed: packed as u32,
            frames: count as u32,
            large: (self.large.len() - large) as u32,
            large_bytes,
            waiting: answer.waiting.take(),
            instead: None,
        };
        self.memory += reply.memory();
        self.replies.push_back(reply);
    }

    /// The oldest reply, to be handed over. Its large frames can be had once.
    pub fn first(&mut self) -> Option<Parcel<'_>> {
        let first = self.replies.front_mut()?;
        if let Some(instead) = &mut first.instead {
            return Some(instead.parcel());
        }
        let packed = self.pieces.front()?.get(self.start..self.start + first.packed as usize)?;
        Some(Parcel::new(packed, &mut self.large, first.large_bytes, first.frames as usize))
    }

    /// Drops the oldest reply, which was handed over whole.
    pub fn pop(&mut self) {
        let Some(first) = self.replies.pop_front() else { return };
        self.memory -= first.memory();
        if first.instead.is_some() {
            self.large.drain(..first.large as usize);
        }
        self.start += first.packed as usize;
        if self.pieces.front().is_some_and(|piece| piece.len() <= self.start) {
            self.start = 0;
            let spent = self.pieces.pop_front();
            if let Some(mut piece) = spent.filter(|piece| self.pieces.is_empty() && piece.capacity() <= KEPT_PIECE) {
                piece.clear();
                self.pieces.push_back(piece);
            }
        }
        if self.replies.is_empty() {
            self.replies.shrink_to(KEPT_REPLIES);
        }
    }

    /// Drops every reply; how many they were.
    pub fn clear(&mut self) -> usize {
        std::mem::take(self).len()
    }

    /// What is not durable never will be: says this in the place of every reply that said or saw more.
    pub fn refuse(&mut self, durable: Durable, error: &Reply<'_>) {
        self.reword(error, |wait| {
            let void = wait.batch > durable.committed;
            if void {
                *wait = Wait::NOTHING;
            }
            void
        });
    }

    /// There is no room for proof of so many batches: says this in the place of every reply that waits for it still.
    pub fn refuse_proof(&mut self, durable: Durable, unproven: u64, error: &Reply<'_>) {
        self.reword(error, |wait| {
            let refused = wait.proven > durable.proven && wait.proven <= unproven;
            if refused {
                wait.proven = 0;
            }
            refused
        });
    }

    /// The flush of this version was swept: this is the answer to it.
    pub fn fulfil(&mut self, version: u64, reply: &Reply<'_>) {
        self.reword(reply, |wait| wait.sweep.take_if(|sweep| *sweep == version).is_some());
    }

    /// The batch that each reply waits for.
    #[cfg(test)]
    pub fn batches(&self) -> Vec<BatchId> {
        self.replies.iter().map(|parked| parked.wait.batch).collect()
    }

    /// Says something else in the place of those replies, or parts of them, of whose wait `is_it` says so, and which it
    /// may change.
    fn reword(&mut self, reply: &Reply<'_>, mut is_it: impl FnMut(&mut Wait) -> bool) {
        let (mut pieces, mut start, mut large) = (self.pieces.iter(), self.start, 0);
        let mut piece = pieces.next();
        for parked in &mut self.replies {
            if piece.is_some_and(|piece| piece.len() <= start) {
                (piece, start) = (pieces.next(), 0);
            }
            let packed = start..start + parked.packed as usize;
            let packed = piece.and_then(|piece| piece.get(packed)).unwrap_or_default();
            let memory = parked.memory();
            if parked.reword(packed, self.large.get(large), reply, &mut is_it) {
                self.memory = self.memory - memory + parked.memory();
            }
            start += parked.packed as usize;
            large += parked.large as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::list::List;
    use super::*;
    use crate::command::{ErrorCode, StoredValue};
    use crate::wire::reply_frames::LARGE_FRAME;
    use crate::wire::{Frame, packed};
    use proptest::prelude::*;

    /// A reply as it ought to come out, and what it waits for.
    type Expected = (Vec<Vec<u8>>, BatchId);

    #[derive(Clone, Debug)]
    enum Step {
        /// Frames of these lengths, for this batch.
        Push(Vec<usize>, BatchId),
        Pop,
        /// What is newer than this batch is void.
        Refuse(BatchId),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let length = prop_oneof![8 => 0..200_usize, 1 => LARGE_FRAME - 1..LARGE_FRAME + 2, 1 => Just(LARGE_FRAME - 1)];
        let frames = prop_oneof![9 => prop::collection::vec(length, 1..6), 1 => Just(vec![LARGE_FRAME - 1; 9])];
        let step = prop_oneof![
            6 => (frames, 0..9_u64).prop_map(|(frames, batch)| Step::Push(frames, batch)),
            4 => Just(Step::Pop),
            1 => (0..9_u64).prop_map(Step::Refuse),
        ];
        prop::collection::vec(step, 1..120)
    }

    fn bytes(parcel: Parcel<'_>) -> Vec<Vec<u8>> {
        let bytes = parcel.map(|frame| match frame {
            Frame::Small(bytes) => bytes.to_vec(),
            Frame::Large(bytes) => bytes,
        });
        bytes.collect()
    }

    fn answer(frames: &[Vec<u8>], batch: BatchId) -> Answer {
        let mut reply = ReplyFrames::default();
        reply.push(b"id");
        reply.push(b"");
        let envelope = reply.packed().len();
        for frame in frames {
            reply.push(frame);
        }
        Answer { frames: reply, envelope, dialect: Dialect::Frames, wait: Wait::commit(batch), waiting: None }
    }

    fn pop_one(backlog: &mut Backlog, expected: &mut VecDeque<Expected>) {
        let Some((frames, batch)) = expected.pop_front() else {
            assert!(backlog.first().is_none());
            return;
        };
        assert_eq!(backlog.first_wait(), Some(Wait::commit(batch)));
        let first = backlog.first().expect("a reply");
        assert_eq!(first.len(), frames.len());
        assert!(bytes(first) == frames, "other frames than went in");
        backlog.pop();
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn replies_come_out_as_they_went_in_or_refused(steps in steps()) {
            let (mut backlog, mut expected, mut seed) = (Backlog::default(), VecDeque::<Expected>::new(), 0_u8);
            for step in steps {
                match step {
                    Step::Push(lengths, batch) => {
                        seed = seed.wrapping_add(1);
                        let frames: Vec<_> = lengths.iter().map(|length| vec![seed; *length]).collect();
                        backlog.push(&mut answer(&frames, batch));
                        expected.push_back(([vec![b"id".to_vec(), Vec::new()], frames].concat(), batch));
                    }
                    Step::Pop => pop_one(&mut backlog, &mut expected),
                    Step::Refuse(batch) => {
                        let durable = Durable { committed: batch, synced: batch, proven: batch };
                        backlog.refuse(durable, &Reply::Error(ErrorCode::NoSpace, "full".into()));
                        for (frames, of) in expected.iter_mut().filter(|(_, of)| *of > batch) {
                            frames.truncate(2);
                            frames.extend([b"ERR".to_vec(), b"NOSPACE".to_vec(), b"full".to_vec()]);
                            *of = 0;
                        }
                    }
                }
                prop_assert_eq!(backlog.len(), expected.len());
            }
            while !expected.is_empty() {
                pop_one(&mut backlog, &mut expected);
            }
            prop_assert_eq!((backlog.memory(), backlog.large.len()), (0, 0));
            prop_assert!(backlog.pieces.iter().all(|piece| piece.capacity() <= KEPT_PIECE));
        }
    }

    #[test]
    fn lists_are_reworded_in_part_wherever_they_stand() {
        let durable = Durable { committed: 1, synced: 1, proven: 1 };
        let large = vec![7; LARGE_FRAME];
        let value = Reply::Value(StoredValue { bytes: &large, version: 1, flags: 0 });
        let flush = Wait { sweep: Some(9), ..Wait::commit(1) };
        let mut backlog = Backlog::default();
        let push_list = |backlog: &mut Backlog, replies: &[(&Reply<'_>, Wait)]| {
            let mut list = List::default();
            list.begin(replies.len());
            for (reply, wait) in replies {
                list.add(|bytes| {
                    packed::encode(reply, bytes);
                    *wait
                });
            }
            let mut answer = answer(&[], 0);
            answer.dialect = Dialect::Packed;
            list.finish(&mut answer);
            backlog.push(&mut answer);
        };
        backlog.push(&mut answer(&[large.clone(), large.clone()], 1));
        push_list(
            &mut backlog,
            &[(&Reply::Number(0), flush), (&value, Wait::NOTHING), (&Reply::Done, Wait::commit(2))],
        );
        backlog.push(&mut answer(std::slice::from_ref(&large), 2));
        push_list(&mut backlog, &[(&Reply::Done, Wait::commit(2)), (&Reply::Number(0), flush)]);
        backlog.refuse(durable, &Reply::Miss);
        backlog.fulfil(9, &Reply::Number(500));

        let list = |replies: &[&Reply<'_>]| {
            let mut list = Vec::new();
            packed::begin(replies.len(), &mut list);
            for reply in replies {
                packed::encode(reply, &mut list);
            }
            list
        };
        let expected = [
            vec![large.clone(), large.clone()],
            vec![list(&[&Reply::Number(500), &value, &Reply::Miss])],
            vec![b"MISS".to_vec()],
            vec![list(&[&Reply::Miss, &Reply::Number(500)])],
        ];
        for frames in expected {
            assert!(backlog.first_wait().is_some_and(|wait| durable.covers(wait)));
            assert_eq!(bytes(backlog.first().expect("a reply"))[2..], frames);
            backlog.pop();
        }
        assert_eq!((backlog.len(), backlog.memory(), backlog.large.len()), (0, 0, 0));
    }

    #[test]
    fn a_reply_that_was_not_taken_is_still_whole() {
        let mut backlog = Backlog::default();
        let frames = [vec![1; 3], vec![2; LARGE_FRAME]];
        backlog.push(&mut answer(&frames, 0));
        assert_eq!(backlog.first().expect("a reply").len(), 4);
        assert_eq!(bytes(backlog.first().expect("a reply"))[2..], frames);
    }
}
