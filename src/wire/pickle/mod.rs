//! The pickle dialect: one frame, a pickled `('get', key, None)` or `('set', key, data)`.
//!
//! Knows where in a pickle the command word, the key and the data are, and what a key is. Knows nothing of
//! the data, builds no object and calls nothing: a pickle is a program, and this module reads it without
//! running it.
//!
//! What is stored is the request itself, with one byte changed. Before its last opcodes the unpickler's stack
//! is `'set', key, data`; the opcode that would make a tuple of them gives way to STOP, which ends the
//! pickle there and returns the top of the stack, the data. Whatever the data refers to in the memo stays
//! where it was, and what follows a STOP is never read. (To cut the message short would be wrong: the FRAME
//! lengths of protocols 4 and 5 count to the old end.)
//!
//! The files, in the order in which a message meets them: `opcode` is the table of opcodes, `reader` reads
//! instructions, `walk` finds the parts of a request, `key` builds the key of `text` and `number`, and
//! `canonical` writes down keys that are no `str`.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod canonical;
mod key;
mod number;
mod opcode;
mod reader;
mod text;
mod tree;
mod walk;

use super::{ReplyFrames, WireError};
use crate::command::{Command, ErrorCode, Limits, MAX_KEY, NewValue, Reply, SetOptions};
use crate::mutation::PICKLED;
use std::borrow::Cow;
use walk::Word;

/// What a request that is none is told.
const WRONG_SHAPE: &str = "a pickled request is the tuple ('get', key, None) or ('set', key, data)";

/// A pickle of `None`, in the protocol of [`pickle_bytes`].
const PICKLED_NONE: &[u8] = b"\x80\x03N.";

/// Decodes a pickled request.
///
/// A set's value is the message itself, but for one byte, which makes it a pickle of the data. A key
/// borrows from the message where it is a `str` that stands there as it is, and else from `scratch`.
///
/// ```
/// use kvd::command::{Command, Limits};
/// use kvd::mutation::Key;
///
/// let message = b"\x80\x04\x8c\x03get\x8c\x06user:7N\x87.";
/// let mut scratch = Vec::new();
/// let command = kvd::wire::pickle::decode(message, &Limits::default(), &mut scratch);
/// assert_eq!(command, Ok(Command::Get { key: Key::bytes(b"user:7") }));
/// ```
///
/// # Errors
/// [`ErrorCode::BadCommand`] for a tuple with another command word, [`ErrorCode::TooBig`] for a key or a value
/// over its limit, [`ErrorCode::BadArgument`] for everything else that is no such request.
pub fn decode<'a>(message: &'a [u8], limits: &Limits, scratch: &'a mut Vec<u8>) -> Result<Command<'a>, WireError> {
    let layout = walk::walk(message)?;
    match layout.word {
        Word::Get if layout.data != opcode::NONE => Err(refuse("the third item of a get is None")),
        Word::Get => Ok(Command::Get { key: key::decode(message, &layout, scratch)? }),
        Word::Set if message.len() > limits.max_value => Err(WireError::new(
            ErrorCode::TooBig,
            format!("the pickled request has {} bytes, the limit is {}", message.len(), limits.max_value),
        )),
        Word::Set => {
            let key = key::decode(message, &layout, scratch)?;
            let value = NewValue::replacing(message, layout.closing_at, opcode::STOP);
            Ok(Command::Set { key, value, options: SetOptions { flags: PICKLED, ..SetOptions::default() } })
        }
    }
}

/// The request that a value is what became of, so that a copy of it can be stored again under its key.
///
/// ```
/// let request = b"\x80\x04\x8c\x03set\x8c\x01kK\x07\x87.";
/// let stored = b"\x80\x04\x8c\x03set\x8c\x01kK\x07..";
/// assert_eq!(kvd::wire::pickle::restore(stored), Some(request.to_vec()));
/// assert_eq!(kvd::wire::pickle::restore(request), None);
/// ```
///
/// `None` if the value never was a pickled set.
pub fn restore(stored: &[u8]) -> Option<Vec<u8>> {
    let (closing_at, closing) = walk::closing_of_stored(stored)?;
    let mut request = stored.to_vec();
    *request.get_mut(closing_at)? = closing;
    (walk::walk(&request).ok()?.word == Word::Set).then_some(request)
}

/// Whether bytes are a key of [`Space::Python`], as a request could name it.
///
/// ```
/// assert!(kvd::wire::pickle::is_key(b"+\x00\x01\x07"));
/// assert!(!kvd::wire::pickle::is_key(b"user:7"));
/// ```
///
/// [`Space::Python`]: crate::mutation::Space::Python
pub fn is_key(bytes: &[u8]) -> bool {
    canonical::is_encoding(bytes)
}

/// Appends the one frame of a reply.
pub fn encode(reply: &Reply<'_>, into: &mut ReplyFrames) {
    match reply {
        Reply::Stored(_) => into.push(b"ok"),
        Reply::Miss => into.push(PICKLED_NONE),
        Reply::Value(value) if value.flags & PICKLED != 0 => into.push(value.bytes),
        Reply::Value(value) => into.push(&pickle_bytes(value.bytes)),
        Reply::Error(code, message) => into.push(&error(*code, message)),
        // No get or set is answered by anything else.
        Reply::Pong
        | Reply::Done
        | Reply::Number(_)
        | Reply::Exists
        | Reply::Conflict(_)
        | Reply::Values(_)
        | Reply::Entries(_)
        | Reply::Page { .. }
        | Reply::Stats(_)
        | Reply::Version => into.push(&error(ErrorCode::Internal, "this dialect has no words for the answer")),
    }
}

/// A pickle of a Python `bytes`. Protocol 3 is the oldest one that has an opcode for it.
fn pickle_bytes(bytes: &[u8]) -> Vec<u8> {
    const BYTES_AROUND: usize = 8;
    let mut pickle = Vec::with_capacity(bytes.len() + BYTES_AROUND);
    pickle.extend_from_slice(&[opcode::PROTO, 3]);
    if let Ok(length) = u8::try_from(bytes.len()) {
        pickle.extend_from_slice(&[opcode::SHORT_BINBYTES, length]);
    } else {
        pickle.push(opcode::BINBYTES);
        // A value has at most a GiB.
        pickle.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    }
    pickle.extend_from_slice(bytes);
    pickle.push(opcode::STOP);
    pickle
}

/// An error as a text that no unpickler accepts, so that nobody takes it for a value: `e` adds to a list that
/// was never begun.
fn error(code: ErrorCode, message: &str) -> Vec<u8> {
    format!("error: {} {message}", code.name()).into_bytes()
}

fn refuse(message: impl Into<Cow<'static, str>>) -> WireError {
    WireError::new(ErrorCode::BadArgument, message)
}

fn too_big() -> WireError {
    WireError::new(ErrorCode::TooBig, "a key has at most 65536 bytes")
}

/// Whether a key that has come this far may have that many bytes more.
fn room(key: &[u8], more: usize) -> Result<(), WireError> {
    if key.len().saturating_add(more) <= MAX_KEY { Ok(()) } else { Err(too_big()) }
}

/// Counts the steps of everything that loops over a message, for the tests that show the time to be linear.
#[cfg(test)]
mod meter {
    use std::cell::Cell;

    thread_local!(static STEPS: Cell<usize> = const { Cell::new(0) });

    pub(super) fn step() {
        STEPS.set(STEPS.get() + 1);
    }

    /// How many steps this takes.
    pub(super) fn of<T>(work: impl FnOnce() -> T) -> (usize, T) {
        let before = STEPS.get();
        let result = work();
        (STEPS.get() - before, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::StoredValue;
    use crate::mutation::{Key, Space};
    use crate::wire::Frame;

    fn refusal(message: &[u8]) -> WireError {
        decode(message, &Limits::default(), &mut Vec::new()).expect_err("refused")
    }

    fn frame(reply: &Reply<'_>) -> Vec<u8> {
        let mut frames = ReplyFrames::default();
        encode(reply, &mut frames);
        assert_eq!(frames.len(), 1);
        match frames.parcel().next() {
            Some(Frame::Small(bytes)) => bytes.to_vec(),
            Some(Frame::Large(bytes)) => bytes,
            None => panic!("one frame"),
        }
    }

    #[test]
    fn a_set_stores_its_own_message() {
        let message = b"\x80\x04\x8c\x03set\x94K\x07](K\x01K\x02e\x87\x94.";
        let mut scratch = Vec::new();
        let command = decode(message, &Limits::default(), &mut scratch).unwrap();
        let Command::Set { key, value, options } = command else { panic!("{command:?}") };
        assert_eq!(key, Key { space: Space::Python, bytes: b"+\0\x01\x07" });
        assert_eq!(value.to_vec(), b"\x80\x04\x8c\x03set\x94K\x07](K\x01K\x02e.\x94.");
        assert_eq!(options, SetOptions { flags: PICKLED, ..SetOptions::default() });
    }

    #[test]
    fn the_third_item_of_a_get_is_none() {
        assert_eq!(refusal(b"\x80\x04\x8c\x03get\x8c\x01kK\x01\x87.").code, ErrorCode::BadArgument);
        assert_eq!(refusal(b"\x80\x04\x8c\x03get\x8c\x01k]\x87.").code, ErrorCode::BadArgument);
    }

    #[test]
    fn other_words() {
        for message in [&b"\x80\x04\x8c\x03delete"[..], b"(Vping\nt.", b"\x80\x04\x8c\x00NN\x87."] {
            assert_eq!(refusal(message).code, ErrorCode::BadCommand);
        }
    }

    #[test]
    fn only_what_is_stored_has_the_limit_of_values() {
        let limits = Limits { max_value: 16 };
        let mut scratch = Vec::new();
        let set = b"\x80\x04\x8c\x03set\x8c\x01kK\x01\x87\x94.".to_vec();
        assert!(decode(&set, &Limits { max_value: set.len() }, &mut scratch).is_ok());
        let max_value = set.len() - 1;
        assert_eq!(decode(&set, &Limits { max_value }, &mut scratch).unwrap_err().code, ErrorCode::TooBig);
        let get = b"\x80\x04\x8c\x03get\x8c\x14abcdefghijklmnopqrstN\x87.".to_vec();
        assert!(decode(&get, &limits, &mut scratch).is_ok());
    }

    #[test]
    fn replies() {
        assert_eq!(frame(&Reply::Stored(7)), b"ok");
        assert_eq!(frame(&Reply::Miss), b"\x80\x03N.");
        let value = |bytes, flags| frame(&Reply::Value(StoredValue { bytes, version: 1, flags }));
        assert_eq!(value(b"anything", PICKLED | 5), b"anything");
        assert_eq!(value(b"plain", 5), b"\x80\x03C\x05plain.");
        assert_eq!(value(b"", 0), b"\x80\x03C\0.");
        assert_eq!(value(&[7; 256], 0), [&b"\x80\x03B\0\x01\0\0"[..], &[7; 256], b"."].concat());
        assert_eq!(frame(&Reply::Error(ErrorCode::TooBig, "no".into())), b"error: TOOBIG no");
        assert!(frame(&Reply::Pong).starts_with(b"error: INTERNAL "));
    }

    #[test]
    fn steps_grow_with_the_message() {
        // Messages made to be walked slowly: each is decoded at one length and at ten times that.
        let around = |key: &[u8], data: &[u8]| [b"\x80\x02X\x03\0\0\0set", key, data, b"\x87."].concat();
        let shapes: [&dyn Fn(usize) -> Vec<u8>; 7] = [
            &|n| around(b"K\x01", &[&b"]".repeat(n)[..], &b"a".repeat(n - 1)].concat()),
            &|n| around(b"K\x01", &[b"(", &b"N".repeat(n)[..], b"t"].concat()),
            &|n| around(b"K\x01", &[b"N".as_slice(), &b"(1".repeat(n)].concat()),
            &|n| around(b"K\x01", &[b"N".as_slice(), &b"I1\n0".repeat(n)].concat()),
            &|n| around(&[b"(", &b"N".repeat(n)[..], b"t"].concat(), b"N"),
            &|n| around(&[b")", &b"\x85".repeat(n)[..]].concat(), b"N"),
            &|n| around(b"K\x01", &[b"N".as_slice(), &b"\x95\0\0\0\0\0\0\0\0".repeat(n)].concat()),
        ];
        for (number, shape) in shapes.iter().enumerate() {
            for n in [2_000, 20_000] {
                let message = shape(n);
                let length = message.len();
                let mut scratch = Vec::new();
                let (steps, decoded) = meter::of(|| decode(&message, &Limits::default(), &mut scratch).is_ok());
                assert!(decoded, "shape {number}");
                assert!(steps <= 4 * length, "shape {number}: {steps} steps for {length} bytes");
            }
        }
    }
}
