//! Reads one segment: a pure pass over its bytes.
//!
//! Knows how batches follow each other. Does not know files, directories or what a fault means for the log as a
//! whole, changes nothing, and sizes nothing by what it reads. `kvd check` and a start share it.

use super::batch::{BATCH_HEADER, BatchKind, Link};
use super::bytes::all_zero;
use super::error::Unknown;
use super::record::RecordFault;
use super::segment::{SEGMENT_HEADER, SegmentHeader};
use super::verified::{BatchFault, VerifiedBatch, find_header};
use crate::timeline::Time;
use std::collections::VecDeque;
use std::fmt;

/// What is wrong where a segment's readable part ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The segment's header.
    Header,
    /// What stands there is not the next batch.
    Batch(BatchFault),
    /// Zeros where a batch should be, and then more bytes.
    Gap,
    /// The segment ends too early: the one after it goes on from a later batch, or from another one.
    Ends {
        /// The batch that would come next here.
        next: u64,
        /// The batch that the segment after it begins with.
        successor: u64,
    },
    /// Bytes after the end of a sealed segment.
    Trailing,
    /// A compacted segment ends before the length that its header says.
    TooShort {
        /// That length.
        length: u64,
    },
}

impl Fault {
    /// What is unknown, where only a newer program can have written what stands there.
    pub fn unknown(self) -> Option<Unknown> {
        match self {
            Fault::Batch(BatchFault::Newer(kind)) => Some(Unknown::BatchKind(kind)),
            Fault::Batch(BatchFault::Record(_, RecordFault::Newer { kind, marks })) => {
                Some(Unknown::Record { kind, marks })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Header => write!(f, "the segment's header does not match its checksum"),
            Fault::Batch(BatchFault::Header) => write!(f, "no valid batch header"),
            Fault::Batch(BatchFault::Order) => write!(f, "a batch that does not follow the one before it"),
            Fault::Batch(BatchFault::CutShort) => write!(f, "a batch that is cut short"),
            Fault::Batch(BatchFault::Record(offset, fault)) => {
                let what = match fault {
                    RecordFault::CutShort => "leads beyond its batch",
                    RecordFault::Checksum => "does not match its checksum",
                    RecordFault::Payload => "has contents that can't be decoded",
                    RecordFault::Newer { .. } => "is of a kind that this program does not know",
                };
                write!(f, "the record {offset} bytes into the batch {what}")
            }
            Fault::Batch(BatchFault::Newer(kind)) => {
                write!(f, "a batch of kind {kind}, which this program does not know")
            }
            Fault::Batch(BatchFault::Body) => write!(f, "a batch whose records do not belong together"),
            Fault::Gap => write!(f, "zeros where a batch should be"),
            Fault::Ends { next, successor } => {
                write!(f, "it ends before batch {next}, while the next segment begins with batch {successor}")
            }
            Fault::Trailing => write!(f, "bytes after the end of a sealed segment"),
            Fault::TooShort { length } => write!(f, "it ends before its length of {length} bytes"),
        }
    }
}

/// What one segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// Offset after its last valid batch.
    pub end: u64,
    /// What follows: the next batch's number and chain.
    pub link: Link,
    /// Valid batches.
    pub batches: u64,
    /// Their records.
    pub records: u64,
    /// The version to hand out next, as of its last batch.
    pub next_version: u64,
    /// The last time that it records.
    pub time: Time,
    /// Number of the last batch that is more than a mark; of the one before the first, if none is.
    pub last_batch: u64,
    /// Up to which batch it says that all are durable.
    pub proven: u64,
    /// Offset of the first batch that it does not prove to be durable; `end` if all are.
    pub unproven: u64,
    /// Whether its last batch is the mark of an orderly stop.
    pub clean_stop: bool,
    /// What stands at `end`, if not nothing or zeros.
    pub fault: Option<Fault>,
    /// Whether a batch header beyond `end` says that the batch missing there had been durable.
    pub proof_of_loss: bool,
}

impl SegmentReport {
    /// Of a segment that has this header and nothing behind it.
    pub fn of_header(header: &SegmentHeader) -> SegmentReport {
        let before = header.first_batch().number.saturating_sub(1);
        SegmentReport {
            end: SEGMENT_HEADER as u64,
            link: header.first_batch(),
            batches: 0,
            records: 0,
            next_version: header.next_version,
            time: header.time,
            last_batch: before,
            proven: before,
            unproven: SEGMENT_HEADER as u64,
            clean_stop: false,
            fault: None,
            proof_of_loss: false,
        }
    }
}

/// Reads a segment whose header was found valid, from its first batch to its end, and gives every whole batch to
/// `visit`. `bytes` is the segment from its first byte on; zeros at its end may be left out.
pub fn scan<'a>(header: &SegmentHeader, bytes: &'a [u8], visit: &mut dyn FnMut(&VerifiedBatch<'a>)) -> SegmentReport {
    let seed = header.seed();
    let mut report = SegmentReport::of_header(header);
    // Batches not yet proven durable by a later one, oldest first: (number, offset).
    let mut unproven: VecDeque<(u64, u64)> = VecDeque::new();
    loop {
        let rest = bytes.get(report.end as usize..).unwrap_or_default();
        let batch = match VerifiedBatch::decode(rest, seed, report.end, report.link) {
            Ok(batch) => batch,
            Err(fault) => {
                report.fault = fault_at_end(rest, fault);
                break;
            }
        };
        visit(&batch);
        unproven.push_back((batch.header.link.number, report.end));
        while unproven.front().is_some_and(|(number, _)| *number <= batch.header.durable.batch) {
            unproven.pop_front();
        }
        report.batches += 1;
        if batch.header.kind == Ok(BatchKind::Groups) {
            report.records += u64::from(batch.header.records);
        }
        report.next_version = report.next_version.max(batch.header.next_version);
        report.time = batch.header.time;
        report.proven = report.proven.max(batch.header.durable.batch);
        if batch.header.kind != Ok(BatchKind::Mark) {
            report.last_batch = batch.header.link.number;
        }
        report.clean_stop = batch.header.kind == Ok(BatchKind::CleanStop);
        report.end += batch.byte_len();
        report.link = Link { number: report.link.number + 1, chain: batch.header.checksum };
    }
    report.unproven = unproven.front().map_or(report.end, |(_, offset)| *offset);
    report.proof_of_loss = report.fault.is_some() && proves_loss(bytes, header, &report);
    report
}

fn fault_at_end(rest: &[u8], fault: BatchFault) -> Option<Fault> {
    let head = rest.get(..BATCH_HEADER).unwrap_or(rest);
    match (all_zero(head), all_zero(rest)) {
        (_, true) => None,
        (true, false) => Some(Fault::Gap),
        (false, false) => Some(Fault::Batch(fault)),
    }
}

/// Whether bytes beyond the end hold a batch header that is right for its place and says that the batch which is
/// missing at the end had been durable. Its body does not matter: the header was written after that batch was synced.
fn proves_loss(bytes: &[u8], header: &SegmentHeader, report: &SegmentReport) -> bool {
    let mut from = report.end as usize;
    while let Some((at, later)) = find_header(bytes, header.seed(), from) {
        if later.durable.batch >= report.link.number {
            return true;
        }
        from = at + 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_faults_are_told_alike() {
        let batches =
            [BatchFault::Header, BatchFault::Order, BatchFault::CutShort, BatchFault::Body, BatchFault::Newer(7)];
        let newer = RecordFault::Newer { kind: 9, marks: 3 };
        let records = [RecordFault::CutShort, RecordFault::Checksum, RecordFault::Payload, newer];
        let of_batches = batches.into_iter().chain(records.map(|fault| BatchFault::Record(8, fault))).map(Fault::Batch);
        let others = [
            Fault::Header,
            Fault::Gap,
            Fault::Ends { next: 7, successor: 9 },
            Fault::Trailing,
            Fault::TooShort { length: 70_000 },
        ];
        let told: BTreeSet<String> = of_batches.chain(others).map(|fault| fault.to_string()).collect();
        assert_eq!(told.len(), 14, "{told:#?}");
        for figures in ["8 bytes into", "before batch 7", "with batch 9", "70000 bytes"] {
            assert!(told.iter().any(|text| text.contains(figures)), "{figures}: {told:#?}");
        }
    }
}
