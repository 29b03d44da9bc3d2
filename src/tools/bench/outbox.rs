//! Bytes on their way to a server: what was copied for it, and between that pieces of a payload that all share.
//!
//! A large value is the same for every request, so it is handed to the kernel from where it is.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;

/// Pieces that one call of the system takes.
const PIECES: usize = 64;

/// What values are made of: a value of `n` bytes is the first `n` of these.
pub type Payload = Arc<[u8]>;

/// Requests that wait for room in a socket.
pub struct Outbox {
    payload: Payload,
    bytes: Vec<u8>,
    /// Pieces of the payload that stand between the bytes, first to last.
    pieces: VecDeque<Piece>,
    /// How many of the bytes are gone, and how much of the first piece.
    sent: usize,
    sent_of_piece: usize,
}

/// The first `length` bytes of the payload, before the byte at `at`.
struct Piece {
    at: usize,
    length: usize,
}

impl Outbox {
    /// Nothing to send yet.
    pub fn new(payload: Payload) -> Outbox {
        Outbox { payload, bytes: Vec::new(), pieces: VecDeque::new(), sent: 0, sent_of_piece: 0 }
    }

    /// Where bytes are appended.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends the first `length` bytes of the payload, by copying them.
    pub fn copy(&mut self, length: usize) {
        self.bytes.extend_from_slice(&self.payload[..length]);
    }

    /// Appends the first `length` bytes of the payload, without copying them.
    ///
    /// # Panics
    /// The payload is shorter.
    pub fn share(&mut self, length: usize) {
        assert!(length <= self.payload.len(), "a value is a part of the payload");
        self.pieces.push_back(Piece { at: self.bytes.len(), length });
    }

    /// Writes as much as `stream` takes. True if that was all.
    ///
    /// # Errors
    /// Those of `stream`, but for having no room.
    pub fn flush(&mut self, stream: &mut impl Write) -> io::Result<bool> {
        while self.sent < self.bytes.len() || !self.pieces.is_empty() {
            let written =
                if self.pieces.is_empty() { stream.write(&self.bytes[self.sent..]) } else { self.write_pieces(stream) };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(true)
    }

    fn write_pieces(&self, stream: &mut impl Write) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PIECES];
        let (mut count, mut from, mut skip) = (0, self.sent, self.sent_of_piece);
        for piece in self.pieces.iter().take(PIECES / 2) {
            for slice in [&self.bytes[from..piece.at], &self.payload[skip..piece.length]] {
                slices[count] = IoSlice::new(slice);
                count += 1;
            }
            (from, skip) = (piece.at, 0);
        }
        stream.write_vectored(&slices[..count])
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(piece) = self.pieces.front() {
            let before = count.min(piece.at - self.sent);
            self.sent += before;
            count -= before;
            let within = count.min(piece.length - self.sent_of_piece);
            self.sent_of_piece += within;
            count -= within;
            if self.sent < piece.at || self.sent_of_piece < piece.length {
                return;
            }
            self.pieces.pop_front();
            self.sent_of_piece = 0;
        }
        self.sent += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time, then has no room, as a socket does.
    struct Reluctant {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Reluctant {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.taken.extend_from_slice(&bytes[..count]);
            self.room -= count;
            Ok(count)
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.write(&slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn pieces_stand_where_they_were_put_however_little_is_taken() {
        let payload: Payload = (0..100).collect::<Vec<u8>>().into();
        for room in [1, 3, 7, 1000] {
            let mut outbox = Outbox::new(Arc::clone(&payload));
            let mut expected = Vec::new();
            for (head, length, tail) in [(b"ab", 10, b"".as_slice()), (b"cd", 100, b"x"), (b"ef", 0, b"yz")] {
                outbox.bytes().extend_from_slice(head);
                outbox.share(length);
                outbox.bytes().extend_from_slice(tail);
                expected.extend([head, &payload[..length], tail].concat());
            }
            outbox.copy(3);
            expected.extend(&payload[..3]);
            let mut stream = Reluctant { taken: Vec::new(), room };
            while !outbox.flush(&mut stream).expect("no error but no room") {
                stream.room = room;
            }
            assert_eq!(stream.taken, expected, "{room} bytes at a time");
            assert!(outbox.bytes().is_empty());
        }
    }
}
