//! `kvd check`: what a data directory holds, and what is wrong with it. Reads only.
//!
//! Knows the log's survey, scan and verdicts. Decides nothing of its own, so that it can't disagree with a start. How it is
//! told is for [`report`].

pub mod report;

use crate::log::fs::Fs;
use crate::log::recovery::{self, Reading, Segment, Survey, read_segment, segment_numbers, survey};
use crate::log::segment::{HeaderState, SEGMENT_HEADER, SegmentHeader, file_name, unix_milliseconds};
use crate::log::{LogError, Progress, open_unlocked};
use crate::timeline::Time;
use crate::tools::bar::Bar;
use crate::tools::survivors::Survivors;
use report::{Flaw, Report, SegmentFigures};
use std::path::Path;
use std::sync::atomic::Ordering;

/// What was found, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// Nothing is wrong.
    Clean,
    /// A start would cut off a torn tail, and lose nothing that was acknowledged as durable.
    TornTail,
    /// A start would refuse.
    Damage,
    /// The directory can't be read.
    Unreadable,
}

impl Finding {
    /// The exit code that tells it.
    pub const fn exit_code(self) -> u8 {
        match self {
            Finding::Clean => 0,
            Finding::TornTail => 1,
            Finding::Damage => 2,
            Finding::Unreadable => 3,
        }
    }
}

/// How often a log is read anew, when segments come and go while it is read.
const ATTEMPTS: usize = 10;

/// Reads the log in `directory`. Works beside a running daemon, whose last batches may then look torn.
pub fn check(directory: &Path) -> Report {
    match open_unlocked(directory) {
        Ok(disk) => check_disk(&disk),
        Err(error) => Report { segments: Vec::new(), flaws: vec![Flaw::of_log(&error)] },
    }
}

/// The same, on a disk that is open.
pub(super) fn check_disk(disk: &dyn Fs) -> Report {
    let mut report = read(disk);
    for _ in 1..ATTEMPTS {
        if report.finding() <= Finding::TornTail {
            break;
        }
        // A running daemon's compaction takes segments away, and cuts them when they have no name any more: what is wrong
        // counts if it is the same when looked at again.
        let again = read(disk);
        if again == report {
            break;
        }
        report = again;
    }
    report
}

fn read(disk: &dyn Fs) -> Report {
    let (segments, mut flaws) = match survey(disk) {
        Ok(Survey { segments, .. }) => (segments, Vec::new()),
        // What is wrong between segments keeps nobody from looking into them.
        Err(error) => match with_headers(disk) {
            Ok(segments) => (segments, vec![Flaw::of_log(&error)]),
            Err(error) => (Vec::new(), vec![Flaw::of_log(&error)]),
        },
    };
    let is_whole = flaws.is_empty();
    let (mut survivors, mut readings, mut figures) = (Survivors::default(), Vec::new(), Vec::new());
    let progress = Progress::default();
    let bar = Bar::of_log("check", disk, &segments);
    for (index, segment) in segments.iter().enumerate() {
        let successor = segments.get(index + 1).map(|next| next.header.link).filter(|_| is_whole);
        match disk.contents(&segment.name) {
            Ok(contents) => {
                let mut versions = None;
                let reading = read_segment(segment, successor, contents.as_ref(), &progress, &mut |record| {
                    survivors.meet(record.version, &record.mutation, index);
                    let (least, most) = versions.unwrap_or((record.version, record.version));
                    versions = Some((least.min(record.version), most.max(record.version)));
                });
                flaws.extend(Flaw::of_reading(&reading));
                figures.push((index, versions, contents.file_len()));
                readings.push(reading);
            }
            Err(error) => flaws.push(Flaw::of_log(&LogError::io("read", &segment.name)(error))),
        }
        bar.at(progress.done.load(Ordering::Relaxed));
    }
    drop(bar);
    let last = readings.last().map_or(Time::default(), |reading: &Reading| reading.report.time);
    let live = survivors.of_segments(segments.len(), Time::at_start(last, unix_milliseconds()).now);
    let figures = readings.iter().zip(figures).map(|(reading, (index, versions, file_bytes))| {
        SegmentFigures::of(reading, versions, live.get(index).copied().unwrap_or(0), file_bytes)
    });
    if flaws.is_empty()
        && let Err(error) = recovery::refuse(&readings)
    {
        flaws.push(Flaw::of_log(&error));
    }
    Report { segments: figures.collect(), flaws }
}

/// Every segment whose own header is valid, whatever is wrong with the others.
fn with_headers(disk: &dyn Fs) -> Result<Vec<Segment>, LogError> {
    let mut segments = Vec::new();
    for name in segment_numbers(disk)?.into_iter().map(file_name) {
        if let Ok(beginning) = disk.beginning(&name, SEGMENT_HEADER)
            && let HeaderState::Valid(header) = SegmentHeader::decode(&beginning)
        {
            segments.push(Segment { name, header });
        }
    }
    Ok(segments)
}
