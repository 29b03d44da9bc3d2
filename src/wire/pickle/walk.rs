//! Finds where the key of a pickled request ends and where its data does, by following the unpickler's stack
//! without building what would be on it.
//!
//! Knows how deep the stack is, where its marks are, and which instruction last wrote its two lowest places.
//! Does not know what any item is: [`super::key`] makes sense of the key's instructions, and nobody makes
//! sense of the data's. It exists because a pickle does not say where an item ends. `K1` may be a key, or
//! the first half of the key `(1, 2)`; only what the rest of the stack does tells.

use super::opcode::{
    BINBYTES, BINBYTES8, BINSTRING, Effect, GLOBAL, MARK, SHORT_BINBYTES, SHORT_BINSTRING, STOP, STRING, TUPLE, TUPLE1,
    TUPLE2, TUPLE3,
};
use super::reader::{Instruction, Reader};
use super::text::Text;
use super::{WRONG_SHAPE, refuse};
use crate::command::ErrorCode;
use crate::wire::WireError;

/// Most marks that may be open at once, as lists within lists leave them. The picklers of CPython stop at
/// about a thousand unless told otherwise.
pub(super) const MAX_MARKS: usize = 1 << 16;

/// A command word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// `'get'`
    Get,
    /// `'set'`
    Set,
}

impl Word {
    fn of(first: &Instruction<'_>) -> Result<Word, WireError> {
        match (Text::of(first).map(Text::raw), first.opcode) {
            (Some(b"get"), _) => Ok(Word::Get),
            (Some(b"set"), _) => Ok(Word::Set),
            (None, STRING | BINSTRING | SHORT_BINSTRING) => Err(refuse(
                "the command word is an 8-bit string, as Python 2 writes it: make it unicode, u'get' or u'set', and the key too",
            )),
            (None, BINBYTES | SHORT_BINBYTES | BINBYTES8) => Err(bytes_word()),
            // As protocols 0 to 2 write it.
            (None, GLOBAL) if first.argument == b"_codecs\nencode" => Err(bytes_word()),
            (None, _) => Err(refuse(WRONG_SHAPE)),
            _ => Err(WireError::new(ErrorCode::BadCommand, WRONG_SHAPE)),
        }
    }
}

fn bytes_word() -> WireError {
    refuse("the command word is a bytes object: make it a str, 'get' or 'set'")
}

/// Where the parts of a pickled request are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The command word.
    pub(super) word: Word,
    /// Where the instruction of the command word begins.
    pub(super) word_at: usize,
    /// Where the last instruction that made the key ends. From `word_at` to here there is nothing but the
    /// word, the key and their memo.
    pub(super) key_end: usize,
    /// The opcode that put the third item where it is.
    pub(super) data: u8,
    /// Where the opcode stands that closes the request's tuple. Right before it, the data is on top of the
    /// stack.
    pub(super) closing_at: usize,
}

/// Walks a message from its first byte to its last.
pub(super) fn walk(message: &[u8]) -> Result<Layout, WireError> {
    let mut reader = Reader::new(message, 0);
    let layout = up_to_closing(&mut reader, |opcode, closing| opcode == closing)?.0;
    let mut last = reader.next()?;
    if last.effect == Effect::Memo {
        last = reader.next()?;
    }
    if last.opcode != STOP {
        return Err(refuse(WRONG_SHAPE));
    }
    if reader.at() != message.len() {
        return Err(refuse("bytes follow the STOP of the pickle"));
    }
    Ok(layout)
}

/// Where in a stored request the STOP stands that took the place of the closing opcode, and which opcode that was.
pub(super) fn closing_of_stored(stored: &[u8]) -> Option<(usize, u8)> {
    let (layout, closing) = up_to_closing(&mut Reader::new(stored, 0), |opcode, _| opcode == STOP).ok()?;
    Some((layout.closing_at, closing))
}

/// Walks up to the opcode that closes the request's tuple, which `closes` tells by it and by the one that would make the
/// tuple. Returns that one too.
fn up_to_closing(reader: &mut Reader<'_>, closes: impl Fn(u8, u8) -> bool) -> Result<(Layout, u8), WireError> {
    let mut first = reader.next()?;
    // Protocols 0 and 1 know one way to make a tuple of three, a mark and TUPLE; the later ones prefer TUPLE3.
    let mut closing = TUPLE3;
    if first.opcode == MARK {
        closing = TUPLE;
        first = reader.next()?;
    }
    let word = Word::of(&first)?;

    let mut stack = Stack::default();
    let (mut key_end, mut data) = (0, 0);
    let closing_at = loop {
        let instruction = reader.next()?;
        if closes(instruction.opcode, closing) && stack.holds_key_and_data() {
            break instruction.at;
        }
        if let Some(items) = stack.items_closed_by(instruction.opcode, closing) {
            return Err(refuse(format!("{WRONG_SHAPE}; this is a tuple of {items}")));
        }
        if instruction.effect == Effect::Stop && stack.is_untouched() {
            return Err(refuse(WRONG_SHAPE));
        }
        let written = stack.apply(instruction.effect).map_err(|why| {
            refuse(format!("the pickle's opcode 0x{:02x} at byte {}: {why}", instruction.opcode, instruction.at))
        })?;
        match written {
            Some(0) => key_end = reader.at(),
            Some(1) => data = instruction.opcode,
            _ => {}
        }
    };

    Ok((Layout { word, word_at: first.at, key_end, data, closing_at }, closing))
}

/// The unpickler's stack above the command word, as a depth.
///
/// The word, and the mark that may be below it, are not on this stack: an instruction that reaches for them
/// finds nothing and is refused. So the word stays where it is until the tuple closes over it.
#[derive(Debug, Default)]
struct Stack {
    depth: usize,
    /// The depths at which marks were set, rising.
    marks: Vec<usize>,
}

impl Stack {
    /// Whether the command word is all there is, and no tuple of it.
    fn is_untouched(&self) -> bool {
        self.depth == 0 && self.marks.is_empty()
    }

    /// Whether there are exactly two items, and no mark that could part them.
    fn holds_key_and_data(&self) -> bool {
        self.depth == 2 && self.marks.is_empty()
    }

    /// How many items a tuple has that this opcode would make of the command word and all that is above it.
    fn items_closed_by(&self, opcode: u8, closing: u8) -> Option<usize> {
        let items = self.depth + 1;
        let all = match opcode {
            TUPLE1 => closing == TUPLE3 && items == 1,
            TUPLE2 => closing == TUPLE3 && items == 2,
            TUPLE => closing == TUPLE,
            _ => false,
        };
        (all && self.marks.is_empty()).then_some(items)
    }

    /// Does what an opcode does to the stack. Returns the lowest place that it wrote, or read to write anew.
    fn apply(&mut self, effect: Effect) -> Result<Option<usize>, &'static str> {
        const MISSING: &str = "it takes more from the stack than was put there for it";
        match effect {
            Effect::Replace(takes) => {
                let lowest = self.above_mark().checked_sub(takes).map(|_| self.depth - takes).ok_or(MISSING)?;
                self.depth = lowest + 1;
                Ok(Some(lowest))
            }
            Effect::Duplicate => {
                self.above_mark().checked_sub(1).ok_or(MISSING)?;
                self.depth += 1;
                Ok(Some(self.depth - 2))
            }
            Effect::Mark => {
                if self.marks.len() == MAX_MARKS {
                    return Err("the data is nested too deep");
                }
                self.marks.push(self.depth);
                Ok(None)
            }
            Effect::Gather(least) => {
                self.above_mark().checked_sub(least).ok_or(MISSING)?;
                let mark = self.marks.pop().ok_or(MISSING)?;
                self.depth = mark + 1;
                Ok(Some(mark))
            }
            Effect::Extend => {
                let mark = self.marks.pop().ok_or(MISSING)?;
                self.depth = mark;
                self.above_mark().checked_sub(1).ok_or(MISSING)?;
                Ok(Some(mark - 1))
            }
            Effect::Pop if self.above_mark() == 0 => {
                self.marks.pop().ok_or(MISSING)?;
                Ok(None)
            }
            Effect::Pop => {
                self.depth -= 1;
                Ok(Some(self.depth))
            }
            Effect::PopMark => {
                self.depth = self.marks.pop().ok_or(MISSING)?;
                Ok(Some(self.depth))
            }
            Effect::Memo => {
                // Right after the word it is the word that is kept, which is fine.
                let empty = self.above_mark() == 0 && !self.marks.is_empty();
                if empty { Err(MISSING) } else { Ok(None) }
            }
            Effect::Stop => Err("it ends the pickle before the request is whole"),
            Effect::Stream => Ok(None),
        }
    }

    /// Items above the last mark: what an instruction may take.
    fn above_mark(&self) -> usize {
        self.depth - self.marks.last().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pickle::opcode::NONE;

    fn refusal(message: &[u8]) -> String {
        walk(message).expect_err("refused").message.into_owned()
    }

    #[test]
    fn parts_are_found() {
        let message = b"\x80\x04\x8c\x03get\x94\x8c\x01k\x94N\x87\x94.";
        let found = walk(message).unwrap();
        assert_eq!(found, Layout { word: Word::Get, word_at: 2, key_end: 11, data: NONE, closing_at: 13 });
        let message = b"(Vset\np0\nVk\np1\nI7\ntp2\n.";
        let found = walk(message).unwrap();
        assert_eq!(found, Layout { word: Word::Set, word_at: 1, key_end: 12, data: b'I', closing_at: 18 });
    }

    #[test]
    fn a_key_ends_where_its_last_tuple_does() {
        // The key (1, (2, 3)), the data [4].
        let message = b"\x80\x02X\x03\0\0\0setK\x01K\x02K\x03\x86\x86]K\x04a\x87.";
        let found = walk(message).unwrap();
        assert_eq!((found.key_end, found.data, found.closing_at), (18, b'a', 22));
    }

    #[test]
    fn requests_of_another_shape() {
        for message in [&b"\x80\x04N."[..], b"\x80\x04]\x94.", b"\x80\x04K\x01K\x02K\x03\x87.", b"\x80\x02)\x81."] {
            assert_eq!(refusal(message), WRONG_SHAPE);
        }
        // `'get'` and `'set'` alone, of protocols 0, 2 and 4.
        for message in
            [&b"Vget\np0\n."[..], b"\x80\x02X\x03\0\0\0setq\0.", b"\x80\x04\x95\x07\0\0\0\0\0\0\0\x8c\x03get\x94."]
        {
            assert_eq!(refusal(message), WRONG_SHAPE);
        }
        // A list, a tuple closed by the wrong opcode.
        for message in [&b"\x80\x04(\x8c\x03getNNl."[..], b"\x80\x04(\x8c\x03getNN\x87.", b"\x80\x04\x8c\x03getNNt."] {
            assert!(walk(message).is_err(), "{message:?}");
        }
    }

    #[test]
    fn tuples_of_another_length_are_told_theirs() {
        for (message, items) in [
            (&b"\x80\x04\x8c\x03get\x94\x85\x94."[..], 1),
            (b"(Vget\np0\ntp1\n.", 1),
            (b"\x80\x04\x95\x0d\0\0\0\0\0\0\0\x8c\x03get\x94\x8c\x01k\x94\x86\x94.", 2),
            (b"(Vget\np0\nVk\np1\ntp2\n.", 2),
            (b"\x80\x04\x95\x12\0\0\0\0\0\0\0(\x8c\x03set\x94\x8c\x01k\x94K\x01K<t\x94.", 4),
            (b"(Vset\np0\nVk\np1\nI1\nI60\ntp2\n.", 4),
        ] {
            assert_eq!(refusal(message), format!("{WRONG_SHAPE}; this is a tuple of {items}"), "{message:?}");
        }
    }

    #[test]
    fn a_command_word_that_is_no_text_is_told_what_it_should_be() {
        // `('set', 'k', 1)` of Python 2.7, protocols 0 to 2.
        for message in [
            &b"(S'set'\np0\nS'k'\np1\nI1\ntp2\n."[..],
            b"(U\x03setq\x00U\x01kq\x01K\x01tq\x02.",
            b"\x80\x02U\x03setq\x00U\x01kq\x01K\x01\x87q\x02.",
        ] {
            assert!(refusal(message).contains("Python 2 writes it: make it unicode, u'get' or u'set'"), "{message:?}");
        }
        // `(b'get', 'k', None)` of Python 3.
        for message in [
            &b"\x80\x04\x95\x0e\0\0\0\0\0\0\0C\x03get\x94\x8c\x01k\x94N\x87\x94."[..],
            b"(c_codecs\nencode\np0\n(Vget\np1\nVlatin1\np2\ntp3\nRp4\nVk\np5\nNtp6\n.",
        ] {
            assert!(refusal(message).contains("make it a str, 'get' or 'set'"), "{message:?}");
        }
    }

    #[test]
    fn data_cannot_reach_the_word() {
        // Between ('set', 1 and the end: whatever takes a third item from a stack that has two.
        for data in [
            &b"00\x8c\x03getK\x02N"[..],
            b"\x87N",
            b"000",
            b"0\x85\x85b",
            b"00b",
            b"K\x01\x87",
            b"0(e",
            b"0(u0",
            b"1",
            b"t",
            b"0a",
            b"02",
            b"(0\x86b",
            b"((b",
            b"(o",
            b"(q\x00",
            b"N.",
        ] {
            let message = [&b"\x80\x04\x8c\x03setK\x01"[..], data, b"\x87."].concat();
            assert!(walk(&message).is_err(), "{data:?}");
        }
    }

    #[test]
    fn data_that_touches_the_key_is_counted_to_the_key() {
        // DUP, BUILD, APPEND and the like of a key: key::decode sees them, and refuses them.
        for data in [&b"2"[..], b"}bN", b"NaN", b"NNsN", b"(NeN", b"0NN", b"\x85N"] {
            let message = [&b"\x80\x04\x8c\x03setK\x01"[..], data, b"\x87."].concat();
            assert!(walk(&message).unwrap().key_end > 9, "{data:?}");
        }
    }

    #[test]
    fn nothing_may_follow() {
        assert_eq!(refusal(b"\x80\x04\x8c\x03getNN\x87.."), "bytes follow the STOP of the pickle");
        assert_eq!(refusal(b"\x80\x04\x8c\x03getNN\x87N."), WRONG_SHAPE);
        assert_eq!(refusal(b"\x80\x04\x8c\x03getNN\x87q\x00q\x01."), WRONG_SHAPE);
    }

    #[test]
    fn marks_are_capped() {
        let nested = |marks: usize| {
            let data = [b"(".repeat(marks), b"t".repeat(marks)].concat();
            [b"\x80\x04\x8c\x03setK\x01", &data[..], b"\x87."].concat()
        };
        assert!(walk(&nested(MAX_MARKS)).is_ok());
        assert!(refusal(&nested(MAX_MARKS + 1)).contains("nested too deep"));
    }
}
