//! Where messages become commands and answers become replies: the socket, the peers behind it, and between
//! them one command at a time.
//!
//! The order of things for each message: whose is it, is it well-formed, what does it ask, what is the
//! answer, may the answer leave. Knows neither engine nor log: who gives the answers is [`Answers`].

use super::backlog::Answer;
use super::company::Company;
use super::list::List;
use super::peer::{Outlet, Standing};
use super::peers::{PeerId, Peers, Released};
use super::progress::{Durable, Wait};
use super::request::Request;
use super::router::{Held, Router, RouterError, Sent};
use super::stats::Counters;
use crate::command::{Answerer, Command, ErrorCode, Inquiry, Limits, MAX_BODY_FRAMES, Reply};
use crate::engine::{BatchId, View};
use crate::table::Swept;
use crate::wire::reply_frames::Parcel;
use crate::wire::{Asked, Dialect, ReplyFrames, WireError, packed};
use std::os::fd::BorrowedFd;
use std::time::Instant;
use zmq::Message;

/// Commands taken in one pass, by [`crate::command::Class::weight`], and the rest of a packed message, so that the log's events and other
/// peers' replies get their turn.
const PASS: usize = 1024;
/// Bytes of a reply that count for one more of them: it takes as long to copy those.
const OF_A_COMMAND: usize = 1024;
/// Bytes that may form in one batch, and the last command that adds to it. Beyond that no more commands are read until it
/// was submitted: peers then wait in their sockets, and not in our memory. Those that read wait as well, hence so few: with
/// four times as many they waited three times as long beside a writer that is faster than the disk, and it wrote 7% more.
pub(super) const MOST_FORMING: usize = 1 << 20;
/// Commands that are decoded before the first of them is answered, so that what they ask for is fetched from memory
/// for all of them at once.
const AHEAD: usize = 16;
/// Bytes that records have beyond what their message has: 64 for each of as many keys as it may name.
const OF_RECORDS: usize = 64 * MAX_BODY_FRAMES;
/// Bytes of room for a reply that are kept for the next one.
const KEPT_REPLY: usize = 64 * 1024;

/// Who answers commands: the store, or, until there is one, somebody who asks for patience.
pub(super) trait Answers {
    /// Told of a command that it will have to answer before long.
    fn foresee(&self, command: &Command<'_>);
    /// Answers a command, by calling `encode` exactly once, and tells what the answer waits for.
    fn answer(&mut self, command: &Command<'_>, view: View, encode: &mut dyn FnMut(&Reply<'_>)) -> Wait;
    /// What is durable now.
    fn durable(&self) -> Durable;
    /// Bytes that the commands answered so far have added to the batch that forms.
    fn forming(&self) -> usize;
    /// Adds its part of STATS.
    fn figures(&self, into: &mut Vec<(&'static str, String)>);
}

/// Where requests come from: the router, or a test.
pub(super) trait Socket: Outlet {
    /// Takes the next message in, if one has arrived whole, and tells whether it did. What it holds may be
    /// nothing but an identity: then the request has neither envelope nor body nor fault.
    fn receive(&mut self, into: &mut Request) -> Result<bool, Self::Error>;
    /// The descriptor of the next connection that ended, if there is one.
    fn ended(&mut self) -> Option<i32>;
}

impl Outlet for Router {
    type Error = RouterError;
    fn send(&mut self, identity: &[u8], reply: Parcel<'_>, held: &Held) -> Result<Sent, RouterError> {
        Router::send(self, identity, reply, held)
    }
}

impl Socket for Router {
    fn receive(&mut self, into: &mut Request) -> Result<bool, RouterError> {
        Router::receive(self, into)
    }

    fn ended(&mut self) -> Option<i32> {
        Router::ended(self)
    }
}

/// The socket and everybody behind it.
pub(super) struct Reception<S> {
    socket: S,
    peers: Peers,
    counters: Counters,
    limits: Limits,
    /// Room for as many as are decoded ahead.
    requests: Vec<Taken>,
    /// How many of them were taken in, and not answered yet.
    taken: usize,
    /// How many may be, 1 to [`AHEAD`]. Who asks later waits for all of them, so there are fewer while a pass ends amid them.
    ahead: usize,
    /// The replies to a packed message.
    list: List,
    answer: Answer,
    company: Company,
}

/// A request that was taken in. It may be decoded more than once, as long as it is not answered.
struct Taken {
    request: Request,
    /// Whose it is, once that was found out. Asked again, that might be another: a later connection with the same identity
    /// may have been heard from since, and what made the first one known was taken out of the request.
    sender: Option<Sender>,
}

impl Taken {
    /// Room for one.
    fn new() -> Taken {
        Taken { request: Request::new(), sender: None }
    }

    fn clear(&mut self) {
        self.request.clear();
        self.sender = None;
    }
}

/// Who sent a request.
#[derive(Clone, Copy)]
struct Sender {
    id: PeerId,
    /// They had been cut off when it was decoded first. The peer may be known by now for its next connection.
    is_discarded: bool,
}

/// A request that was decoded, and not answered yet.
struct Decoded<'r> {
    sender: Sender,
    envelope: &'r [Message],
    dialect: Dialect,
    asked: Result<Asked<'r>, WireError>,
}

impl<S: Socket> Reception<S> {
    /// Opens. `most_backlog` is how many bytes of replies may wait for one peer.
    pub fn open(socket: S, limits: Limits, most_backlog: usize, started: Instant) -> Reception<S> {
        Reception {
            socket,
            peers: Peers::new(most_backlog),
            counters: Counters::new(started),
            limits,
            requests: std::iter::repeat_with(Taken::new).take(AHEAD).collect(),
            taken: 0,
            ahead: AHEAD,
            list: List::default(),
            answer: Answer {
                frames: ReplyFrames::default(),
                envelope: 0,
                dialect: Dialect::Frames,
                wait: Wait::NOTHING,
                waiting: None,
            },
            company: Company::new(started),
        }
    }

    /// Whether a pass is due soon even if nothing happens.
    pub fn any_departed(&self) -> bool {
        self.peers.any_departed()
    }

    /// Takes in what has arrived, a bounded number of commands, and answers it, until as much has formed as may. Tells
    /// whether a reply that could have left found no room.
    pub fn receive(&mut self, answers: &mut impl Answers, now: Instant) -> Result<bool, S::Error> {
        self.company.begin_pass();
        let mut commands = 0;
        while commands < PASS && answers.forming() < MOST_FORMING {
            let more = self.take_in()?;
            commands += self.answer(answers, now, PASS - commands)?;
            if !more && self.taken == 0 {
                self.peers.tidy(now);
                break;
            }
        }
        // A connection that has ended by now must not leave its replies to the next one with its identity.
        self.hear_of_ends(now);
        // Now, and peer by peer: what goes to one peer in one go costs its connection one system call, and the peer too.
        self.peers.release_ready(answers.durable(), &mut self.socket, now).map(|released| released.stuck)
    }

    /// Whether the last pass took in one message, of a peer that has been the only one for a while.
    pub fn one_waits_alone(&self, now: Instant) -> bool {
        self.company.is_one_alone(now)
    }

    /// Hands over every reply that may leave.
    pub fn release(&mut self, durable: Durable, now: Instant) -> Result<Released, S::Error> {
        // A connection that has ended by now must not leave its replies to the next one with its identity.
        self.hear_of_ends(now);
        self.peers.release(durable, &mut self.socket, now)
    }

    /// What is not durable never will be, for want of room: those who wait for it are told.
    pub fn refuse(&mut self, durable: Durable) {
        let error = Reply::Error(ErrorCode::NoSpace, "there is no room: nothing was changed".into());
        self.peers.refuse(durable, &error);
    }

    /// There is no room for proof of so many batches: those who wait for it are told.
    pub fn refuse_proof(&mut self, durable: Durable, unproven: u64) {
        let error = Reply::Error(
            ErrorCode::NoSpace,
            "everything before this is synced, but there is no room for the mark that proves it: remove something first".into(),
        );
        self.peers.refuse_proof(durable, unproven, &error);
    }

    /// A flush was swept: who waits to hear how many keys it removed is told.
    pub fn fulfil(&mut self, swept: Swept) {
        let removed = i64::try_from(swept.removed).unwrap_or(i64::MAX);
        self.peers.fulfil(swept.version, &Reply::Number(removed));
    }

    /// Takes in the next messages that have arrived. Returns whether there may be more. A packed one ends it, since it is
    /// worth many others.
    fn take_in(&mut self) -> Result<bool, S::Error> {
        while self.taken < self.ahead
            && let Some(Taken { request, .. }) = self.requests.get_mut(self.taken)
        {
            if !self.socket.receive(request)? {
                return Ok(false);
            }
            if request.body.is_empty() && request.fault.is_none() {
                self.counters.unanswerable += 1;
                continue;
            }
            self.taken += 1;
            if Dialect::of(&request.body) == Dialect::Packed {
                break;
            }
        }
        Ok(true)
    }

    /// Answers what was taken in, in the order in which it came, until as much has formed as may or the commands count for
    /// `most`. Returns how many they count for.
    fn answer(&mut self, answers: &mut impl Answers, now: Instant, most: usize) -> Result<usize, S::Error> {
        let mut requests = std::mem::take(&mut self.requests);
        let mut all: [Option<Decoded<'_>>; AHEAD] = [const { None }; AHEAD];
        for (request, place) in requests.iter_mut().zip(&mut all).take(self.taken) {
            let decoded = self.decode(request, now);
            self.company.heard(decoded.sender.id, now);
            if let Ok(Asked::One(command)) = &decoded.asked {
                answers.foresee(command);
            }
            *place = Some(decoded);
        }
        let (mut commands, mut answered) = (0, 0);
        for decoded in all.into_iter().flatten() {
            if answered > 0 && (commands >= most || answers.forming() >= MOST_FORMING) {
                break;
            }
            commands += match &decoded.asked {
                Ok(Asked::One(command)) => command.class().weight,
                Ok(Asked::List(list)) => list.weight(),
                Err(_) => 1,
            };
            answered += 1;
            commands += self.handle(decoded, answers, now)? / OF_A_COMMAND;
        }
        for request in requests.iter_mut().take(answered) {
            request.clear();
        }
        if answered < self.taken {
            // What is left comes first in the next pass, and is decoded again.
            requests.rotate_left(answered);
        }
        self.ahead = if answered < self.taken { answered } else { AHEAD.min(2 * self.ahead) };
        self.taken -= answered;
        self.requests = requests;
        Ok(commands)
    }

    fn decode<'r>(&mut self, taken: &'r mut Taken, now: Instant) -> Decoded<'r> {
        let sender = self.sender(taken, now);
        let Request { envelope, body, fault, key, .. } = &mut taken.request;
        let (dialect, asked) = if let Some(fault) = fault {
            (Dialect::Frames, Err(fault.error()))
        } else {
            let dialect = Dialect::of(body);
            (dialect, dialect.decode(body, &self.limits, key))
        };
        Decoded { sender, envelope, dialect, asked }
    }

    fn is_cut_off(&self, peer: PeerId) -> bool {
        matches!(self.peers.standing(peer), Standing::CutOff | Standing::DepartedCutOff)
    }

    /// Answers one. Returns how many bytes its reply has.
    fn handle(&mut self, request: Decoded<'_>, answers: &mut impl Answers, now: Instant) -> Result<usize, S::Error> {
        let Decoded { sender: Sender { id: sender, is_discarded }, envelope, dialect, asked } = request;
        if is_discarded || self.is_cut_off(sender) {
            self.counters.discarded += 1;
            return Ok(0);
        }
        let Reception { answer, list, counters, peers, limits, .. } = self;
        answer.frames.clear(KEPT_REPLY);
        for frame in envelope {
            answer.frames.push(frame);
        }
        answer.envelope = answer.frames.packed().len();
        answer.dialect = dialect;
        answer.waiting = None;
        let mut desk = Desk { newest: peers.newest(sender), answers, counters, peers };
        match asked {
            Ok(Asked::One(command)) => {
                answer.wait = desk.answer(&command, &mut |reply| dialect.encode(reply, &mut answer.frames));
            }
            Ok(Asked::List(commands)) => {
                desk.answer_list(commands, limits.max_message(), list);
                list.finish(answer);
            }
            Err(error) => {
                answer.wait = desk.refuse(error, &mut |reply| dialect.encode(reply, &mut answer.frames));
            }
        }
        let durable = desk.answers.durable();
        let bytes = answer.frames.packed().len() + answer.frames.large_bytes();
        self.peers.settle(sender, &mut self.answer, durable, &mut self.socket, now)?;
        Ok(bytes)
    }

    /// Who sent the request. Once told it stays the same, but for those whose connections can't be told apart: they are
    /// forgotten whenever nothing waits for them.
    fn sender(&mut self, taken: &mut Taken, now: Instant) -> Sender {
        if let Some(sender) = taken.sender
            && (self.peers.is_known(sender.id) || taken.request.connection().is_some())
        {
            return sender;
        }
        let id = self.whose(&mut taken.request, now);
        let sender = Sender { id, is_discarded: self.is_cut_off(id) };
        taken.sender = Some(sender);
        sender
    }

    /// The peer that sent the request.
    fn whose(&mut self, request: &mut Request, now: Instant) -> PeerId {
        let known = if request.names_its_connection() {
            self.peers.named(&request.identity)
        } else {
            let connection = request.connection();
            self.peers.find(&request.identity, connection)
        };
        if let Some(id) = known {
            return id;
        }
        // A connection not heard from before may have the descriptor of one that has ended. Its end was told
        // before this message came; were it read later, it would be taken for the end of this one.
        self.hear_of_ends(now);
        let (identity, connection) = request.take_sender();
        self.peers.admit(identity, connection, now)
    }

    /// Takes in which connections have ended.
    pub fn hear_of_ends(&mut self, now: Instant) {
        while let Some(descriptor) = self.socket.ended() {
            self.peers.disconnected(descriptor, now);
        }
    }
}

impl Reception<Router> {
    /// What a wait has to listen to: for requests, and for the ends of connections.
    pub fn descriptors(&self) -> Result<[BorrowedFd<'_>; 2], RouterError> {
        self.socket.descriptors()
    }

    /// Whether a request has arrived. Has to be asked before each wait.
    pub fn arrived(&mut self) -> Result<bool, RouterError> {
        Ok(self.taken > 0 || self.socket.arrived()?)
    }

    /// Closes the socket once every reply has left, or after this many milliseconds.
    pub fn close(self, linger_ms: i32) -> Result<(), RouterError> {
        self.socket.close(linger_ms)
    }
}

/// Where the commands of one message are answered.
struct Desk<'r, A> {
    answers: &'r mut A,
    counters: &'r mut Counters,
    peers: &'r Peers,
    /// The newest batch that the peer wrote to or saw. Until that is durable, what it does next must see it.
    newest: BatchId,
}

impl<A: Answers> Desk<'_, A> {
    /// Has a command answered, by calling `encode` once, and tells what the answer waits for.
    fn answer(&mut self, command: &Command<'_>, encode: &mut dyn FnMut(&Reply<'_>)) -> Wait {
        self.counters.command(command);
        let wait = match command.class().answerer {
            Answerer::Server(Inquiry::Ping) => {
                encode(&Reply::Pong);
                Wait::NOTHING
            }
            Answerer::Server(Inquiry::Version) => {
                encode(&Reply::Version);
                Wait::NOTHING
            }
            Answerer::Server(Inquiry::Stats) => {
                let mut figures = self.counters.figures(self.peers);
                self.answers.figures(&mut figures);
                encode(&Reply::Stats(figures));
                Wait::NOTHING
            }
            Answerer::Store(_) | Answerer::Engine => {
                let pending = self.newest > self.answers.durable().committed;
                self.answers.answer(command, if pending { View::Pending } else { View::Durable }, encode)
            }
        };
        self.newest = self.newest.max(wait.batch);
        wait
    }

    /// Answers what is no command.
    fn refuse(&mut self, error: WireError, encode: &mut dyn FnMut(&Reply<'_>)) -> Wait {
        self.counters.refused();
        encode(&error.reply());
        Wait::NOTHING
    }

    /// Has the commands of a packed message answered, one after the other. Once the replies have reached `most` bytes, or
    /// what is recorded has, those that follow are not executed: a TOUCH records as much as the value has.
    fn answer_list(&mut self, mut commands: packed::Commands<'_>, most: usize, into: &mut List) {
        let before = self.answers.forming();
        into.begin(commands.len());
        while commands.len() > 0 {
            let ahead: [_; AHEAD] = std::array::from_fn(|_| {
                let command = commands.next()?;
                if let Ok(command) = &command {
                    self.answers.foresee(command);
                }
                Some(command)
            });
            for command in ahead.into_iter().flatten() {
                let command = if into.len() >= most {
                    Err(too_much("the replies", most))
                } else if self.answers.forming() - before >= most + OF_RECORDS {
                    Err(too_much("the changes", most))
                } else {
                    command
                };
                into.add(|bytes| {
                    let mut encode = |reply: &Reply<'_>| packed::encode(reply, bytes);
                    match command {
                        Ok(command) => self.answer(&command, &mut encode),
                        Err(error) => self.refuse(error, &mut encode),
                    }
                });
            }
        }
    }
}

/// The refusal of a command of a list that has come to too much of something.
fn too_much(of: &str, most: usize) -> WireError {
    let message = format!("{of} before this one have {most} bytes, the limit of a message: send it again");
    WireError::new(ErrorCode::TooBig, message)
}

#[cfg(test)]
impl<S> Reception<S> {
    /// Whether something was taken in and is left for the next pass.
    pub fn is_amid(&self) -> bool {
        self.taken > 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::Connection;
    use super::*;
    use std::collections::VecDeque;
    use std::convert::Infallible;

    /// Messages that came through connections, by their descriptors, and which of those has ended.
    #[derive(Default)]
    struct Wires {
        arrived: VecDeque<(&'static str, i32, Vec<Vec<u8>>)>,
        ended: Option<i32>,
    }

    impl Outlet for Wires {
        type Error = Infallible;
        fn send(&mut self, _: &[u8], _: Parcel<'_>, _: &Held) -> Result<Sent, Infallible> {
            Ok(Sent::Whole)
        }
    }

    impl Socket for Wires {
        fn receive(&mut self, into: &mut Request) -> Result<bool, Infallible> {
            let Some((identity, descriptor, body)) = self.arrived.pop_front() else { return Ok(false) };
            let mut frames = [identity.as_bytes().to_vec(), Vec::new()].into_iter().chain(body).peekable();
            into.fill(Limits::default(), |frame| {
                *frame = Message::from(&*frames.next().expect("a frame"));
                Ok::<_, Infallible>(frames.peek().is_some())
            })?;
            into.come_through(Connection { mark: descriptor.unsigned_abs() as usize, descriptor });
            Ok(true)
        }

        fn ended(&mut self) -> Option<i32> {
            self.ended.take()
        }
    }

    /// Each command fills what may form in a pass, and its answer waits.
    #[derive(Default)]
    struct Filling {
        forming: usize,
        answered: usize,
    }

    impl Answers for Filling {
        fn foresee(&self, _: &Command<'_>) {}
        fn answer(&mut self, _: &Command<'_>, _: View, encode: &mut dyn FnMut(&Reply<'_>)) -> Wait {
            self.forming = MOST_FORMING;
            self.answered += 1;
            encode(&Reply::Done);
            Wait { batch: 1, ..Wait::NOTHING }
        }
        fn durable(&self) -> Durable {
            Durable::default()
        }
        fn forming(&self) -> usize {
            self.forming
        }
        fn figures(&self, _: &mut Vec<(&'static str, String)>) {}
    }

    #[test]
    fn what_a_peer_sent_before_it_was_cut_off_stays_discarded_when_it_is_decoded_again() {
        let now = Instant::now();
        let mut reception = Reception::open(Wires::default(), Limits::default(), 1, now);
        let mut answers = Filling::default();
        let mut send = |messages: &[(&'static str, i32)], ended| {
            reception.socket.arrived.extend(messages.iter().map(|&(peer, by)| (peer, by, vec![b"COUNT".to_vec()])));
            reception.socket.ended = ended;
            // More passes than messages, so that as many are decoded ahead as may be.
            for _ in 0..10 {
                answers.forming = 0;
                let Ok(_) = reception.receive(&mut answers, now);
            }
            assert!(!reception.is_amid());
            answers.answered
        };
        // Two replies are more than may wait for a peer.
        assert_eq!(send(&[("x", 2), ("x", 2)], None), 2);
        // Its next connection is heard of in the pass that leaves what the one before had sent.
        assert_eq!(send(&[("y", 1), ("x", 2), ("x", 3)], Some(2)), 4, "of y, and of the new connection of x");
    }
}
