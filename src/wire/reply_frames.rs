//! The frames of one reply, encoded and owned, so that it can wait until it is durable.
//!
//! Small frames stand packed one behind the other in one buffer, each behind its length, so that a reply moves from
//! place to place as bytes. A large one keeps a buffer of its own, which the socket can take over without copying it.
//!
//! ```text
//! packed   0 0 | 2 0 O K | 255 255          | 1 0 7 | 1 0 0
//! frames   ""    "OK"      the first of large  "7"     "0"
//! ```

use std::collections::VecDeque;

/// Frames from this many bytes on get a buffer of their own.
pub const LARGE_FRAME: usize = 8 * 1024;
/// In place of a length: the frame is the next one that has a buffer of its own.
const LARGE: u16 = u16::MAX;

/// One frame of a reply on its way out.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// To be copied.
    Small(&'a [u8]),
    /// To be taken over.
    Large(Vec<u8>),
}

/// An encoded reply: its envelope, then its body.
///
/// ```
/// use kvd::wire::{Frame, ReplyFrames};
/// let mut reply = ReplyFrames::default();
/// reply.push(b"");
/// reply.push(b"OK");
/// reply.push_number(7);
/// let frames: Vec<_> = reply.parcel().collect();
/// assert_eq!(frames, [Frame::Small(b""), Frame::Small(b"OK"), Frame::Small(b"7")]);
/// ```
#[derive(Debug, Default)]
pub struct ReplyFrames {
    packed: Vec<u8>,
    large: VecDeque<Vec<u8>>,
    large_bytes: usize,
    count: usize,
}

impl ReplyFrames {
    /// A reply that begins with these frames, as [`ReplyFrames::packed`] has them; none of them is large.
    pub fn from_packed(packed: &[u8]) -> ReplyFrames {
        let mut large = VecDeque::new();
        let mut all = Parcel::new(packed, &mut large, 0, usize::MAX);
        while all.next().is_some() {}
        let count = usize::MAX - all.count;
        ReplyFrames { packed: packed.to_vec(), large, large_bytes: 0, count }
    }

    /// Appends a frame.
    pub fn push(&mut self, frame: &[u8]) {
        self.count += 1;
        if frame.len() >= LARGE_FRAME {
            self.large_bytes += frame.len();
            self.packed.extend_from_slice(&LARGE.to_le_bytes());
            self.large.push_back(frame.to_vec());
        } else {
            self.packed.extend_from_slice(&(frame.len() as u16).to_le_bytes());
            self.packed.extend_from_slice(frame);
        }
    }

    /// Appends a frame that is made already: takes it over if it is large, else copies it and leaves its room.
    pub fn push_from(&mut self, frame: &mut Vec<u8>) {
        if frame.len() < LARGE_FRAME {
            return self.push(frame);
        }
        self.count += 1;
        self.large_bytes += frame.len();
        self.packed.extend_from_slice(&LARGE.to_le_bytes());
        self.large.push_back(std::mem::take(frame));
    }

    /// Appends a frame that is a number in ASCII decimal.
    pub fn push_number(&mut self, number: impl itoa::Integer) {
        self.push(itoa::Buffer::new().format(number).as_bytes());
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The packed frames.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// The frame behind so many packed bytes, in which no frame is large.
    pub fn frame_at(&self, packed: usize) -> Option<&[u8]> {
        first_of(self.packed.get(packed..)?, self.large.front())
    }

    /// Bytes of the large frames together.
    pub fn large_bytes(&self) -> usize {
        self.large_bytes
    }

    /// Drops all frames, and keeps room for so many bytes of small ones.
    pub fn clear(&mut self, room: usize) {
        self.packed.clear();
        self.packed.shrink_to(room);
        self.large.clear();
        (self.large_bytes, self.count) = (0, 0);
    }

    /// Takes the large frames out, to the end of `into`.
    pub fn take_large(&mut self, into: &mut VecDeque<Vec<u8>>) {
        into.append(&mut self.large);
        self.large_bytes = 0;
    }

    /// Takes all frames out: the buffer of the small ones, and the large ones to the end of `large`.
    pub fn take(&mut self, large: &mut VecDeque<Vec<u8>>) -> Vec<u8> {
        self.take_large(large);
        self.count = 0;
        std::mem::take(&mut self.packed)
    }

    /// The frames, first to last. Large ones are taken out, so that this can be had once.
    pub fn parcel(&mut self) -> Parcel<'_> {
        Parcel { packed: &self.packed, large: &mut self.large, large_bytes: self.large_bytes, count: self.count }
    }
}

/// The first of packed frames, to be looked at. `large` is the next one that has a buffer of its own.
pub fn first_of<'a>(packed: &'a [u8], large: Option<&'a Vec<u8>>) -> Option<&'a [u8]> {
    let (length, rest) = packed.split_first_chunk::<2>()?;
    match u16::from_le_bytes(*length) {
        LARGE => large.map(Vec::as_slice),
        length => rest.get(..usize::from(length)),
    }
}

/// Frames on their way out, to be taken one by one. What is not taken stays where it was.
#[derive(Debug)]
pub struct Parcel<'a> {
    packed: &'a [u8],
    large: &'a mut VecDeque<Vec<u8>>,
    large_bytes: usize,
    count: usize,
}

impl<'a> Parcel<'a> {
    /// So many frames, packed as by [`ReplyFrames`], whose large ones are next in `large`, of so many bytes.
    pub fn new(packed: &'a [u8], large: &'a mut VecDeque<Vec<u8>>, large_bytes: usize, count: usize) -> Self {
        Parcel { packed, large, large_bytes, count }
    }

    /// Bytes of the frames that were not taken yet.
    pub fn bytes(&self) -> usize {
        self.packed.len() + self.large_bytes
    }
}

impl<'a> Iterator for Parcel<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let (length, rest) = self.packed.split_first_chunk::<2>()?;
        self.count -= 1;
        let length = u16::from_le_bytes(*length);
        if length == LARGE {
            self.packed = rest;
            let frame = self.large.pop_front()?;
            self.large_bytes -= frame.len();
            return Some(Frame::Large(frame));
        }
        let (frame, rest) = rest.split_at_checked(usize::from(length))?;
        self.packed = rest;
        Some(Frame::Small(frame))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Parcel<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn small_and_large() -> ReplyFrames {
        let mut reply = ReplyFrames::default();
        reply.push(b"");
        reply.push(&[7; LARGE_FRAME]);
        reply.push(&[8; LARGE_FRAME - 1]);
        reply.push(&[9; LARGE_FRAME + 1]);
        reply.push_number(-12_i64);
        reply
    }

    #[test]
    fn frames_come_back_in_order_whatever_their_size() {
        let mut reply = small_and_large();
        assert_eq!((reply.len(), reply.large_bytes()), (5, 2 * LARGE_FRAME + 1));
        let mut parcel = reply.parcel();
        assert_eq!((parcel.len(), parcel.bytes()), (5, 3 * LARGE_FRAME + 5 * 2 + 3));
        assert_eq!(parcel.next(), Some(Frame::Small(b"")));
        assert_eq!(parcel.next(), Some(Frame::Large(vec![7; LARGE_FRAME])));
        assert_eq!((parcel.len(), parcel.bytes()), (3, 2 * LARGE_FRAME + 3 * 2 + 3));
        assert_eq!(parcel.next(), Some(Frame::Small(&[8; LARGE_FRAME - 1])));
        assert_eq!(parcel.next(), Some(Frame::Large(vec![9; LARGE_FRAME + 1])));
        assert_eq!((parcel.len(), parcel.bytes()), (1, 5));
        assert_eq!((parcel.next(), parcel.next()), (Some(Frame::Small(b"-12")), None));
    }

    #[test]
    fn frames_can_be_taken_as_bytes_and_put_together_again() {
        let mut reply = small_and_large();
        let mut large = VecDeque::new();
        assert!(!reply.is_empty());
        let (bytes, count) = (reply.large_bytes(), reply.len());
        let packed = reply.take(&mut large);
        assert!(reply.is_empty() && reply.packed().is_empty() && reply.large_bytes() == 0);
        let again: Vec<_> = Parcel::new(&packed, &mut large, bytes, count).collect();
        assert!(small_and_large().parcel().eq(again));
        assert!(large.is_empty());
    }

    #[test]
    fn a_reply_can_go_on_from_the_beginning_of_another() {
        let mut envelope = ReplyFrames::default();
        envelope.push(b"id");
        envelope.push(b"");
        let mut reply = ReplyFrames::from_packed(envelope.packed());
        assert_eq!(reply.len(), 2);
        reply.push(b"OK");
        assert!(reply.parcel().eq([Frame::Small(b"id"), Frame::Small(b""), Frame::Small(b"OK")]));
    }

    #[test]
    fn a_frame_that_is_made_is_taken_over_or_copied() {
        let mut reply = ReplyFrames::default();
        let (mut small, mut large) = (vec![7; 3], vec![8; LARGE_FRAME]);
        let stands = large.as_ptr();
        reply.push_from(&mut small);
        reply.push_from(&mut large);
        assert_eq!((small.len(), large.capacity(), reply.large_bytes()), (3, 0, LARGE_FRAME));
        assert_eq!(reply.frame_at(0), Some(&[7; 3][..]));
        assert_eq!(reply.frame_at(5), Some(&[8; LARGE_FRAME][..]));
        assert_eq!(reply.frame_at(7), None);
        let mut parcel = reply.parcel();
        assert_eq!(parcel.next(), Some(Frame::Small(&[7; 3])));
        let Some(Frame::Large(large)) = parcel.next() else { panic!("a large frame") };
        assert_eq!(large.as_ptr(), stands);
    }

    #[test]
    fn a_cleared_reply_is_as_new() {
        let mut reply = small_and_large();
        reply.clear(0);
        assert_eq!((reply.len(), reply.large_bytes(), reply.parcel().next()), (0, 0, None));
    }
}
