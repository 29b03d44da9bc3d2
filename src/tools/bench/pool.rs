//! Connections that one thread serves together.
//!
//! Knows sockets that are ready or full. What is sent, and what an answer means, is for who drives the pool.

use super::address::Address;
use super::connection::Connection;
use super::outbox::{Outbox, Payload};
use super::protocol::{Answer, Protocol};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fd::OwnedFd;
use std::io;
use std::time::{Duration, Instant};

/// Bytes read at once: some hundred replies of 50 peers, yet small enough to stay in the processor's cache.
const READ_BUFFER: usize = 256 * 1024;

/// Connections to one server, and what they wait for.
pub struct Pool {
    members: Vec<Member>,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
}

struct Member {
    connection: Connection,
    /// The socket was full; the rest goes out when it has room.
    blocked: bool,
}

/// A connection that can go on.
#[derive(Clone, Copy)]
pub struct Ready {
    /// Which.
    pub peer: usize,
    /// There is something to read, and not only room to write.
    pub readable: bool,
}

impl Pool {
    /// Opens `count` connections, as [`Connection::open`] does.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn open(
        protocol: &'static dyn Protocol,
        address: &Address,
        count: usize,
        payload: &Payload,
        patience: Duration,
    ) -> io::Result<Pool> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut members = Vec::with_capacity(count);
        for i in 0..count {
            let connection = Connection::open(protocol, address, Payload::clone(payload), patience)?;
            connection.set_nonblocking()?;
            epoll::add(&epoll, &connection, epoll::EventData::new_u64(i as u64), epoll::EventFlags::IN)?;
            members.push(Member { connection, blocked: false });
        }
        Ok(Pool { members, epoll, events: Vec::with_capacity(count), buffer: vec![0; READ_BUFFER] })
    }

    /// Waits until a connection is ready, but no longer than `limit`, and puts all that are into `ready`. Counts in
    /// milliseconds.
    ///
    /// # Errors
    /// The system refuses to wait.
    pub fn wait(&mut self, limit: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        self.poll(limit, ready)
    }

    /// The same, until `deadline`. Counts in less than milliseconds.
    ///
    /// # Errors
    /// The system refuses to wait.
    pub fn wait_until(&mut self, deadline: Instant, ready: &mut Vec<Ready>) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            // An epoll is itself a thing to wait for, and this way of waiting is the finer one.
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.poll(Duration::ZERO, ready)
    }

    fn poll(&mut self, timeout: Duration, ready: &mut Vec<Ready>) -> io::Result<()> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            // Interrupted by a signal: whoever asked for it looks for it.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.clear();
        ready.extend(self.events.iter().map(|event| {
            // Copied out, since the kernel's struct is packed and its fields can't be borrowed.
            let (data, flags) = (event.data, event.flags);
            Ready { peer: data.u64() as usize, readable: flags != epoll::EventFlags::OUT }
        }));
        Ok(())
    }

    /// Appends each whole answer that has come on this connection to `answers`.
    ///
    /// # Errors
    /// The connection broke, or what came is no answer.
    pub fn receive(&mut self, peer: usize, answers: &mut Vec<Answer>) -> io::Result<()> {
        self.members[peer].connection.receive(&mut self.buffer, answers)
    }

    /// Where requests are written to before [`Pool::flush`].
    pub fn outbox(&mut self, peer: usize) -> &mut Outbox {
        self.members[peer].connection.outbox()
    }

    /// Hands what the outbox holds to the socket. What it does not take goes out when it has room: the
    /// connection is then ready again.
    ///
    /// # Errors
    /// The connection broke.
    pub fn flush(&mut self, peer: usize) -> io::Result<()> {
        let member = &mut self.members[peer];
        let blocked = !member.connection.flush()?;
        if blocked != member.blocked {
            member.blocked = blocked;
            let room = if blocked { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(peer as u64);
            epoll::modify(&self.epoll, &member.connection, data, epoll::EventFlags::IN | room)?;
        }
        Ok(())
    }
}
