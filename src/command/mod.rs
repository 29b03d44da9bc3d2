//! What clients ask and what they are told, whatever the dialect.
//!
//! Does no I/O of any kind, and knows neither bytes on the wire nor bytes on disk. [`crate::wire`] turns
//! bytes into a [`Command`] and a [`Reply`] into bytes; [`crate::engine`] turns one into the other.

mod class;
mod reply;

pub use class::{Answerer, Class, Inquiry, Order, Reads, Repeat, Values, Writes};
pub use reply::{ErrorCode, Reply, StoredValue};

use crate::mutation::Key;

/// Longest key, in bytes. The shortest is 1.
pub const MAX_KEY: usize = 64 * 1024;
/// Most frames of a message after its envelope.
pub const MAX_BODY_FRAMES: usize = 128 * 1024;
/// Most commands of a packed message.
pub const MAX_PACKED_COMMANDS: usize = 4096;
/// Most that the commands of a packed message weigh together (see [`Class::weight`]), those of one key left out.
pub const MAX_PACKED_WEIGHT: usize = MAX_BODY_FRAMES;
/// What a SCAN weighs: it may pass over many entries before it finds a key.
pub const SCAN_WEIGHT: usize = 256;
/// What COUNT, FLUSH and STATS weigh: they may have to look at everything that is pending.
pub const COUNT_WEIGHT: usize = 512;
/// Most frames of an envelope, the empty one that ends it included.
pub const MAX_ENVELOPE_FRAMES: usize = 16;
/// Most bytes of an envelope's frames together.
pub const MAX_ENVELOPE_BYTES: usize = 1024;
/// Most keys that one SCAN returns, whatever its COUNT.
pub const MAX_SCAN_COUNT: usize = 10_000;
/// Keys that a SCAN without COUNT aims at.
pub const DEFAULT_SCAN_COUNT: usize = 100;
/// Default of `--max-value`, in bytes.
pub const DEFAULT_MAX_VALUE: usize = 64 << 20;
/// Largest `--max-value` that can be asked for, in bytes: a record's length has 32 bits on disk.
pub const LARGEST_MAX_VALUE: usize = 1 << 30;
/// The version of the protocol that `VERSION` reports.
pub const PROTOCOL_VERSION: u32 = 2;

/// The limits that depend on configuration.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest value, in bytes.
    pub max_value: usize,
}

impl Limits {
    /// Most bytes of a whole message, all of its frames together: what `ZMQ_MAXMSGSIZE` is for one frame.
    pub const fn max_message(&self) -> usize {
        2 * self.max_value + (1 << 20)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_value: DEFAULT_MAX_VALUE }
    }
}

/// When a stored value expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    #[default]
    Never,
    /// This many milliseconds from now; never 0.
    In(u64),
    /// At this Unix time in milliseconds.
    At(u64),
}

/// What must hold for a SET to take effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Always,
    /// The key is absent (`NX`).
    Absent,
    /// The key is present (`XX`).
    Present,
    /// The key is present with this version (`IF`).
    Version(u64),
}

/// The options of a SET.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    /// When the value expires.
    pub expiry: Expiry,
    /// What must hold.
    pub condition: Condition,
    /// Flags to store: 31 bits of the client's and [`crate::mutation::PICKLED`].
    pub flags: u32,
}

/// The value that a SET stores: bytes of its message, of which one may give way to another when they are stored.
///
/// A pickled SET stores its own message with one byte replaced. The message itself stays as it came, so that it can be
/// decoded again, and nothing is copied before it is stored.
///
/// ```
/// use kvd::command::NewValue;
/// assert_eq!(NewValue::from(b"as it is").to_vec(), b"as it is");
/// let value = NewValue::replacing(b"one byte", 3, b'-');
/// assert_eq!((value.len(), value.parts()), (8, [&b"one"[..], b"-", b"byte"]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewValue<'a> {
    bytes: &'a [u8],
    /// Which byte gives way, and to which. 32 bits, because commands are moved a lot; no value has more bytes.
    at: u32,
    replacement: Option<u8>,
}

impl<'a> NewValue<'a> {
    /// These bytes, with `replacement` in the place of the one at `at`; as they are, where there is none.
    pub fn replacing(bytes: &'a [u8], at: usize, replacement: u8) -> Self {
        let at = u32::try_from(at).ok().filter(|&at| (at as usize) < bytes.len());
        NewValue { bytes, at: at.unwrap_or(0), replacement: at.map(|_| replacement) }
    }

    /// How many bytes it has.
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has none, which is a value like any other.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What is stored, one part after the other.
    pub fn parts(&self) -> [&[u8]; 3] {
        let Some(replacement) = &self.replacement else { return [self.bytes, b"", b""] };
        let (before, after) = self.bytes.split_at(self.at as usize);
        [before, std::slice::from_ref(replacement), after.get(1..).unwrap_or_default()]
    }

    /// What is stored, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts().concat()
    }
}

impl<'a> From<&'a [u8]> for NewValue<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        NewValue { bytes, at: 0, replacement: None }
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for NewValue<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

/// One of the values that an MSETS stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEntry<'a> {
    /// The key.
    pub key: Key<'a>,
    /// The value.
    pub value: &'a [u8],
    /// Flags to store: as those of [`SetOptions`].
    pub flags: u32,
}

/// What an INCR does with a key that is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It is a miss (`XX`).
    Miss,
    /// The counter is made.
    Make(NewCounter),
}

/// A counter as an INCR makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewCounter {
    /// What it counts as before the delta is added (`INIT`).
    pub initial: i64,
    /// When it expires.
    pub expiry: Expiry,
    /// 31 bits of the client's.
    pub flags: u32,
}

impl Default for Absent {
    fn default() -> Self {
        Absent::Make(NewCounter::default())
    }
}

/// Which end of a value grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `PREPEND`.
    Front,
    /// `APPEND`.
    Back,
}

/// One request, decoded. Borrows from the message it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// `PING`
    Ping,
    /// `SET key value [option …]`
    Set {
        /// The key.
        key: Key<'a>,
        /// The value.
        value: NewValue<'a>,
        /// Expiry, condition, flags.
        options: SetOptions,
    },
    /// `GET key`
    Get {
        /// The key.
        key: Key<'a>,
    },
    /// `DEL key …`
    Delete {
        /// At least one key.
        keys: Vec<Key<'a>>,
    },
    /// `EXISTS key …`
    Exists {
        /// At least one key.
        keys: Vec<Key<'a>>,
    },
    /// `MGET key …`
    GetMany {
        /// At least one key.
        keys: Vec<Key<'a>>,
    },
    /// `MGETS key …`
    GetEntries {
        /// At least one key.
        keys: Vec<Key<'a>>,
    },
    /// `MSET key value [key value …]`, all or nothing
    SetMany {
        /// At least one pair. Where a key comes twice, the later pair wins.
        pairs: Vec<(Key<'a>, &'a [u8])>,
    },
    /// `MSETS [option …] KEYS key value flags …`, all or nothing
    SetEntries {
        /// At least one. Where a key comes twice, the later one wins.
        entries: Vec<NewEntry<'a>>,
        /// When all of them expire.
        expiry: Expiry,
    },
    /// `INCR key [delta] [option …]`
    Increment {
        /// The key.
        key: Key<'a>,
        /// What to add.
        delta: i64,
        /// What to do where there is none.
        absent: Absent,
    },
    /// `APPEND key bytes`, `PREPEND key bytes`
    Extend {
        /// The key.
        key: Key<'a>,
        /// What to add to the value.
        bytes: &'a [u8],
        /// Where to add it.
        end: End,
    },
    /// `TOUCH key milliseconds`
    Touch {
        /// The key.
        key: Key<'a>,
        /// The new expiry.
        expiry: Expiry,
    },
    /// `GETEX key option`
    GetTouch {
        /// The key.
        key: Key<'a>,
        /// The new expiry.
        expiry: Expiry,
    },
    /// `TTL key`
    TimeToLive {
        /// The key.
        key: Key<'a>,
    },
    /// `DELIF key version`
    DeleteIf {
        /// The key.
        key: Key<'a>,
        /// The version that it must have.
        version: u64,
    },
    /// `GETDEL key`
    GetDelete {
        /// The key.
        key: Key<'a>,
    },
    /// `SCAN cursor [PREFIX p] [COUNT n]`
    Scan {
        /// 0 to start, then what the last page returned.
        cursor: u64,
        /// Only keys that start with this.
        prefix: &'a [u8],
        /// Keys to aim at, 1 to [`MAX_SCAN_COUNT`].
        count: usize,
    },
    /// `COUNT`
    Count,
    /// `FLUSH [PREFIX p]`
    Flush {
        /// Only keys that start with this.
        prefix: Option<&'a [u8]>,
    },
    /// `SYNC`
    Sync,
    /// `COMPACT`
    Compact,
    /// `STATS`
    Stats,
    /// `VERSION`
    Version,
}
