//! What a command does to the store, in absolute terms: the vocabulary that the engine, the table and the
//! log share, so that none of them needs to know another.
//!
//! Knows nothing of commands, clients, clocks or files. Only mutations reach the log: an increment arrives
//! here as the resulting value, a time to live as a wall-clock deadline.

/// Which key space a key lives in.
///
/// A Python `str` key of the pickle dialect is the same key as its UTF-8 bytes in frames. Every other Python
/// key lives in a space of its own, which frames can't name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Space {
    /// Keys that are bytes: everything frames can name, and Python `str` keys.
    Bytes = 0,
    /// Canonical encodings of the other Python keys (`wire::pickle` defines them).
    Python = 1,
}

/// A key, borrowed from wherever it was read.
///
/// ```
/// use kvd::mutation::{Key, Space};
/// assert_eq!(Key::bytes(b"user:7"), Key { space: Space::Bytes, bytes: b"user:7" });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key<'a> {
    /// The key space.
    pub space: Space,
    /// 1 to 65,536 bytes.
    pub bytes: &'a [u8],
}

impl<'a> Key<'a> {
    /// A key of the space that frames use.
    pub const fn bytes(bytes: &'a [u8]) -> Self {
        Key { space: Space::Bytes, bytes }
    }
}

/// A value and what is stored beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    /// The value itself; may be empty.
    pub bytes: &'a [u8],
    /// 31 bits of the client's, and [`PICKLED`] on top.
    pub flags: u32,
    /// Unix time in milliseconds at which the key expires; 0 is never.
    pub deadline: u64,
}

/// Bit 31 of a value's flags: the bytes are a pickle.
pub const PICKLED: u32 = 1 << 31;

/// One change of the store. Its version travels beside it.
///
/// The highest version wins whatever the order in which mutations are met, so that a log can be replayed on
/// all cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation<'a> {
    /// Store this value under this key, in place of whatever was there.
    Put {
        /// The key.
        key: Key<'a>,
        /// The value, its flags and its deadline.
        value: Value<'a>,
    },
    /// Remove this key.
    Remove {
        /// The key.
        key: Key<'a>,
    },
    /// Remove this key, to make room in memory for others.
    Evict {
        /// The key.
        key: Key<'a>,
    },
    /// Remove every key older than this mutation's version: those of [`Space::Bytes`] that start with the
    /// prefix, or, without one, all keys of both spaces.
    Flush {
        /// The prefix, if only a part is flushed.
        prefix: Option<&'a [u8]>,
    },
}
