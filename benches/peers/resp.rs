//! RESP 2, as far as SET and GET need it: how Redis is spoken to.

use kvd::command::Expiry;
use kvd::tools::bench::protocol::{Answer, Places, Protocol, garbled};
use std::io::{self, Write};

/// A client of Redis.
pub struct Resp;

impl Protocol for Resp {
    fn hello(&self) -> Vec<u8> {
        Vec::new()
    }

    fn welcome(&self, _received: &[u8]) -> io::Result<Option<usize>> {
        Ok(Some(0))
    }

    fn request(&self, arguments: &[&[u8]], into: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = write!(into, "*{}\r\n", arguments.len());
        for argument in arguments {
            put_bulk(argument, into);
        }
    }

    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Places {
        let start = into.len();
        self.request(&[b"GET", key], into);
        let end = into.len() - start;
        Places { key: end - key.len() - LINE.len(), value: end }
    }

    fn set(&self, key: &[u8], length: usize, expiry: Expiry, into: &mut Vec<u8>) -> Places {
        let start = into.len();
        let option: Option<(&[u8], u64)> = match expiry {
            Expiry::Never => None,
            Expiry::In(milliseconds) => Some((b"PX", milliseconds)),
            Expiry::At(moment) => Some((b"PXAT", moment)),
        };
        let _ = write!(into, "*{}\r\n", if option.is_some() { 5 } else { 3 });
        put_bulk(b"SET", into);
        put_bulk(key, into);
        let key_at = into.len() - start - LINE.len() - key.len();
        let _ = write!(into, "${length}\r\n");
        let value = into.len() - start;
        into.extend_from_slice(LINE);
        if let Some((name, milliseconds)) = option {
            put_bulk(name, into);
            put_bulk(milliseconds.to_string().as_bytes(), into);
        }
        Places { key: key_at, value }
    }

    fn answers(&self, received: &[u8], into: &mut Vec<Answer>) -> io::Result<usize> {
        all_answers(received, answer, into)
    }

    fn keep(&self, beginning: &[u8], kept: &mut Vec<u8>) -> u64 {
        keep_header(beginning, bulk_length, b"$0\r\n", kept)
    }
}

/// What lines end with.
pub const LINE: &[u8] = b"\r\n";
/// Values of which less is to come are kept whole.
const WORTH_CUTTING: usize = 4096;

/// The first answer of some bytes and its length, once it is whole.
type First = fn(&[u8]) -> io::Result<Option<(Answer, usize)>>;

/// Appends all answers that are whole. Returns how many bytes they take.
pub fn all_answers(received: &[u8], first: First, into: &mut Vec<Answer>) -> io::Result<usize> {
    let mut rest = received;
    while let Some((answer, length)) = first(rest)? {
        into.push(answer);
        rest = &rest[length..];
    }
    Ok(received.len() - rest.len())
}

/// Keeps the beginning of a reply that holds a value of the length that its header says; of a long one that is
/// incomplete the header of an empty one. Returns how much of the value is left out and still to come.
pub fn keep_header(beginning: &[u8], length: fn(&[u8]) -> Option<usize>, empty: &[u8], kept: &mut Vec<u8>) -> u64 {
    let missing = line(beginning).and_then(|end| {
        let (header, value) = (&beginning[..end], &beginning[end + LINE.len()..]);
        length(header)?.checked_sub(value.len()).filter(|missing| *missing >= WORTH_CUTTING)
    });
    kept.extend_from_slice(if missing.is_some() { empty } else { beginning });
    missing.unwrap_or(0) as u64
}

/// Where the first line ends.
pub fn line(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == LINE)
}

fn put_bulk(bytes: &[u8], into: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(into, "${}\r\n", bytes.len());
    into.extend_from_slice(bytes);
    into.extend_from_slice(LINE);
}

/// What the header of a bulk string that is not absent says.
fn bulk_length(header: &[u8]) -> Option<usize> {
    str::from_utf8(header.strip_prefix(b"$")?).ok()?.parse().ok()
}

/// The first answer and its length in bytes, once it is whole.
fn answer(received: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let Some(end) = line(received) else { return Ok(None) };
    let (header, length) = (&received[..end], end + LINE.len());
    match header.split_first() {
        Some((b'+' | b':', _)) => Ok(Some((Answer::Ok, length))),
        Some((b'-', words)) => Ok(Some((Answer::Refused(String::from_utf8_lossy(words).into()), length))),
        Some((b'$', b"-1")) => Ok(Some((Answer::Miss, length))),
        Some((b'$', _)) => {
            let value = bulk_length(header).ok_or_else(|| garbled("a bulk string without a length"))?;
            let length = length + value + LINE.len();
            Ok((received.len() >= length).then_some((Answer::Ok, length)))
        }
        _ => Err(garbled("a reply of a kind that SET and GET do not have")),
    }
}
