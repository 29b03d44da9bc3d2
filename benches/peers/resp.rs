//! RESP 2, as far as SET and GET need it: how Redis is spoken to.

use crate::protocol::{Answer, Protocol, garbled};
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
            let _ = write!(into, "${}\r\n", argument.len());
            into.extend_from_slice(argument);
            into.extend_from_slice(b"\r\n");
        }
    }

    fn answer(&self, received: &[u8]) -> io::Result<Option<(Answer, usize)>> {
        let Some(end) = received.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let (line, length) = (&received[..end], end + 2);
        match line.split_first() {
            Some((b'+' | b':', _)) => Ok(Some((Answer::Ok, length))),
            Some((b'-', words)) => Ok(Some((Answer::Refused(String::from_utf8_lossy(words).into_owned()), length))),
            Some((b'$', b"-1")) => Ok(Some((Answer::Miss, length))),
            Some((b'$', digits)) => {
                let value = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<usize>().ok());
                let value = value.ok_or_else(|| garbled("a bulk string without a length"))?;
                let length = length + value + 2;
                Ok((received.len() >= length).then_some((Answer::Ok, length)))
            }
            _ => Err(garbled("a reply of a kind that SET and GET do not have")),
        }
    }
}
