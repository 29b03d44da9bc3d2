//! The opcodes of pickle, protocols 0 to 5, as data: how long each one's argument is and what it does to
//! the unpickler's stack.
//!
//! Knows no message and no key. It exists so that the walk is one short loop over one table, which can be
//! held beside CPython's `pickletools.opcodes` line by line.

pub(super) const PROTO: u8 = 0x80;
pub(super) const FRAME: u8 = 0x95;
pub(super) const STOP: u8 = b'.';

pub(super) const NONE: u8 = b'N';
pub(super) const NEWTRUE: u8 = 0x88;
pub(super) const NEWFALSE: u8 = 0x89;
pub(super) const INT: u8 = b'I';
pub(super) const LONG: u8 = b'L';
pub(super) const BININT: u8 = b'J';
pub(super) const BININT1: u8 = b'K';
pub(super) const BININT2: u8 = b'M';
pub(super) const LONG1: u8 = 0x8a;
pub(super) const LONG4: u8 = 0x8b;
pub(super) const FLOAT: u8 = b'F';
pub(super) const BINFLOAT: u8 = b'G';

pub(super) const UNICODE: u8 = b'V';
pub(super) const BINUNICODE: u8 = b'X';
pub(super) const SHORT_BINUNICODE: u8 = 0x8c;
pub(super) const BINUNICODE8: u8 = 0x8d;
pub(super) const BINBYTES: u8 = b'B';
pub(super) const SHORT_BINBYTES: u8 = b'C';
pub(super) const BINBYTES8: u8 = 0x8e;
pub(super) const BYTEARRAY8: u8 = 0x96;
pub(super) const STRING: u8 = b'S';
pub(super) const BINSTRING: u8 = b'T';
pub(super) const SHORT_BINSTRING: u8 = b'U';

pub(super) const MARK: u8 = b'(';
pub(super) const EMPTY_TUPLE: u8 = b')';
pub(super) const TUPLE: u8 = b't';
pub(super) const TUPLE1: u8 = 0x85;
pub(super) const TUPLE2: u8 = 0x86;
pub(super) const TUPLE3: u8 = 0x87;
pub(super) const EMPTY_LIST: u8 = b']';
pub(super) const LIST: u8 = b'l';
pub(super) const APPEND: u8 = b'a';
pub(super) const APPENDS: u8 = b'e';
pub(super) const EMPTY_DICT: u8 = b'}';
pub(super) const DICT: u8 = b'd';
pub(super) const SETITEM: u8 = b's';
pub(super) const SETITEMS: u8 = b'u';
pub(super) const EMPTY_SET: u8 = 0x8f;
pub(super) const ADDITEMS: u8 = 0x90;
pub(super) const FROZENSET: u8 = 0x91;

pub(super) const POP: u8 = b'0';
pub(super) const POP_MARK: u8 = b'1';
pub(super) const DUP: u8 = b'2';
pub(super) const PUT: u8 = b'p';
pub(super) const BINPUT: u8 = b'q';
pub(super) const LONG_BINPUT: u8 = b'r';
pub(super) const MEMOIZE: u8 = 0x94;
pub(super) const GET: u8 = b'g';
pub(super) const BINGET: u8 = b'h';
pub(super) const LONG_BINGET: u8 = b'j';

pub(super) const GLOBAL: u8 = b'c';
pub(super) const STACK_GLOBAL: u8 = 0x93;
pub(super) const EXT1: u8 = 0x82;
pub(super) const EXT2: u8 = 0x83;
pub(super) const EXT4: u8 = 0x84;
pub(super) const REDUCE: u8 = b'R';
pub(super) const BUILD: u8 = b'b';
pub(super) const INST: u8 = b'i';
pub(super) const OBJ: u8 = b'o';
pub(super) const NEWOBJ: u8 = 0x81;
pub(super) const NEWOBJ_EX: u8 = 0x92;

pub(super) const NEXT_BUFFER: u8 = 0x97;
pub(super) const READONLY_BUFFER: u8 = 0x98;
pub(super) const PERSID: u8 = b'P';
pub(super) const BINPERSID: u8 = b'Q';

/// What stands between an opcode and the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Argument {
    /// This many bytes.
    Fixed(usize),
    /// A line, which a newline ends.
    Line,
    /// Two of them.
    TwoLines,
    /// An unsigned little-endian length of this many bytes, then that many bytes.
    Counted(usize),
    /// A signed little-endian length of four bytes, which may not be negative, then that many bytes.
    CountedSigned,
}

/// What an opcode does to the stack.
///
/// An unpickler lets no opcode but those of the `Gather` and `Extend` kind reach below the last mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Takes items off the top and puts one in their place.
    Replace(usize),
    /// Puts a second reference to the top on top of it.
    Duplicate,
    /// Sets a mark.
    Mark,
    /// Takes everything above the last mark, at least this many items, and the mark; puts one item.
    Gather(usize),
    /// Takes everything above the last mark, and the mark, into the item below it.
    Extend,
    /// Drops the top item, or the last mark where there is nothing above it.
    Pop,
    /// Drops everything above the last mark, and the mark.
    PopMark,
    /// Keeps a reference to the top under a number. The stack stays as it is.
    Memo,
    /// Ends the pickle.
    Stop,
    /// Nothing: it structures the stream.
    Stream,
}

/// Puts one item.
const PUSH: Effect = Effect::Replace(0);
/// No argument.
const BARE: Argument = Argument::Fixed(0);

/// The argument and the effect of an opcode, or why kvd refuses it.
#[expect(clippy::match_same_arms, reason = "arms follow what the opcodes are for")]
pub(super) const fn describe(opcode: u8) -> Result<(Argument, Effect), &'static str> {
    use Argument::{Counted, CountedSigned, Fixed, Line, TwoLines};
    use Effect::{Duplicate, Extend, Gather, Mark, Memo, Pop, PopMark, Replace, Stop, Stream};
    Ok(match opcode {
        PROTO => (Fixed(1), Stream),
        FRAME => (Fixed(8), Stream),
        STOP => (BARE, Stop),

        NONE | NEWTRUE | NEWFALSE => (BARE, PUSH),
        INT | LONG | FLOAT | UNICODE | STRING => (Line, PUSH),
        BININT1 => (Fixed(1), PUSH),
        BININT2 => (Fixed(2), PUSH),
        BININT => (Fixed(4), PUSH),
        BINFLOAT => (Fixed(8), PUSH),
        LONG1 | SHORT_BINUNICODE | SHORT_BINBYTES | SHORT_BINSTRING => (Counted(1), PUSH),
        BINUNICODE | BINBYTES => (Counted(4), PUSH),
        BINUNICODE8 | BINBYTES8 | BYTEARRAY8 => (Counted(8), PUSH),
        LONG4 | BINSTRING => (CountedSigned, PUSH),

        EMPTY_TUPLE | EMPTY_LIST | EMPTY_DICT | EMPTY_SET => (BARE, PUSH),
        MARK => (BARE, Mark),
        TUPLE | LIST | DICT | FROZENSET => (BARE, Gather(0)),
        TUPLE1 => (BARE, Replace(1)),
        TUPLE2 | APPEND => (BARE, Replace(2)),
        TUPLE3 | SETITEM => (BARE, Replace(3)),
        APPENDS | SETITEMS | ADDITEMS => (BARE, Extend),

        POP => (BARE, Pop),
        POP_MARK => (BARE, PopMark),
        DUP => (BARE, Duplicate),
        PUT => (Line, Memo),
        BINPUT => (Fixed(1), Memo),
        LONG_BINPUT => (Fixed(4), Memo),
        MEMOIZE => (BARE, Memo),
        GET => (Line, PUSH),
        BINGET => (Fixed(1), PUSH),
        LONG_BINGET => (Fixed(4), PUSH),

        GLOBAL => (TwoLines, PUSH),
        STACK_GLOBAL | REDUCE | BUILD | NEWOBJ => (BARE, Replace(2)),
        NEWOBJ_EX => (BARE, Replace(3)),
        INST => (TwoLines, Gather(0)),
        OBJ => (BARE, Gather(1)),
        // Numbers of classes that the clients have agreed on (`copyreg`): data like any other to kvd.
        EXT1 => (Fixed(1), PUSH),
        EXT2 => (Fixed(2), PUSH),
        EXT4 => (Fixed(4), PUSH),

        NEXT_BUFFER | READONLY_BUFFER => {
            return Err("it needs a buffer from outside of the pickle: pickle without buffer_callback");
        }
        PERSID | BINPERSID => {
            return Err("it needs an object from outside of the pickle: pickle without persistent_id");
        }
        _ => return Err("there is no such opcode"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_opcodes_as_cpython_has() {
        let known = (0..=u8::MAX).filter(|&opcode| describe(opcode).is_ok()).count();
        let refused = [NEXT_BUFFER, READONLY_BUFFER, PERSID, BINPERSID];
        assert_eq!(known + refused.len(), 68, "`len(pickletools.opcodes)` of CPython 3.8 to 3.14");
    }
}
