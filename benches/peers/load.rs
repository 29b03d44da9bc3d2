//! The load: many peers, each with a fixed number of requests in flight, driven by one thread.
//!
//! The loop is closed: a reply makes room for the next request, so the rate is the server's and latency is
//! what a peer with that many requests in flight sees. It must cost little processor time, since on a small
//! machine the server needs the rest; [`Measured::client`] says what it did cost.

use crate::keys::Keys;
use crate::pool::Pool;
use crate::protocol::{Protocol, garbled};
use crate::template::Template;
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Write a value.
    Set,
    /// Read a value.
    Get,
    /// Write and read in turn.
    Mix,
}

/// Who asks, and how much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// What is asked.
    pub verb: Verb,
    /// Connections.
    pub peers: usize,
    /// Requests that each connection keeps unanswered.
    pub in_flight: usize,
}

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this time. What is still in flight then is waited for and not counted.
    Elapsed(Duration),
    /// After this many requests, all of them answered.
    Count(u64),
}

/// What a load came to.
pub struct Measured {
    /// Replies that were counted.
    pub replies: u64,
    /// Those of them that said that the key is absent.
    pub misses: u64,
    /// From the first request to the end of counting.
    pub elapsed: Duration,
    /// Nanoseconds from handing a request to the socket to reading its reply.
    pub latency: Histogram<u64>,
    /// Processor time of the generator's thread.
    pub client: Duration,
}

impl Measured {
    /// Replies a second.
    pub fn rate(&self) -> f64 {
        self.replies as f64 / self.elapsed.as_secs_f64()
    }
}

/// What a peer waits for.
struct Peer {
    /// When requests were sent and how many at a time, oldest first.
    sent: VecDeque<(Instant, usize)>,
    /// Requests that may be sent now.
    due: usize,
}

/// Runs a load against the server at `address`.
///
/// # Errors
/// The connection broke, a request was refused, or the server went silent.
pub fn run(
    protocol: &'static dyn Protocol,
    address: SocketAddr,
    load: Load,
    value: &[u8],
    keys: &mut Keys,
    until: Until,
) -> io::Result<Measured> {
    let templates = match load.verb {
        Verb::Set => vec![Template::set(protocol, value)],
        Verb::Get => vec![Template::get(protocol)],
        Verb::Mix => vec![Template::set(protocol, value), Template::get(protocol)],
    };
    Run {
        templates,
        peers: (0..load.peers).map(|_| Peer { sent: VecDeque::new(), due: load.in_flight }).collect(),
        pool: Pool::open(protocol, address, load.peers)?,
        tally: Tally::new(until),
        in_flight: 0,
    }
    .finish(keys)
}

/// A load on its way.
struct Run {
    /// What is asked, in turn.
    templates: Vec<Template>,
    peers: Vec<Peer>,
    pool: Pool,
    tally: Tally,
    /// Requests of all peers that are not answered yet.
    in_flight: usize,
}

impl Run {
    fn finish(mut self, keys: &mut Keys) -> io::Result<Measured> {
        for i in 0..self.peers.len() {
            self.send(i, keys)?;
        }
        let mut ready = Vec::new();
        while self.in_flight > 0 {
            self.pool.wait(&mut ready)?;
            // All replies first, then all requests: the server finds them together, as it would those of
            // peers that run on machines of their own.
            for ready in ready.iter().filter(|ready| ready.readable) {
                self.receive(ready.peer)?;
            }
            for ready in &ready {
                self.send(ready.peer, keys)?;
            }
        }
        Ok(self.tally.finish())
    }

    fn receive(&mut self, i: usize) -> io::Result<()> {
        let mut misses = 0;
        let replies = self.pool.receive(i, |found| misses += u64::from(!found))?;
        let peer = &mut self.peers[i];
        peer.due += replies;
        self.in_flight = self.in_flight.checked_sub(replies).ok_or_else(|| garbled("more replies than requests"))?;
        self.tally.count(&mut peer.sent, replies, misses);
        Ok(())
    }

    /// Fills the peer's outbox up to its requests in flight and hands it to the socket.
    fn send(&mut self, i: usize, keys: &mut Keys) -> io::Result<()> {
        let peer = &mut self.peers[i];
        let count = self.tally.admit(peer.due);
        for _ in 0..count {
            self.templates[0].put(&keys.next(), self.pool.outbox(i));
            self.templates.rotate_left(1);
        }
        if count > 0 {
            peer.due -= count;
            self.in_flight += count;
            peer.sent.push_back((Instant::now(), count));
        }
        self.pool.flush(i)
    }
}

/// Counts, and decides when it is enough.
struct Tally {
    until: Until,
    start: Instant,
    processor: Duration,
    asked: u64,
    measured: Measured,
    /// Counting is over; what still comes is only waited for.
    closed: bool,
}

impl Tally {
    fn new(until: Until) -> Tally {
        let latency = Histogram::new_with_bounds(1_000, 100_000_000_000, 3).expect("bounds that fit each other");
        let measured = Measured { replies: 0, misses: 0, elapsed: Duration::ZERO, latency, client: Duration::ZERO };
        Tally { until, start: Instant::now(), processor: thread_time(), asked: 0, measured, closed: false }
    }

    /// How many of `due` requests may still be sent.
    fn admit(&mut self, due: usize) -> usize {
        let count = match self.until {
            Until::Elapsed(_) if self.closed => 0,
            Until::Elapsed(_) => due,
            Until::Count(limit) => due.min(usize::try_from(limit - self.asked).unwrap_or(usize::MAX)),
        };
        self.asked += count as u64;
        count
    }

    /// Takes `replies` answers to the oldest requests in `sent`.
    fn count(&mut self, sent: &mut VecDeque<(Instant, usize)>, replies: usize, misses: u64) {
        let now = Instant::now();
        if let Until::Elapsed(limit) = self.until
            && now - self.start >= limit
        {
            self.close(now);
        }
        let mut left = replies;
        while left > 0 {
            let Some((at, waiting)) = sent.front_mut() else { return };
            let taken = left.min(*waiting);
            if !self.closed {
                self.measured.latency.saturating_record_n((now - *at).as_nanos() as u64, taken as u64);
            }
            left -= taken;
            *waiting -= taken;
            if *waiting == 0 {
                sent.pop_front();
            }
        }
        if !self.closed {
            self.measured.replies += replies as u64;
            self.measured.misses += misses;
        }
    }

    fn close(&mut self, now: Instant) {
        if !self.closed {
            self.closed = true;
            self.measured.elapsed = now - self.start;
            self.measured.client = thread_time().saturating_sub(self.processor);
        }
    }

    fn finish(mut self) -> Measured {
        self.close(Instant::now());
        self.measured
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned() as u32)
}
