//! A [`Reply`] to bytes, appended to the list that it belongs to.
//!
//! Knows no command: a reply says by itself how it is spelled. Values and keys are copied here, once. The order of the
//! variants is the format. New ones go to the end.

use super::{CONFIG, MARK};
use crate::command::{PROTOCOL_VERSION, Reply, StoredValue};
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::{Serialize, Serializer};
use serde_bytes::Bytes;

/// Replies by index.
#[derive(Serialize)]
enum Spelled<'r> {
    Pong,
    Done,
    Stored(u64),
    Number(i64),
    Miss,
    Exists,
    Conflict(u64),
    Value {
        #[serde(with = "serde_bytes")]
        bytes: &'r [u8],
        version: u64,
        flags: u32,
    },
    Values(#[serde(serialize_with = "spell_values")] &'r [Option<&'r [u8]>]),
    Page {
        cursor: u64,
        #[serde(serialize_with = "spell_keys")]
        keys: &'r [&'r [u8]],
    },
    Stats(&'r [(&'static str, String)]),
    Version {
        kvd: &'r str,
        protocol: u32,
    },
    Error {
        code: &'r str,
        message: &'r str,
    },
    Entries(#[serde(serialize_with = "spell_entries")] &'r [Option<StoredValue<'r>>]),
}

/// Appends what a list of so many replies begins with.
pub fn begin(count: usize, into: &mut Vec<u8>) {
    into.push(MARK);
    append(count as u64, into);
}

/// Appends a reply.
///
/// ```
/// use kvd::command::Reply;
/// use kvd::wire::packed;
/// let mut list = Vec::new();
/// packed::begin(2, &mut list);
/// packed::encode(&Reply::Miss, &mut list);
/// packed::encode(&Reply::Stored(300), &mut list);
/// assert_eq!(list, [0x01, 2, 4, 2, 251, 0x2c, 0x01]);
/// ```
pub fn encode(reply: &Reply<'_>, into: &mut Vec<u8>) {
    let spelled = match reply {
        Reply::Pong => Spelled::Pong,
        Reply::Done => Spelled::Done,
        Reply::Stored(version) => Spelled::Stored(*version),
        Reply::Number(number) => Spelled::Number(*number),
        Reply::Miss => Spelled::Miss,
        Reply::Exists => Spelled::Exists,
        Reply::Conflict(version) => Spelled::Conflict(*version),
        Reply::Value(StoredValue { bytes, version, flags }) => {
            Spelled::Value { bytes, version: *version, flags: *flags }
        }
        Reply::Values(values) => Spelled::Values(values),
        Reply::Page { cursor, keys } => Spelled::Page { cursor: *cursor, keys },
        Reply::Stats(figures) => Spelled::Stats(figures),
        Reply::Version => Spelled::Version { kvd: env!("CARGO_PKG_VERSION"), protocol: PROTOCOL_VERSION },
        Reply::Entries(entries) => Spelled::Entries(entries),
        Reply::Error(code, message) => Spelled::Error { code: code.name(), message },
    };
    append(spelled, into);
}

fn append(thing: impl Serialize, into: &mut Vec<u8>) {
    let written = bincode::serde::encode_into_writer(thing, Appender(into), CONFIG);
    debug_assert!(written.is_ok(), "neither these types nor a Vec can fail");
}

struct Appender<'a>(&'a mut Vec<u8>);

impl Writer for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn spell_values<S: Serializer>(values: &[Option<&[u8]>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(|value| value.map(Bytes::new)))
}

fn spell_entries<S: Serializer>(entries: &[Option<StoredValue<'_>>], serializer: S) -> Result<S::Ok, S::Error> {
    let spelled = entries
        .iter()
        .map(|entry| entry.as_ref().map(|StoredValue { bytes, version, flags }| (Bytes::new(bytes), *version, *flags)));
    serializer.collect_seq(spelled)
}

fn spell_keys<S: Serializer>(keys: &[&[u8]], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(keys.iter().map(|key| Bytes::new(key)))
}
