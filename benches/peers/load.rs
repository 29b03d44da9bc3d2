//! The load: many peers, each with a fixed number of requests in flight, driven by one thread.
//!
//! The loop is closed: a reply makes room for the next request, so the rate is the server's and latency is
//! what a peer with that many requests in flight sees. It must cost little processor time, since on a small
//! machine the server needs the rest; [`Measured::client`] says what it did cost.

use crate::connection::{Connection, PATIENCE};
use crate::keys::{KEY_LEN, Keys, key};
use crate::protocol::{Answer, Protocol, garbled};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Bytes read at once: some hundred replies of 50 peers, yet small enough to stay in the processor's cache.
const READ_BUFFER: usize = 256 * 1024;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Write a value.
    Set,
    /// Read a value.
    Get,
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

/// A request with room for a key: copied and overwritten, never built anew.
struct Template {
    bytes: Vec<u8>,
    key_at: usize,
}

impl Template {
    fn new(protocol: &dyn Protocol, verb: Verb, value: &[u8]) -> Template {
        let place = key(0);
        let mut bytes = Vec::new();
        match verb {
            Verb::Set => protocol.request(&[b"SET", &place, value], &mut bytes),
            Verb::Get => protocol.request(&[b"GET", &place], &mut bytes),
        }
        let key_at = bytes.windows(KEY_LEN).position(|window| window == place).expect("a request holds its key");
        Template { bytes, key_at }
    }

    fn put(&self, keys: &mut Keys, into: &mut Vec<u8>) {
        let start = into.len() + self.key_at;
        into.extend_from_slice(&self.bytes);
        into[start..start + KEY_LEN].copy_from_slice(&keys.next());
    }
}

/// A connection and the requests it waits for.
struct Peer {
    connection: Connection,
    /// When requests were sent and how many at a time, oldest first.
    sent: VecDeque<(Instant, usize)>,
    /// Requests that may be sent now.
    due: usize,
    /// The socket was full; the rest goes out when it has room.
    blocked: bool,
}

/// Runs a load against the server at `address`.
///
/// # Errors
/// The connection broke, a request was refused, or the server was silent for [`PATIENCE`].
pub fn run(
    protocol: &'static dyn Protocol,
    address: SocketAddr,
    load: Load,
    value: &[u8],
    keys: &mut Keys,
    until: Until,
) -> io::Result<Measured> {
    let peers = (0..load.peers)
        .map(|_| {
            let connection = Connection::open(protocol, address)?;
            connection.set_nonblocking()?;
            Ok(Peer { connection, sent: VecDeque::new(), due: load.in_flight, blocked: false })
        })
        .collect::<io::Result<Vec<Peer>>>()?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (i, peer) in peers.iter().enumerate() {
        epoll::add(&epoll, &peer.connection, epoll::EventData::new_u64(i as u64), epoll::EventFlags::IN)?;
    }
    Run {
        template: Template::new(protocol, load.verb, value),
        peers,
        epoll,
        tally: Tally::new(until),
        in_flight: 0,
        buffer: vec![0; READ_BUFFER],
    }
    .finish(keys)
}

/// A load on its way.
struct Run {
    template: Template,
    peers: Vec<Peer>,
    epoll: OwnedFd,
    tally: Tally,
    /// Requests of all peers that are not answered yet.
    in_flight: usize,
    buffer: Vec<u8>,
}

impl Run {
    fn finish(mut self, keys: &mut Keys) -> io::Result<Measured> {
        for i in 0..self.peers.len() {
            self.send(i, keys)?;
        }
        let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
        let mut events = Vec::with_capacity(self.peers.len());
        while self.in_flight > 0 {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&patience)) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the server went silent")),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            // All replies first, then all requests: the server finds them together, as it would those of
            // peers that run on machines of their own.
            for event in &events {
                // Copied out, since the kernel's struct is packed and its fields can't be borrowed.
                let (data, flags) = (event.data, event.flags);
                if flags != epoll::EventFlags::OUT {
                    self.receive(data.u64() as usize)?;
                }
            }
            for event in &events {
                let data = event.data;
                self.send(data.u64() as usize, keys)?;
            }
        }
        Ok(self.tally.finish())
    }

    fn receive(&mut self, i: usize) -> io::Result<()> {
        let peer = &mut self.peers[i];
        let (mut replies, mut misses) = (0, 0);
        peer.connection.receive(&mut self.buffer, |answer| {
            replies += 1;
            match answer {
                Answer::Ok => Ok(()),
                Answer::Miss => {
                    misses += 1;
                    Ok(())
                }
                Answer::Refused(why) => Err(io::Error::other(format!("the server refused a request: {why}"))),
            }
        })?;
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
            self.template.put(keys, peer.connection.outbox());
        }
        if count > 0 {
            peer.due -= count;
            self.in_flight += count;
            peer.sent.push_back((Instant::now(), count));
        }
        let blocked = !peer.connection.flush()?;
        if blocked != peer.blocked {
            peer.blocked = blocked;
            let room = if blocked { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(i as u64);
            epoll::modify(&self.epoll, &peer.connection, data, epoll::EventFlags::IN | room)?;
        }
        Ok(())
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
