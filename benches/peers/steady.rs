//! A load that does not wait: requests leave when they are due, whether or not earlier ones are answered.
//!
//! Latency runs from when a request was due, so a server that stands still is charged for every request that should
//! have been asked meanwhile. (A closed loop asks nothing during a pause and sees it once: "coordinated omission",
//! as Gil Tene named it.)

use crate::keys::Keys;
use crate::pool::Pool;
use crate::protocol::{Protocol, garbled};
use crate::template::Template;
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How often is asked, by how many.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    /// Connections, which take turns.
    pub peers: usize,
    /// Requests a second of all of them, SETs and GETs in turn.
    pub rate: f64,
}

/// Asks the server at `address` for as long as `time`. Returns nanoseconds from when each request was due to its reply.
///
/// # Errors
/// The connection broke, a request was refused, or the server went silent.
pub fn run(
    protocol: &'static dyn Protocol,
    address: SocketAddr,
    steady: Steady,
    value: &[u8],
    keys: &mut Keys,
    time: Duration,
) -> io::Result<Histogram<u64>> {
    // The kernel lets timers be late by 50 µs to save wake-ups. Where this can't be changed they are.
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
    let templates = [Template::set(protocol, value), Template::get(protocol)];
    let mut pool = Pool::open(protocol, address, steady.peers)?;
    let mut waiting: Vec<VecDeque<Instant>> = std::iter::repeat_with(VecDeque::new).take(steady.peers).collect();
    let mut latency = Histogram::new_with_bounds(1_000, 100_000_000_000, 3).map_err(io::Error::other)?;
    let (mut asked, mut answered, mut ready) = (0_u32, 0, Vec::new());
    let start = Instant::now();
    let due = |request: u32| start + Duration::from_secs_f64(f64::from(request) / steady.rate);
    while due(asked) < start + time || answered < asked {
        let first = asked;
        while due(asked) <= Instant::now() && due(asked) < start + time {
            let peer = asked as usize % steady.peers;
            templates[asked as usize % 2].put(&keys.next(), pool.outbox(peer));
            waiting[peer].push_back(due(asked));
            asked += 1;
        }
        for request in first..asked.min(first + steady.peers as u32) {
            pool.flush(request as usize % steady.peers)?;
        }
        if due(asked) < start + time {
            pool.wait_until(due(asked), &mut ready)?;
        } else {
            pool.wait(&mut ready)?;
        }
        for ready in &ready {
            let waiting = &mut waiting[ready.peer];
            if ready.readable {
                let replies = pool.receive(ready.peer, |_| {})?;
                let now = Instant::now();
                if replies > waiting.len() {
                    return Err(garbled("more replies than requests"));
                }
                for due in waiting.drain(..replies) {
                    latency.saturating_record((now - due).as_nanos() as u64);
                }
                answered += replies as u32;
            }
            pool.flush(ready.peer)?;
        }
    }
    Ok(latency)
}
