//! One message of a peer, as frames: who sent it, its envelope, its body, and what is wrong with its shape.
//!
//! Keeps the limits that concern a whole message while it comes in, frame by frame, so that
//! nothing is held in proportion to what was merely sent. Knows no commands, and no socket but a closure that
//! gives the next frame.

use crate::command::{ErrorCode, Limits, MAX_BODY_FRAMES, MAX_ENVELOPE_BYTES, MAX_ENVELOPE_FRAMES};
use crate::wire::WireError;
use zmq::Message;

/// Frames whose room is kept for the next message. A message of more is rare, and its room is given back.
const KEPT_FRAMES: usize = 1024;
/// Bytes of room for a key that are kept for the next one.
const KEPT_KEY: usize = 4 * 1024;

/// Which connection a message came through.
///
/// libzmq shows a connection's properties in each frame that came through it, from one block of memory that
/// lives as long as the connection or any of its frames. So, as long as one frame of a connection is kept, the
/// address of that block tells this connection from every other one, also from one that took over its
/// identity, or the number of its descriptor. (The identity's own frame shows them only sometimes: a poll
/// makes it without them.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    /// Where the properties stand. Compared, never followed.
    pub mark: usize,
    /// The descriptor of the connection, by which the socket's monitor calls it.
    pub descriptor: i32,
}

impl Connection {
    /// The connection that this frame came through; `None` for a peer that speaks ZMTP 2 or older, or within
    /// this process, of which libzmq tells no properties.
    fn of(frame: &mut Message) -> Option<Connection> {
        let descriptor = frame.gets("__fd")?;
        Some(Connection { mark: descriptor.as_ptr() as usize, descriptor: descriptor.parse().ok()? })
    }
}

/// What is wrong with the shape of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No empty frame where the envelope should have ended.
    NoDelimiter,
    /// Nothing behind the envelope.
    NoBody,
    /// More frames than a body may have.
    TooManyFrames,
    /// More bytes than a body may have.
    TooManyBytes {
        /// How many it may have.
        most: usize,
    },
}

impl Fault {
    /// What the peer is told.
    pub fn error(self) -> WireError {
        match self {
            Fault::NoDelimiter => WireError::new(
                ErrorCode::BadArgument,
                format!(
                    "no empty frame within the first {MAX_ENVELOPE_FRAMES} frames and {MAX_ENVELOPE_BYTES} bytes: \
                     send an empty frame before the request, as a REQ socket does by itself"
                ),
            ),
            Fault::NoBody => {
                WireError::new(ErrorCode::BadArgument, "nothing after the empty frame: the request is missing")
            }
            Fault::TooManyFrames => {
                WireError::new(ErrorCode::TooBig, format!("a request has at most {MAX_BODY_FRAMES} frames"))
            }
            Fault::TooManyBytes { most } => {
                WireError::new(ErrorCode::TooBig, format!("a request has at most {most} bytes"))
            }
        }
    }
}

/// A message that came in. Made once and filled again and again.
pub(super) struct Request {
    /// Who sent it, as the socket calls them.
    pub identity: Message,
    /// The connection that it came through, where libzmq tells, if that had to be found out already.
    connection: Option<Connection>,
    /// Every frame up to and including the first empty one; none where that one is missing.
    pub envelope: Vec<Message>,
    /// What follows. Not to be read where there is a fault.
    pub body: Vec<Message>,
    /// What is wrong with it, if anything.
    pub fault: Option<Fault>,
    /// Room for a key whose bytes do not stand in the message as they are.
    pub key: Vec<u8>,
}

impl Request {
    /// Room for a message.
    pub fn new() -> Request {
        Request {
            identity: Message::new(),
            connection: None,
            envelope: Vec::new(),
            body: Vec::new(),
            fault: None,
            key: Vec::new(),
        }
    }

    /// Takes in the frames of one message, from its identity on. `next` fills the next frame in and tells
    /// whether another one follows. Returns whether there was anything behind the identity.
    pub fn fill<E>(
        &mut self,
        limits: Limits,
        mut next: impl FnMut(&mut Message) -> Result<bool, E>,
    ) -> Result<bool, E> {
        self.clear();
        if !next(&mut self.identity)? {
            return Ok(false);
        }
        let mut more = self.fill_envelope(&mut next)?;
        if self.fault.is_none() {
            more = more && self.fill_body(limits, &mut next)?;
        }
        let mut unwanted = Message::new();
        while more {
            more = next(&mut unwanted)?;
        }
        Ok(true)
    }

    /// Whether the identity alone tells the connection: libzmq made it up, and won't again for four thousand million
    /// connections. (Who claims such a one is mistaken for whom it belonged to only until that one is forgotten, shortly
    /// after its end, and gets no reply as long as it is.)
    pub fn names_its_connection(&self) -> bool {
        matches!(*self.identity, [0, _, _, _, _])
    }

    /// The connection that it came through, where libzmq tells. Not free: libzmq looks a name up.
    pub fn connection(&mut self) -> Option<Connection> {
        if self.connection.is_none() {
            self.connection = self.envelope.first_mut().and_then(Connection::of);
        }
        self.connection
    }

    /// Makes it one that came through this connection.
    #[cfg(test)]
    pub fn come_through(&mut self, connection: Connection) {
        self.connection = Some(connection);
    }

    /// What makes its sender known: the identity, and where there is one, a frame to keep for as long as the connection's
    /// mark is to be its own, which is taken out. That is the empty one that ends the envelope: another might hold much
    /// memory.
    pub fn take_sender(&mut self) -> (Message, Option<(Connection, Message)>) {
        let connection = self.connection();
        let identity = Message::from(&*self.identity);
        let delimiter = self.envelope.last_mut().map(|delimiter| std::mem::replace(delimiter, Message::new()));
        (identity, connection.zip(delimiter))
    }

    /// Lets go of the frames, which may be large, and keeps the room for the next ones.
    pub fn clear(&mut self) {
        self.envelope.clear();
        self.body.clear();
        self.body.shrink_to(KEPT_FRAMES);
        self.key.clear();
        self.key.shrink_to(KEPT_KEY);
        (self.connection, self.fault) = (None, None);
    }

    fn fill_envelope<E>(&mut self, next: &mut impl FnMut(&mut Message) -> Result<bool, E>) -> Result<bool, E> {
        let mut bytes = 0;
        loop {
            let mut frame = Message::new();
            let more = next(&mut frame)?;
            let last = frame.is_empty();
            bytes += frame.len();
            self.envelope.push(frame);
            if last {
                if !more {
                    self.fault = Some(Fault::NoBody);
                }
                return Ok(more);
            }
            if !more || self.envelope.len() == MAX_ENVELOPE_FRAMES || bytes > MAX_ENVELOPE_BYTES {
                self.connection();
                self.envelope.clear();
                self.fault = Some(Fault::NoDelimiter);
                return Ok(more);
            }
        }
    }

    fn fill_body<E>(
        &mut self,
        limits: Limits,
        next: &mut impl FnMut(&mut Message) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let mut bytes = 0;
        loop {
            let mut frame = Message::new();
            let more = next(&mut frame)?;
            bytes += frame.len();
            self.body.push(frame);
            if bytes > limits.max_message() {
                self.fault = Some(Fault::TooManyBytes { most: limits.max_message() });
            } else if self.body.len() > MAX_BODY_FRAMES {
                self.fault = Some(Fault::TooManyFrames);
            }
            if self.fault.is_some() {
                self.body.clear();
                return Ok(more);
            }
            if !more {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const LIMITS: Limits = Limits { max_value: 100 };

    /// What becomes of a message with these frames behind its identity, and how many of them were taken.
    fn filled(frames: &[&[u8]]) -> Request {
        let mut request = Request::new();
        let mut left = std::iter::once(&b"peer"[..]).chain(frames.iter().copied()).peekable();
        let result: Result<bool, Infallible> = request.fill(LIMITS, |frame| {
            *frame = Message::from(left.next().expect("never reads past the last frame"));
            Ok(left.peek().is_some())
        });
        assert_eq!(result, Ok(!frames.is_empty()));
        assert!(left.next().is_none(), "the whole message is taken");
        assert_eq!(&*request.identity, b"peer");
        request
    }

    #[test]
    fn the_envelope_ends_with_the_first_empty_frame() {
        let request = filled(&[b"id", b"", b"GET", b""]);
        assert_eq!(request.fault, None);
        assert_eq!((request.envelope.len(), request.body.len()), (2, 2));
    }

    #[test]
    fn an_envelope_has_limits_and_must_end() {
        for frames in [
            vec![&b"PING"[..]],
            vec![b"GET", b"key"],
            vec![&[7; MAX_ENVELOPE_BYTES + 1], b"", b"PING"],
            [vec![&b"x"[..]; MAX_ENVELOPE_FRAMES], vec![b"", b"PING"]].concat(),
        ] {
            let request = filled(&frames);
            assert_eq!(request.fault, Some(Fault::NoDelimiter));
            assert!(request.envelope.is_empty());
        }
        let longest = [vec![&b"x"[..]; MAX_ENVELOPE_FRAMES - 1], vec![b"", b"PING"]].concat();
        assert_eq!(filled(&longest).fault, None);
        assert_eq!(filled(&[&[7; MAX_ENVELOPE_BYTES], b"", b"PING"]).fault, None);
    }

    #[test]
    fn an_empty_body_keeps_its_envelope() {
        let request = filled(&[b"id", b""]);
        assert_eq!(request.fault, Some(Fault::NoBody));
        assert_eq!(request.envelope.len(), 2);
    }

    #[test]
    fn nothing_but_an_identity_is_no_message() {
        filled(&[]);
    }

    #[test]
    fn too_many_bytes_or_frames_are_let_go_at_once() {
        let most = LIMITS.max_message();
        let half = vec![7; most / 2 + 1];
        let request = filled(&[b"", &half, &half, &half]);
        assert_eq!(request.fault, Some(Fault::TooManyBytes { most }));
        assert!(request.body.is_empty());
        let many = [vec![&b""[..]], vec![&b"x"[..]; MAX_BODY_FRAMES + 1]].concat();
        assert_eq!(filled(&many).fault, Some(Fault::TooManyFrames));
        assert_eq!(filled(many.get(..=MAX_BODY_FRAMES).expect("long enough")).fault, None);
    }
}
