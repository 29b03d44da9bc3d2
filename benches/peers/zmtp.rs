//! ZMTP 3.0 with the NULL mechanism, as far as a DEALER needs it, and kvd's frames dialect on top.
//!
//! It exists because a generator built on libzmq costs as much processor time as the server that it drives:
//! on a machine with few cores it would measure itself. Here a request is a copy of a template and a reply
//! is a few length bytes to step over. Specification: <https://rfc.zeromq.org/spec/23/>.

use crate::protocol::{Answer, Protocol, garbled};
use std::io;

/// Flags of a frame: more frames of the message follow.
pub const MORE: u8 = 0x01;
/// Flags of a frame: its length has 8 bytes, not 1.
pub const LONG: u8 = 0x02;
/// Flags of a frame: it is a command of the protocol, not part of a message.
const COMMAND: u8 = 0x04;

/// Bytes of a greeting: signature, version, mechanism, role, filler.
const GREETING: usize = 64;

/// A DEALER that speaks to kvd's ROUTER.
pub struct Zmtp;

impl Protocol for Zmtp {
    fn hello(&self) -> Vec<u8> {
        let mut bytes = vec![0; GREETING];
        bytes[0] = 0xff;
        bytes[9] = 0x7f;
        bytes[10] = 3;
        bytes[12..16].copy_from_slice(b"NULL");
        put_header(COMMAND, READY.len(), &mut bytes);
        bytes.extend_from_slice(READY);
        bytes
    }

    fn welcome(&self, received: &[u8]) -> io::Result<Option<usize>> {
        let Some((greeting, rest)) = received.split_at_checked(GREETING) else { return Ok(None) };
        if greeting[0] != 0xff || greeting[10] < 3 || !greeting[12..].starts_with(b"NULL\0") {
            return Err(garbled("the server does not greet in ZMTP 3 with the NULL mechanism"));
        }
        let Some((ready, rest)) = Frame::split(rest) else { return Ok(None) };
        if ready.flags & COMMAND == 0 || !ready.body.starts_with(b"\x05READY") {
            return Err(garbled("the server did not say READY after its greeting"));
        }
        Ok(Some(received.len() - rest.len()))
    }

    fn request(&self, arguments: &[&[u8]], into: &mut Vec<u8>) {
        put_header(MORE, 0, into);
        for (i, argument) in arguments.iter().enumerate() {
            let more = if i + 1 < arguments.len() { MORE } else { 0 };
            put_header(more, argument.len(), into);
            into.extend_from_slice(argument);
        }
    }

    fn answer(&self, received: &[u8]) -> io::Result<Option<(Answer, usize)>> {
        let Some((envelope, mut rest)) = Message::skip_commands(received) else { return Ok(None) };
        if !envelope.body.is_empty() || envelope.flags & MORE == 0 {
            return Err(garbled("a reply does not start with the empty frame of its request"));
        }
        let mut message = Message::default();
        loop {
            let Some((frame, after)) = Frame::split(rest) else { return Ok(None) };
            rest = after;
            message.add(&frame);
            if frame.flags & MORE == 0 {
                return Ok(Some((message.answer()?, received.len() - rest.len())));
            }
        }
    }
}

/// Name of the command, then its one property: a name behind 1 length byte, a value behind 4.
const READY: &[u8] = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER";

/// Appends a frame's header.
pub fn put_header(flags: u8, length: usize, into: &mut Vec<u8>) {
    if let Ok(length) = u8::try_from(length) {
        into.extend_from_slice(&[flags, length]);
    } else {
        into.push(flags | LONG);
        into.extend_from_slice(&(length as u64).to_be_bytes());
    }
}

/// What the frames of a message, or of several, hold.
pub fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut bodies = Vec::new();
    while let Some((frame, rest)) = Frame::split(bytes) {
        bodies.push(frame.body);
        bytes = rest;
    }
    bodies
}

/// One frame as it was received.
struct Frame<'a> {
    flags: u8,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame that the bytes start with and what follows it; `None` while it is incomplete.
    fn split(bytes: &'a [u8]) -> Option<(Frame<'a>, &'a [u8])> {
        let (&flags, rest) = bytes.split_first()?;
        let (length, rest) = if flags & LONG == 0 {
            let (&length, rest) = rest.split_first()?;
            (u64::from(length), rest)
        } else {
            let (length, rest) = rest.split_first_chunk()?;
            (u64::from_be_bytes(*length), rest)
        };
        let (body, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        Some((Frame { flags, body }, rest))
    }
}

/// The frames of a reply that tell what became of the request: the status and the two after it.
#[derive(Default)]
struct Message<'a> {
    frames: [&'a [u8]; 3],
    count: usize,
}

impl<'a> Message<'a> {
    /// The first frame that is no command. Heartbeats come as commands between messages; they need no
    /// answer here, because the requests of a running load say as well that the peer is alive.
    fn skip_commands(mut bytes: &'a [u8]) -> Option<(Frame<'a>, &'a [u8])> {
        loop {
            let (frame, rest) = Frame::split(bytes)?;
            if frame.flags & COMMAND == 0 {
                return Some((frame, rest));
            }
            bytes = rest;
        }
    }

    fn add(&mut self, frame: &Frame<'a>) {
        if let Some(place) = self.frames.get_mut(self.count) {
            *place = frame.body;
        }
        self.count += 1;
    }

    fn answer(&self) -> io::Result<Answer> {
        let [status, code, words] = self.frames;
        match status {
            b"OK" => Ok(Answer::Ok),
            b"MISS" => Ok(Answer::Miss),
            b"ERR" => {
                Ok(Answer::Refused(format!("{} {}", String::from_utf8_lossy(code), String::from_utf8_lossy(words))))
            }
            _ => Err(garbled("a reply has none of the statuses OK, MISS and ERR")),
        }
    }
}
