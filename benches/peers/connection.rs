//! One connection to a server: bytes out, answers in.
//!
//! Knows sockets and, through [`Protocol`], where an answer ends. What is asked and how often is for the
//! caller to say. Opening and [`Connection::ask`] wait; a load makes the socket non-blocking first.

use crate::protocol::{Answer, Protocol, garbled};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A server that is silent for this long is taken for dead.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that has been greeted.
pub struct Connection {
    protocol: &'static dyn Protocol,
    stream: TcpStream,
    /// The beginning of an answer whose end has not come yet.
    unfinished: Vec<u8>,
    /// Requests that wait for room in the socket, and how many of their bytes are gone.
    outbox: Vec<u8>,
    sent: usize,
}

impl Connection {
    /// Connects and exchanges greetings.
    ///
    /// # Errors
    /// Nobody listens, or who listens does not greet as `protocol` wants it within [`PATIENCE`].
    pub fn open(protocol: &'static dyn Protocol, address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut connection = Connection { protocol, stream, unfinished: Vec::new(), outbox: Vec::new(), sent: 0 };
        connection.stream.write_all(&protocol.hello())?;
        loop {
            if let Some(length) = protocol.welcome(&connection.unfinished)? {
                connection.unfinished.drain(..length);
                return Ok(connection);
            }
            connection.read_more()?;
        }
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// The connection broke, or no answer came within [`PATIENCE`].
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
        loop {
            if let Some((answer, length)) = self.protocol.answer(&self.unfinished)? {
                return Ok((answer, self.unfinished.drain(..length).collect()));
            }
            self.read_more()?;
        }
    }

    /// The socket, for those who send what no protocol allows.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// From here on nothing waits.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.stream.set_nonblocking(true)
    }

    /// Where requests are written to before [`Connection::flush`].
    pub fn outbox(&mut self) -> &mut Vec<u8> {
        &mut self.outbox
    }

    /// Sends what the outbox holds, as far as the socket takes it. True if it took all.
    pub fn flush(&mut self) -> io::Result<bool> {
        while self.sent < self.outbox.len() {
            match self.stream.write(&self.outbox[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outbox.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Reads once into `buffer`, which many connections share, and gives each whole answer to `take`.
    /// Only what was left unfinished is kept and copied.
    pub fn receive(&mut self, buffer: &mut [u8], mut take: impl FnMut(Answer) -> io::Result<()>) -> io::Result<()> {
        let kept = self.unfinished.len();
        if kept >= buffer.len() {
            return Err(garbled("an answer is longer than the read buffer"));
        }
        buffer[..kept].copy_from_slice(&self.unfinished);
        let count = match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => return Err(closed()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut rest = &buffer[..kept + count];
        while let Some((answer, length)) = self.protocol.answer(rest)? {
            rest = &rest[length..];
            take(answer)?;
        }
        self.unfinished.clear();
        self.unfinished.extend_from_slice(rest);
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

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}
