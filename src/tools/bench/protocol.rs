//! What a load generator must know of a protocol, and no more than that.
//!
//! One client drives every server that is compared, so that a difference between two rows is a difference
//! between servers. What differs on the wire stays behind [`Protocol`]; sockets and time are not known here.

use crate::command::Expiry;
use std::io;

/// How a server answered a command. Values are counted, not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The command took effect, or the key was found.
    Ok,
    /// The key was not found.
    Miss,
    /// The server refused: the code first (`LOADING`, `NOSPACE`, …), then its words.
    Refused(Box<str>),
    /// The same, for all commands of the message at once.
    AllRefused(Box<str>),
}

/// Where a request has room for what changes from one to the next, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// The key begins here.
    pub key: usize,
    /// The value belongs here: it is left out, and its length is told to the server all the same.
    pub value: usize,
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

    /// Appends a request made of a verb and its arguments, a message of its own.
    fn request(&self, arguments: &[&[u8]], into: &mut Vec<u8>);

    /// Appends the command that reads a key.
    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Places;

    /// Appends the command that stores a value of `length` bytes, which is left out.
    fn set(&self, key: &[u8], length: usize, expiry: Expiry, into: &mut Vec<u8>) -> Places;

    /// Appends the command that lists about `count` keys from a place on.
    fn scan(&self, from: u64, count: u64, into: &mut Vec<u8>) {
        let (from, count) = (from.to_string(), count.to_string());
        self.request(&[b"SCAN", from.as_bytes(), b"COUNT", count.as_bytes()], into);
    }

    /// Whether commands stand in messages of several, between [`Protocol::begin`] and [`Protocol::end`].
    fn batches(&self) -> bool {
        false
    }

    /// Appends what stands before this many commands.
    fn begin(&self, _commands: usize, _into: &mut Vec<u8>) {}

    /// Puts right what [`Protocol::begin`] wrote at `start`, now that the commands stand behind it. `shared` are the
    /// bytes of values that are sent and not part of `bytes`.
    fn end(&self, _start: usize, _shared: usize, _bytes: &mut [u8]) {}

    /// Appends the answers in all whole replies that the received bytes start with. Returns how many bytes those are.
    ///
    /// # Errors
    /// The bytes are no answer to any request that the generator makes.
    fn answers(&self, received: &[u8], into: &mut Vec<Answer>) -> io::Result<usize>;

    /// Appends the beginning of a reply to `kept`, so that what is still to come can follow it. A long value may be
    /// cut out, as if it were empty: the return value is how many bytes of it are still to come and are passed over.
    fn keep(&self, beginning: &[u8], kept: &mut Vec<u8>) -> u64 {
        kept.extend_from_slice(beginning);
        0
    }
}

/// Reports bytes that the protocol does not allow.
pub fn garbled(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
