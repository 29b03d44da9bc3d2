//! One entry: everything that is known of one key, in one allocation.
//!
//! Knows its own layout, and nothing of hashes, shards or commands. Nothing outside this file sees the bytes,
//! so that the layout can change (a thin pointer in place of the fat one) without anyone noticing.
//!
//! ```text
//! offset  0        8         16      20      24      24 + key length
//!         version  deadline  flags   shape   key ... value ...
//! ```
//!
//! All integers are little-endian. `shape` is the length of the key, with the key space and whether the key was
//! removed in its two top bits; the length of the value is what remains of the allocation.

use crate::mutation::{Key, Mutation, Space, Value};
use std::fmt;

const VERSION: usize = 0;
const DEADLINE: usize = 8;
const FLAGS: usize = 16;
const SHAPE: usize = 20;
const HEADER: usize = 24;

/// In `shape`: the key lives in [`Space::Python`].
const PYTHON: u32 = 1 << 30;
/// In `shape`: the key was removed by the version given.
const REMOVED: u32 = 1 << 31;
/// In `shape`: the length of the key, in bytes.
const KEY_LENGTH: u32 = PYTHON - 1;

/// A key with its value, deadline, flags and version; or, for as long as a removal must be remembered, a key and
/// the version that removed it.
///
/// ```
/// use kvd::mutation::{Key, Value};
/// use kvd::table::Entry;
/// let value = Value { bytes: b"Ada", flags: 7, deadline: 1_000 };
/// let entry = Entry::new(42, Key::bytes(b"user:1"), &value);
/// assert_eq!(entry.key(), Key::bytes(b"user:1"));
/// assert_eq!((entry.value(), entry.version(), entry.flags()), (&b"Ada"[..], 42, 7));
/// assert!(!entry.is_expired(999) && entry.is_expired(1_000));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    bytes: Box<[u8]>,
}

impl Entry {
    /// An entry that holds a value.
    pub fn new(version: u64, key: Key<'_>, value: &Value<'_>) -> Self {
        Self::joined(version, key, value, b"")
    }

    /// An entry whose value is that of `value` and then `more`: what APPEND needs, without a copy between.
    pub fn joined(version: u64, key: Key<'_>, value: &Value<'_>, more: &[u8]) -> Self {
        Self::build(version, key, 0, value, more)
    }

    /// A tombstone: `version` removed the key.
    pub fn removal(version: u64, key: Key<'_>) -> Self {
        Self::build(version, key, REMOVED, &Value { bytes: b"", flags: 0, deadline: 0 }, b"")
    }

    fn build(version: u64, key: Key<'_>, removed: u32, value: &Value<'_>, more: &[u8]) -> Self {
        debug_assert!(key.bytes.len() <= KEY_LENGTH as usize, "the dialects keep keys far below this");
        let space = match key.space {
            Space::Bytes => 0,
            Space::Python => PYTHON,
        };
        let shape = key.bytes.len() as u32 | space | removed;
        let mut bytes = Vec::with_capacity(HEADER + key.bytes.len() + value.bytes.len() + more.len());
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&value.deadline.to_le_bytes());
        bytes.extend_from_slice(&value.flags.to_le_bytes());
        bytes.extend_from_slice(&shape.to_le_bytes());
        bytes.extend_from_slice(key.bytes);
        bytes.extend_from_slice(value.bytes);
        bytes.extend_from_slice(more);
        Entry { bytes: bytes.into_boxed_slice() }
    }

    /// The key.
    pub fn key(&self) -> Key<'_> {
        let space = if self.shape() & PYTHON == 0 { Space::Bytes } else { Space::Python };
        Key { space, bytes: &self.bytes[HEADER..self.key_end()] }
    }

    /// The value; empty in a tombstone.
    pub fn value(&self) -> &[u8] {
        &self.bytes[self.key_end()..]
    }

    /// The version that wrote it.
    pub fn version(&self) -> u64 {
        u64::from_le_bytes(self.field(VERSION))
    }

    /// Unix time in milliseconds at which it expires; 0 is never.
    pub fn deadline(&self) -> u64 {
        u64::from_le_bytes(self.field(DEADLINE))
    }

    /// 31 bits of the client's, and [`crate::mutation::PICKLED`] on top.
    pub fn flags(&self) -> u32 {
        u32::from_le_bytes(self.field(FLAGS))
    }

    /// Whether its deadline has come by `now`, a Unix time in milliseconds.
    pub fn is_expired(&self, now: u64) -> bool {
        let deadline = self.deadline();
        deadline != 0 && deadline <= now
    }

    /// Whether it is a tombstone.
    pub fn is_removal(&self) -> bool {
        self.shape() & REMOVED != 0
    }

    /// The mutation that makes this entry; its version travels beside it.
    pub fn mutation(&self) -> Mutation<'_> {
        let key = self.key();
        if self.is_removal() {
            Mutation::Remove { key }
        } else {
            let value = Value { bytes: self.value(), flags: self.flags(), deadline: self.deadline() };
            Mutation::Put { key, value }
        }
    }

    /// Bytes of memory that the allocation takes: what is stored and what a 64-bit malloc adds (8 bytes of its
    /// own, rounded up to 16, at least 32).
    pub fn memory(&self) -> usize {
        (self.bytes.len() + 8).next_multiple_of(16).max(32)
    }

    fn key_end(&self) -> usize {
        HEADER + (self.shape() & KEY_LENGTH) as usize
    }

    fn shape(&self) -> u32 {
        u32::from_le_bytes(self.field(SHAPE))
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.bytes[at..at + N]);
        field
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut entry = f.debug_struct("Entry");
        entry.field("version", &self.version()).field("key", &self.key());
        if self.is_removal() {
            return entry.field("removed", &true).finish();
        }
        entry.field("value", &self.value().escape_ascii().to_string());
        entry.field("flags", &self.flags()).field("deadline", &self.deadline()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::PICKLED;

    #[test]
    fn holds_what_it_was_given() {
        let value = Value { bytes: b"front", flags: PICKLED | 5, deadline: u64::MAX };
        let key = Key { space: Space::Python, bytes: b"\0\xff" };
        let entry = Entry::joined(u64::MAX, key, &value, b"back");
        assert_eq!(entry.key(), key);
        assert_eq!(entry.value(), b"frontback");
        assert_eq!((entry.version(), entry.deadline(), entry.flags()), (u64::MAX, u64::MAX, PICKLED | 5));
        assert!(!entry.is_removal());
    }

    #[test]
    fn an_empty_value_is_a_value() {
        let key = Key::bytes(b"k");
        let entry = Entry::new(1, key, &Value { bytes: b"", flags: 0, deadline: 0 });
        assert_eq!(entry.value(), b"");
        assert!(!entry.is_removal());
        assert_ne!(entry, Entry::removal(1, key));
    }

    #[test]
    fn a_tombstone_keeps_key_and_version() {
        let entry = Entry::removal(9, Key::bytes(b"gone"));
        assert!(entry.is_removal() && !entry.is_expired(u64::MAX));
        assert_eq!((entry.key(), entry.version()), (Key::bytes(b"gone"), 9));
        assert_eq!(entry.mutation(), Mutation::Remove { key: Key::bytes(b"gone") });
    }

    #[test]
    fn deadline_zero_never_comes() {
        let entry = Entry::new(1, Key::bytes(b"k"), &Value { bytes: b"", flags: 0, deadline: 0 });
        assert!(!entry.is_expired(u64::MAX));
    }
}
