//! All peers: who is who, which of them have replies outstanding, and when one can be forgotten.
//!
//! A peer is a connection, not an identity: identities are claims, and come back with another connection
//! behind them. A reply for the connection before must never reach the one after it. There is at most one
//! peer an identity and one a descriptor, so the table can't outgrow the connections that are possible.
//!
//! Knows no sockets: replies leave through an [`Outlet`].

use super::backlog::Answer;
use super::peer::{Outcome, Outlet, Peer, Standing};
use super::progress::Durable;
use super::request::Connection;
use crate::command::Reply;
use crate::engine::BatchId;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
use zmq::Message;

/// How long a connection that has ended is remembered: what it had sent may still be on its way through
/// libzmq, and of a peer that was cut off it must not be executed.
const REMEMBERED: Duration = Duration::from_millis(200);

/// Names one peer for as long as it is known. The next one in the same place has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerId {
    place: u32,
    generation: u32,
}

#[cfg(test)]
impl PeerId {
    /// Some peer that there is not.
    pub fn of_test(place: u32) -> PeerId {
        PeerId { place, generation: 0 }
    }
}

#[derive(Debug)]
struct Known {
    /// How the socket calls it.
    identity: Message,
    /// `None` where libzmq does not tell. The frame is one that came through the connection, kept so that the
    /// connection's mark is not used again (see [`Connection`]).
    connection: Option<(Connection, Message)>,
    peer: Peer,
    /// Whether it is in the list of those with replies outstanding.
    listed: bool,
}

impl Known {
    fn connection(&self) -> Option<Connection> {
        self.connection.as_ref().map(|(connection, _)| *connection)
    }

    fn descriptor(&self) -> Option<i32> {
        self.connection().map(|connection| connection.descriptor)
    }
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    known: Option<Known>,
}

/// What happened to peers since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    /// Peers cut off.
    pub cut_off: u64,
    /// Replies dropped, because their peer was cut off or its connection had ended.
    pub replies_dropped: u64,
}

/// What came of handing over replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Released {
    /// Some replies could leave, but there is no room for them.
    pub stuck: bool,
    /// Some replies left.
    pub moved: bool,
}

impl std::ops::AddAssign for Released {
    fn add_assign(&mut self, other: Released) {
        self.stuck |= other.stuck;
        self.moved |= other.moved;
    }
}

/// Every peer that is known.
pub(super) struct Peers {
    places: Vec<Place>,
    vacant: Vec<u32>,
    by_identity: HashMap<Box<[u8]>, PeerId>,
    by_descriptor: HashMap<i32, PeerId>,
    /// Those with replies outstanding, each once.
    outstanding: Vec<PeerId>,
    /// Those with a reply that may leave at the end of the pass, once for each.
    ready: Vec<PeerId>,
    /// Those whose connection has ended, and when it was noticed.
    departed: VecDeque<(Instant, PeerId)>,
    /// Bytes of replies that may wait for one peer.
    most: usize,
    figures: Figures,
}

impl Peers {
    /// None yet. `most` is how many bytes of replies may wait for one peer, what libzmq holds included.
    pub fn new(most: usize) -> Peers {
        Peers {
            places: Vec::new(),
            vacant: Vec::new(),
            by_identity: HashMap::default(),
            by_descriptor: HashMap::default(),
            outstanding: Vec::new(),
            ready: Vec::new(),
            departed: VecDeque::new(),
            most,
            figures: Figures::default(),
        }
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.by_identity.len()
    }

    /// What happened so far.
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// The peer of this identity, whatever its connection.
    pub fn named(&self, identity: &[u8]) -> Option<PeerId> {
        self.by_identity.get(identity).copied()
    }

    /// The peer of this identity, if it is the one of this connection.
    pub fn find(&self, identity: &[u8], connection: Option<Connection>) -> Option<PeerId> {
        let id = self.named(identity)?;
        (self.known(id)?.connection() == connection).then_some(id)
    }

    /// Makes a peer known that was not heard from before through this connection; the frame beside it is one
    /// that came through it. What was known of the identity or of the descriptor concerns a connection that
    /// has ended.
    pub fn admit(&mut self, identity: Message, connection: Option<(Connection, Message)>, now: Instant) -> PeerId {
        if let Some(before) = self.by_identity.get(&*identity).copied() {
            self.forget(before);
        }
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            (self.places.len() - 1) as u32
        });
        let name = Box::from(&*identity);
        let descriptor = connection.as_ref().map(|(connection, _)| connection.descriptor);
        let mut id = PeerId { place, generation: 0 };
        if let Some(place) = self.places.get_mut(place as usize) {
            place.generation = place.generation.wrapping_add(1);
            place.known = Some(Known { identity, connection, peer: Peer::new(), listed: false });
            id.generation = place.generation;
        }
        self.by_identity.insert(name, id);
        if let Some(descriptor) = descriptor
            && let Some(before) = self.by_descriptor.insert(descriptor, id)
        {
            self.depart(before, now);
        }
        id
    }

    /// Whether the peer is still known.
    pub fn is_known(&self, id: PeerId) -> bool {
        self.known(id).is_some()
    }

    /// How the peer is treated.
    pub fn standing(&self, id: PeerId) -> Standing {
        self.known(id).map_or(Standing::Departed, |known| known.peer.standing())
    }

    /// The newest batch that the peer wrote to or saw. Until that is durable, what it does next must see it.
    pub fn newest(&self, id: PeerId) -> BatchId {
        self.known(id).map_or(0, |known| known.peer.newest())
    }

    /// Takes the answer to the peer's latest command. It leaves with the next [`Peers::release_ready`], or with a
    /// [`Peers::release`] once it may.
    pub fn settle<O: Outlet>(
        &mut self,
        id: PeerId,
        answer: &mut Answer,
        durable: Durable,
        outlet: &mut O,
        now: Instant,
    ) -> Result<(), O::Error> {
        let most = self.most;
        let Some(known) = self.known_mut(id) else { return Ok(()) };
        match known.peer.settle(answer, durable, most) {
            Outcome::Dropped => self.figures.replies_dropped += 1,
            Outcome::CutOff(dropped) => self.count_cut_off(id, dropped),
            Outcome::Ready => self.ready.push(id),
            Outcome::Plenty => {
                self.release_one(id, durable, outlet, now)?;
                if let Some(Outcome::CutOff(dropped)) =
                    self.known_mut(id).and_then(|known| known.peer.cut_off_beyond(most))
                {
                    self.count_cut_off(id, dropped);
                }
                // More of its requests may have been taken in already, so it is not forgotten before the end of the pass.
                self.ready.push(id);
            }
            _ => self.list(id),
        }
        Ok(())
    }

    /// Hands over the replies that could leave as soon as they were given.
    pub fn release_ready<O: Outlet>(
        &mut self,
        durable: Durable,
        outlet: &mut O,
        now: Instant,
    ) -> Result<Released, O::Error> {
        let mut released = Released::default();
        let mut ready = std::mem::take(&mut self.ready);
        // A peer stands here once for each reply; the first time hands over all of them.
        for id in ready.drain(..) {
            released += self.release_one(id, durable, outlet, now)?;
            self.forget_if_unmarked(id);
        }
        self.ready = ready;
        Ok(released)
    }

    /// Hands over every reply that may leave.
    pub fn release<O: Outlet>(&mut self, durable: Durable, outlet: &mut O, now: Instant) -> Result<Released, O::Error> {
        let mut released = Released::default();
        // Those that still have something to wait for list themselves again.
        let mut outstanding = std::mem::take(&mut self.outstanding);
        for id in outstanding.drain(..) {
            if let Some(known) = self.known_mut(id) {
                known.listed = false;
                released += self.release_one(id, durable, outlet, now)?;
                self.forget_if_unmarked(id);
            }
        }
        outstanding.append(&mut self.outstanding);
        self.outstanding = outstanding;
        Ok(released)
    }

    fn release_one<O: Outlet>(
        &mut self,
        id: PeerId,
        durable: Durable,
        outlet: &mut O,
        now: Instant,
    ) -> Result<Released, O::Error> {
        let most = self.most;
        let Some(known) = self.known_mut(id) else { return Ok(Released::default()) };
        let before = known.peer.queued();
        let outcome = known.peer.release(&known.identity, durable, most, outlet)?;
        let moved = known.peer.queued() < before;
        match outcome {
            Outcome::Waiting | Outcome::Stuck => self.list(id),
            Outcome::Gone => self.depart(id, now),
            _ => {}
        }
        Ok(Released { stuck: outcome == Outcome::Stuck, moved })
    }

    /// Puts a peer on the list of those with replies outstanding.
    fn list(&mut self, id: PeerId) {
        if let Some(known) = self.known_mut(id)
            && !std::mem::replace(&mut known.listed, true)
        {
            self.outstanding.push(id);
        }
    }

    /// What is not durable never will be: puts this error in the place of every reply that said or saw more.
    pub fn refuse(&mut self, durable: Durable, error: &Reply<'_>) {
        for known in self.places.iter_mut().filter_map(|place| place.known.as_mut()) {
            known.peer.refuse(durable, error);
        }
    }

    /// There is no room for proof of so many batches: puts this error in the place of every reply that waits for it still.
    pub fn refuse_proof(&mut self, durable: Durable, unproven: u64, error: &Reply<'_>) {
        for known in self.places.iter_mut().filter_map(|place| place.known.as_mut()) {
            known.peer.refuse_proof(durable, unproven, error);
        }
    }

    /// The flush of this version was swept: this is the answer for who waits for it.
    pub fn fulfil(&mut self, version: u64, reply: &Reply<'_>) {
        for known in self.places.iter_mut().filter_map(|place| place.known.as_mut()) {
            known.peer.fulfil(version, reply);
        }
    }

    /// The connection with this descriptor has ended.
    pub fn disconnected(&mut self, descriptor: i32, now: Instant) {
        if let Some(id) = self.by_descriptor.get(&descriptor).copied() {
            self.depart(id, now);
        }
    }

    /// Whether a connection that has ended is still remembered, so that [`Peers::tidy`] is due soon.
    pub fn any_departed(&self) -> bool {
        !self.departed.is_empty()
    }

    /// Forgets connections that ended a while ago. To be called when everything that had arrived was read.
    pub fn tidy(&mut self, now: Instant) {
        while let Some((since, id)) = self.departed.front().copied() {
            if now.saturating_duration_since(since) < REMEMBERED {
                break;
            }
            self.departed.pop_front();
            self.forget(id);
        }
    }

    fn known(&self, id: PeerId) -> Option<&Known> {
        let place = self.places.get(id.place as usize)?;
        place.known.as_ref().filter(|_| place.generation == id.generation)
    }

    fn known_mut(&mut self, id: PeerId) -> Option<&mut Known> {
        let place = self.places.get_mut(id.place as usize)?;
        place.known.as_mut().filter(|_| place.generation == id.generation)
    }

    /// The peer's connection has ended: drops its replies, and forgets it before long.
    fn depart(&mut self, id: PeerId, now: Instant) {
        let Some(known) = self.known_mut(id) else { return };
        let dropped = known.peer.depart();
        let descriptor = known.descriptor();
        self.figures.replies_dropped += dropped as u64;
        if let Some(descriptor) = descriptor
            && self.by_descriptor.get(&descriptor) == Some(&id)
        {
            self.by_descriptor.remove(&descriptor);
        }
        self.departed.push_back((now, id));
    }

    fn forget(&mut self, id: PeerId) {
        let Some(place) = self.places.get_mut(id.place as usize).filter(|place| place.generation == id.generation)
        else {
            return;
        };
        let Some(mut known) = place.known.take() else { return };
        self.vacant.push(id.place);
        self.figures.replies_dropped += known.peer.depart() as u64;
        self.by_identity.remove(&*known.identity);
        if let Some(descriptor) = known.descriptor()
            && self.by_descriptor.get(&descriptor) == Some(&id)
        {
            self.by_descriptor.remove(&descriptor);
        }
    }

    /// Of a peer without a connection that could be told apart, nobody will say that it ended. So it is
    /// forgotten whenever there is nothing to remember, and no request of it was taken in that is not answered yet.
    fn forget_if_unmarked(&mut self, id: PeerId) {
        let is_clear = |peer: &Peer| peer.queued() == 0 && peer.standing() == Standing::Good;
        if self.known(id).is_some_and(|known| known.connection.is_none() && is_clear(&known.peer)) {
            self.forget(id);
        }
    }

    fn count_cut_off(&mut self, id: PeerId, dropped: usize) {
        self.figures.cut_off += 1;
        self.figures.replies_dropped += dropped as u64;
        if let Some(known) = self.known(id) {
            tracing::warn!(
                peer = %known.identity.escape_ascii(),
                "a peer does not read its replies: dropped {dropped}, and its commands are discarded until it \
                 reconnects"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::progress::Wait;
    use super::super::router::{Held, Sent};
    use super::*;
    use crate::wire::reply_frames::Parcel;
    use crate::wire::{Dialect, ReplyFrames};
    use std::convert::Infallible;

    /// An outlet that has room or not, and counts by identity.
    struct Door {
        sent: Sent,
        to: Vec<Vec<u8>>,
    }

    impl Outlet for Door {
        type Error = Infallible;
        fn send(&mut self, identity: &[u8], reply: Parcel<'_>, _: &Held) -> Result<Sent, Infallible> {
            if self.sent == Sent::Whole {
                self.to.push(identity.to_vec());
                assert!(reply.len() > 0);
            }
            Ok(self.sent)
        }
    }

    fn door(sent: Sent) -> Door {
        Door { sent, to: Vec::new() }
    }

    fn connection(mark: usize, descriptor: i32) -> Connection {
        Connection { mark, descriptor }
    }

    fn admit(peers: &mut Peers, identity: &str, connection: impl Into<Option<Connection>>, now: Instant) -> PeerId {
        peers.admit(identity.into(), connection.into().map(|connection| (connection, Message::new())), now)
    }

    fn answer(bytes: usize, wait: Wait) -> Answer {
        let mut frames = ReplyFrames::default();
        frames.push(&vec![7; bytes]);
        Answer { frames, envelope: 0, dialect: Dialect::Frames, wait, waiting: None }
    }

    fn settle(peers: &mut Peers, id: PeerId, bytes: usize, wait: Wait, door: &mut Door) {
        let (durable, now) = (Durable::default(), Instant::now());
        peers.settle(id, &mut answer(bytes, wait), durable, door, now).unwrap();
        peers.release_ready(durable, door, now).unwrap();
    }

    const ONE: Durable = Durable { committed: 1, synced: 1, proven: 1 };

    #[test]
    fn an_identity_that_comes_back_gets_nothing_of_before() {
        let (mut peers, mut door, now) = (Peers::new(1 << 20), door(Sent::Whole), Instant::now());
        let old = admit(&mut peers, "me", connection(1, 7), now);
        settle(&mut peers, old, 1, Wait::commit(1), &mut door);
        assert_eq!(peers.find(b"me", Some(connection(2, 7))), None, "the same descriptor, another connection");
        let new = admit(&mut peers, "me", connection(2, 7), now);
        assert_eq!(peers.release(ONE, &mut door, now).map(|released| released.stuck), Ok(false));
        assert!(door.to.is_empty());
        settle(&mut peers, new, 1, Wait::NOTHING, &mut door);
        assert_eq!(door.to.len(), 1);
        assert_eq!((peers.len(), peers.figures().replies_dropped), (1, 1));
    }

    #[test]
    fn a_disconnection_drops_the_replies_and_forgets_the_peer_later() {
        let (mut peers, mut door, now) = (Peers::new(1 << 20), door(Sent::Whole), Instant::now());
        let id = admit(&mut peers, "me", connection(1, 7), now);
        settle(&mut peers, id, 1, Wait::commit(1), &mut door);
        peers.disconnected(7, now);
        peers.disconnected(7, now);
        peers.tidy(now);
        assert_eq!(peers.find(b"me", Some(connection(1, 7))), Some(id), "its last messages may yet come");
        settle(&mut peers, id, 1, Wait::NOTHING, &mut door);
        peers.tidy(now + REMEMBERED);
        assert_eq!((peers.len(), peers.any_departed()), (0, false));
        assert_eq!(peers.release(ONE, &mut door, now).map(|released| released.stuck), Ok(false));
        assert!(door.to.is_empty() && peers.outstanding.is_empty());
    }

    #[test]
    fn who_was_cut_off_stays_so_until_it_has_reconnected() {
        let (mut peers, mut door, now) = (Peers::new(1 << 20), door(Sent::Full), Instant::now());
        let id = admit(&mut peers, "me", connection(1, 7), now);
        settle(&mut peers, id, 1 << 20, Wait::NOTHING, &mut door);
        settle(&mut peers, id, 1 << 20, Wait::NOTHING, &mut door);
        assert_eq!(peers.standing(id), Standing::CutOff);
        peers.disconnected(7, now);
        assert_eq!(peers.standing(id), Standing::DepartedCutOff);
        let new = admit(&mut peers, "me", connection(2, 8), now);
        assert_eq!(peers.standing(new), Standing::Good);
        assert_eq!((peers.figures().cut_off, peers.figures().replies_dropped), (1, 2));
    }

    #[test]
    fn there_is_one_peer_a_descriptor() {
        let (mut peers, now) = (Peers::new(1 << 20), Instant::now());
        for mark in 0..1000 {
            admit(&mut peers, &mark.to_string(), connection(mark, 7), now);
        }
        peers.tidy(now + REMEMBERED);
        assert_eq!(peers.len(), 1);
        assert_eq!(peers.by_descriptor.len(), 1);
    }

    #[test]
    fn a_peer_that_can_not_be_followed_is_forgotten_when_clear() {
        let (mut peers, mut door, now) = (Peers::new(1 << 20), door(Sent::Whole), Instant::now());
        let id = admit(&mut peers, "old", None, now);
        settle(&mut peers, id, 1, Wait::NOTHING, &mut door);
        assert_eq!(peers.len(), 0);
        let id = admit(&mut peers, "old", None, now);
        settle(&mut peers, id, 1, Wait::commit(1), &mut door);
        assert_eq!(peers.len(), 1);
        assert_eq!(peers.release(ONE, &mut door, now).map(|released| released.stuck), Ok(false));
        assert_eq!((peers.len(), door.to.len()), (0, 2));
    }

    #[test]
    fn a_peer_that_can_not_be_followed_is_known_until_all_that_it_asked_in_a_pass_is_answered() {
        let (mut peers, mut door, now) = (Peers::new(1 << 20), door(Sent::Whole), Instant::now());
        let id = admit(&mut peers, "old", None, now);
        for _ in 0..3 {
            // Each is so large that it leaves at once.
            peers.settle(id, &mut answer(100_000, Wait::NOTHING), Durable::default(), &mut door, now).unwrap();
        }
        peers.release_ready(Durable::default(), &mut door, now).unwrap();
        assert_eq!((door.to.len(), peers.len()), (3, 0));
    }

    #[test]
    fn a_stuck_peer_delays_nobody() {
        let (mut peers, mut closed, now) = (Peers::new(1 << 20), door(Sent::Full), Instant::now());
        let slow = admit(&mut peers, "slow", connection(1, 7), now);
        let quick = admit(&mut peers, "quick", connection(2, 8), now);
        settle(&mut peers, slow, 1, Wait::NOTHING, &mut closed);
        let mut open = door(Sent::Whole);
        settle(&mut peers, quick, 1, Wait::NOTHING, &mut open);
        assert_eq!(peers.release(ONE, &mut closed, now), Ok(Released { stuck: true, moved: false }));
        assert_eq!(peers.release(ONE, &mut open, now), Ok(Released { stuck: false, moved: true }));
        assert_eq!(open.to, [b"quick".to_vec(), b"slow".to_vec()]);
    }
}
