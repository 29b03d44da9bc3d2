//! Makes a key out of the instructions that the walk found to be one.
//!
//! Knows the few shapes that a key may have: `str`, `bytes`, `int`, `float`, `bool`, `None` and tuples of
//! these. Builds them as a tree of parts that borrow from the message; [`super::canonical`] writes the tree
//! down. Knows no other instruction than such a key needs, and refuses the rest, so there is nothing here that
//! could be talked into calling something.

use super::canonical;
use super::number::Number;
use super::opcode::{
    BINBYTES, BINBYTES8, BINSTRING, EMPTY_TUPLE, Effect, GLOBAL, MARK, MEMOIZE, NONE, REDUCE, SHORT_BINBYTES,
    SHORT_BINSTRING, STRING, TUPLE, TUPLE1, TUPLE2, TUPLE3,
};
use super::reader::{Instruction, Reader};
use super::text::Text;
use super::tree::{Part, PartId, Tree, no_key};
use super::walk::Layout;
use super::{refuse, too_big};
use crate::command::MAX_KEY;
use crate::mutation::{Key, Space};
use crate::wire::WireError;
use std::collections::HashMap;

/// Most items that the instructions of one key put on the stack. No key within [`MAX_KEY`] needs more: the
/// dearest, a `bytes` of one character in protocol 2, puts five items for the four bytes of its encoding.
const MAX_ITEMS: usize = 2 * MAX_KEY;

/// Most bytes that the instructions of one key take. No key within [`MAX_KEY`] needs more: the wordiest, `bytes`
/// of one character in protocol 0, take 46 bytes for the four of their encoding. It keeps a large message
/// from having all of its decimal integers converted before they add up to a key that is too big.
const MAX_INSTRUCTIONS: usize = 16 * MAX_KEY;

/// Decodes the key of a request that was walked. It is borrowed from the message where its bytes stand there
/// as they are, and else written to `scratch`.
pub(super) fn decode<'m>(message: &'m [u8], layout: &Layout, scratch: &'m mut Vec<u8>) -> Result<Key<'m>, WireError> {
    if layout.key_end - layout.word_at > MAX_INSTRUCTIONS {
        return Err(too_big());
    }
    let mut builder = Builder::default();
    let mut reader = Reader::new(message, layout.word_at);
    while reader.at() < layout.key_end {
        builder.apply(&reader.next()?)?;
    }
    let Builder { tree, stack, .. } = builder;
    let [_word, key] = *stack else { return Err(no_key()) };
    scratch.clear();
    let key = if let Some(Part::Str(text)) = tree.part(key) {
        if let Some(utf8) = text.utf8() {
            Key::bytes(utf8?)
        } else {
            text.append_utf8(scratch)?;
            Key::bytes(scratch)
        }
    } else {
        canonical::encode(&tree, key, scratch)?;
        Key { space: Space::Python, bytes: scratch }
    };
    match key.bytes.len() {
        0 => Err(refuse("a key is not empty")),
        1..=MAX_KEY => Ok(key),
        _ => Err(too_big()),
    }
}

/// An unpickler for keys and nothing else.
#[derive(Debug, Default)]
struct Builder<'m> {
    tree: Tree<'m>,
    stack: Vec<PartId>,
    marks: Vec<usize>,
    memo: HashMap<usize, PartId>,
    /// Items put on the stack so far.
    pushed: usize,
}

impl<'m> Builder<'m> {
    fn apply(&mut self, instruction: &Instruction<'m>) -> Result<(), WireError> {
        if let Some(text) = Text::of(instruction) {
            return self.push(Part::Str(text));
        }
        if let Some(number) = Number::of(instruction) {
            return self.push(Part::Number(number?));
        }
        match instruction.opcode {
            NONE => self.push(Part::None),
            STRING | BINSTRING | SHORT_BINSTRING => {
                Err(refuse("the key holds an 8-bit string, as Python 2 writes it: make it unicode, u'...'"))
            }
            SHORT_BINBYTES | BINBYTES | BINBYTES8 => self.push(Part::Bytes(instruction.argument)),
            EMPTY_TUPLE => self.push_tuple(self.stack.len()),
            TUPLE1 => self.push_tuple(self.stack.len().saturating_sub(1)),
            TUPLE2 => self.push_tuple(self.stack.len().saturating_sub(2)),
            TUPLE3 => self.push_tuple(self.stack.len().saturating_sub(3)),
            TUPLE => {
                let mark = self.marks.pop().ok_or_else(no_key)?;
                self.push_tuple(mark)
            }
            MARK => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            // `builtins` is what a pickler writes that was told not to mind Python 2.
            GLOBAL => match instruction.argument {
                b"_codecs\nencode" => self.push(Part::Encode),
                b"__builtin__\nbytes" | b"builtins\nbytes" => self.push(Part::BytesClass),
                // How `dill` writes a class that is built in.
                b"dill._dill\n_load_type" => self.push(Part::ClassByName),
                _ => Err(no_key()),
            },
            REDUCE => self.call(),
            _ if instruction.effect == Effect::Memo => self.memoize(instruction),
            _ => self.recall(instruction),
        }
    }

    fn push(&mut self, part: Part<'m>) -> Result<(), WireError> {
        let id = self.tree.add(part);
        self.push_id(id)
    }

    fn push_id(&mut self, id: PartId) -> Result<(), WireError> {
        self.pushed += 1;
        if self.pushed > MAX_ITEMS {
            return Err(too_big());
        }
        self.stack.push(id);
        Ok(())
    }

    /// Makes a tuple of all items from this place of the stack on.
    fn push_tuple(&mut self, from: usize) -> Result<(), WireError> {
        let items = self.tree.add_items(self.stack.drain(from.min(self.stack.len())..));
        self.push(Part::Tuple(items))
    }

    /// Takes a function and its arguments for the `bytes` that a call would make, or for their class, if they are one of
    /// the shapes in which protocols 0 to 2 write those. Nothing is called.
    fn call(&mut self) -> Result<(), WireError> {
        let arguments = self.stack.pop().and_then(|id| self.tree.part(id)).cloned();
        let function = self.stack.pop().and_then(|id| self.tree.part(id));
        let Some(Part::Tuple(arguments)) = arguments else { return Err(no_key()) };
        let made = match (function, self.tree.items(&arguments)) {
            (Some(Part::BytesClass), []) => Part::Bytes(b""),
            (Some(Part::ClassByName), &[name]) => match self.tree.part(name) {
                Some(Part::Str(name)) if name.raw() == b"bytes" => Part::BytesClass,
                _ => return Err(no_key()),
            },
            (Some(Part::Encode), &[text, codec]) => match (self.tree.part(text), self.tree.part(codec)) {
                (Some(Part::Str(text)), Some(Part::Str(codec))) if codec.raw() == b"latin1" => Part::Latin1(*text),
                _ => return Err(no_key()),
            },
            _ => return Err(no_key()),
        };
        self.push(made)
    }

    fn memoize(&mut self, instruction: &Instruction<'_>) -> Result<(), WireError> {
        let number = match instruction.memo_number() {
            Some(number) => number?,
            None if instruction.opcode == MEMOIZE => self.memo.len(),
            None => return Err(no_key()),
        };
        let top = *self.stack.last().ok_or_else(no_key)?;
        self.memo.insert(number, top);
        Ok(())
    }

    fn recall(&mut self, instruction: &Instruction<'_>) -> Result<(), WireError> {
        let number = instruction.memo_number().ok_or_else(no_key)??;
        match self.memo.get(&number) {
            Some(&id) => self.push_id(id),
            None => Err(refuse("the key refers to a memo number that nothing was kept under")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::ErrorCode;
    use crate::wire::pickle::walk::walk;

    /// The key of a get whose key is made by these instructions.
    fn key(instructions: &[u8]) -> Result<(Space, Vec<u8>), ErrorCode> {
        let message = [b"\x80\x04\x8c\x03get\x94", instructions, b"N\x87."].concat();
        let mut scratch = b"left over".to_vec();
        walk(&message)
            .and_then(|layout| decode(&message, &layout, &mut scratch).map(|key| (key.space, key.bytes.to_vec())))
            .map_err(|refusal| refusal.code)
    }

    #[expect(clippy::unnecessary_wraps, reason = "has the shape of what it is compared with")]
    fn text(text: &[u8]) -> Result<(Space, Vec<u8>), ErrorCode> {
        Ok((Space::Bytes, text.to_vec()))
    }

    #[expect(clippy::unnecessary_wraps, reason = "has the shape of what it is compared with")]
    fn python(encoding: &[u8]) -> Result<(Space, Vec<u8>), ErrorCode> {
        Ok((Space::Python, encoding.to_vec()))
    }

    #[test]
    fn a_str_is_its_utf8() {
        assert_eq!(key(b"\x8c\x02\xc3\xa9\x94"), text("é".as_bytes()));
        assert_eq!(key(b"X\x01\0\0\0k"), text(b"k"));
        assert_eq!(key(b"\x8d\x01\0\0\0\0\0\0\0k"), text(b"k"));
        assert_eq!(key(b"Vk\xe9\\u20ac\np7\n"), text("ké€".as_bytes()));
        assert_eq!(key(b"\x8c\x03\xed\xa0\x80"), text(b"\xed\xa0\x80"));
    }

    #[test]
    fn a_str_that_stands_in_the_message_is_borrowed() {
        let message = b"(Vget\nVget\nNt.";
        let mut scratch = Vec::new();
        let key = decode(message, &walk(message).unwrap(), &mut scratch).unwrap();
        assert!(message.as_ptr_range().contains(&key.bytes.as_ptr()));
    }

    #[test]
    fn the_word_may_be_the_key() {
        assert_eq!(key(b"h\x00"), text(b"get"));
        assert_eq!(key(b"g0\n"), text(b"get"));
        assert_eq!(key(b"j\0\0\0\0"), text(b"get"));
        assert_eq!(key(b"h\x01"), Err(ErrorCode::BadArgument));
    }

    #[test]
    fn tuples_and_their_memo() {
        assert_eq!(
            key(b"(K\x01\x94K\x02\x94K\x03K\x04t\x94"),
            python(b"+\0\x01\x01+\0\x01\x02+\0\x01\x03+\0\x01\x04T\0\x04")
        );
        assert_eq!(key(b"(N\x85q\x05h\x05h\x00)t"), python(b"NT\0\x01NT\0\x01S\0\x03getT\0\0T\0\x04"));
    }

    #[test]
    fn bytes_of_the_protocols_that_have_no_opcode_for_them() {
        assert_eq!(key(b"c_codecs\nencode\nq\x01X\x03\0\0\0a\xc3\xa9X\x06\0\0\0latin1\x86R"), python(b"B\0\x02a\xe9"));
        assert_eq!(key(b"c_codecs\nencode\n(Va\xe9\nVlatin1\ntR"), python(b"B\0\x02a\xe9"));
        assert_eq!(key(b"c__builtin__\nbytes\n)R"), python(b"B\0\0"));
        assert_eq!(key(b"cbuiltins\nbytes\n(tR"), python(b"B\0\0"));
    }

    #[test]
    fn the_empty_bytes_as_dill_writes_it() {
        // Of `dill` 0.2.9 to 0.4.1, protocols 0, 1 and 2, as a key and twice in a tuple.
        for instructions in [
            &b"cdill._dill\n_load_type\np1\n(Vbytes\np2\ntp3\nRp4\n(tRp5\n"[..],
            b"cdill._dill\n_load_type\nq\x01(X\x05\0\0\0bytesq\x02tq\x03Rq\x04)Rq\x05",
            b"cdill._dill\n_load_type\nq\x01X\x05\0\0\0bytesq\x02\x85q\x03Rq\x04)Rq\x05",
        ] {
            assert_eq!(key(instructions), python(b"B\0\0"), "{instructions:?}");
            assert_eq!(key(&[instructions, b"g5\n\x86"].concat()), python(b"B\0\0B\0\0T\0\x02"));
        }
        for other in [
            &b"cdill._dill\n_load_type\n(Vbytearray\ntR(tR"[..],
            b"cdill._dill\n_load_type\n(Vbytes\nVbytes\ntR(tR",
            b"cdill._dill\n_load_type\n(I1\ntR(tR",
            b"cdill._dill\n_load_type\n(Vbytes\ntR",
            b"cdill._dill\n_load_type\n)R",
            b"cdill._dill\n_import_module\n(Vbytes\ntR(tR",
            b"cdill._dill\n_load_type\n",
        ] {
            assert_eq!(key(other), Err(ErrorCode::BadArgument), "{other:?}");
        }
    }

    #[test]
    fn no_other_call() {
        for instructions in [
            &b"c_codecs\ndecode\nVa\nVlatin1\n\x86R"[..],
            b"c_codecs\nencode\nVa\nVutf8\n\x86R",
            b"c_codecs\nencode\nVa\nVlatin1\nN\x87R",
            b"c_codecs\nencode\nNVlatin1\n\x86R",
            b"c_codecs\nencode\nV\\u0100\nVlatin1\n\x86R",
            b"c__builtin__\nbytes\nK\x01\x85R",
            b"c__builtin__\nbytes\n]R",
            b"c__builtin__\nbytes\nNR",
            b"c__builtin__\nbytearray\n)R",
            b"cos\nsystem\nVtrue\n\x85R",
            b")c__builtin__\nbytes\nR",
            b"c__builtin__\nbytes\n",
            b"c__builtin__\nbytes\n\x85",
            b"c_codecs\nencode\n\x85",
        ] {
            assert_eq!(key(instructions), Err(ErrorCode::BadArgument), "{instructions:?}");
        }
    }

    #[test]
    fn what_is_no_key() {
        for instructions in [
            &b"]"[..],
            b"}",
            b"\x8f",
            b"(\x91",
            b"(l",
            b"\x96\0\0\0\0\0\0\0\0",
            b"S'a'\n",
            b"U\x01a",
            b"\x82\x01",
            b"K\x010K\x02",
            b"K\x012\x86",
            b"K\x01}b",
            b"]\x85",
            b"\x8c\x00",
            b"V\n",
            b"\x8c\x01\xff",
            b"Fx\n",
            b"Fnan\n",
            b"I1x\n",
        ] {
            assert_eq!(key(instructions), Err(ErrorCode::BadArgument), "{instructions:?}");
        }
    }

    #[test]
    fn limits() {
        let str_of = |bytes: usize| [&b"X"[..], &(bytes as u32).to_le_bytes(), &b"k".repeat(bytes)].concat();
        assert_eq!(key(&str_of(MAX_KEY)), text(&b"k".repeat(MAX_KEY)));
        assert_eq!(key(&str_of(MAX_KEY + 1)), Err(ErrorCode::TooBig));
        let escaped = |characters: usize| [b"V", &br"\u20ac".repeat(characters)[..], b"\n"].concat();
        assert_eq!(key(&escaped(MAX_KEY / 3)), text("€".repeat(MAX_KEY / 3).as_bytes()));
        assert_eq!(key(&escaped(MAX_KEY / 3 + 1)), Err(ErrorCode::TooBig));
        let latin1 = |characters: usize| [b"V", &b"\xe9".repeat(characters)[..], b"\n"].concat();
        assert_eq!(key(&latin1(MAX_KEY / 2)), text("é".repeat(MAX_KEY / 2).as_bytes()));
        assert_eq!(key(&latin1(MAX_KEY / 2 + 1)), Err(ErrorCode::TooBig));
        let tuple_of = |items: usize| [b"(", &b"N".repeat(items)[..], b"t"].concat();
        assert!(key(&tuple_of(MAX_KEY - 3)).is_ok());
        assert_eq!(key(&tuple_of(MAX_KEY - 2)), Err(ErrorCode::TooBig));
        assert_eq!(key(&tuple_of(MAX_ITEMS + 1)), Err(ErrorCode::TooBig));
        // The dearest key there is: nothing that fits is refused for the items it takes.
        let bytes = b"h\x01h\x02h\x03\x86R";
        let many = (MAX_KEY - 3 - 11) / 4;
        let dearest = [b"(c_codecs\nencode\nq\x01Va\nq\x02Vlatin1\nq\x03\x86R", &bytes.repeat(many)[..], b"t"].concat();
        assert!(key(&dearest).is_ok());
        assert_eq!(key(&[b"L", &b"9".repeat(4300)[..], b"L\n"].concat()).unwrap().1.len(), 3 + 1786);
        assert_eq!(key(&[b"L", &b"9".repeat(4301)[..], b"L\n"].concat()), Err(ErrorCode::TooBig));
        let padded = |frames: usize| [&b"\x95\0\0\0\0\0\0\0\0".repeat(frames)[..], b"N"].concat();
        assert_eq!(key(&padded(MAX_INSTRUCTIONS / 9 - 1)), python(b"N"));
        assert_eq!(key(&padded(MAX_INSTRUCTIONS / 9 + 1)), Err(ErrorCode::TooBig));
    }

    #[test]
    fn nothing_is_deeper_than_it_is_long() {
        let nested = |depth: usize| [b")", &b"\x85".repeat(depth)[..]].concat();
        assert_eq!(key(&nested(20_000)).unwrap().1.len(), 3 * 20_001);
        assert_eq!(key(&nested(200_000)), Err(ErrorCode::TooBig));
    }
}
