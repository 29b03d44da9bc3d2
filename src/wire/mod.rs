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
use std::ops::DerefMut;

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
    /// The dialect of a body, by its first byte: `0x80` or `(` begins a pickle, `0x01` a packed message.
    pub fn of(body: &[impl DerefMut<Target = [u8]>]) -> Dialect {
        match body {
            [only] => match only.first() {
                Some(0x80 | b'(') => Dialect::Pickle,
                Some(&packed::MARK) => Dialect::Packed,
                _ => Dialect::Frames,
            },
            _ => Dialect::Frames,
        }
    }

    /// Decodes a body in this dialect.
    ///
    /// `scratch` is room for a key whose bytes do not stand in the message as they are. The message is taken
    /// mutably because a pickled SET is made into the value it stores by overwriting one byte of it.
    ///
    /// # Errors
    /// A [`WireError`] that says what is wrong with the message. Nothing of it was executed.
    pub fn decode<'a>(
        self,
        body: &'a mut [impl DerefMut<Target = [u8]>],
        limits: &Limits,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Asked<'a>, WireError> {
        match (self, body) {
            (Dialect::Frames, body) => frames::decode(body, limits).map(Asked::One),
            (Dialect::Pickle, [message]) => pickle::decode(message, limits, scratch).map(Asked::One),
            (Dialect::Packed, [message]) => packed::decode(message, limits).map(Asked::List),
            (Dialect::Pickle | Dialect::Packed, _) => Err(bounds::bad("a pickled or packed request is one frame")),
        }
    }

    /// Makes a body that was decoded, and not answered, what it was before: then it can be decoded again.
    pub fn undo(self, body: &mut [impl DerefMut<Target = [u8]>]) {
        if let (Dialect::Pickle, [message]) = (self, body)
            && let Some(request) = pickle::restore(message)
        {
            message.copy_from_slice(&request);
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
