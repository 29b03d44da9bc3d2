//! Reads a damaged segment: every group that is whole, whatever stands between.
//!
//! Knows how to find its way after damage, by verified bytes only: a batch header or a record counts if its checksum is right
//! for the very place where it stands, so nothing inside of a value is ever taken for one. Changes nothing. A start never
//! uses it: what it gives up is for a person to accept.
//!
//! It takes a time in proportion to the segment, whatever stands in it: bytes that look like a record, with a length that leads
//! far beyond them, may stand at every offset of a value that somebody chose.

use super::batch::{BatchKind, Link};
use super::bytes::{all_zero, array, u32_at, u64_at};
use super::checksum::{Seed, Sums};
use super::error::Unknown;
use super::record::{self, RECORD_HEADER, Record};
use super::segment::{SEGMENT_HEADER, SegmentHeader};
use super::verified::{BatchHeader, find_header, headers_by_seed};
use crate::mutation::{Key, Mutation, Space};
use crate::timeline::Time;
use std::collections::HashMap;

/// A stretch of a segment that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Offset of its first byte.
    pub from: u64,
    /// Offset of the first byte after it.
    pub to: u64,
    /// Lowest version that may have been in it.
    pub first_version: u64,
    /// The version after the highest that may have been in it; `None` if nothing in the segment comes after it.
    pub end_version: Option<u64>,
    /// Records that are right by themselves, of groups that are not whole: those are given up as well.
    pub given_up: Vec<Lost>,
}

/// A key of which nothing is borrowed.
pub type OwnedKey = (Space, Box<[u8]>);

/// A record that is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its version.
    pub version: u64,
    /// Its key; none for a flush.
    pub key: Option<OwnedKey>,
}

/// What came of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// What can't be read, in order.
    pub gaps: Vec<Gap>,
    /// Records in whole groups.
    pub records: u64,
    /// The version to hand out next, as far as anything in it says.
    pub next_version: u64,
    /// The number of the batch that would come next.
    pub next_batch: u64,
    /// The last time that it records.
    pub time: Time,
    /// What only a newer program can have written, if there is something: to give that up would be wrong.
    pub unknown: Option<Unknown>,
}

/// Reads a segment whose header is known, and gives every whole group to `visit`, in order. `bytes` is the segment from its
/// first byte on; zeros at its end may be left out.
pub fn salvage<'a>(header: &SegmentHeader, bytes: &'a [u8], visit: &mut dyn FnMut(&[Record<'a>])) -> Salvaged {
    let salvaged = Salvaged {
        next_version: header.next_version,
        next_batch: header.first_batch().number,
        time: header.time,
        ..Salvaged::default()
    };
    let seed = header.seed();
    let mut reader =
        Reader { bytes, seed, sums: None, salvaged, group: Vec::new(), open: None, lost_count: false, visit };
    reader.read();
    reader.salvaged
}

/// The first of these headers by which a batch stands in a segment, and at which offset the first such batch does: a header can
/// be told by that, since checksums know their place. One pass, however many headers there are.
pub fn first_batch(headers: impl Iterator<Item = SegmentHeader>, bytes: &[u8]) -> Option<(SegmentHeader, usize, Link)> {
    let headers: Vec<SegmentHeader> = headers.collect();
    let mut seeds = HashMap::new();
    for (index, header) in headers.iter().enumerate() {
        seeds.entry(header.seed()).or_insert(index);
    }
    let mut best: Option<(usize, usize, Link)> = None;
    for (at, seed, batch) in headers_by_seed(bytes, SEGMENT_HEADER, |seed| seeds.contains_key(&seed)) {
        let Some(&index) = seeds.get(&seed) else { continue };
        if best.is_none_or(|(held, ..)| index < held) {
            best = Some((index, at, batch.link));
        }
        if index == 0 {
            break;
        }
    }
    let (index, at, link) = best?;
    Some((*headers.get(index)?, at, link))
}

/// How far the reading of a segment is.
struct Reader<'a, 'v> {
    bytes: &'a [u8],
    seed: Seed,
    /// Since something could not be read: what looks like a record is then tried at every offset, and may claim any length.
    sums: Option<Sums<'a>>,
    salvaged: Salvaged,
    /// The group that is not at its end yet.
    group: Vec<Record<'a>>,
    /// What can't be read, and has not ended yet.
    open: Option<Gap>,
    /// Whether it is not known how many batches were just passed over: what is missing there was noted byte by byte.
    lost_count: bool,
    visit: &'v mut dyn FnMut(&[Record<'a>]),
}

impl<'a> Reader<'a, '_> {
    fn read(&mut self) {
        let mut position = SEGMENT_HEADER;
        while let Some(rest) = self.bytes.get(position..).filter(|rest| !all_zero(rest)) {
            position = if let Some(header) = BatchHeader::decode(rest, self.seed, position as u64) {
                self.read_batch(position, &header)
            } else {
                // The records of a batch whose header can't be read stand for themselves.
                let next = find_header(self.bytes, self.seed, position + 1).map_or(self.bytes.len(), |(at, _)| at);
                self.give_up(position);
                self.read_records(position, next);
                self.lost_count = true;
                next
            };
        }
        self.close_gap(position.min(self.bytes.len()), None);
    }

    /// Reads the batch at a position. Returns where the next one should be.
    fn read_batch(&mut self, position: usize, header: &BatchHeader) -> usize {
        if !std::mem::take(&mut self.lost_count) && header.link.number != self.salvaged.next_batch {
            self.give_up(position);
        }
        let body = position + header.length;
        let told = usize::try_from(header.body_length).ok().and_then(|length| body.checked_add(length));
        let within = told.filter(|end| *end <= self.bytes.len());
        let end = within.unwrap_or(self.bytes.len());
        match header.kind {
            Ok(BatchKind::Dependencies) => {}
            Ok(_) => self.read_records(body, end),
            Err(code) => self.salvaged.unknown = Some(Unknown::BatchKind(code)),
        }
        if within.is_none() {
            self.give_up(end);
        }
        self.salvaged.next_batch = header.link.number + 1;
        self.salvaged.next_version = self.salvaged.next_version.max(header.next_version);
        self.salvaged.time = header.time;
        end
    }

    /// Takes in every record that stands between these offsets.
    fn read_records(&mut self, from: usize, to: usize) {
        let mut at = from;
        while at < to {
            if let Some(record) = self.record_at(at, to) {
                self.take(record, at);
                at += record.length;
            } else {
                let sums = self.sums.get_or_insert_with(|| Sums::of(self.bytes));
                if let Some((kind, marks)) = record::unknown_by_sums(self.bytes, sums, self.seed, at, to) {
                    self.salvaged.unknown = Some(Unknown::Record { kind, marks });
                }
                self.break_group(at);
                self.give_up(at);
                at = self.next_record(at, to);
            }
        }
        // A group does not go beyond its batch.
        self.break_group(to);
    }

    /// The record at an offset, if there is one that may follow those before it.
    fn record_at(&self, at: usize, to: usize) -> Option<Record<'a>> {
        let bytes = self.bytes.get(at..to)?;
        // First what can be told without summing, since this may be asked of every offset.
        let [kind, marks, padding @ ..] = array::<4>(bytes, 16)?;
        let is_likely = (1..=3).contains(&kind) && marks <= 7 && padding == [0, 0];
        if !is_likely || u64_at(bytes, 8)? < self.lowest_version() {
            return None;
        }
        match &self.sums {
            Some(sums) => record::decode_by_sums(self.bytes, sums, self.seed, at, to),
            None => record::decode(bytes, self.seed, at as u64).ok(),
        }
    }

    /// The lowest version that the next record may have.
    fn lowest_version(&self) -> u64 {
        self.group.last().map_or(self.salvaged.next_version, |record| record.version + 1)
    }

    /// Where the next record stands, behind the one at an offset that can't be read: where that one says that it ends, if
    /// there is one; else wherever one is.
    fn next_record(&self, at: usize, to: usize) -> usize {
        let length = self.bytes.get(at..to).and_then(|rest| u32_at(rest, 4)).unwrap_or(0);
        let told = at.saturating_add(RECORD_HEADER).saturating_add(length as usize);
        if told == to || self.record_at(told, to).is_some() {
            return told;
        }
        (at + 1..to).find(|&at| self.record_at(at, to).is_some()).unwrap_or(to)
    }

    fn take(&mut self, record: Record<'a>, at: usize) {
        if record.first {
            self.break_group(at);
        } else if self.group.is_empty() {
            // Of a group whose beginning is lost.
            self.give_up(at).given_up.push(Lost::of(&record));
            self.salvaged.next_version = record.version + 1;
            return;
        }
        self.group.push(record);
        if record.last {
            let group = std::mem::take(&mut self.group);
            let before: usize = group.iter().rev().skip(1).map(|record| record.length).sum();
            self.close_gap(at - before, group.first().map(|first| first.version));
            (self.visit)(&group);
            self.salvaged.records += group.len() as u64;
            self.salvaged.next_version = record.version + 1;
        }
    }

    /// Gives up the group that is not at its end.
    fn break_group(&mut self, at: usize) {
        let group = std::mem::take(&mut self.group);
        if let Some(last) = group.last() {
            let from = at - group.iter().map(|record| record.length).sum::<usize>();
            self.give_up(from).given_up.extend(group.iter().map(Lost::of));
            self.salvaged.next_version = last.version + 1;
        }
    }

    /// What stands at this offset, and up to the next whole group, is given up.
    fn give_up(&mut self, at: usize) -> &mut Gap {
        let (at, first_version) = (at as u64, self.salvaged.next_version);
        self.open.get_or_insert(Gap { from: at, to: at, first_version, end_version: None, given_up: Vec::new() })
    }

    fn close_gap(&mut self, at: usize, end_version: Option<u64>) {
        if let Some(mut gap) = self.open.take() {
            (gap.to, gap.end_version) = (at as u64, end_version);
            self.salvaged.gaps.push(gap);
        }
    }
}

impl Lost {
    fn of(record: &Record<'_>) -> Lost {
        let key = match record.mutation {
            Mutation::Put { key, .. } | Mutation::Remove { key } | Mutation::Evict { key } => Some(key),
            Mutation::Flush { .. } => None,
        };
        Lost { version: record.version, key: key.map(|Key { space, bytes }| (space, bytes.into())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::checksum::summed;
    use crate::log::fs::FakeDisk;
    use crate::log::segment::{Compacted, HeaderState, SegmentKind, file_name};
    use crate::log::{Batch, Secret, Writer};
    use crate::mutation::Value;
    use std::sync::Arc;

    const LENGTH: usize = 256 << 10;

    /// A segment with three values of which the second is this one, and where the record of that begins.
    fn segment(value: &[u8]) -> (SegmentHeader, Vec<u8>, usize) {
        let disk = FakeDisk::new();
        let mut writer = Writer::create(Arc::new(disk.clone()), 1 << 20, 7, Secret::new(9)).expect("a new store");
        let (mut batch, mut second) = (Batch::default(), 0);
        for (version, bytes) in [(1, &b"before"[..]), (2, value), (3, b"after")] {
            second = if version == 2 { SEGMENT_HEADER + batch.byte_len() } else { second };
            batch
                .push(version, &Mutation::Put { key: Key::bytes(b"k"), value: Value { bytes, flags: 0, deadline: 0 } });
            batch.end_group();
        }
        batch.stamp(1, 4);
        let end = SEGMENT_HEADER + batch.byte_len();
        writer.append(&mut batch).expect("room");
        let mut bytes = disk.read(&file_name(1)).expect("the segment");
        bytes.truncate(end);
        let HeaderState::Valid(header) = SegmentHeader::decode(&bytes) else { panic!("a valid header") };
        (header, bytes, second)
    }

    /// Headers of records, one every so many bytes, each of which claims all that follows, and all of whose contents are in
    /// order, but for the checksum.
    fn look_alikes(every: usize) -> Vec<u8> {
        let mut value = vec![0; LENGTH];
        for at in (0..LENGTH - 64).step_by(every) {
            let payload = LENGTH - at - RECORD_HEADER;
            let contents = payload - 10;
            let header = [&[9; 4], &(payload as u32).to_le_bytes()[..], &9_u64.to_le_bytes(), &[1, 3, 0, 0]].concat();
            let key = [&[0, 0, 0, 1, b'k', 252][..], &(contents as u32).to_le_bytes()].concat();
            let look_alike = [header, key].concat();
            value[at..at + look_alike.len()].copy_from_slice(&look_alike);
            assert!(record::reread(&value[at..]).is_some(), "in order but for the checksum");
        }
        value
    }

    #[test]
    fn a_segment_is_summed_a_few_times_whatever_looks_like_a_record_in_it() {
        // Lengths and kinds at every eighth byte as well, of nothing that is in order.
        let dense: Vec<u8> = [1, 1, 0, 0, 0, 0, 2, 0].iter().copied().cycle().take(LENGTH).collect();
        for (value, bound) in [(vec![0; LENGTH], 3), (dense, 3), (look_alikes(32), 8), (look_alikes(1_000), 4)] {
            let (header, mut bytes, second) = segment(&value);
            // Its length: nothing tells any more where the next record stands.
            bytes[second + 5] ^= 0x10;
            for spoils_batch in [false, true] {
                bytes[SEGMENT_HEADER + 5] ^= u8::from(spoils_batch);
                summed();
                let mut versions = Vec::new();
                salvage(&header, &bytes, &mut |group| versions.push(group[0].version));
                let work = summed();
                assert_eq!(versions, [1, 3]);
                assert!(work < bound * bytes.len(), "{work} bytes of {} were summed", bytes.len());
            }
        }
    }

    #[test]
    fn a_segment_is_summed_a_few_times_whatever_looks_like_a_batch_in_it() {
        let value: Vec<u8> = crate::log::batch::BATCH_MAGIC.iter().copied().cycle().take(LENGTH).collect();
        let (header, mut bytes, _) = segment(&value);
        bytes[SEGMENT_HEADER + 5] ^= 1;
        summed();
        salvage(&header, &bytes, &mut |_| ());
        let work = summed();
        assert!(work < 20 * bytes.len(), "{work} bytes of {} were summed", bytes.len());
        let generations = (1..=4096).map(|generation| {
            let kind = SegmentKind::Compacted(Compacted { first: 1, generation, length: 0 });
            SegmentHeader { kind, ..header }
        });
        assert_eq!(first_batch(generations, &bytes), None);
        let work = summed();
        assert!(work < 20 * bytes.len(), "{work} bytes of {} were summed, for 4,096 headers", bytes.len());
    }

    #[test]
    fn a_header_is_told_by_the_first_batch_that_is_right_by_it() {
        let (header, bytes, _) = segment(b"value");
        let other = |generation| {
            let kind = SegmentKind::Compacted(Compacted { first: 1, generation, length: 0 });
            SegmentHeader { kind, ..header }
        };
        let link = Link { number: 1, chain: 0 };
        for headers in [vec![header], vec![other(1), header, other(2)], vec![header, header]] {
            assert_eq!(first_batch(headers.into_iter(), &bytes), Some((header, SEGMENT_HEADER, link)));
        }
        assert_eq!(first_batch([other(1), other(2)].into_iter(), &bytes), None);
    }
}
