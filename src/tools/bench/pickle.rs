//! kvd's pickle dialect, as the tutorial's client speaks it: one frame, a pickled tuple, protocol 3.
//!
//! Values are `bytes`. There are no other commands than get and set, and no time to live.

use super::protocol::{Answer, Places, Protocol};
use super::zmtp::{self, Body, MORE, put_header};
use crate::command::Expiry;
use std::io;

/// The pickle of `None`: a miss.
const NONE: &[u8] = b"\x80\x03N.";

/// A DEALER that speaks pickles to kvd's ROUTER.
pub struct Pickle;

impl Protocol for Pickle {
    fn hello(&self) -> Vec<u8> {
        zmtp::hello()
    }

    fn welcome(&self, received: &[u8]) -> io::Result<Option<usize>> {
        zmtp::welcome(received)
    }

    /// Only get and set have a pickle; the rest goes as frames, which the same connection may.
    fn request(&self, arguments: &[&[u8]], into: &mut Vec<u8>) {
        super::frames::Frames.request(arguments, into);
    }

    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Places {
        let start = into.len();
        let key_at = put_key(b"get", key, b"N\x87.".len(), into) - start;
        into.extend_from_slice(b"N\x87.");
        Places { key: key_at, value: into.len() - start }
    }

    fn set(&self, key: &[u8], length: usize, _expiry: Expiry, into: &mut Vec<u8>) -> Places {
        let start = into.len();
        // BINBYTES and 4 bytes of length; after the value TUPLE3 and STOP.
        let key_at = put_key(b"set", key, 5 + length + 2, into) - start;
        into.push(b'B');
        into.extend_from_slice(&(length as u32).to_le_bytes());
        let value = into.len() - start;
        into.extend_from_slice(b"\x87.");
        Places { key: key_at, value }
    }

    fn answers(&self, mut received: &[u8], into: &mut Vec<Answer>) -> io::Result<usize> {
        let whole = received.len();
        while let Some((body, rest)) = Body::split(received)? {
            let answer = match body.frames[0] {
                NONE => Answer::Miss,
                reply => match reply.strip_prefix(b"error: ") {
                    Some(why) => Answer::Refused(String::from_utf8_lossy(why).into()),
                    None => Answer::Ok,
                },
            };
            into.push(answer);
            received = rest;
        }
        Ok(whole - received.len())
    }

    fn keep(&self, beginning: &[u8], kept: &mut Vec<u8>) -> u64 {
        zmtp::keep(beginning, 0, kept)
    }
}

/// Appends envelope, frame header and the tuple's first two items. `after` bytes will follow. Returns where the key is.
fn put_key(word: &[u8], key: &[u8], after: usize, into: &mut Vec<u8>) -> usize {
    put_header(MORE, 0, into);
    put_header(0, 2 + 5 + word.len() + 5 + key.len() + after, into);
    into.extend_from_slice(b"\x80\x03");
    for text in [word, key] {
        // BINUNICODE and 4 bytes of length.
        into.push(b'X');
        into.extend_from_slice(&(text.len() as u32).to_le_bytes());
        into.extend_from_slice(text);
    }
    into.len() - key.len()
}
