//! Bytes to [`Command`], [`Reply`] to bytes: the dialects, told apart by the first byte of the body.
//!
//! Knows neither ZeroMQ nor the engine nor the log: it is given frames and fills frames.

mod bounds;
pub mod frames;
pub mod packed;
pub mod pickle;
pub mod reply_frames;

pub use reply_frames::{Frame, ReplyFrames};

use crate::command::{Command, ErrorCode, Limits, Reply};
use std::borrow::Cow;
use std::ops::Deref;

/// Why a message is no command. Becomes an `ERR` reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {message}", code.name())]
pub struct WireError {
    /// The code of the reply.
    pub code: ErrorCode,
    /// What is wrong and what would be right.
    pub message: Cow<'static, str>,
}

impl WireError {
    /// An error with this code and text.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        WireError { code, message: message.into() }
    }

    /// The reply that tells it.
    pub fn reply(self) -> Reply<'static> {
        Reply::Error(self.code, self.message)
    }
}

/// How a peer put its request, and so how it reads the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// A frame an argument.
    Frames,
    /// The tutorial's: one frame, a pickled tuple.
    Pickle,
    /// One frame, a list of commands.
    Packed,
}

/// What a message asks.
#[derive(Debug)]
pub enum Asked<'a> {
    /// One command.
    One(Command<'a>),
    /// The commands of a packed message.
    List(packed::Commands<'a>),
}

impl Dialect {
    /// The dialect of a body, by its first byte: `0x80` or `(` begins a pickle, `0x01` a packed message. No verb of the frames
    /// dialect begins with one of them.
    pub fn of(body: &[impl Deref<Target = [u8]>]) -> Dialect {
        match body.first().and_then(|frame| frame.first()) {
            Some(0x80 | b'(') => Dialect::Pickle,
            Some(&packed::MARK) => Dialect::Packed,
            _ => Dialect::Frames,
        }
    }

    /// Decodes a body in this dialect.
    ///
    /// `scratch` is room for a key whose bytes do not stand in the message as they are.
    ///
    /// # Errors
    /// A [`WireError`] that says what is wrong with the message. Nothing of it was executed.
    pub fn decode<'a>(
        self,
        body: &'a [impl Deref<Target = [u8]>],
        limits: &Limits,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Asked<'a>, WireError> {
        match (self, body) {
            (Dialect::Frames, body) => frames::decode(body, limits).map(Asked::One),
            (Dialect::Pickle, [message]) => pickle::decode(message, limits, scratch).map(Asked::One),
            (Dialect::Packed, [message]) => packed::decode(message, limits).map(Asked::List),
            (Dialect::Pickle, frames) => Err(bounds::bad(format!(
                "a pickled request is one frame, and this one has {}: pickle the whole tuple at once, without buffer_callback \
                 (buffers in frames of their own are not kept)",
                frames.len()
            ))),
            (Dialect::Packed, frames) => {
                Err(bounds::bad(format!("a packed request is one frame, and this one has {}", frames.len())))
            }
        }
    }

    /// Appends the frames of a reply in this dialect. In the packed one it is a list of one.
    pub fn encode(self, reply: &Reply<'_>, into: &mut ReplyFrames) {
        match self {
            Dialect::Frames => frames::encode(reply, into),
            Dialect::Pickle => pickle::encode(reply, into),
            Dialect::Packed => {
                let mut list = Vec::new();
                packed::begin(1, &mut list);
                packed::encode(reply, &mut list);
                into.push_from(&mut list);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A request of each kind that the dialects know, as frames: the fuzzers' seeds hold more.
    const REQUESTS: [&[&[u8]]; 8] = [
        &[b"SET", b"key", b"value", b"TTL", b"7"],
        &[b"MGET", b"a", b"b"],
        &[b"\x01\x03\x01\x01k\x02\x01k\x01v\x00\x00\x00\x00"],
        &[b"\x80\x04\x8c\x03set\x8c\x06victimK\x07\x87."],
        // What a set leaves as its value.
        &[b"\x80\x04\x8c\x03set\x8c\x06victimK\x07.."],
        &[b"\x80\x04\x8c\x03set\x94(K\x01Nt](K\x01K\x02e\x87\x94."],
        &[b"(Vset\np0\nVk\\u20ac\np1\nI7\ntp2\n."],
        &[b"(Vset\np0\nF2.5\nVdata\np1\n.p2\n."],
    ];

    /// What a message asks, told in full.
    fn told(body: &[Vec<u8>], mut scratch: Vec<u8>) -> String {
        let dialect = Dialect::of(body);
        match dialect.decode(body, &Limits::default(), &mut scratch) {
            Ok(Asked::List(list)) => format!("{dialect:?}: {:?}", list.collect::<Vec<_>>()),
            other => format!("{dialect:?}: {other:?}"),
        }
    }

    #[test]
    fn the_first_byte_of_a_body_tells_its_dialect() {
        for (body, dialect) in [
            (&[&b"\x80\x04"[..]][..], Dialect::Pickle),
            (&[b"(Vget\n"], Dialect::Pickle),
            (&[b"\x80\x05", b"a buffer"], Dialect::Pickle),
            (&[b"\x01\x00"], Dialect::Packed),
            (&[b"\x01\x00", b"more"], Dialect::Packed),
            (&[b"GET", b"\x80"], Dialect::Frames),
            (&[b""], Dialect::Frames),
            (&[], Dialect::Frames),
        ] {
            assert_eq!(Dialect::of(body), dialect, "{body:?}");
        }
        let (two, mut scratch) = ([&b"\x01\x00"[..], b"more"], Vec::new());
        let error = Dialect::Packed.decode(&two, &Limits::default(), &mut scratch).expect_err("two frames");
        assert!(error.message.starts_with("a packed request is one frame, and this one has 2"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn a_message_means_the_same_whenever_it_is_decoded(
            request in prop::sample::select(&REQUESTS[..]),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..4),
            extra in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        ) {
            let mut body: Vec<Vec<u8>> = request.iter().map(|frame| frame.to_vec()).collect();
            for (frame, at, byte) in changes {
                let frame = frame.get_mut(&mut body);
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            body.extend(extra);
            let first = told(&body, Vec::new());
            prop_assert_eq!(told(&body, b"left over from another request".to_vec()), first);
        }
    }
}
