//! memcached's text protocol, as far as SET and GET need it.
//!
//! Specification: `doc/protocol.txt` of memcached.

use crate::resp::{LINE, all_answers, keep_header, line};
use kvd::command::Expiry;
use kvd::tools::bench::protocol::{Answer, Places, Protocol, garbled};
use std::io::{self, Write};

/// A client of memcached.
pub struct Text;

impl Protocol for Text {
    fn hello(&self) -> Vec<u8> {
        Vec::new()
    }

    fn welcome(&self, _received: &[u8]) -> io::Result<Option<usize>> {
        Ok(Some(0))
    }

    fn request(&self, arguments: &[&[u8]], into: &mut Vec<u8>) {
        let verb = arguments.first().map_or(Vec::new(), |verb| verb.to_ascii_lowercase());
        into.extend_from_slice(&verb);
        if let Some(key) = arguments.get(1) {
            into.push(b' ');
            into.extend_from_slice(key);
        }
        if let Some(value) = arguments.get(2) {
            // Flags, then no deadline. Writing to a Vec cannot fail.
            let _ = write!(into, " 0 0 {}\r\n", value.len());
            into.extend_from_slice(value);
        }
        into.extend_from_slice(b"\r\n");
    }

    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Places {
        let start = into.len();
        self.request(&[b"get", key], into);
        Places { key: b"get ".len(), value: into.len() - start }
    }

    /// Deadlines count in seconds here, and are rounded up.
    fn set(&self, key: &[u8], length: usize, expiry: Expiry, into: &mut Vec<u8>) -> Places {
        let start = into.len();
        into.extend_from_slice(b"set ");
        into.extend_from_slice(key);
        let seconds = match expiry {
            Expiry::Never => 0,
            // What is over 30 days is a moment, since 1970.
            Expiry::In(milliseconds) | Expiry::At(milliseconds) => milliseconds.div_ceil(1000),
        };
        let _ = write!(into, " 0 {seconds} {length}\r\n");
        let value = into.len() - start;
        into.extend_from_slice(LINE);
        Places { key: b"set ".len(), value }
    }

    fn answers(&self, received: &[u8], into: &mut Vec<Answer>) -> io::Result<usize> {
        all_answers(received, answer, into)
    }

    fn keep(&self, beginning: &[u8], kept: &mut Vec<u8>) -> u64 {
        keep_header(beginning, value_length, b"VALUE k 0 0\r\n", kept)
    }
}

/// What the header of a value says: VALUE key flags bytes.
fn value_length(header: &[u8]) -> Option<usize> {
    let digits = header.strip_prefix(b"VALUE ")?.rsplit(|byte| *byte == b' ').next()?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// The first answer and its length in bytes, once it is whole.
fn answer(received: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let Some(end) = line(received) else { return Ok(None) };
    let (header, length) = (&received[..end], end + LINE.len());
    match header {
        b"STORED" | b"OK" => Ok(Some((Answer::Ok, length))),
        // The error: its threads that make room did not keep up, so it did not store this one, and goes on.
        b"END" | b"SERVER_ERROR out of memory storing object" => Ok(Some((Answer::Miss, length))),
        _ if header.starts_with(b"VALUE ") => {
            let value = value_length(header).ok_or_else(|| garbled("a value without a length"))?;
            let length = length + value + b"\r\nEND\r\n".len();
            Ok((received.len() >= length).then_some((Answer::Ok, length)))
        }
        _ => Ok(Some((Answer::Refused(String::from_utf8_lossy(header).into()), length))),
    }
}
