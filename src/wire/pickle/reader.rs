//! Reads a pickle opcode by opcode.
//!
//! Knows where each instruction ends, and refuses what is announced but not there: arguments beyond the
//! message, negative lengths, memo numbers no pickler could have reached, frames that do not fit. Knows no
//! stack. It allocates nothing, and every instruction is at least one byte further, so that whoever loops
//! over it takes linear time.

use super::opcode::{Argument, BINGET, BINPUT, Effect, FRAME, GET, LONG_BINGET, LONG_BINPUT, PROTO, PUT, describe};
use super::refuse;
use crate::wire::WireError;

/// The newest protocol of pickle.
const NEWEST_PROTOCOL: u8 = 5;

/// One opcode and its argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction<'m> {
    /// The opcode.
    pub(super) opcode: u8,
    /// Its argument without length and without the newline that ends it.
    pub(super) argument: &'m [u8],
    /// What it does to the stack.
    pub(super) effect: Effect,
    /// Where the opcode stands in the message.
    pub(super) at: usize,
}

impl Instruction<'_> {
    /// The memo number that this instruction names, if it names one.
    pub(super) fn memo_number(&self) -> Option<Result<usize, WireError>> {
        match self.opcode {
            BINPUT | BINGET | LONG_BINPUT | LONG_BINGET => Some(little_endian(self.argument)),
            PUT | GET => Some(digits(self.argument)),
            _ => None,
        }
    }
}

/// A place in a message from which instructions are read.
#[derive(Debug)]
pub(super) struct Reader<'m> {
    message: &'m [u8],
    at: usize,
    /// Where the frame around `at` ends; not beyond `at` outside of frames.
    frame_end: usize,
}

impl<'m> Reader<'m> {
    /// A reader whose first instruction begins at this offset.
    pub(super) fn new(message: &'m [u8], at: usize) -> Self {
        Reader { message, at, frame_end: 0 }
    }

    /// Where the next instruction begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next instruction. `PROTO` and `FRAME` are checked and passed over: they do nothing to the stack.
    pub(super) fn next(&mut self) -> Result<Instruction<'m>, WireError> {
        loop {
            let instruction = self.read()?;
            match instruction.opcode {
                PROTO => check_protocol(&instruction)?,
                FRAME => self.enter_frame(&instruction)?,
                _ => return Ok(instruction),
            }
        }
    }

    fn read(&mut self) -> Result<Instruction<'m>, WireError> {
        #[cfg(test)]
        super::meter::step();
        let at = self.at;
        let Some(&opcode) = self.message.get(at) else { return Err(refuse("the pickle ends without its STOP")) };
        let (argument, effect) = describe(opcode)
            .map_err(|why| refuse(format!("the pickle holds opcode 0x{opcode:02x} at byte {at}: {why}")))?;
        self.at += 1;
        let argument = match argument {
            Argument::Fixed(length) => self.take(length)?,
            Argument::Line => self.line()?,
            Argument::TwoLines => self.two_lines()?,
            Argument::Counted(width) => {
                let length = little_endian(self.take(width)?)?;
                self.take(length)?
            }
            Argument::CountedSigned => {
                let length = self.take(4)?;
                if length.last().is_some_and(|top| top & 0x80 != 0) {
                    return Err(refuse(format!("the pickle holds a negative length at byte {at}")));
                }
                self.take(little_endian(length)?)?
            }
        };
        if at < self.frame_end && self.frame_end < self.at {
            return Err(refuse(format!("the pickle's frame ends inside of the opcode at byte {at}")));
        }
        let instruction = Instruction { opcode, argument, effect, at };
        // Picklers count their memo upwards, so a number takes at least a byte each. An unpickler sizes its
        // memo by the largest one: a few bytes could cost whoever loads the value gigabytes.
        if let Some(number) = instruction.memo_number()
            && number? > self.message.len()
        {
            return Err(refuse(format!("the pickle holds a memo number beyond its length at byte {at}")));
        }
        Ok(instruction)
    }

    /// A frame promises that this many bytes of whole instructions follow.
    fn enter_frame(&mut self, frame: &Instruction<'_>) -> Result<(), WireError> {
        if frame.at < self.frame_end {
            return Err(refuse(format!("the pickle begins a frame inside of a frame at byte {}", frame.at)));
        }
        let end = little_endian(frame.argument)?.checked_add(self.at).filter(|&end| end <= self.message.len());
        self.frame_end = end.ok_or_else(cut_short)?;
        Ok(())
    }

    fn rest(&self) -> &'m [u8] {
        self.message.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, length: usize) -> Result<&'m [u8], WireError> {
        let taken = self.rest().get(..length).ok_or_else(cut_short)?;
        self.at += length;
        Ok(taken)
    }

    fn line(&mut self) -> Result<&'m [u8], WireError> {
        let length = self.rest().iter().position(|&byte| byte == b'\n').ok_or_else(cut_short)?;
        let line = self.take(length)?;
        self.at += 1;
        Ok(line)
    }

    /// Two lines, the newline between them included.
    fn two_lines(&mut self) -> Result<&'m [u8], WireError> {
        let both = self.rest();
        let length = self.line()?.len() + 1 + self.line()?.len();
        both.get(..length).ok_or_else(cut_short)
    }
}

fn check_protocol(proto: &Instruction<'_>) -> Result<(), WireError> {
    match proto.argument {
        [0..=NEWEST_PROTOCOL] if proto.at == 0 => Ok(()),
        [0..=NEWEST_PROTOCOL] => Err(refuse("a PROTO opcode stands elsewhere than at the pickle's start")),
        _ => Err(refuse("kvd knows the pickle protocols 0 to 5")),
    }
}

fn cut_short() -> WireError {
    refuse("the pickle announces more bytes than the message has")
}

/// A number of up to eight bytes.
fn little_endian(bytes: &[u8]) -> Result<usize, WireError> {
    let number = bytes.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    usize::try_from(number).map_err(|_| cut_short())
}

/// An unsigned number in ASCII decimal, and nothing beside it.
fn digits(text: &[u8]) -> Result<usize, WireError> {
    let number = text.iter().try_fold(0usize, |number, &byte| {
        let digit = byte.checked_sub(b'0').filter(|&digit| digit <= 9)?;
        number.checked_mul(10)?.checked_add(usize::from(digit))
    });
    number.filter(|_| !text.is_empty()).ok_or_else(|| refuse("the pickle holds a memo number that is none"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pickle::opcode::{LONG4, NONE, STOP};

    fn opcodes(message: &[u8]) -> Result<Vec<u8>, WireError> {
        let mut reader = Reader::new(message, 0);
        let mut opcodes = Vec::new();
        while opcodes.last() != Some(&STOP) {
            opcodes.push(reader.next()?.opcode);
        }
        Ok(opcodes)
    }

    fn message_of(refused: Result<Vec<u8>, WireError>) -> String {
        refused.unwrap_err().message.into_owned()
    }

    #[test]
    fn arguments_are_passed_over() {
        let message = b"\x80\x05NI12\ncmodule\nname\nX\x02\0\0\0hi\x8e\x01\0\0\0\0\0\0\0.\x8b\x01\0\0\0\x07.";
        assert_eq!(opcodes(message).unwrap(), *b"NIcX\x8e\x8b.");
    }

    #[test]
    fn two_lines_are_one_argument() {
        let instruction = Reader::new(b"c_codecs\nencode\n.", 0).next().unwrap();
        assert_eq!(instruction.argument, b"_codecs\nencode");
    }

    #[test]
    fn announced_and_not_there() {
        for message in [
            &b"X\xff\xff\xff\xff."[..],
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
            b"\x95\xff\xff\xff\xff\xff\xff\xff\xffN.",
            b"\x95\x03\0\0\0\0\0\0\0N.",
            b"C\x05abc.",
            b"I12",
            b"conly\none",
            b"J\0\0",
        ] {
            assert!(message_of(opcodes(message)).contains("announces more"), "{message:?}");
        }
        assert!(message_of(opcodes(b"NN")).contains("without its STOP"));
    }

    #[test]
    fn negative_lengths() {
        for opcode in [LONG4, b'T'] {
            assert!(message_of(opcodes(&[opcode, 0xff, 0xff, 0xff, 0xff, b'.'])).contains("negative length"));
        }
    }

    #[test]
    fn memo_numbers() {
        assert_eq!(opcodes(b"Nq\x05r\x04\0\0\0p3\ng0\n.").unwrap(), *b"Nqrpg.");
        for message in [&b"Nq\xff."[..], b"Nr\xff\xff\xff\xff.", b"Np99\n.", b"Ng99\n.", b"j\xff\0\0\0."] {
            assert!(message_of(opcodes(message)).contains("beyond its length"), "{message:?}");
        }
        for message in [&b"Np\n."[..], b"Np-1\n.", b"Np+1\n.", b"Np99999999999999999999999\n."] {
            assert!(message_of(opcodes(message)).contains("that is none"), "{message:?}");
        }
    }

    #[test]
    fn frames_hold_whole_instructions() {
        let frame = |length: u8| [FRAME, length, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(opcodes(&[&frame(1)[..], b"N", &frame(1), b"."].concat()).unwrap(), [NONE, STOP]);
        assert!(message_of(opcodes(&[&frame(2)[..], b"C\x01a."].concat())).contains("ends inside"));
        assert!(message_of(opcodes(&[&frame(11)[..], b"N", &frame(1), b"."].concat())).contains("inside of a frame"));
    }

    #[test]
    fn protocols() {
        for version in 0..=NEWEST_PROTOCOL {
            assert!(opcodes(&[PROTO, version, b'.']).is_ok());
        }
        assert!(message_of(opcodes(b"\x80\x06.")).contains("0 to 5"));
        assert!(message_of(opcodes(b"N\x80\x04.")).contains("elsewhere"));
    }

    #[test]
    fn what_needs_something_from_outside() {
        for message in [&b"\x97."[..], b"N\x98.", b"Pid\n.", b"NQ."] {
            assert!(message_of(opcodes(message)).contains("from outside"), "{message:?}");
        }
        assert!(message_of(opcodes(b"\xff.")).contains("no such opcode"));
    }
}
