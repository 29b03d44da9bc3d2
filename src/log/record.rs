//! One mutation as bytes: a header of 20 bytes and a bincode payload.
//!
//! Knows how a [`Mutation`] is laid out (`docs/format.md`). Does not know batches, files or what a mutation
//! does.
//!
//! This is the only place of the log that uses bincode, in one configuration, on payloads whose length and checksum were
//! verified before; the crate can be replaced without touching a data directory.

// What serde derives for an optional borrowed byte string.
#![allow(clippy::ref_option_ref)]

use super::bytes::{array, put, u16_at, u32_at, u64_at};
use super::checksum::{Seed, Sums};
use crate::mutation::{Key, Mutation, Space, Value};
use serde::{Deserialize, Serialize};

/// Bytes of a record's header.
pub const RECORD_HEADER: usize = 20;
/// Longest payload, in bytes.
pub const MAX_PAYLOAD: usize = u32::MAX as usize;

const KIND_PUT: u8 = 1;
const KIND_REMOVE: u8 = 2;
const KIND_FLUSH: u8 = 3;
const FIRST_OF_GROUP: u8 = 1;
const LAST_OF_GROUP: u8 = 2;
/// Of a removal: it made room in memory.
const EVICTED: u8 = 4;

const PAYLOAD_CONFIG: bincode::config::Configuration = bincode::config::standard();

#[derive(Serialize, Deserialize)]
struct PutPayload<'a> {
    space: u8,
    flags: u32,
    deadline: u64,
    #[serde(with = "serde_bytes", borrow)]
    key: &'a [u8],
    #[serde(with = "serde_bytes", borrow)]
    value: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct RemovePayload<'a> {
    space: u8,
    #[serde(with = "serde_bytes", borrow)]
    key: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct FlushPayload<'a> {
    #[serde(with = "serde_bytes", borrow)]
    prefix: Option<&'a [u8]>,
}

/// Appends a record without its checksum, which [`seal`] fills in once its place is known.
pub fn encode(into: &mut Vec<u8>, version: u64, mutation: &Mutation<'_>, first: bool) {
    let start = into.len();
    let kind = match mutation {
        Mutation::Put { .. } => KIND_PUT,
        Mutation::Remove { .. } | Mutation::Evict { .. } => KIND_REMOVE,
        Mutation::Flush { .. } => KIND_FLUSH,
    };
    into.extend_from_slice(&[0; 8]);
    into.extend_from_slice(&version.to_le_bytes());
    let mut marks = if first { FIRST_OF_GROUP } else { 0 };
    if matches!(mutation, Mutation::Evict { .. }) {
        marks |= EVICTED;
    }
    into.extend_from_slice(&[kind, marks, 0, 0]);
    encode_payload(into, mutation);
    let length = into.len() - start - RECORD_HEADER;
    debug_assert!(length <= MAX_PAYLOAD, "limits keep every payload within 32 bits");
    put(into, start + 4, (length as u32).to_le_bytes());
}

/// Bytes that a mutation takes as a record, header included: what [`encode`] would append.
pub fn encoded_len(mutation: &Mutation<'_>) -> usize {
    let payload = match *mutation {
        Mutation::Put { key, value } => {
            1 + varint_len(value.flags.into())
                + varint_len(value.deadline)
                + blob_len(key.bytes)
                + blob_len(value.bytes)
        }
        Mutation::Remove { key } | Mutation::Evict { key } => 1 + blob_len(key.bytes),
        Mutation::Flush { prefix } => 1 + prefix.map_or(0, blob_len),
    };
    RECORD_HEADER + payload
}

fn blob_len(bytes: &[u8]) -> usize {
    varint_len(bytes.len() as u64) + bytes.len()
}

/// Bytes of a number in bincode's standard configuration.
const fn varint_len(number: u64) -> usize {
    match number {
        0..=250 => 1,
        251..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Marks the record that begins at `start` as the last of its group.
pub fn mark_last(records: &mut [u8], start: usize) {
    if let Some(marks) = records.get_mut(start + 17) {
        *marks |= LAST_OF_GROUP;
    }
}

/// Fills in the checksum of the record at the start of `record`, now that it stands at `position` of a segment.
/// Returns the checksum and the record's length, or `None` past the last one.
pub fn seal(record: &mut [u8], seed: Seed, position: u64) -> Option<(u32, usize)> {
    let length = RECORD_HEADER + u32_at(record, 4)? as usize;
    let checksum = seed.at(position, record.get(4..length)?);
    put(record, 0, checksum.to_le_bytes());
    Some((checksum, length))
}

/// A record whose checksum was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its version.
    pub version: u64,
    /// What it does.
    pub mutation: Mutation<'a>,
    /// Whether it begins a group.
    pub first: bool,
    /// Whether it ends one.
    pub last: bool,
    /// Its checksum.
    pub checksum: u32,
    /// Its length, header included, in bytes.
    pub length: usize,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFault {
    /// The length leads beyond the end of what is there.
    CutShort,
    /// The checksum is wrong, or belongs to another place.
    Checksum,
    /// The checksum is right and the contents are not: it was written wrong.
    Payload,
    /// The checksum is right, and it is of a kind, or has a mark, that this program does not know: a newer one wrote it.
    Newer {
        /// Its kind.
        kind: u8,
        /// Its marks.
        marks: u8,
    },
}

/// Reads the record at the start of `bytes`, which stands at `position` of a segment.
///
/// # Errors
/// A [`RecordFault`]. No byte beyond the checksum is believed before the checksum was found right.
pub fn decode(bytes: &[u8], seed: Seed, position: u64) -> Result<Record<'_>, RecordFault> {
    let length = u32_at(bytes, 4).ok_or(RecordFault::CutShort)? as usize + RECORD_HEADER;
    let covered = bytes.get(4..length).ok_or(RecordFault::CutShort)?;
    let checksum = u32_at(bytes, 0).ok_or(RecordFault::CutShort)?;
    if seed.at(position, covered) != checksum {
        return Err(RecordFault::Checksum);
    }
    parse(bytes, length, checksum).ok_or_else(|| match array::<2>(bytes, 16) {
        Some([kind, marks]) if is_unknown(kind, marks) => RecordFault::Newer { kind, marks },
        _ => RecordFault::Payload,
    })
}

/// Whether only a newer program can have written this. A kind of 0 was never given.
fn is_unknown(kind: u8, marks: u8) -> bool {
    kind > KIND_FLUSH || marks & !(FIRST_OF_GROUP | LAST_OF_GROUP | EVICTED) != 0
}

/// Reads the record at an offset of a segment, as [`decode`] would if only the bytes up to `end` were there, by the sums of the
/// segment's bytes: in a time that does not depend on the length that the record claims.
pub fn decode_by_sums<'a>(segment: &'a [u8], sums: &Sums<'_>, seed: Seed, at: usize, end: usize) -> Option<Record<'a>> {
    let bytes = segment.get(at..end)?;
    let record = reread(bytes)?;
    let checksum = seed.at_range(at as u64, sums, at + 4..at + record.length)?;
    (checksum == record.checksum).then_some(record)
}

/// The kind and the marks of the record at an offset, if its checksum is right and only a newer program can have written it; by
/// the sums of the segment's bytes, as [`decode_by_sums`].
pub fn unknown_by_sums(segment: &[u8], sums: &Sums<'_>, seed: Seed, at: usize, end: usize) -> Option<(u8, u8)> {
    let bytes = segment.get(at..end)?;
    let [kind, marks] = array::<2>(bytes, 16).filter(|&[kind, marks]| is_unknown(kind, marks))?;
    let length = (u32_at(bytes, 4)? as usize).checked_add(RECORD_HEADER).filter(|length| *length <= bytes.len())?;
    let checksum = seed.at_range(at as u64, sums, at + 4..at + length)?;
    (checksum == u32_at(bytes, 0)?).then_some((kind, marks))
}

/// Reads a record again that [`decode`] has found right, without summing it again.
pub fn reread(bytes: &[u8]) -> Option<Record<'_>> {
    parse(bytes, u32_at(bytes, 4)? as usize + RECORD_HEADER, u32_at(bytes, 0)?)
}

fn parse(bytes: &[u8], length: usize, checksum: u32) -> Option<Record<'_>> {
    let version = u64_at(bytes, 8)?;
    let [kind, marks, ..] = *bytes.get(16..RECORD_HEADER)? else { return None };
    if version == 0 || is_unknown(kind, marks) || u16_at(bytes, 18)? != 0 {
        return None;
    }
    let mutation = match decode_payload(kind, bytes.get(RECORD_HEADER..length)?)? {
        mutation if marks & EVICTED == 0 => mutation,
        Mutation::Remove { key } => Mutation::Evict { key },
        _ => return None,
    };
    let (first, last) = (marks & FIRST_OF_GROUP != 0, marks & LAST_OF_GROUP != 0);
    Some(Record { version, mutation, first, last, checksum, length })
}

fn encode_payload(into: &mut Vec<u8>, mutation: &Mutation<'_>) {
    match *mutation {
        Mutation::Put { key, value } => encode_value(
            into,
            PutPayload {
                space: key.space as u8,
                flags: value.flags,
                deadline: value.deadline,
                key: key.bytes,
                value: value.bytes,
            },
        ),
        Mutation::Remove { key } | Mutation::Evict { key } => {
            encode_value(into, RemovePayload { space: key.space as u8, key: key.bytes });
        }
        Mutation::Flush { prefix } => encode_value(into, FlushPayload { prefix }),
    }
}

fn decode_payload(kind: u8, payload: &[u8]) -> Option<Mutation<'_>> {
    match kind {
        KIND_PUT => {
            let PutPayload { space, flags, deadline, key, value } = decode_value(payload)?;
            let value = Value { bytes: value, flags, deadline };
            Some(Mutation::Put { key: Key { space: decode_space(space)?, bytes: key }, value })
        }
        KIND_REMOVE => {
            let RemovePayload { space, key } = decode_value(payload)?;
            Some(Mutation::Remove { key: Key { space: decode_space(space)?, bytes: key } })
        }
        KIND_FLUSH => {
            let FlushPayload { prefix } = decode_value(payload)?;
            Some(Mutation::Flush { prefix })
        }
        _ => None,
    }
}

fn decode_space(space: u8) -> Option<Space> {
    match space {
        0 => Some(Space::Bytes),
        1 => Some(Space::Python),
        _ => None,
    }
}

struct Appender<'a>(&'a mut Vec<u8>);

impl bincode::enc::write::Writer for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn encode_value(into: &mut Vec<u8>, payload: impl Serialize) {
    let written = bincode::serde::encode_into_writer(payload, Appender(into), PAYLOAD_CONFIG);
    debug_assert!(written.is_ok(), "neither these types nor a Vec can fail");
}

fn decode_value<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Option<T> {
    let (value, read) = bincode::serde::borrow_decode_from_slice(payload, PAYLOAD_CONFIG).ok()?;
    (read == payload.len()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED_NUMBER: u64 = 3;

    fn seed() -> Seed {
        Seed::new(7, SEED_NUMBER, 0)
    }

    fn sealed(mutation: &Mutation<'_>, position: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, 9, mutation, true);
        mark_last(&mut bytes, 0);
        seal(&mut bytes, seed(), position).expect("a whole record");
        bytes
    }

    fn put_mutation() -> Mutation<'static> {
        Mutation::Put { key: Key::bytes(b"key"), value: Value { bytes: b"value", flags: 5, deadline: 1 << 40 } }
    }

    #[test]
    fn every_kind_comes_back() {
        let python = Key { space: Space::Python, bytes: b"\x01" };
        let empty = Value { bytes: b"", flags: u32::MAX, deadline: u64::MAX };
        for mutation in [
            put_mutation(),
            Mutation::Put { key: python, value: empty },
            Mutation::Remove { key: python },
            Mutation::Evict { key: python },
            Mutation::Flush { prefix: None },
            Mutation::Flush { prefix: Some(b"") },
            Mutation::Flush { prefix: Some(b"user:") },
        ] {
            let bytes = sealed(&mutation, 4096);
            let record = decode(&bytes, seed(), 4096).expect("a valid record");
            assert_eq!(record.mutation, mutation);
            assert_eq!((record.version, record.first, record.last, record.length), (9, true, true, bytes.len()));
        }
    }

    #[test]
    fn the_length_is_known_without_encoding() {
        for length in [0, 1, 250, 251, 65_535, 65_536] {
            let bytes = vec![7; length];
            for (flags, deadline) in
                [(0, 0), (250, 251), (0xffff, 0x1_0000), (0x1_0000, u64::from(u32::MAX)), (u32::MAX, u64::MAX)]
            {
                let put = Mutation::Put { key: Key::bytes(&bytes), value: Value { bytes: &bytes, flags, deadline } };
                assert_eq!(encoded_len(&put), sealed(&put, 0).len());
            }
            let prefix = Some(&bytes[..]);
            for mutation in [Mutation::Remove { key: Key::bytes(&bytes) }, Mutation::Flush { prefix }] {
                assert_eq!(encoded_len(&mutation), sealed(&mutation, 0).len());
            }
        }
        assert_eq!(encoded_len(&Mutation::Flush { prefix: None }), sealed(&Mutation::Flush { prefix: None }, 0).len());
    }

    #[test]
    fn the_layout_is_the_one_in_the_format_document() {
        let bytes = sealed(&put_mutation(), 4096);
        assert_eq!(bytes[4..8], 21_u32.to_le_bytes(), "payload length");
        assert_eq!(bytes[8..16], 9_u64.to_le_bytes(), "version");
        assert_eq!(bytes[16..20], [1, 3, 0, 0], "kind, group marks");
        let payload = b"\x00\x05\xfd\x00\x00\x00\x00\x00\x01\x00\x00\x03key\x05value";
        assert_eq!(&bytes[20..], payload);
    }

    #[test]
    fn a_record_moved_or_flipped_is_refused() {
        let bytes = sealed(&put_mutation(), 4096);
        assert_eq!(decode(&bytes, seed(), 4097), Err(RecordFault::Checksum), "another position");
        assert_eq!(decode(&bytes, Seed::new(7, 4, 0), 4096), Err(RecordFault::Checksum), "another segment");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped, seed(), 4096).is_err(), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end], seed(), 4096), Err(RecordFault::CutShort), "cut at {end}");
        }
    }

    #[test]
    fn zeros_are_never_a_record() {
        assert!(decode(&[0; 64], seed(), 4096).is_err());
    }

    #[test]
    fn what_is_summed_right_and_says_what_no_record_says_is_refused() {
        let changed = |at: usize, byte: u8| {
            let mut bytes = sealed(&put_mutation(), 4096);
            bytes[at] = byte;
            seal(&mut bytes, seed(), 4096);
            decode(&bytes, seed(), 4096).map(|record| (record.version, record.first, record.last))
        };
        assert_eq!(changed(8, 7), Ok((7, true, true)));
        assert_eq!(changed(17, 0), Ok((9, false, false)));
        for (at, byte) in [(8, 0), (16, 0), (17, 4), (17, 7), (18, 1), (19, 1), (20, 2)] {
            assert_eq!(changed(at, byte), Err(RecordFault::Payload), "{byte} at {at}");
        }
        for (at, byte, kind, marks) in [(16, 4, 4, 3), (16, 255, 255, 3), (17, 8, 1, 8), (17, 0x83, 1, 0x83)] {
            assert_eq!(changed(at, byte), Err(RecordFault::Newer { kind, marks }), "{byte} at {at}");
        }
    }
}
