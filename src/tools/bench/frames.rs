//! kvd's frames dialect: a verb and its arguments, a frame each.

use super::protocol::{Answer, Places, Protocol, garbled};
use super::zmtp::{self, Body, MORE, put_header};
use crate::command::Expiry;
use std::io;

/// A DEALER that speaks frames to kvd's ROUTER.
pub struct Frames;

impl Protocol for Frames {
    fn hello(&self) -> Vec<u8> {
        zmtp::hello()
    }

    fn welcome(&self, received: &[u8]) -> io::Result<Option<usize>> {
        zmtp::welcome(received)
    }

    fn request(&self, arguments: &[&[u8]], into: &mut Vec<u8>) {
        put_header(MORE, 0, into);
        for (i, argument) in arguments.iter().enumerate() {
            put_frame(argument, i + 1 < arguments.len(), into);
        }
    }

    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Places {
        let start = into.len();
        self.request(&[b"GET", key], into);
        let end = into.len() - start;
        Places { key: end - key.len(), value: end }
    }

    fn set(&self, key: &[u8], length: usize, expiry: Expiry, into: &mut Vec<u8>) -> Places {
        let start = into.len();
        put_header(MORE, 0, into);
        put_frame(b"SET", true, into);
        put_frame(key, true, into);
        let after_key = into.len() - start;
        let option: Option<(&[u8], u64)> = match expiry {
            Expiry::Never => None,
            Expiry::In(milliseconds) => Some((b"TTL", milliseconds)),
            Expiry::At(moment) => Some((b"AT", moment)),
        };
        put_header(if option.is_some() { MORE } else { 0 }, length, into);
        let value = into.len() - start;
        if let Some((name, milliseconds)) = option {
            put_frame(name, true, into);
            put_frame(milliseconds.to_string().as_bytes(), false, into);
        }
        Places { key: after_key - key.len(), value }
    }

    fn answers(&self, mut received: &[u8], into: &mut Vec<Answer>) -> io::Result<usize> {
        let whole = received.len();
        while let Some((body, rest)) = Body::split(received)? {
            into.push(answer(&body)?);
            received = rest;
        }
        Ok(whole - received.len())
    }

    fn keep(&self, beginning: &[u8], kept: &mut Vec<u8>) -> u64 {
        zmtp::keep(beginning, 1, kept)
    }
}

fn put_frame(frame: &[u8], more: bool, into: &mut Vec<u8>) {
    put_header(if more { MORE } else { 0 }, frame.len(), into);
    into.extend_from_slice(frame);
}

/// What the frames of a reply say.
pub(super) fn answer(body: &Body<'_>) -> io::Result<Answer> {
    let [status, code, words] = body.frames;
    match status {
        b"OK" => Ok(Answer::Ok),
        b"MISS" => Ok(Answer::Miss),
        b"ERR" => {
            let why = format!("{} {}", String::from_utf8_lossy(code), String::from_utf8_lossy(words));
            Ok(Answer::Refused(why.into()))
        }
        _ => Err(garbled("a reply has none of the statuses OK, MISS and ERR")),
    }
}
