//! The load of a cache that stands beside a database: a GET, and on a miss a SET of what the database would have
//! said.
//!
//! Closed and pipelined as [`crate::load`] is; a miss's SET takes the place of its GET among the requests in flight.
//! What is counted is hits, not time.

use crate::trace::{Access, Trace};
use kvd::command::Expiry;
use kvd::tools::bench::address::Address;
use kvd::tools::bench::connection::PATIENCE;
use kvd::tools::bench::keys::KeyShape;
use kvd::tools::bench::pool::Pool;
use kvd::tools::bench::protocol::{Answer, Protocol, garbled};
use kvd::tools::bench::template::Template;
use kvd::tools::bench::values::ValueSize;
use std::collections::VecDeque;
use std::io;
use std::time::Instant;

/// Connections.
const PEERS: usize = 8;
/// Requests that each keeps unanswered.
const IN_FLIGHT: usize = 32;

/// How much is asked, in accesses.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    /// Before counting begins.
    pub warm_up: u64,
    /// Counted, scans aside.
    pub counted: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hits {
    /// Accesses that were counted.
    pub accesses: u64,
    /// Those of them that found their key.
    pub hits: u64,
}

impl Hits {
    /// Hits of a hundred accesses.
    pub fn percent(self) -> f64 {
        self.hits as f64 * 100.0 / self.accesses as f64
    }
}

/// What a connection waits for.
enum Asked {
    Get { key: u64, counted: bool },
    Set,
}

/// Asks the server at `address` for what the trace says.
///
/// # Errors
/// The connection broke, a request was refused, or the server went silent.
pub fn run(
    protocol: &'static dyn Protocol,
    address: &Address,
    values: ValueSize,
    trace: &mut Trace,
    length: Length,
) -> io::Result<Hits> {
    let (shape, payload) = (KeyShape::default(), values.payload());
    let mut run = Run {
        get: Template::get(protocol, shape),
        set: Template::set(protocol, shape, values.largest, &payload, Expiry::Never),
        pool: Pool::open(protocol, address, PEERS, &payload, PATIENCE)?,
        answers: Vec::new(),
        asked: std::iter::repeat_with(VecDeque::new).take(PEERS).collect(),
        missed: Vec::new(),
        left: length,
        hits: Hits::default(),
    };
    for peer in 0..PEERS {
        run.send(peer, trace)?;
    }
    let (mut ready, mut heard) = (Vec::new(), Instant::now());
    while run.asked.iter().any(|asked| !asked.is_empty()) {
        run.pool.wait(PATIENCE.saturating_sub(heard.elapsed()), &mut ready)?;
        // A signal ends the wait as well.
        if !ready.is_empty() {
            heard = Instant::now();
        } else if heard.elapsed() >= PATIENCE {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the server went silent"));
        }
        for ready in &ready {
            if ready.readable {
                run.receive(ready.peer)?;
            }
            run.send(ready.peer, trace)?;
        }
    }
    Ok(run.hits)
}

/// A load on its way.
struct Run {
    get: Template,
    set: Template,
    pool: Pool,
    answers: Vec<Answer>,
    /// Of each connection, oldest first.
    asked: Vec<VecDeque<Asked>>,
    /// Keys that were just missed.
    missed: Vec<u64>,
    left: Length,
    hits: Hits,
}

impl Run {
    fn receive(&mut self, peer: usize) -> io::Result<()> {
        self.pool.receive(peer, &mut self.answers)?;
        for answer in self.answers.drain(..) {
            if let Answer::Refused(why) | Answer::AllRefused(why) = answer {
                return Err(io::Error::other(format!("the server refused a request: {why}")));
            }
            let found = answer == Answer::Ok;
            match self.asked[peer].pop_front() {
                Some(Asked::Get { key, counted }) => {
                    self.hits.accesses += u64::from(counted);
                    self.hits.hits += u64::from(counted && found);
                    if !found {
                        self.missed.push(key);
                    }
                }
                Some(Asked::Set) => {}
                None => return Err(garbled("more replies than requests")),
            }
        }
        for missing in self.missed.drain(..) {
            self.set.put(missing, self.pool.outbox(peer));
            self.asked[peer].push_back(Asked::Set);
        }
        Ok(())
    }

    /// Fills the connection up to its requests in flight and hands them to the socket.
    fn send(&mut self, peer: usize, trace: &mut Trace) -> io::Result<()> {
        while self.asked[peer].len() < IN_FLIGHT {
            let Some((access, counted)) = self.next(trace) else { break };
            self.get.put(access.key, self.pool.outbox(peer));
            self.asked[peer].push_back(Asked::Get { key: access.key, counted });
        }
        self.pool.flush(peer)
    }

    /// The next access, if there is to be one, and whether it counts.
    fn next(&mut self, trace: &mut Trace) -> Option<(Access, bool)> {
        if self.left.warm_up > 0 {
            self.left.warm_up -= 1;
            return Some((trace.next(), false));
        }
        if self.left.counted == 0 {
            return None;
        }
        let access = trace.next();
        self.left.counted -= u64::from(!access.scan);
        Some((access, !access.scan))
    }
}
