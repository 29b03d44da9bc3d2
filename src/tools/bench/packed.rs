//! kvd's packed dialect: a list of commands in one frame, and the list of their replies in one.
//!
//! The lists are bincode's (standard configuration), written and read by hand: a client that drives a server copies
//! templates, and of a reply wants no more than its kind.

use super::frames;
use super::protocol::{Answer, Places, Protocol, garbled};
use super::zmtp::{self, Body, LONG, MORE, put_header};
use crate::command::Expiry;
use std::io;

/// The byte that packed bodies begin with.
const MARK: u8 = 0x01;
/// Bytes of the header of the frame with the commands, whose length is known when they are: flags, length.
const HEADER: usize = 9;

/// The numbers of the commands that a load is made of.
const GET: u8 = 1;
const SET: u8 = 2;
const SCAN: u8 = 13;

/// A DEALER that speaks packed to kvd's ROUTER.
pub struct Packed;

impl Protocol for Packed {
    fn hello(&self) -> Vec<u8> {
        zmtp::hello()
    }

    fn welcome(&self, received: &[u8]) -> io::Result<Option<usize>> {
        zmtp::welcome(received)
    }

    /// Verbs are frames, which the same connection may speak.
    fn request(&self, arguments: &[&[u8]], into: &mut Vec<u8>) {
        frames::Frames.request(arguments, into);
    }

    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Places {
        let start = into.len();
        into.push(GET);
        put_bytes(key, into);
        let end = into.len() - start;
        Places { key: end - key.len(), value: end }
    }

    fn set(&self, key: &[u8], length: usize, expiry: Expiry, into: &mut Vec<u8>) -> Places {
        let start = into.len();
        into.push(SET);
        put_bytes(key, into);
        let after_key = into.len() - start;
        put_number(length as u64, into);
        let value = into.len() - start;
        let (kind, milliseconds) = match expiry {
            Expiry::Never => (0, None),
            Expiry::In(milliseconds) => (1, Some(milliseconds)),
            Expiry::At(moment) => (2, Some(moment)),
        };
        into.push(kind);
        if let Some(milliseconds) = milliseconds {
            put_number(milliseconds, into);
        }
        // No condition, no flags.
        into.extend_from_slice(&[0, 0]);
        Places { key: after_key - key.len(), value }
    }

    fn scan(&self, from: u64, count: u64, into: &mut Vec<u8>) {
        into.push(SCAN);
        put_number(from, into);
        // Any prefix.
        into.push(0);
        put_number(count, into);
    }

    fn batches(&self) -> bool {
        true
    }

    fn begin(&self, commands: usize, into: &mut Vec<u8>) {
        put_header(MORE, 0, into);
        into.push(LONG);
        into.extend_from_slice(&[0; HEADER - 1]);
        into.push(MARK);
        put_number(commands as u64, into);
    }

    fn end(&self, start: usize, shared: usize, bytes: &mut [u8]) {
        let header = start + 2;
        let length = bytes.len() - header - HEADER + shared;
        bytes[header + 1..header + HEADER].copy_from_slice(&(length as u64).to_be_bytes());
    }

    fn answers(&self, mut received: &[u8], into: &mut Vec<Answer>) -> io::Result<usize> {
        let whole = received.len();
        while let Some((body, rest)) = Body::split(received)? {
            match body.frames[0].split_first() {
                Some((&MARK, list)) => read_list(list, into)?,
                // A kvd without this dialect answers in frames.
                _ => into.push(match frames::answer(&body)? {
                    Answer::Refused(why) => Answer::AllRefused(why),
                    answer => answer,
                }),
            }
            received = rest;
        }
        Ok(whole - received.len())
    }
}

/// Appends a number as bincode's varint.
fn put_number(number: u64, into: &mut Vec<u8>) {
    if let Ok(byte @ 0..=250) = u8::try_from(number) {
        into.push(byte);
    } else if let Ok(number) = u16::try_from(number) {
        into.push(251);
        into.extend_from_slice(&number.to_le_bytes());
    } else if let Ok(number) = u32::try_from(number) {
        into.push(252);
        into.extend_from_slice(&number.to_le_bytes());
    } else {
        into.push(253);
        into.extend_from_slice(&number.to_le_bytes());
    }
}

fn put_bytes(bytes: &[u8], into: &mut Vec<u8>) {
    put_number(bytes.len() as u64, into);
    into.extend_from_slice(bytes);
}

/// Appends what a list of replies says.
fn read_list(list: &[u8], into: &mut Vec<Answer>) -> io::Result<()> {
    let mut reader = Reader { rest: list };
    read_replies(&mut reader, into)
        .filter(|()| reader.rest.is_empty())
        .ok_or_else(|| garbled("a packed reply is no list of replies"))
}

fn read_replies(reader: &mut Reader<'_>, into: &mut Vec<Answer>) -> Option<()> {
    let count = reader.number()?;
    for _ in 0..count {
        let answer = reader.reply()?;
        into.push(match answer {
            // It may be the answer to a message that could not be read, whatever that held.
            Answer::Refused(why) if count == 1 => Answer::AllRefused(why),
            answer => answer,
        });
    }
    Some(())
}

/// What is left of a list of replies.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The next reply. Only its kind is told; what it holds is stepped over.
    fn reply(&mut self) -> Option<Answer> {
        match self.number()? {
            // Pong, Done
            0 | 1 => {}
            // Stored, Number
            2 | 3 => self.skip_numbers(1)?,
            // Miss
            4 => return Some(Answer::Miss),
            // Value: bytes, version, flags
            7 => {
                self.bytes()?;
                self.skip_numbers(2)?;
            }
            // Values: options of bytes
            8 => {
                for _ in 0..self.number()? {
                    if self.number()? == 1 {
                        self.bytes()?;
                    }
                }
            }
            // Page: cursor, keys
            9 => {
                self.skip_numbers(1)?;
                for _ in 0..self.number()? {
                    self.bytes()?;
                }
            }
            // Error: code, words
            12 => {
                let (code, words) = (self.bytes()?, self.bytes()?);
                let why = format!("{} {}", String::from_utf8_lossy(code), String::from_utf8_lossy(words));
                return Some(Answer::Refused(why.into()));
            }
            _ => return None,
        }
        Some(Answer::Ok)
    }

    fn number(&mut self) -> Option<u64> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        match first {
            0..=250 => Some(u64::from(first)),
            251 => self.take().map(|bytes| u64::from(u16::from_le_bytes(bytes))),
            252 => self.take().map(|bytes| u64::from(u32::from_le_bytes(bytes))),
            253 => self.take().map(u64::from_le_bytes),
            _ => None,
        }
    }

    fn skip_numbers(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.number().map(drop))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bincode(value: impl serde::Serialize) -> Vec<u8> {
        bincode::serde::encode_to_vec(value, bincode::config::standard()).expect("encodes")
    }

    #[test]
    fn numbers_are_bincodes() {
        for number in [0, 250, 251, 65_535, 65_536, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_number(number, &mut bytes);
            assert_eq!(bytes, bincode(number), "{number}");
            assert_eq!(Reader { rest: &bytes }.number(), Some(number));
        }
    }

    #[test]
    fn a_message_is_its_envelope_and_one_frame() {
        let mut bytes = vec![9];
        Packed.begin(2, &mut bytes);
        let places = Packed.get(b"key", &mut bytes);
        assert_eq!(places, Places { key: 2, value: 5 });
        let at = bytes.len();
        let places = Packed.set(b"other", 4, Expiry::In(1000), &mut bytes);
        assert_eq!(&bytes[at + places.key..][..5], b"other");
        let tail = bytes.split_off(at + places.value);
        bytes.extend_from_slice(b"four");
        bytes.extend(tail);
        Packed.end(1, 0, &mut bytes);
        let frames = zmtp::frames(&bytes[1..]);
        let expected = bincode((2_u8, (1_u8, "key"), (2_u8, "other", "four", (1_u8, 1000_u64), 0_u8, 0_u32)));
        assert_eq!(frames, [b"".as_slice(), &[&[MARK], &expected[..]].concat()]);
    }

    #[test]
    fn every_kind_of_reply_is_stepped_over() {
        let stats = vec![("a", "b")];
        let list = [
            bincode(10_u8),
            bincode((2_u8, 70_000_u64)),
            bincode((3_u8, -5_i64)),
            bincode(4_u8),
            bincode((7_u8, "value", 300_u64, 1_u32 << 31)),
            bincode((8_u8, vec![Some("x"), None])),
            bincode((9_u8, u64::MAX, vec!["k", "l"])),
            bincode((12_u8, "NOSPACE", "full")),
            bincode(1_u8),
            bincode(0_u8),
            bincode((3_u8, 0_i64)),
        ]
        .concat();
        let mut answers = Vec::new();
        read_list(&list, &mut answers).expect("a list");
        let mut expected = vec![Answer::Ok; 10];
        expected[2] = Answer::Miss;
        expected[6] = Answer::Refused("NOSPACE full".into());
        assert_eq!(answers, expected);
        assert!((0..list.len()).all(|cut| read_list(&list[..cut], &mut Vec::new()).is_err()));
        assert!(read_list(&bincode((1_u8, 10_u8, stats)), &mut Vec::new()).is_err(), "no load asks for STATS");
    }

    #[test]
    fn a_message_that_could_not_be_read_has_one_answer() {
        let mut answers = Vec::new();
        read_list(&bincode((1_u8, 12_u8, "BADARG", "cut short")), &mut answers).expect("a list");
        assert_eq!(answers, [Answer::AllRefused("BADARG cut short".into())]);
    }
}
