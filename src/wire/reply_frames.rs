//! The frames of one reply, encoded and owned, so that it can wait until it is durable.
//!
//! Small frames share one buffer; a large one keeps a buffer of its own, which the socket can take over
//! without copying it.

/// Frames from this many bytes on get a buffer of their own.
pub const LARGE_FRAME: usize = 8 * 1024;

#[derive(Clone, Debug)]
enum Part {
    /// Ends at this offset of the shared buffer, and begins where the small part before it ends.
    Small {
        end: u32,
    },
    Large(Vec<u8>),
}

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
/// let frames: Vec<_> = reply.drain().collect();
/// assert_eq!(frames, [Frame::Small(b""), Frame::Small(b"OK"), Frame::Small(b"7")]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ReplyFrames {
    shared: Vec<u8>,
    parts: Vec<Part>,
    large_bytes: usize,
}

impl ReplyFrames {
    /// Appends a frame.
    pub fn push(&mut self, frame: &[u8]) {
        if frame.len() >= LARGE_FRAME {
            self.large_bytes += frame.len();
            self.parts.push(Part::Large(frame.to_vec()));
        } else {
            self.shared.extend_from_slice(frame);
            self.parts.push(Part::Small { end: self.shared.len() as u32 });
        }
    }

    /// Appends a frame that is a number in ASCII decimal.
    pub fn push_number(&mut self, number: impl itoa::Integer) {
        self.shared.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self.parts.push(Part::Small { end: self.shared.len() as u32 });
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of memory that this reply holds, roughly, its own bookkeeping included.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.shared.capacity() + self.parts.capacity() * size_of::<Part>() + self.large_bytes
    }

    /// Keeps the first `frames` frames only. Used to put an error behind an envelope in place of an answer.
    pub fn truncate(&mut self, frames: usize) {
        let dropped = self.parts.drain(frames.min(self.parts.len())..);
        self.large_bytes -=
            dropped.map(|part| if let Part::Large(bytes) = part { bytes.len() } else { 0 }).sum::<usize>();
        let end = self.parts.iter().rev().find_map(|part| match part {
            Part::Small { end } => Some(*end as usize),
            Part::Large(_) => None,
        });
        self.shared.truncate(end.unwrap_or(0));
    }

    /// Takes the frames out, first to last.
    pub fn drain(&mut self) -> impl ExactSizeIterator<Item = Frame<'_>> {
        self.large_bytes = 0;
        let shared = &self.shared;
        let mut start = 0;
        self.parts.drain(..).map(move |part| match part {
            Part::Small { end } => {
                let frame = shared.get(start..end as usize).unwrap_or_default();
                start = end as usize;
                Frame::Small(frame)
            }
            Part::Large(bytes) => Frame::Large(bytes),
        })
    }
}
