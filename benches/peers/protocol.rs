//! What a load generator must know of a protocol, and no more than that.
//!
//! One client drives every server that is compared, so that a difference between two rows is a difference
//! between servers. What differs on the wire stays behind [`Protocol`]; sockets and time are not known here.

use std::io;

/// How a server answered. Values are counted, not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The command took effect, or the key was found.
    Ok,
    /// The key was not found.
    Miss,
    /// The server refused: the code first (`LOADING`, `NOSPACE`, …), then its words.
    Refused(String),
}

/// Bytes of a request and of a reply.
pub trait Protocol: Sync {
    /// What a client sends first; may be nothing.
    fn hello(&self) -> Vec<u8>;

    /// How many of the received bytes are the server's hello, once it is complete.
    ///
    /// # Errors
    /// The bytes are no such thing.
    fn welcome(&self, received: &[u8]) -> io::Result<Option<usize>>;

    /// Appends a request made of a verb and its arguments.
    fn request(&self, arguments: &[&[u8]], into: &mut Vec<u8>);

    /// The answer that the received bytes start with and its length in bytes, once it is complete.
    ///
    /// # Errors
    /// The bytes are no answer to any request that the generator makes.
    fn answer(&self, received: &[u8]) -> io::Result<Option<(Answer, usize)>>;
}

/// Reports bytes that the protocol does not allow.
pub fn garbled(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
