//! The load: many peers, each with a number of requests in flight, driven by one thread.
//!
//! Either the loop is closed: a reply makes room for the next request, so the rate is the server's and latency is
//! what a peer with that many requests in flight sees. Or it has a pace, and requests leave when they are due. It
//! must cost little processor time, since on a small machine the server needs the rest; [`Measured::client`] says
//! what it did cost.

use super::address::Address;
use super::connection::PATIENCE;
use super::keys::{Distribution, KeyShape};
use super::mix::{Mix, Operation};
use super::peer::Peer;
use super::pool::Pool;
use super::protocol::{Answer, Protocol, garbled};
use super::requests::Requests;
use super::schedule::Schedule;
use super::tally::{Measured, Tally, Until};
use super::values::ValueSize;
use crate::command::Expiry;
use std::io;
use std::time::{Duration, Instant};

/// How often whoever watches is told, and silence is looked for.
const TICK: Duration = Duration::from_millis(100);

/// A load, in every detail.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Connections.
    pub peers: usize,
    /// Messages that each connection keeps unanswered, at most.
    pub in_flight: usize,
    /// Commands of a message, where the protocol has messages of several.
    pub commands: usize,
    /// What is asked.
    pub mix: Mix,
    /// How many keys there are, at least 1, and the number of the first.
    pub keys: u64,
    /// The number of the first key.
    pub first_key: u64,
    /// How keys are written.
    pub shape: KeyShape,
    /// Which of them are asked for.
    pub distribution: Distribution,
    /// How long values are.
    pub values: ValueSize,
    /// When what was written expires.
    pub expiry: Expiry,
    /// Operations a second, whether or not earlier ones are answered. `None` is a closed loop.
    pub rate: Option<f64>,
    /// What goes before counting begins.
    pub warm_up: Duration,
    /// When it ends.
    pub until: Until,
    /// How long a peer may wait for a reply before the server is taken for dead.
    pub patience: Duration,
    /// Another seed makes other choices of keys.
    pub seed: u64,
}

impl Default for Plan {
    /// One peer that reads one key at a time of 100,000, evenly, for ten seconds; values have 100 bytes.
    fn default() -> Plan {
        Plan {
            peers: 1,
            in_flight: 1,
            commands: 1,
            mix: Mix::GETS,
            keys: 100_000,
            first_key: 0,
            shape: KeyShape::default(),
            distribution: Distribution::Uniform,
            values: ValueSize::fixed(100),
            expiry: Expiry::Never,
            rate: None,
            warm_up: Duration::ZERO,
            until: Until::elapsed(Duration::from_secs(10)),
            patience: PATIENCE,
            seed: 0,
        }
    }
}

impl Plan {
    /// What stores every key of this load, each once and as fast as the server goes.
    #[must_use]
    pub fn fill(&self) -> Plan {
        /// Bytes of values in flight.
        const BYTES: usize = 32 << 20;
        let peers = 50;
        let each = BYTES / peers / (self.values.largest + 64);
        // Long values make a message that a load of reads, mostly, would bear, and a server refuses.
        let commands = self.commands.min(each).max(1);
        Plan {
            peers,
            in_flight: (each / commands).clamp(1, 128),
            commands,
            mix: Mix::SETS,
            distribution: Distribution::Sequential,
            rate: None,
            warm_up: Duration::ZERO,
            until: Until::count(self.keys),
            ..self.clone()
        }
    }
}

/// How a load ended.
#[derive(Debug)]
pub enum Ended {
    /// As the plan wanted it.
    Complete,
    /// Whoever watched it said so.
    Interrupted,
    /// A connection broke, or what came was no answer.
    Broken(io::Error),
    /// This many peers waited for a reply for longer than is patient.
    Silent(usize),
}

/// What came of a load, also of one that did not end well.
#[derive(Debug)]
pub struct Outcome {
    /// Up to the end.
    pub measured: Measured,
    /// Which was this.
    pub ended: Ended,
    /// Operations that were due by then, and had to wait for earlier ones until it was too late to ask them.
    pub never_asked: u64,
}

impl Outcome {
    /// The figures, if the load ended as planned, with all that was due asked and nothing refused.
    ///
    /// # Errors
    /// It ended otherwise.
    pub fn whole(self) -> io::Result<Measured> {
        match self.ended {
            Ended::Complete => {}
            Ended::Interrupted => return Err(io::ErrorKind::Interrupted.into()),
            Ended::Broken(error) => return Err(error),
            Ended::Silent(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the server went silent")),
        }
        if self.never_asked > 0 {
            return Err(io::Error::other(format!("{} requests were due and never asked", self.never_asked)));
        }
        match self.measured.refusals.iter().next() {
            None => Ok(self.measured),
            Some((code, count)) => Err(io::Error::other(format!("the server refused {count} requests: {code}"))),
        }
    }
}

/// What whoever watches a load wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It is to go on.
    GoOn,
    /// It is to ask nothing more, and to wait for what it has asked: its end has come, as if the plan had said so.
    Finish,
    /// It is to end at once.
    Stop,
}

/// How far a load is.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// Since its start, the warm-up included.
    pub elapsed: Duration,
    /// Operations that were counted.
    pub count: u64,
}

/// Runs a load against the server at `address`.
///
/// # Errors
/// A connection can't be opened. What goes wrong later is part of the [`Outcome`].
pub fn run(protocol: &'static dyn Protocol, address: &Address, plan: &Plan) -> io::Result<Outcome> {
    watched(protocol, address, plan, &mut |_| Wish::GoOn)
}

/// The same, and tells `watch` now and then how far it is.
///
/// # Errors
/// As [`run`].
pub fn watched(
    protocol: &'static dyn Protocol,
    address: &Address,
    plan: &Plan,
    watch: &mut dyn FnMut(Tick) -> Wish,
) -> io::Result<Outcome> {
    let payload = plan.values.payload();
    let pool = Pool::open(protocol, address, plan.peers, &payload, plan.patience)?;
    if plan.rate.is_some() {
        // The kernel lets timers be late by 50 µs to save wake-ups. Where this can't be changed they are.
        let _ = std::fs::write("/proc/self/timerslack_ns", "1");
    }
    let start = Instant::now();
    let end = plan.warm_up.saturating_add(plan.until.elapsed);
    let mut run = Run {
        plan,
        protocol,
        batches: protocol.batches(),
        pool,
        peers: (0..plan.peers).map(|_| Peer::new(protocol.batches())).collect(),
        requests: Requests::new(protocol, plan, &payload),
        schedule: plan.rate.map(|rate| Schedule::new(rate / plan.commands as f64, end)),
        turn: 0,
        outstanding: 0,
        answers: Vec::new(),
        start,
        // A server that can't keep up must not make the run go on without end.
        tally: Tally::new(plan.until, start, plan.warm_up, plan.rate.map(|_| plan.patience)),
    };
    let ended = run.finish(watch).unwrap_or_else(Ended::Broken);
    let never_asked = run.never_asked();
    Ok(Outcome { measured: run.tally.finish(), ended, never_asked })
}

/// A load on its way.
struct Run<'p> {
    plan: &'p Plan,
    protocol: &'static dyn Protocol,
    batches: bool,
    pool: Pool,
    peers: Vec<Peer>,
    requests: Requests,
    /// Where requests have a moment at which they are due.
    schedule: Option<Schedule>,
    /// The peer whose turn it is then.
    turn: usize,
    /// Operations that are not answered to their end.
    outstanding: u64,
    answers: Vec<Answer>,
    start: Instant,
    tally: Tally,
}

impl Run<'_> {
    fn finish(&mut self, watch: &mut dyn FnMut(Tick) -> Wish) -> io::Result<Ended> {
        let (mut ready, mut ticked) = (Vec::new(), self.start);
        for i in 0..self.peers.len() {
            self.send(i)?;
        }
        loop {
            let next_due = self.send_what_is_due()?;
            if self.outstanding == 0 && next_due.is_none() {
                return Ok(Ended::Complete);
            }
            match next_due {
                Some(due) => self.pool.wait_until(due.min(ticked + TICK), &mut ready)?,
                None => self.pool.wait(TICK, &mut ready)?,
            }
            // All replies first, then all requests: the server finds them together, as it would those of
            // peers that run on machines of their own.
            for ready in ready.iter().filter(|ready| ready.readable) {
                self.receive(ready.peer)?;
            }
            for ready in &ready {
                self.send(ready.peer)?;
            }
            let now = Instant::now();
            if now - ticked >= TICK {
                ticked = now;
                match watch(Tick { elapsed: now - self.start, count: self.tally.so_far() }) {
                    Wish::GoOn => {}
                    Wish::Finish => self.ask_no_more(now),
                    Wish::Stop => return Ok(Ended::Interrupted),
                }
                self.tally.at(now);
                let silent = self.peers.iter().filter(|peer| peer.is_silent(now, self.plan.patience)).count();
                if silent > 0 {
                    return Ok(Ended::Silent(silent));
                }
            }
        }
    }

    /// Where there is a schedule, what is due before `now` is still asked.
    fn ask_no_more(&mut self, now: Instant) {
        match &mut self.schedule {
            Some(schedule) => schedule.end_by(now - self.start),
            None => self.tally.expire(now),
        }
    }

    /// Fills the peer's outbox up to its messages in flight and hands it to the socket. Where there is a schedule,
    /// only with what follows from a reply.
    fn send(&mut self, i: usize) -> io::Result<()> {
        let mut now = None;
        while self.peers[i].in_flight() < self.plan.in_flight {
            // A message, or as many messages of one command as there may be.
            let room = if self.batches { self.plan.commands } else { self.plan.in_flight - self.peers[i].in_flight() };
            let now = *now.get_or_insert_with(Instant::now);
            let following = self.peers[i].following().min(room);
            let fresh = if self.schedule.is_some() { 0 } else { self.tally.admit(room - following, now) };
            if following + fresh == 0 {
                break;
            }
            self.write(i, now, now, following, fresh);
        }
        self.pool.flush(i)
    }

    /// Sends what the schedule says, as far as peers have room. Returns when the next request is due that some peer
    /// has room for; `None` if that is for replies to say, or if there is none.
    fn send_what_is_due(&mut self) -> io::Result<Option<Instant>> {
        let Some(next) = self.schedule.as_ref().and_then(Schedule::next) else { return Ok(None) };
        let mut next = Some(self.start + next);
        let (first, count) = (self.turn, self.peers.len());
        let now = Instant::now();
        self.tally.at(now);
        // Peers whose turn it was, those included that had no room.
        let mut passed = 0;
        while !self.tally.is_exhausted() {
            let Some(peer) = self.with_room() else { break };
            let Some(schedule) = &mut self.schedule else { break };
            let Some(due) = schedule.take(now - self.start) else { break };
            next = schedule.next().map(|next| self.start + next);
            let due = self.start + due;
            let fresh = self.tally.admit(self.plan.commands, due);
            self.write(peer, now, due, 0, fresh);
            passed += (peer + count - self.turn) % count + 1;
            self.turn = (peer + 1) % count;
        }
        for i in 0..passed.min(count) {
            self.pool.flush((first + i) % count)?;
        }
        if self.tally.is_exhausted() || self.with_room().is_none() {
            // Something is in flight, and its reply will be the occasion.
            return Ok(None);
        }
        Ok(next)
    }

    /// Operations that were due by now, count, and have not been asked.
    fn never_asked(&self) -> u64 {
        let left = |schedule: &Schedule| schedule.left(self.plan.warm_up, self.start.elapsed());
        let due = self.schedule.as_ref().map_or(0, left).saturating_mul(self.plan.commands as u64);
        due.min(self.tally.left())
    }

    /// The next peer in turn that may have another message in flight.
    fn with_room(&self) -> Option<usize> {
        let count = self.peers.len();
        (self.turn..self.turn + count).map(|i| i % count).find(|&i| self.peers[i].in_flight() < self.plan.in_flight)
    }

    /// Writes `following` commands that follow from replies and `fresh` new ones that were due at `due`, in one message
    /// if it holds several.
    fn write(&mut self, i: usize, now: Instant, due: Instant, following: usize, fresh: usize) {
        let (peer, outbox) = (&mut self.peers[i], self.pool.outbox(i));
        let (start, mut shared) = (outbox.bytes().len(), 0);
        if self.batches {
            self.protocol.begin(following + fresh, outbox.bytes());
        }
        for _ in 0..following {
            let Some(asked) = peer.take_following() else { break };
            shared += self.requests.put(asked.step, outbox);
            peer.expect(asked.step, asked.due, asked.counts);
        }
        let counts = self.tally.counts(due);
        for _ in 0..fresh {
            let step = self.requests.next();
            shared += self.requests.put(step, outbox);
            peer.expect(step, due, counts);
        }
        self.outstanding += fresh as u64;
        // However late it is: from now on the server can answer.
        peer.sent(following + fresh, now);
        if self.batches {
            self.protocol.end(start, shared, outbox.bytes());
        }
    }

    fn receive(&mut self, i: usize) -> io::Result<()> {
        self.answers.clear();
        self.pool.receive(i, &mut self.answers)?;
        let now = Instant::now();
        self.tally.at(now);
        self.peers[i].heard(now);
        let answers = std::mem::take(&mut self.answers);
        let mut rest = answers.as_slice();
        while let Some(first) = rest.first() {
            let taken = if let Answer::AllRefused(why) = first {
                for _ in 0..self.peers[i].message() {
                    self.take(i, now, &[Answer::Refused(why.clone())])?;
                }
                1
            } else {
                self.take(i, now, rest)?
            };
            rest = &rest[taken..];
        }
        self.answers = answers;
        Ok(())
    }

    /// Takes the answers to the oldest commands of a peer that are of one kind. Returns how many those are.
    fn take(&mut self, i: usize, now: Instant, answers: &[Answer]) -> io::Result<usize> {
        let peer = &mut self.peers[i];
        let Some(asked) = peer.oldest() else { return Err(garbled("more replies than requests")) };
        let (mut count, mut misses, mut refused) = (0, 0, 0);
        for answer in &answers[..answers.len().min(asked.count)] {
            match answer {
                Answer::Ok => {}
                Answer::Miss => misses += 1,
                Answer::Refused(why) => {
                    refused += 1;
                    if asked.counts {
                        self.tally.refusal(why);
                    }
                }
                Answer::AllRefused(_) => break,
            }
            count += 1;
        }
        peer.answered(count);
        let latency = now.saturating_duration_since(asked.due);
        let (operation, done) = (asked.step.operation, count as u64);
        if let Some(step) = asked.step.next().filter(|_| refused == 0) {
            // The operation goes on; what the first step missed is told, and its time is part of the whole.
            peer.follow(step, asked.due, asked.counts);
            if asked.counts {
                self.tally.record(operation, latency, 0, misses, 0);
            }
            return Ok(count);
        }
        self.outstanding -= done;
        if operation == Operation::Insert {
            self.requests.inserted(done);
        }
        if asked.counts {
            self.tally.record(operation, latency, done, misses, refused);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storing_every_key_takes_messages_that_a_server_accepts() {
        let plan = |commands, value| Plan { commands, values: ValueSize::fixed(value), ..Plan::default() };
        let fill = plan(16, 16 << 20).fill();
        assert_eq!((fill.commands, fill.in_flight), (1, 1));
        let fill = plan(4096, 100).fill();
        assert!(fill.commands > 1000 && fill.commands * fill.values.largest < 1 << 20, "{}", fill.commands);
        let fill = plan(16, 100).fill();
        assert_eq!((fill.commands, fill.in_flight), (16, 128));
    }
}
