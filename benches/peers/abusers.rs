//! Clients that break the rules or push them, one thread's worth each.
//!
//! All are light: what they send was made before, many at a time, and they wait where a socket takes no more. What a
//! server should make of it is not known here.

use crate::server::Server;
use kvd::tools::bench::address::{Address, Stream};
use kvd::tools::bench::connection::{Connection, PATIENCE};
use kvd::tools::bench::protocol::Protocol;
use kvd::tools::bench::zmtp::{MORE, put_header};
use rustix::net::sockopt::set_socket_linger;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

/// How long a socket that takes no more is left alone.
const FULL: Duration = Duration::from_millis(1);
/// Bytes of frames that are handed to a socket at a time.
const AT_A_TIME: usize = 64 * 1024;
/// Bytes of replies that are read at once, and not looked at.
const REPLIES: usize = 256 * 1024;

/// Someone who goes on for as long as asked.
pub trait Abuser: Send {
    /// Does the next bit of it, within some milliseconds.
    ///
    /// # Errors
    /// The server is gone. That it hung up is no error: it is its right.
    fn go_on(&mut self) -> io::Result<()>;

    /// Connections opened and bytes sent so far.
    fn done(&self) -> Done;
}

/// What an abuser came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Connections opened.
    pub connections: u64,
    /// Bytes sent, as far as the socket took them.
    pub bytes: u64,
}

/// Opens connection after connection, says one thing on each, and holds a number of them open.
pub struct Caller {
    address: Address,
    /// How greetings are exchanged before anything is said, if they are.
    greets: Option<&'static dyn Protocol>,
    /// What is said, in turn.
    sayings: Vec<Vec<u8>>,
    hold: usize,
    /// Between two connections; `None` if those that are held are enough.
    pause: Option<Duration>,
    held: VecDeque<Box<dyn AsFd + Send>>,
    done: Done,
}

impl Caller {
    /// With as many connections open as it holds.
    ///
    /// # Errors
    /// The server takes none.
    pub fn new(
        server: &Server,
        greets: bool,
        sayings: Vec<Vec<u8>>,
        hold: usize,
        pause: Option<Duration>,
    ) -> io::Result<Caller> {
        let mut caller = Caller {
            address: server.address.clone(),
            greets: greets.then(|| server.kind.protocol()),
            sayings,
            hold,
            pause,
            held: VecDeque::with_capacity(hold),
            done: Done::default(),
        };
        for _ in 0..hold {
            caller.call()?;
        }
        Ok(caller)
    }

    fn call(&mut self) -> io::Result<()> {
        let saying = &self.sayings[self.done.connections as usize % self.sayings.len()];
        let (held, said): (Box<dyn AsFd + Send>, _) = if let Some(protocol) = self.greets {
            let mut connection = Connection::to_ask(protocol, &self.address)?;
            let said = connection.stream().write_all(saying);
            (Box::new(connection), said)
        } else {
            let mut stream = Stream::connect(&self.address, PATIENCE)?;
            let said = stream.write_all(saying);
            (Box::new(stream), said)
        };
        self.done.connections += 1;
        if unless_hung_up(said)?.is_some() {
            self.done.bytes += saying.len() as u64;
        }
        self.held.push_back(held);
        Ok(())
    }
}

impl Abuser for Caller {
    fn go_on(&mut self) -> io::Result<()> {
        let Some(pause) = self.pause else {
            std::thread::sleep(FULL);
            return Ok(());
        };
        self.call()?;
        if self.held.len() > self.hold
            && let Some(oldest) = self.held.pop_front()
        {
            // It ends at once, and leaves no port that waits for a minute: there are fewer ports than connections.
            set_socket_linger(&oldest, Some(Duration::ZERO))?;
        }
        std::thread::sleep(pause);
        Ok(())
    }

    fn done(&self) -> Done {
        self.done
    }
}

/// Says the same over and over on one connection, as fast as it is taken.
pub struct Talker {
    address: Address,
    protocol: &'static dyn Protocol,
    again: Vec<u8>,
    habits: Habits,
    /// `None` once it was hung up on.
    connection: Option<Connection>,
    /// How much of `again` is gone, and how much was sent on this connection.
    position: usize,
    on_this: u64,
    replies: Vec<u8>,
    done: Done,
}

/// What kind of talker it is.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Whether replies are read.
    pub reads: bool,
    /// Bytes that are said on a connection.
    pub most: u64,
    /// Whether another one follows then, or after the server has hung up. Otherwise it falls silent.
    pub starts_over: bool,
}

impl Talker {
    /// Opens its connection. Of `again`, many at a time spare system calls.
    ///
    /// # Errors
    /// The server takes none.
    pub fn new(server: &Server, again: Vec<u8>, habits: Habits) -> io::Result<Talker> {
        let mut talker = Talker {
            address: server.address.clone(),
            protocol: server.kind.protocol(),
            again,
            habits,
            connection: None,
            position: 0,
            on_this: 0,
            replies: vec![0; REPLIES],
            done: Done::default(),
        };
        talker.connect()?;
        Ok(talker)
    }

    fn connect(&mut self) -> io::Result<()> {
        let connection = Connection::to_ask(self.protocol, &self.address)?;
        connection.set_nonblocking()?;
        self.done.connections += 1;
        (self.connection, self.position, self.on_this) = (Some(connection), 0, 0);
        Ok(())
    }
}

impl Abuser for Talker {
    fn go_on(&mut self) -> io::Result<()> {
        let has_room = self.on_this < self.habits.most;
        let Some(connection) = self.connection.as_mut().filter(|_| has_room) else {
            if self.habits.starts_over {
                return self.connect();
            }
            std::thread::sleep(FULL);
            return Ok(());
        };
        let stream = connection.stream();
        let Some(written) = unless_hung_up(stream.write(&self.again[self.position..]))? else {
            self.connection = None;
            return Ok(());
        };
        self.position = (self.position + written) % self.again.len();
        self.on_this += written as u64;
        self.done.bytes += written as u64;
        let read = if self.habits.reads { unless_hung_up(stream.read(&mut self.replies))? } else { None };
        if written + read.unwrap_or(0) == 0 {
            std::thread::sleep(FULL);
        }
        Ok(())
    }

    fn done(&self) -> Done {
        self.done
    }
}

/// Frames of so many bytes that each announce another one.
pub fn endless(frame: usize) -> Vec<u8> {
    let mut one = Vec::new();
    put_header(MORE, frame, &mut one);
    one.resize(one.len() + frame, b'v');
    one.repeat((AT_A_TIME / one.len()).max(1))
}

/// What a socket did, 0 where it would have had to wait, and `None` where the server has hung up.
fn unless_hung_up<T: Default>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(T::default())),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => Ok(None),
        Err(error) => Err(error),
    }
}
