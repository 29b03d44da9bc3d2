//! One peer's replies, in order: which wait, which may leave, and when there are too many.
//!
//! Knows nothing of sockets: replies leave through an [`Outlet`], and until then stand in a [`Backlog`]. This is where "one peer, one order" is
//! kept, and where a peer that does not read is cut off, because a reply after a gap would be taken for the
//! answer to another request.

use super::backlog::{Answer, Backlog};
use super::progress::Durable;
use super::router::{Held, Sent};
use crate::command::Reply;
use crate::engine::BatchId;
use crate::wire::reply_frames::Parcel;

/// Bytes of replies that are gathered for one peer before they leave in one go.
const MOST_GATHERED: usize = 64 << 10;

/// Where replies leave: the socket, or a test.
pub(super) trait Outlet {
    /// Why nothing can leave any more.
    type Error;
    /// Hands over a reply for the peer of this identity, whole or not at all.
    fn send(&mut self, identity: &[u8], reply: Parcel<'_>, held: &Held) -> Result<Sent, Self::Error>;
}

/// What became of an answer, or of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing is left to send.
    Clear,
    /// Something waits to become durable.
    Waiting,
    /// Something may leave, together with what else the peer is told in this pass.
    Ready,
    /// Something may leave, and is too much to be held back for the rest of the pass.
    Plenty,
    /// Something could leave, but there is no room for it.
    Stuck,
    /// There is no such connection any more.
    Gone,
    /// It was too much: the peer was cut off just now, and this many of its replies were dropped.
    CutOff(usize),
    /// The peer is not to get any replies, so this one was dropped.
    Dropped,
}

/// How a peer is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// As every other.
    Good,
    /// Its commands are discarded and its replies dropped until it has reconnected.
    CutOff,
    /// Its connection has ended. Commands that it sent before still take effect.
    Departed,
    /// Its connection has ended, and it had been cut off before.
    DepartedCutOff,
}

/// The replies of one connection of one peer.
#[derive(Debug)]
pub(super) struct Peer {
    standing: Standing,
    /// Not yet handed over.
    backlog: Backlog,
    held: Held,
    /// The newest batch that any of its replies has waited for.
    newest: BatchId,
}

impl Peer {
    /// A peer that was not heard from before.
    pub fn new() -> Peer {
        Peer { standing: Standing::Good, backlog: Backlog::default(), held: Held::default(), newest: 0 }
    }

    /// How it is treated.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The newest batch that it wrote to or saw. Until that is durable, what it does next must see it.
    pub fn newest(&self) -> BatchId {
        self.newest
    }

    /// How many replies are not yet handed over.
    pub fn queued(&self) -> usize {
        self.backlog.len()
    }

    /// Takes the answer to the peer's latest command, to leave in its turn. Its frames are emptied, and keep their room
    /// where that is worth something.
    pub fn settle(&mut self, answer: &mut Answer, durable: Durable, most: usize) -> Outcome {
        // Also for a peer that gets no replies: its next command must still see what this one did.
        self.newest = self.newest.max(answer.wait.batch);
        if self.standing != Standing::Good {
            return Outcome::Dropped;
        }
        self.backlog.push(answer);
        let first_may_leave = self.backlog.first_wait().is_some_and(|wait| durable.covers(wait));
        if !first_may_leave {
            return self.cut_off_beyond(most).unwrap_or(Outcome::Waiting);
        }
        if self.backlog.memory() < MOST_GATHERED { Outcome::Ready } else { Outcome::Plenty }
    }

    /// Cuts the peer off if more waits for it than may. One reply always may.
    pub fn cut_off_beyond(&mut self, most: usize) -> Option<Outcome> {
        if self.standing != Standing::Good
            || self.backlog.len() < 2
            || self.backlog.memory() + self.held.bytes() <= most
        {
            return None;
        }
        self.standing = Standing::CutOff;
        Some(Outcome::CutOff(self.backlog.clear()))
    }

    /// Hands over what may leave.
    pub fn release<O: Outlet>(
        &mut self,
        identity: &[u8],
        durable: Durable,
        most: usize,
        outlet: &mut O,
    ) -> Result<Outcome, O::Error> {
        while let Some(wait) = self.backlog.first_wait() {
            if !durable.covers(wait) {
                return Ok(Outcome::Waiting);
            }
            if !self.may_leave(self.backlog.first_memory(), most) {
                return Ok(Outcome::Stuck);
            }
            let Some(first) = self.backlog.first() else { break };
            match outlet.send(identity, first, &self.held)? {
                Sent::Whole => self.backlog.pop(),
                Sent::Full => return Ok(Outcome::Stuck),
                Sent::Gone => return Ok(Outcome::Gone),
            }
        }
        Ok(Outcome::Clear)
    }

    /// What is not durable never will be: puts this error in the place of every reply that said or saw more.
    pub fn refuse(&mut self, durable: Durable, error: &Reply<'_>) {
        self.backlog.refuse(durable, error);
        self.newest = self.newest.min(durable.committed);
    }

    /// There is no room for proof of so many batches: puts this error in the place of every reply that waits for it still.
    pub fn refuse_proof(&mut self, durable: Durable, unproven: u64, error: &Reply<'_>) {
        self.backlog.refuse_proof(durable, unproven, error);
    }

    /// The flush of this version was swept: this is the answer to it.
    pub fn fulfil(&mut self, version: u64, reply: &Reply<'_>) {
        self.backlog.fulfil(version, reply);
    }

    /// Its connection has ended: its replies are dropped; how many they were.
    pub fn depart(&mut self) -> usize {
        self.standing = match self.standing {
            Standing::Good | Standing::Departed => Standing::Departed,
            Standing::CutOff | Standing::DepartedCutOff => Standing::DepartedCutOff,
        };
        self.backlog.clear()
    }

    /// What libzmq holds for this peer stays within its share; one reply may always go.
    fn may_leave(&self, bytes: usize, most: usize) -> bool {
        let held = self.held.bytes();
        held == 0 || held + bytes <= most
    }
}

#[cfg(test)]
mod tests {
    use super::super::progress::Wait;
    use super::*;
    use crate::command::ErrorCode;
    use crate::wire::reply_frames::LARGE_FRAME;
    use crate::wire::{Dialect, ReplyFrames};
    use std::convert::Infallible;

    const MOST: usize = 1 << 20;

    /// An outlet with room for some replies, that remembers what left.
    #[derive(Default)]
    struct Room {
        left: usize,
        gone: bool,
        sent: Vec<Vec<u8>>,
    }

    impl Outlet for Room {
        type Error = Infallible;
        fn send(&mut self, _: &[u8], reply: Parcel<'_>, _: &Held) -> Result<Sent, Infallible> {
            if self.gone {
                return Ok(Sent::Gone);
            }
            if self.left == 0 {
                return Ok(Sent::Full);
            }
            self.left -= 1;
            self.sent.push(
                reply
                    .flat_map(|frame| match frame {
                        crate::wire::Frame::Small(bytes) => bytes.to_vec(),
                        crate::wire::Frame::Large(bytes) => bytes,
                    })
                    .collect(),
            );
            Ok(Sent::Whole)
        }
    }

    fn answer(text: &[u8], wait: Wait) -> Answer {
        let mut frames = ReplyFrames::default();
        frames.push(b"");
        let envelope = frames.packed().len();
        frames.push(text);
        Answer { frames, envelope, dialect: Dialect::Frames, wait, waiting: None }
    }

    fn settle(peer: &mut Peer, text: &[u8], wait: Wait, durable: Durable, room: &mut Room) -> Outcome {
        match peer.settle(&mut answer(text, wait), durable, MOST) {
            Outcome::Ready | Outcome::Plenty => {
                let released = peer.release(b"peer", durable, MOST, room).unwrap();
                peer.cut_off_beyond(MOST).unwrap_or(released)
            }
            outcome => outcome,
        }
    }

    fn committed(batch: BatchId) -> Durable {
        Durable { committed: batch, synced: batch, proven: batch }
    }

    #[test]
    fn a_read_with_nothing_in_flight_leaves_at_once() {
        let (mut peer, mut room) = (Peer::new(), Room { left: 1, ..Room::default() });
        assert!(peer.newest() <= committed(0).committed);
        assert_eq!(settle(&mut peer, b"read", Wait::NOTHING, committed(0), &mut room), Outcome::Clear);
        assert_eq!(room.sent, [b"read"]);
    }

    #[test]
    fn replies_leave_in_order_and_only_when_durable() {
        let (mut peer, mut room) = (Peer::new(), Room { left: 9, ..Room::default() });
        let durable = committed(0);
        assert_eq!(settle(&mut peer, b"first", Wait::commit(2), durable, &mut room), Outcome::Waiting);
        assert!(peer.newest() > durable.committed);
        assert_eq!(settle(&mut peer, b"second", Wait::commit(1), durable, &mut room), Outcome::Waiting);
        assert_eq!(settle(&mut peer, b"third", Wait::NOTHING, durable, &mut room), Outcome::Waiting);
        assert_eq!(peer.release(b"peer", committed(1), MOST, &mut room), Ok(Outcome::Waiting));
        assert!(room.sent.is_empty(), "the first waits for batch 2, and the others for the first");
        assert_eq!(peer.release(b"peer", committed(2), MOST, &mut room), Ok(Outcome::Clear));
        assert_eq!(room.sent, [&b"first"[..], b"second", b"third"]);
        assert!(peer.newest() <= committed(2).committed);
    }

    #[test]
    fn small_replies_are_gathered_and_many_bytes_are_not() {
        let mut peer = Peer::new();
        let mut give = |bytes| peer.settle(&mut answer(&vec![7; bytes], Wait::NOTHING), committed(0), MOST);
        assert_eq!(give(100), Outcome::Ready);
        assert_eq!(give(100), Outcome::Ready);
        assert_eq!(give(MOST_GATHERED), Outcome::Plenty);
    }

    #[test]
    fn a_sync_waits_for_the_sync() {
        let (mut peer, mut room) = (Peer::new(), Room { left: 9, ..Room::default() });
        let written = Durable { committed: 1, synced: 0, proven: 0 };
        settle(&mut peer, b"synced", Wait { proven: 1, ..Wait::commit(1) }, written, &mut room);
        assert_eq!(peer.release(b"peer", written, MOST, &mut room), Ok(Outcome::Waiting));
        assert_eq!(peer.release(b"peer", committed(1), MOST, &mut room), Ok(Outcome::Clear));
    }

    #[test]
    fn a_refused_proof_replaces_what_waits_for_it_and_not_what_is_proven() {
        let (mut peer, mut room) = (Peer::new(), Room::default());
        let of = |proven| Wait { proven, ..Wait::commit(1) };
        let durable = Durable { committed: 1, synced: 1, proven: 1 };
        for (text, wait) in [(&b"proven"[..], of(1)), (b"not", of(2)), (b"later", of(3))] {
            settle(&mut peer, text, wait, durable, &mut room);
        }
        peer.refuse_proof(durable, 2, &Reply::Error(ErrorCode::NoSpace, "".into()));
        room.left = 100;
        let durable = Durable { proven: 3, ..durable };
        peer.release(b"peer", durable, MOST, &mut room).unwrap();
        assert_eq!(room.sent, [&b"proven"[..], b"ERRNOSPACE", b"later"]);
    }

    #[test]
    fn a_full_peer_keeps_its_replies_and_their_order() {
        let (mut peer, mut room) = (Peer::new(), Room::default());
        assert_eq!(settle(&mut peer, b"1", Wait::NOTHING, committed(0), &mut room), Outcome::Stuck);
        settle(&mut peer, b"2", Wait::NOTHING, committed(0), &mut room);
        assert_eq!(peer.release(b"peer", committed(0), MOST, &mut room), Ok(Outcome::Stuck));
        room.left = 1;
        assert_eq!(peer.release(b"peer", committed(0), MOST, &mut room), Ok(Outcome::Stuck));
        room.left = 1;
        assert_eq!(peer.release(b"peer", committed(0), MOST, &mut room), Ok(Outcome::Clear));
        assert_eq!(room.sent, [b"1", b"2"]);
        assert_eq!(peer.backlog.memory(), 0);
    }

    #[test]
    fn a_refusal_replaces_what_is_not_durable_and_nothing_else() {
        let (mut peer, mut room) = (Peer::new(), Room::default());
        settle(&mut peer, b"kept", Wait::commit(1), committed(1), &mut room);
        settle(&mut peer, b"lost", Wait::commit(2), committed(1), &mut room);
        settle(&mut peer, &[7; LARGE_FRAME], Wait::commit(3), committed(1), &mut room);
        settle(&mut peer, b"kept too", Wait::NOTHING, committed(1), &mut room);
        // What a refusal says is the wire's affair: here it is enough that the answers are gone.
        assert_eq!(peer.backlog.batches(), [1, 2, 3, 0]);
        peer.refuse(committed(1), &Reply::Error(ErrorCode::NoSpace, "".into()));
        assert_eq!(peer.backlog.batches(), [1, 0, 0, 0]);
        assert!(peer.newest() <= committed(1).committed);
        room.left = 9;
        assert_eq!(peer.release(b"peer", committed(1), MOST, &mut room), Ok(Outcome::Clear));
        assert_eq!((&room.sent[0][..], &room.sent[3][..]), (&b"kept"[..], &b"kept too"[..]));
        assert!(room.sent[1].starts_with(b"ERRNOSPACE") && room.sent[2].starts_with(b"ERRNOSPACE"));
        assert_eq!(peer.backlog.memory(), 0);
    }

    #[test]
    fn a_flush_is_answered_when_it_was_swept_and_what_follows_waits() {
        let (mut peer, mut room) = (Peer::new(), Room { left: 9, ..Room::default() });
        let flush = Wait { sweep: Some(7), ..Wait::commit(1) };
        settle(&mut peer, b"nobody knows yet", flush, committed(0), &mut room);
        settle(&mut peer, b"after", Wait::NOTHING, committed(1), &mut room);
        peer.fulfil(6, &Reply::Number(6));
        assert_eq!(peer.release(b"peer", committed(1), MOST, &mut room), Ok(Outcome::Waiting));
        peer.fulfil(7, &Reply::Number(123));
        assert_eq!(peer.release(b"peer", committed(1), MOST, &mut room), Ok(Outcome::Clear));
        assert_eq!(room.sent, [&b"OK123"[..], b"after"]);
        assert_eq!(peer.backlog.memory(), 0);
    }

    #[test]
    fn one_reply_always_fits_and_a_second_one_too_many_cuts_off() {
        let (mut peer, mut room) = (Peer::new(), Room::default());
        let huge = vec![7; 2 * MOST];
        assert_eq!(settle(&mut peer, &huge, Wait::NOTHING, committed(0), &mut room), Outcome::Stuck);
        assert_eq!(settle(&mut peer, b"more", Wait::NOTHING, committed(0), &mut room), Outcome::CutOff(2));
        assert_eq!(peer.standing(), Standing::CutOff);
        room.left = 9;
        assert_eq!(settle(&mut peer, b"later", Wait::NOTHING, committed(0), &mut room), Outcome::Dropped);
        assert_eq!(peer.release(b"peer", committed(0), MOST, &mut room), Ok(Outcome::Clear));
        assert!(room.sent.is_empty());
        peer.depart();
        assert_eq!(peer.standing(), Standing::DepartedCutOff);
    }

    #[test]
    fn a_hundred_thousand_small_replies_fit_the_default() {
        let mut peer = Peer::new();
        let most = 64 << 20;
        let mut scratch = answer(b"", Wait::commit(1));
        for _ in 0..100_000 {
            scratch.frames.clear(usize::MAX);
            scratch.frames.push(b"");
            scratch.frames.push(b"OK");
            scratch.frames.push(&[7; 100]);
            scratch.frames.push_number(u64::MAX);
            scratch.frames.push_number(0);
            assert_eq!(peer.settle(&mut scratch, committed(0), most), Outcome::Waiting);
        }
    }

    #[test]
    fn replies_for_a_connection_that_ended_go_nowhere() {
        let (mut peer, mut room) = (Peer::new(), Room { gone: true, ..Room::default() });
        assert_eq!(settle(&mut peer, b"1", Wait::NOTHING, committed(0), &mut room), Outcome::Gone);
        settle(&mut peer, b"2", Wait::commit(1), committed(0), &mut room);
        assert_eq!(peer.depart(), 2);
        room = Room { left: 9, ..Room::default() };
        assert_eq!(settle(&mut peer, b"3", Wait::commit(2), committed(1), &mut room), Outcome::Dropped);
        assert!(peer.newest() > committed(1).committed, "its next command must still see what this one did");
        assert!(room.sent.is_empty());
    }
}
