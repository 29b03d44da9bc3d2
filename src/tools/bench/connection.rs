//! One connection to a server: bytes out, answers in.
//!
//! Knows sockets and, through [`Protocol`], where an answer ends. What is asked and how often is for the
//! caller to say. Opening and [`Connection::ask`] wait; a load makes the socket non-blocking first.

use super::address::{Address, Stream};
use super::outbox::{Outbox, Payload};
use super::protocol::{Answer, Protocol, garbled};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A server that is silent for this long is taken for dead, if nothing else was said.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// No reply of a server is longer, in bytes.
const LONGEST_REPLY: usize = 4 << 30;

/// A connection that has been greeted.
pub struct Connection {
    protocol: &'static dyn Protocol,
    stream: Stream,
    /// The beginning of an answer whose end has not come yet.
    unfinished: Vec<u8>,
    /// How much of a long value is still to come, and of no interest.
    skip: u64,
    outbox: Outbox,
}

impl Connection {
    /// Connects and exchanges greetings. `payload` is what values are made of, `patience` how long the server may be
    /// silent while something waits for it.
    ///
    /// # Errors
    /// Nobody listens, or who listens does not greet as `protocol` wants it in time.
    pub fn open(
        protocol: &'static dyn Protocol,
        address: &Address,
        payload: Payload,
        patience: Duration,
    ) -> io::Result<Connection> {
        let stream = Stream::connect(address, patience)?;
        let outbox = Outbox::new(payload);
        let mut connection = Connection { protocol, stream, unfinished: Vec::new(), skip: 0, outbox };
        connection.stream.write_all(&protocol.hello())?;
        loop {
            if let Some(length) = protocol.welcome(&connection.unfinished)? {
                connection.unfinished.drain(..length);
                return Ok(connection);
            }
            connection.read_more()?;
        }
    }

    /// Opens a connection for [`Connection::ask`], with the usual patience.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn to_ask(protocol: &'static dyn Protocol, address: &Address) -> io::Result<Connection> {
        Connection::open(protocol, address, Payload::default(), PATIENCE)
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// The connection broke, or no answer came in time.
    pub fn ask(&mut self, arguments: &[&[u8]]) -> io::Result<Answer> {
        Ok(self.exchange(arguments)?.0)
    }

    /// The same, for the bytes of the answer.
    ///
    /// # Errors
    /// As [`Connection::ask`].
    pub fn ask_in_full(&mut self, arguments: &[&[u8]]) -> io::Result<Vec<u8>> {
        Ok(self.exchange(arguments)?.1)
    }

    fn exchange(&mut self, arguments: &[&[u8]]) -> io::Result<(Answer, Vec<u8>)> {
        let mut request = Vec::new();
        self.protocol.request(arguments, &mut request);
        self.stream.write_all(&request)?;
        let mut answers = Vec::new();
        loop {
            let length = self.protocol.answers(&self.unfinished, &mut answers)?;
            if let Some(answer) = answers.pop() {
                return Ok((answer, self.unfinished.drain(..length).collect()));
            }
            self.read_more()?;
        }
    }

    /// The socket, for those who send what no protocol allows.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// From here on nothing waits.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.stream.set_nonblocking()
    }

    /// Where requests are written to before [`Connection::flush`].
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Sends what the outbox holds, as far as the socket takes it. True if it took all.
    ///
    /// # Errors
    /// The connection broke.
    pub fn flush(&mut self) -> io::Result<bool> {
        self.outbox.flush(&mut self.stream)
    }

    /// Reads once into `buffer`, which many connections share, and appends each answer that is whole to `answers`.
    /// Only what was left unfinished is kept and copied.
    ///
    /// # Errors
    /// The connection broke, or what came is no answer.
    pub fn receive(&mut self, buffer: &mut Vec<u8>, answers: &mut Vec<Answer>) -> io::Result<()> {
        if self.skip > 0 {
            let room = buffer.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= read(&mut self.stream, &mut buffer[..room])? as u64;
            if self.skip == 0 {
                // The value may have been the last of its reply, which is whole then though nothing follows.
                let whole = self.protocol.answers(&self.unfinished, answers)?;
                self.unfinished.drain(..whole);
            }
            return Ok(());
        }
        let kept = self.unfinished.len();
        if kept > buffer.len() / 2 {
            if kept > LONGEST_REPLY {
                return Err(garbled("an answer without end"));
            }
            buffer.resize(2 * buffer.len(), 0);
        }
        buffer[..kept].copy_from_slice(&self.unfinished);
        let count = read(&mut self.stream, &mut buffer[kept..])?;
        if count == 0 {
            return Ok(());
        }
        let received = &buffer[..kept + count];
        let whole = self.protocol.answers(received, answers)?;
        self.unfinished.clear();
        if whole < received.len() {
            self.skip = self.protocol.keep(&received[whole..], &mut self.unfinished);
        }
        Ok(())
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer)? {
            0 => Err(closed()),
            count => {
                self.unfinished.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Reads what is there; 0 if there is nothing.
fn read(stream: &mut Stream, into: &mut [u8]) -> io::Result<usize> {
    match stream.read(into) {
        Ok(0) => Err(closed()),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        result => result,
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}
