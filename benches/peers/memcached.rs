//! memcached's text protocol, as far as SET and GET need it.
//!
//! Specification: `doc/protocol.txt` of memcached.

use crate::protocol::{Answer, Protocol, garbled};
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

    fn answer(&self, received: &[u8]) -> io::Result<Option<(Answer, usize)>> {
        let Some(end) = received.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let (line, length) = (&received[..end], end + 2);
        match line {
            b"STORED" => Ok(Some((Answer::Ok, length))),
            // The error: its threads that make room did not keep up, so it did not store this one, and goes on.
            b"END" | b"SERVER_ERROR out of memory storing object" => Ok(Some((Answer::Miss, length))),
            _ if line.starts_with(b"VALUE ") => {
                // VALUE key flags bytes
                let digits = line.rsplit(|byte| *byte == b' ').next().and_then(|digits| str::from_utf8(digits).ok());
                let value = digits.and_then(|digits| digits.parse::<usize>().ok());
                let value = value.ok_or_else(|| garbled("a value without a length"))?;
                let length = length + value + b"\r\nEND\r\n".len();
                Ok((received.len() >= length).then_some((Answer::Ok, length)))
            }
            _ => Ok(Some((Answer::Refused(String::from_utf8_lossy(line).into_owned()), length))),
        }
    }
}
