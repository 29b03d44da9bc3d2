//! A key as the tree of its parts, which borrow from the message.
//!
//! Knows neither the instructions that build it ([`super::key`]) nor the bytes it is written down as
//! ([`super::canonical`]): it is what the two share.

use super::number::Number;
use super::refuse;
use super::text::Text;
use crate::wire::WireError;
use std::ops::Range;

/// Which of [`Tree::parts`].
pub(super) type PartId = u32;

/// One piece of a key.
#[derive(Clone, Debug)]
pub(super) enum Part<'m> {
    /// `None`.
    None,
    /// A `str`.
    Str(Text<'m>),
    /// A `bytes`.
    Bytes(&'m [u8]),
    /// A `bytes` that protocols 0 to 2, which have no opcode for one, write as a call:
    /// `_codecs.encode(text, 'latin1')`.
    Latin1(Text<'m>),
    /// An `int`, `bool` or `float`.
    Number(Number),
    /// A tuple of these [`Tree::items`].
    Tuple(Range<usize>),
    /// The function `_codecs.encode`. No key by itself.
    Encode,
    /// The class `bytes`. No key by itself; a call of it without arguments is the empty `bytes` of protocols
    /// 0 to 2.
    BytesClass,
    /// The function `dill._dill._load_type`. No key by itself; a call of it with `'bytes'` is that class.
    ClassByName,
}

/// A key as a tree. A part may be in several places of it, as objects may in Python.
#[derive(Debug, Default)]
pub(super) struct Tree<'m> {
    parts: Vec<Part<'m>>,
    /// The items of all tuples, one tuple after the other.
    items: Vec<PartId>,
}

impl<'m> Tree<'m> {
    /// Adds a part and returns its number.
    pub(super) fn add(&mut self, part: Part<'m>) -> PartId {
        self.parts.push(part);
        (self.parts.len() - 1) as PartId
    }

    /// Adds the items of a tuple and returns which they are.
    pub(super) fn add_items(&mut self, items: impl IntoIterator<Item = PartId>) -> Range<usize> {
        let start = self.items.len();
        self.items.extend(items);
        start..self.items.len()
    }

    /// The part with this number.
    pub(super) fn part(&self, id: PartId) -> Option<&Part<'m>> {
        self.parts.get(id as usize)
    }

    /// The items of a tuple.
    pub(super) fn items(&self, tuple: &Range<usize>) -> &[PartId] {
        self.items.get(tuple.clone()).unwrap_or_default()
    }
}

/// The refusal of whatever is not a key.
pub(super) fn no_key() -> WireError {
    refuse("a key is a str, bytes, int, float, bool, None or a tuple of these")
}
