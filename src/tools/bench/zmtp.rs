//! ZMTP 3.0 with the NULL mechanism, as far as a DEALER needs it.
//!
//! It exists because a generator built on libzmq costs as much processor time as the server that it drives:
//! on a machine with few cores it would measure itself. Here a request is a copy of a template and a reply
//! is a few length bytes to step over. Specification: <https://rfc.zeromq.org/spec/23/>.

use super::protocol::garbled;
use std::io;

/// Flags of a frame: more frames of the message follow.
pub const MORE: u8 = 0x01;
/// Flags of a frame: its length has 8 bytes, not 1.
pub const LONG: u8 = 0x02;
/// Flags of a frame: it is a command of the protocol, not part of a message.
const COMMAND: u8 = 0x04;

/// Bytes of a greeting: signature, version, mechanism, role, filler.
const GREETING: usize = 64;
/// Name of the command, then its one property: a name behind 1 length byte, a value behind 4.
const READY: &[u8] = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER";
/// Frames that are shorter are kept whole even if they need not be.
const WORTH_CUTTING: usize = 4096;

/// What a DEALER sends first.
pub(super) fn hello() -> Vec<u8> {
    let mut bytes = vec![0; GREETING];
    bytes[0] = 0xff;
    bytes[9] = 0x7f;
    bytes[10] = 3;
    bytes[12..16].copy_from_slice(b"NULL");
    put_header(COMMAND, READY.len(), &mut bytes);
    bytes.extend_from_slice(READY);
    bytes
}

/// How many of the received bytes are the server's greeting and READY, once they are complete.
pub(super) fn welcome(received: &[u8]) -> io::Result<Option<usize>> {
    // Who does not begin so won't send 64 bytes, perhaps: whoever it is, it is told from a slow greeting at once.
    if received.first().is_some_and(|&byte| byte != 0xff) {
        return Err(garbled("who listens there does not greet in ZMTP"));
    }
    let Some((greeting, rest)) = received.split_at_checked(GREETING) else { return Ok(None) };
    if greeting[10] < 3 || !greeting[12..].starts_with(b"NULL\0") {
        return Err(garbled("who listens there does not greet in ZMTP 3 with the NULL mechanism"));
    }
    let Some((ready, rest)) = Frame::split(rest) else { return Ok(None) };
    if ready.flags & COMMAND == 0 || !ready.body.starts_with(b"\x05READY") {
        return Err(garbled("who listens there did not say READY after its greeting"));
    }
    Ok(Some(received.len() - rest.len()))
}

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
    /// The flags and the length that the bytes start with, and what follows them.
    fn header(bytes: &'a [u8]) -> Option<(u8, usize, &'a [u8])> {
        let (&flags, rest) = bytes.split_first()?;
        if flags & LONG == 0 {
            let (&length, rest) = rest.split_first()?;
            Some((flags, usize::from(length), rest))
        } else {
            let (length, rest) = rest.split_first_chunk()?;
            Some((flags, usize::try_from(u64::from_be_bytes(*length)).ok()?, rest))
        }
    }

    /// The frame that the bytes start with and what follows it; `None` while it is incomplete.
    fn split(bytes: &'a [u8]) -> Option<(Frame<'a>, &'a [u8])> {
        let (flags, length, rest) = Frame::header(bytes)?;
        let (body, rest) = rest.split_at_checked(length)?;
        Some((Frame { flags, body }, rest))
    }
}

/// The body of a message: its first frames, which tell what became of the request.
#[derive(Default)]
pub(super) struct Body<'a> {
    /// The first three; empty where there are fewer.
    pub frames: [&'a [u8]; 3],
    /// How many there are in all.
    pub count: usize,
}

impl<'a> Body<'a> {
    /// The body of the message that the bytes start with, and what follows the message; `None` while it is incomplete.
    pub fn split(bytes: &'a [u8]) -> io::Result<Option<(Body<'a>, &'a [u8])>> {
        let Some((envelope, mut rest)) = skip_commands(bytes) else { return Ok(None) };
        if !envelope.body.is_empty() || envelope.flags & MORE == 0 {
            return Err(garbled("a reply does not start with the empty frame of its request"));
        }
        let mut body = Body::default();
        loop {
            let Some((frame, after)) = Frame::split(rest) else { return Ok(None) };
            rest = after;
            if let Some(place) = body.frames.get_mut(body.count) {
                *place = frame.body;
            }
            body.count += 1;
            if frame.flags & MORE == 0 {
                return Ok(Some((body, rest)));
            }
        }
    }
}

/// The first frame that is no command. Heartbeats come as commands between messages; they need no
/// answer here, because the requests of a running load say as well that the peer is alive.
fn skip_commands(mut bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    loop {
        let (frame, rest) = Frame::split(bytes)?;
        if frame.flags & COMMAND == 0 {
            return Some((frame, rest));
        }
        bytes = rest;
    }
}

/// Keeps the beginning of a message. A long frame that is incomplete is replaced by an empty one if it is the body's
/// `first` frame or a later one; returned is how much of it is still to come.
pub(super) fn keep(beginning: &[u8], first: usize, kept: &mut Vec<u8>) -> u64 {
    let (mut rest, mut frames) = (beginning, 0);
    while let Some((flags, length, after)) = Frame::header(rest) {
        let Some((_, next)) = after.split_at_checked(length) else {
            if frames <= first || length < WORTH_CUTTING {
                break;
            }
            kept.extend_from_slice(&beginning[..beginning.len() - rest.len()]);
            kept.extend_from_slice(&[flags & MORE, 0]);
            return (length - after.len()) as u64;
        };
        frames += usize::from(flags & COMMAND == 0);
        rest = next;
    }
    kept.extend_from_slice(beginning);
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(frames: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (i, frame) in frames.iter().enumerate() {
            put_header(if i + 1 < frames.len() { MORE } else { 0 }, frame.len(), &mut bytes);
            bytes.extend_from_slice(frame);
        }
        bytes
    }

    #[test]
    fn a_message_is_whole_at_its_last_byte_and_not_before() {
        let bytes = message(&[b"", b"OK", &[7; 300], b"1"]);
        for cut in 0..bytes.len() {
            assert!(Body::split(&bytes[..cut]).expect("nothing wrong with it").is_none(), "{cut}");
        }
        let (body, rest) = Body::split(&bytes).expect("well formed").expect("whole");
        assert_eq!((body.count, body.frames[0], rest), (3, b"OK".as_slice(), b"".as_slice()));
    }

    #[test]
    fn a_long_value_is_passed_over_wherever_it_is_cut() {
        let value = vec![7; 10_000];
        let bytes = message(&[b"", b"OK", &value, b"12", b"0"]);
        for cut in 0..bytes.len() {
            let mut kept = Vec::new();
            let skipped = keep(&bytes[..cut], 1, &mut kept) as usize;
            kept.extend_from_slice(&bytes[cut + skipped..]);
            let (body, rest) = Body::split(&kept).expect("well formed").expect("whole");
            assert_eq!((body.count, body.frames[0], rest), (4, b"OK".as_slice(), b"".as_slice()), "{cut}");
        }
        // A status is never cut out, however long.
        let odd = message(&[b"", &value]);
        let mut kept = Vec::new();
        assert_eq!((keep(&odd[..5000], 1, &mut kept), kept.len()), (0, 5000));
    }

    #[test]
    fn strangers_are_told_at_their_first_byte() {
        assert!(welcome(b"HTTP").is_err());
        assert_eq!(welcome(&hello()[..70]).expect("so far well"), None);
        assert_eq!(welcome(&hello()).expect("well"), Some(hello().len()));
    }
}
