//! What a start finds in the directory, and what that means.
//!
//! Knows the decision table of `docs/format.md` ("How a start reads it") and holds it as code, a row a test. Changes
//! nothing on disk: `mend` cuts, after this has decided. Does not know what a mutation does.
//!
//! Two steps: [`survey`] reads headers and refuses what can't be right; [`read_all`] reads the rest on all cores.
//! Segments are read in any order, since the highest version of a key wins, and are held against each other after that.

use super::batch::{Dependency, Link, Tally};
use super::error::{LogError, Mismatch, Unknown};
use super::fs::{Contents, Fs};
use super::record::Record;
use super::scan::{Fault, SegmentReport, scan};
use super::secret::Secret;
use super::segment::{Compacted, FileRole, HeaderState, SEGMENT_HEADER, SegmentHeader, SegmentKind, file_name};
use crate::fault;
use crate::mutation::Mutation;
use crate::threads::NoThread;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::Builder;

/// How far a replay has come, for whoever reports it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes read.
    pub done: AtomicU64,
    /// Bytes in all; 0 until known.
    pub total: AtomicU64,
}

/// Mutations are given so many at a time, at most: whoever takes them in can then fetch what it needs for all of them at
/// once.
pub const CHUNK: usize = 2048;

/// Bytes of records after which mutations are given although they are fewer: they are still in the cache of the processor
/// that verified them.
const CHUNK_BYTES: usize = 1 << 20;

/// Takes mutations in, each with its version, from several threads and in any order.
pub type Apply<'f> = dyn Fn(&[(u64, Mutation<'_>)]) + Sync + 'f;

/// A segment with a valid header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its file.
    pub name: String,
    /// Its header.
    pub header: SegmentHeader,
}

/// What the directory holds, by names and headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The log, oldest first. The last one is the active one.
    pub segments: Vec<Segment>,
    /// Segments that a later one stands for, left over by a compaction that was cut short: to be removed, not read.
    pub replaced: Vec<Segment>,
    /// Files above the journal that hold nothing: spares.
    pub spares: Vec<u64>,
    /// Files above the journal whose header was never finished, with nothing behind it.
    pub torn_headers: Vec<u64>,
    /// Left-overs to remove.
    pub temporary: Vec<String>,
    /// Names that are not kvd's.
    pub strangers: Vec<String>,
}

impl Survey {
    /// The store's identity; none in a directory without a segment.
    pub fn identity(&self) -> Option<u128> {
        self.segments.first().map(|segment| segment.header.identity)
    }

    /// The store's secret; none where every segment is of format 1.
    pub fn secret(&self) -> Option<Secret> {
        self.segments.iter().rev().find_map(|segment| segment.header.secret)
    }
}

/// The numbers of all files that are named as segments, rising.
///
/// # Errors
/// What the disk refuses.
pub fn segment_numbers(fs: &dyn Fs) -> Result<Vec<u64>, LogError> {
    let names = fs.list().map_err(LogError::io("list", "the data directory"))?;
    let number = |name: &String| match FileRole::of(name) {
        FileRole::Segment(number) => Some(number),
        FileRole::Temporary | FileRole::Saved | FileRole::Stranger => None,
    };
    let mut numbers: Vec<_> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads names and headers.
///
/// # Errors
/// Rows 8 to 13 of the decision table, and what the disk refuses.
pub fn survey(fs: &dyn Fs) -> Result<Survey, LogError> {
    let mut survey = Survey::default();
    let mut numbers = Vec::new();
    for name in fs.list().map_err(LogError::io("list", "the data directory"))? {
        match FileRole::of(&name) {
            FileRole::Segment(number) => numbers.push(number),
            FileRole::Temporary => survey.temporary.push(name),
            FileRole::Stranger if name != super::directory::LOCK_NAME => survey.strangers.push(name),
            FileRole::Stranger | FileRole::Saved => {}
        }
    }
    numbers.sort_unstable();
    let mut above_journal = true;
    // From the last one down: what may be above the journal ends with the first valid header.
    for &number in numbers.iter().rev() {
        let name = file_name(number);
        let beginning = fault::after("start-header-read", fs.beginning(&name, SEGMENT_HEADER));
        let beginning = beginning.map_err(LogError::io("read", &name))?;
        match SegmentHeader::decode(&beginning) {
            HeaderState::Valid(header) => {
                above_journal = false;
                survey.segments.push(Segment { name, header });
            }
            HeaderState::Newer(what) => return Err(LogError::Newer { name, what }),
            HeaderState::Foreign => return Err(LogError::Foreign { name }),
            state => {
                let contents = fs.contents(&name).map_err(LogError::io("read", &name))?;
                match unfinished(state, contents.as_ref(), above_journal) {
                    Some(Unfinished::Spare) => survey.spares.push(number),
                    Some(Unfinished::TornHeader) => survey.torn_headers.push(number),
                    None => return Err(LogError::Damage { name, offset: 0, fault: Fault::Header }),
                }
            }
        }
    }
    survey.segments.reverse();
    survey.spares.reverse();
    check_headers(&survey.segments)?;
    survey.replaced = take_replaced(&mut survey.segments)?;
    Ok(survey)
}

/// Refuses what has the name of a left-over and is no file: it is not kvd's to remove, and its name is in the way of whoever
/// writes. Who only reads has no use for this.
///
/// # Errors
/// What the disk refuses.
pub fn refuse_in_the_way(fs: &dyn Fs) -> Result<(), LogError> {
    let names = fs.list().map_err(LogError::io("list", "the data directory"))?;
    for name in names.iter().filter(|name| FileRole::of(name) == FileRole::Temporary) {
        fs.file_len(name).map_err(LogError::io("remove", name))?;
    }
    Ok(())
}

enum Unfinished {
    Spare,
    TornHeader,
}

/// Rows 6 and 7: a file without a valid header is fine above the journal if nothing follows where the header should be.
fn unfinished(state: HeaderState, contents: &dyn Contents, above_journal: bool) -> Option<Unfinished> {
    let body = contents.bytes().get(SEGMENT_HEADER..).unwrap_or_default();
    match state {
        _ if !above_journal || !super::bytes::all_zero(body) => None,
        HeaderState::Blank => Some(Unfinished::Spare),
        _ => Some(Unfinished::TornHeader),
    }
}

/// Rows 11 and 12.
fn check_headers(segments: &[Segment]) -> Result<(), LogError> {
    let Some(expected) = segments.first().map(|first| first.header.identity) else { return Ok(()) };
    for Segment { name, header } in segments {
        if header.identity != expected {
            return Err(LogError::OtherStore { name: name.clone(), expected, found: header.identity });
        }
        if file_name(header.number) != *name {
            return Err(LogError::Misplaced { name: name.clone(), says: header.number });
        }
    }
    Ok(())
}

/// Row 13, and row 14: takes out what is replaced. Above the journal numbers may be missing: the entries of spares are not
/// synced in their order.
fn take_replaced(segments: &mut Vec<Segment>) -> Result<Vec<Segment>, LogError> {
    let missing = |number| Err(LogError::MissingSegment { name: file_name(number) });
    let Some(active) = segments.last().map(|active| active.header) else { return Ok(Vec::new()) };
    if active.kind != SegmentKind::Journal {
        // Only sealed segments are compacted, so there was a later one.
        return missing(active.number + 1);
    }
    // From the last one down: the highest number that nothing met so far stands for.
    let mut open = active.number;
    let (mut kept, mut replaced) = (Vec::new(), Vec::new());
    for segment in std::mem::take(segments).into_iter().rev() {
        match segment.header.number.cmp(&open) {
            std::cmp::Ordering::Greater => replaced.push(segment),
            std::cmp::Ordering::Equal => {
                open = segment.header.first() - 1;
                kept.push(segment);
            }
            std::cmp::Ordering::Less => return missing(open),
        }
    }
    if open > 0 {
        return missing(open);
    }
    kept.reverse();
    replaced.reverse();
    *segments = kept;
    Ok(replaced)
}

/// What became of the end of one segment: rows 1 to 5 and 17.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it was left.
    Clean,
    /// Cut it here.
    TornTail,
    /// Refuse.
    Damage(Fault),
    /// Refuse: a newer program wrote what stands there.
    Newer(Unknown),
}

/// Row 17, which comes before the others: what this program does not know it neither cuts nor calls damaged.
fn judge_unknown(report: &SegmentReport) -> Option<Verdict> {
    report.fault.and_then(Fault::unknown).map(Verdict::Newer)
}

/// Rows 15 and 16: a compacted segment is whole, to the byte, or damaged.
pub fn judge_compacted(report: &SegmentReport, compacted: Compacted, file_len: u64) -> Verdict {
    if let Some(newer) = judge_unknown(report) {
        return newer;
    }
    match report.fault {
        Some(fault) => Verdict::Damage(fault),
        None if file_len > compacted.length => Verdict::Damage(Fault::Trailing),
        None if report.end < compacted.length => Verdict::Damage(Fault::TooShort { length: compacted.length }),
        None => Verdict::Clean,
    }
}

/// Rows 1 to 5 of the decision table. `successor` is what the header of the next segment carries on, `None` for the
/// active one; `trailing` is whether a sealed segment's file goes on after its end.
pub fn judge(report: &SegmentReport, successor: Option<Link>, trailing: bool) -> Verdict {
    if let Some(newer) = judge_unknown(report) {
        return newer;
    }
    match (successor, report.fault) {
        (Some(successor), None) if successor == report.link && !trailing => Verdict::Clean,
        (Some(successor), None) if successor == report.link => Verdict::Damage(Fault::Trailing),
        (Some(successor), None) => {
            Verdict::Damage(Fault::Ends { next: report.link.number, successor: successor.number })
        }
        (Some(_), Some(fault)) => Verdict::Damage(fault),
        (None, None) => Verdict::Clean,
        (None, Some(fault)) if report.proof_of_loss => Verdict::Damage(fault),
        (None, Some(_)) => Verdict::TornTail,
    }
}

/// What a segment was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The segment.
    pub segment: Segment,
    /// What it holds.
    pub report: SegmentReport,
    /// Its records by what they are for.
    pub tally: Tally,
    /// The older segments on which it relies.
    pub dependencies: Vec<Dependency>,
    /// What that means.
    pub verdict: Verdict,
}

/// Reads every segment on `threads` threads, gives the mutations of every whole batch to `apply`, up to [`CHUNK`] of one
/// segment at a time, and judges. The readings are in the order of the journal.
///
/// A mutation is given before the segments are held against each other: what was applied counts only if no reading is damaged.
///
/// # Errors
/// What the disk refuses. Damage is a [`Verdict`], so that `kvd check` can go on after it.
pub fn read_all(
    fs: &dyn Fs,
    segments: &[Segment],
    threads: usize,
    progress: &Progress,
    apply: &Apply<'_>,
) -> Result<Vec<Reading>, LogError> {
    let sizes =
        segments.iter().map(|segment| fs.file_len(&segment.name).map_err(LogError::io("measure", &segment.name)));
    progress.total.store(sizes.sum::<Result<u64, _>>()?, Ordering::Relaxed);

    let next = AtomicUsize::new(0);
    let readings: Vec<OnceLock<Result<Reading, LogError>>> = segments.iter().map(|_| OnceLock::new()).collect();
    let read = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some(segment), Some(place)) = (segments.get(index), readings.get(index)) else { return };
            let successor = segments.get(index + 1).map(|next| next.header.link);
            // Every place is taken once.
            let _ = place.set(read_one(fs, segment, successor, progress, apply));
        }
    };
    std::thread::scope(|scope| {
        let others = threads.clamp(1, segments.len().max(1)) - 1;
        for made in 0..others {
            if let Err(error) = Builder::new().spawn_scoped(scope, read) {
                tracing::warn!("the log is read on {} threads, not on {}: {}", made + 1, others + 1, NoThread(error));
                break;
            }
        }
        read();
    });
    readings.into_iter().filter_map(OnceLock::into_inner).collect()
}

fn read_one(
    fs: &dyn Fs,
    segment: &Segment,
    successor: Option<Link>,
    progress: &Progress,
    apply: &Apply<'_>,
) -> Result<Reading, LogError> {
    let contents = fault::after("start-segment-opened", fs.contents(&segment.name));
    let contents = contents.map_err(LogError::io("read", &segment.name))?;
    let (mut chunk, mut bytes) = (Vec::with_capacity(CHUNK), 0);
    let reading = read_segment(segment, successor, contents.as_ref(), progress, &mut |record| {
        chunk.push((record.version, record.mutation));
        bytes += record.length;
        if chunk.len() == CHUNK || bytes >= CHUNK_BYTES {
            apply(&chunk);
            chunk.clear();
            bytes = 0;
        }
    });
    apply(&chunk);
    Ok(reading)
}

/// Reads one segment, gives the records of every whole batch to `visit`, and judges. `successor` is what the header of the next segment
/// carries on, `None` for the last one.
pub fn read_segment<'a>(
    segment: &Segment,
    successor: Option<Link>,
    contents: &'a dyn Contents,
    progress: &Progress,
    visit: &mut dyn FnMut(Record<'a>),
) -> Reading {
    let (mut tally, mut dependencies) = (Tally::default(), Vec::new());
    let report = scan(&segment.header, contents.bytes(), &mut |batch| {
        dependencies.extend(batch.dependencies());
        for record in batch.records() {
            tally.add(&record.mutation, record.length);
            visit(record);
        }
        progress.done.fetch_add(batch.byte_len(), Ordering::Relaxed);
    });
    // The header, and what was sized ahead.
    progress.done.fetch_add(contents.file_len().saturating_sub(report.end) + SEGMENT_HEADER as u64, Ordering::Relaxed);
    let verdict = match segment.header.kind {
        SegmentKind::Journal => judge(&report, successor, contents.file_len() != report.end),
        SegmentKind::Compacted(compacted) => judge_compacted(&report, compacted, contents.file_len()),
    };
    Reading { segment: segment.clone(), report, tally, dependencies, verdict }
}

/// What is wrong with the first reading of which something is, as the error that a start refuses with; then what does not fit
/// between them.
///
/// # Errors
/// [`LogError::Damage`], [`LogError::Newer`], [`LogError::TornCopy`].
pub fn refuse(readings: &[Reading]) -> Result<(), LogError> {
    readings.iter().try_for_each(Reading::refuse)?;
    let last = readings.iter().map(|reading| reading.report.next_version).max().unwrap_or(1).saturating_sub(1);
    let Some((torn, why)) = mismatches(readings, last).next() else { return Ok(()) };
    Err(LogError::TornCopy { name: torn.segment.name.clone(), why })
}

impl Reading {
    /// The error with which a start refuses because of this segment alone.
    ///
    /// # Errors
    /// [`LogError::Damage`], [`LogError::Newer`].
    pub fn refuse(&self) -> Result<(), LogError> {
        let name = || self.segment.name.clone();
        match self.verdict {
            Verdict::Damage(fault) => Err(LogError::Damage { name: name(), offset: self.report.end, fault }),
            Verdict::Newer(what) => Err(LogError::Newer { name: name(), what }),
            Verdict::Clean | Verdict::TornTail => Ok(()),
        }
    }
}

/// Rows 18 and 19: the compacted segments that rely on a later state of the others than is there, as in a directory that was
/// copied file by file while kvd ran. The log ends with version `last`. Of a segment that has no reading nothing is said.
pub fn mismatches(readings: &[Reading], last: u64) -> impl Iterator<Item = (&Reading, Mismatch)> {
    readings.iter().filter_map(move |reading| {
        let stale = reading.dependencies.iter().find_map(|&Dependency { number, generation }| {
            let found = standing_for(readings, number)?.generation();
            (found < generation).then_some(Mismatch::Generation { number, generation, found })
        });
        let SegmentHeader { kind, durable_version: durable, .. } = reading.segment.header;
        let is_short = matches!(kind, SegmentKind::Compacted(_)) && last < durable;
        Some((reading, stale.or(is_short.then_some(Mismatch::Ends { durable, last }))?))
    })
}

/// The header of the segment that has this number, or stands for the one that had.
fn standing_for(readings: &[Reading], number: u64) -> Option<&SegmentHeader> {
    let at = readings.partition_point(|reading| reading.segment.header.number < number);
    Some(&readings.get(at)?.segment.header).filter(|header| header.first() <= number)
}
