//! The commands of the packed dialect as they stand in a message: which index is which, and the fields of each.
//!
//! Knows the order of fields and no limits: an empty key is a key here. The order of the variants is the format. New ones
//! go to the end.

use crate::command::{COUNT_WEIGHT, MAX_PACKED_WEIGHT, SCAN_WEIGHT};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_bytes::Bytes;
use std::fmt;
use std::marker::PhantomData;

/// Commands by index. `K`, `P` and `E` stand for a list of keys, one of pairs and one of entries: all of it, or how long it is.
#[derive(Deserialize)]
pub enum Request<'a, K, P, E> {
    Ping,
    Get {
        #[serde(with = "serde_bytes", borrow)]
        key: &'a [u8],
    },
    Set {
        #[serde(with = "serde_bytes", borrow)]
        key: &'a [u8],
        #[serde(with = "serde_bytes", borrow)]
        value: &'a [u8],
        expiry: Expiry,
        condition: Condition,
        flags: u32,
    },
    Delete {
        keys: K,
    },
    Exists {
        keys: K,
    },
    GetMany {
        keys: K,
    },
    SetMany {
        pairs: P,
    },
    Increment {
        #[serde(with = "serde_bytes", borrow)]
        key: &'a [u8],
        delta: i64,
    },
    Append {
        #[serde(with = "serde_bytes", borrow)]
        key: &'a [u8],
        #[serde(with = "serde_bytes", borrow)]
        bytes: &'a [u8],
    },
    Prepend {
        #[serde(with = "serde_bytes", borrow)]
        key: &'a [u8],
        #[serde(with = "serde_bytes", borrow)]
        bytes: &'a [u8],
    },
    Touch {
        #[serde(with = "serde_bytes", borrow)]
        key: &'a [u8],
        milliseconds: u64,
    },
    TimeToLive {
        #[serde(with = "serde_bytes", borrow)]
        key: &'a [u8],
    },
    GetDelete {
        #[serde(with = "serde_bytes", borrow)]
        key: &'a [u8],
    },
    Scan {
        cursor: u64,
        #[serde(with = "serde_bytes", borrow)]
        prefix: &'a [u8],
        count: u32,
    },
    Count,
    Flush {
        #[serde(borrow)]
        prefix: Option<&'a Bytes>,
    },
    Sync,
    Compact,
    Stats,
    Version,
    GetEntries {
        keys: K,
    },
    SetEntries {
        expiry: Expiry,
        entries: E,
    },
    DeleteIf {
        #[serde(with = "serde_bytes", borrow)]
        key: &'a [u8],
        version: u64,
    },
    IncrementOr {
        #[serde(with = "serde_bytes", borrow)]
        key: &'a [u8],
        delta: i64,
        absent: Absent,
    },
    GetTouch {
        #[serde(with = "serde_bytes", borrow)]
        key: &'a [u8],
        expiry: Expiry,
    },
}

/// How many commands have an index.
pub const KINDS: u32 = 25;

/// When a value expires.
#[derive(Clone, Copy, Deserialize)]
pub enum Expiry {
    Never,
    In(u64),
    At(u64),
}

/// What must hold for a SET to take effect.
#[derive(Clone, Copy, Deserialize)]
pub enum Condition {
    Always,
    Absent,
    Present,
    Version(u64),
}

/// What an `IncrementOr` does with a key that is absent.
#[derive(Clone, Copy, Deserialize)]
pub enum Absent {
    Miss,
    Make { initial: i64, expiry: Expiry, flags: u32 },
}

/// A key and its value.
pub type Pair<'a> = (&'a Bytes, &'a Bytes);
/// A key, its value and its flags.
pub type Entry<'a> = (&'a Bytes, &'a Bytes, u32);
/// A request with its lists in full.
pub type Whole<'a> = Request<'a, Vec<&'a Bytes>, Vec<Pair<'a>>, Vec<Entry<'a>>>;
/// A request that was only looked over: of its lists it tells the lengths.
pub type LookedOver<'a> = Request<'a, Length<&'a Bytes>, Length<Pair<'a>>, Length<Entry<'a>>>;

impl LookedOver<'_> {
    /// As [`crate::command::Class::weight`], but nothing for a command of one key.
    pub fn weight(&self) -> u64 {
        match self {
            Request::Delete { keys }
            | Request::Exists { keys }
            | Request::GetMany { keys }
            | Request::GetEntries { keys } => keys.length,
            Request::SetMany { pairs } => pairs.length,
            Request::SetEntries { entries, .. } => entries.length,
            Request::Scan { .. } => SCAN_WEIGHT as u64,
            Request::Count | Request::Flush { .. } | Request::Stats => COUNT_WEIGHT as u64,
            Request::Ping
            | Request::Get { .. }
            | Request::Set { .. }
            | Request::Increment { .. }
            | Request::Append { .. }
            | Request::Prepend { .. }
            | Request::Touch { .. }
            | Request::TimeToLive { .. }
            | Request::GetDelete { .. }
            | Request::DeleteIf { .. }
            | Request::IncrementOr { .. }
            | Request::GetTouch { .. }
            | Request::Sync
            | Request::Compact
            | Request::Version => 0,
        }
    }
}

/// Most items of a list that are looked at: of a longer one only the announced length is told.
const MOST_LISTED: u64 = MAX_PACKED_WEIGHT as u64;

/// The length of a list of `T`, whose items were read and let go.
pub struct Length<T> {
    length: u64,
    items: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Length<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = Length<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Length<T>, A::Error> {
                let announced = items.size_hint().map_or(0, |length| length as u64);
                if announced <= MOST_LISTED {
                    while items.next_element::<T>()?.is_some() {}
                }
                Ok(Length { length: announced, items: PhantomData })
            }
        }

        deserializer.deserialize_seq(Items(PhantomData))
    }
}
