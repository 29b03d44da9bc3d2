//! What `kvd check` found, in words for people and as JSON for programs.

use super::Finding;
use crate::log::LogError;
use crate::log::record::RecordFault;
use crate::log::recovery::{Reading, Verdict};
use crate::log::scan::Fault;
use crate::log::segment::SegmentKind;
use crate::log::verified::BatchFault;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write};

/// The version of the JSON object; it changes when a name in it changes its meaning.
const SCHEMA: u32 = 1;

/// What a data directory holds, and everything that is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segment by segment, oldest first.
    pub segments: Vec<SegmentFigures>,
    /// In the same order; first what is wrong between them.
    pub flaws: Vec<Flaw>,
}

/// What one segment holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentFigures {
    /// Its file.
    pub file: String,
    /// `journal` or `compacted`.
    pub kind: &'static str,
    /// The first of the segments that it stands for; its own number in a journal.
    pub stands_for_from: u64,
    /// Its number.
    pub number: u64,
    /// Whole batches.
    pub batches: u64,
    /// Their records.
    pub records: u64,
    /// Those that a start would keep.
    pub live: u64,
    /// Those that store what was overwritten, removed, flushed, or has expired.
    pub superseded: u64,
    /// Those that remove or flush.
    pub tombstones: u64,
    /// Bytes up to the end of the last whole batch.
    pub bytes: u64,
    /// Bytes of the file, those sized ahead included.
    pub file_bytes: u64,
    /// The lowest and the highest version of a record.
    pub versions: Option<(u64, u64)>,
    /// The version to hand out next, as of its last batch.
    pub next_version: u64,
    /// Whether its last batch is the mark of an orderly stop.
    pub clean_stop: bool,
}

impl SegmentFigures {
    /// Of a segment that was read; `live` of its records count.
    pub(super) fn of(reading: &Reading, versions: Option<(u64, u64)>, live: u64, file_bytes: u64) -> SegmentFigures {
        let Reading { segment, report, tally, .. } = reading;
        let kind = match segment.header.kind {
            SegmentKind::Journal => "journal",
            SegmentKind::Compacted(_) => "compacted",
        };
        SegmentFigures {
            file: segment.name.clone(),
            kind,
            stands_for_from: segment.header.first(),
            number: segment.header.number,
            batches: report.batches,
            records: report.records,
            live,
            superseded: tally.puts.saturating_sub(live),
            tombstones: tally.removals,
            bytes: report.end,
            file_bytes,
            versions,
            next_version: report.next_version,
            clean_stop: report.clean_stop,
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flaw {
    /// The file in which; none where it is the directory.
    pub file: Option<String>,
    /// Where in it, in bytes.
    pub offset: Option<u64>,
    /// A word for programs, one of those that `docs/operations.md` lists.
    pub kind: &'static str,
    /// A sentence for people.
    pub what: String,
    /// What follows from it.
    pub implies: &'static str,
    #[serde(skip)]
    finding: Finding,
}

/// The kind of flaw where nothing is there to be checked.
const NO_LOG: &str = "no-log";

const CUT: &str = "a start saves these bytes beside the log and cuts them off; no write that was acknowledged under \
                   --fsync always is in them";
const REFUSED: &str = "a start refuses: writes that were acknowledged are in these bytes or behind them";
const OUT_OF_PLACE: &str = "a start refuses, and would lose nothing once this is put right";
const MISSING: &str = "a start refuses: every write of that segment is missing";
const TORN_COPY: &str =
    "a start refuses: the files are of different moments, so keys that were removed or overwritten may be back";
const NOTHING: &str = "nothing was checked; a start would make a new store, or fail";
const UNREAD: &str = "a start would fail as well; nothing is known of what is there";

impl Flaw {
    /// What is wrong at the end of a segment, if anything is.
    pub(super) fn of_reading(reading: &Reading) -> Option<Flaw> {
        let Reading { segment, report, verdict, .. } = reading;
        let (finding, fault) = match *verdict {
            Verdict::Clean => return None,
            Verdict::Newer(_) => return reading.refuse().err().map(|error| Flaw::of_log(&error)),
            Verdict::TornTail => (Finding::TornTail, report.fault?),
            Verdict::Damage(fault) => (Finding::Damage, fault),
        };
        Some(Flaw {
            file: Some(segment.name.clone()),
            offset: Some(report.end),
            kind: if finding == Finding::TornTail { "torn-tail" } else { kind(fault) },
            what: fault.to_string(),
            implies: if finding == Finding::TornTail { CUT } else { REFUSED },
            finding,
        })
    }

    /// Why a start would refuse before it reads batches.
    pub(super) fn of_log(error: &LogError) -> Flaw {
        let (file, offset, kind, implies, finding) = match error {
            LogError::Damage { name, offset, fault } => {
                (Some(name), Some(*offset), kind(*fault), REFUSED, Finding::Damage)
            }
            LogError::MissingSegment { name } => (Some(name), None, "missing-segment", MISSING, Finding::Damage),
            LogError::Foreign { name } => (Some(name), None, "foreign", OUT_OF_PLACE, Finding::Damage),
            LogError::Newer { name, .. } => (Some(name), None, "newer-format", OUT_OF_PLACE, Finding::Damage),
            LogError::Misplaced { name, .. } => (Some(name), None, "misplaced", OUT_OF_PLACE, Finding::Damage),
            LogError::OtherStore { name, .. } => (Some(name), None, "other-store", OUT_OF_PLACE, Finding::Damage),
            LogError::TornCopy { name, .. } => (Some(name), None, "torn-copy", TORN_COPY, Finding::Damage),
            LogError::Io { name, .. } => (Some(name), None, "unreadable", UNREAD, Finding::Unreadable),
            LogError::NoLog { .. } | LogError::DanglingLink { .. } => {
                (None, None, NO_LOG, NOTHING, Finding::Unreadable)
            }
            LogError::Locked(_) | LogError::Directory { .. } | LogError::Lock { .. } | LogError::ThreadGone => {
                (None, None, "unreadable", UNREAD, Finding::Unreadable)
            }
        };
        Flaw { file: file.cloned(), offset, kind, what: error.to_string(), implies, finding }
    }
}

/// What programs call a fault.
fn kind(fault: Fault) -> &'static str {
    match fault {
        Fault::Header => "segment-header",
        Fault::Batch(BatchFault::Header) => "batch-header",
        Fault::Batch(BatchFault::Order) => "batch-order",
        Fault::Batch(BatchFault::CutShort) => "batch-cut-short",
        Fault::Batch(BatchFault::Record(_, RecordFault::CutShort)) => "record-cut-short",
        Fault::Batch(BatchFault::Record(_, RecordFault::Checksum)) => "record-checksum",
        Fault::Batch(BatchFault::Record(_, RecordFault::Payload)) => "record-payload",
        Fault::Batch(BatchFault::Record(_, RecordFault::Newer { .. }) | BatchFault::Newer(_)) => "newer-format",
        Fault::Batch(BatchFault::Body) => "batch-body",
        Fault::Gap => "gap",
        Fault::Ends { .. } => "ends-early",
        Fault::Trailing => "trailing-bytes",
        Fault::TooShort { .. } => "too-short",
    }
}

impl Report {
    /// The worst of what was found.
    pub fn finding(&self) -> Finding {
        self.flaws.iter().map(|flaw| flaw.finding).max().unwrap_or(Finding::Clean)
    }

    /// Writes a table and a sentence for each flaw.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let head = ["segment", "records", "live", "superseded", "tombstones", "bytes", "versions", "state"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.segments.iter().map(|segment| self.row(segment)));
        let widths: [usize; 8] =
            std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
        for row in &rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                // Names and words to the left, figures to the right. Writing to a String cannot fail.
                let _ = match column {
                    0 => write!(line, "{cell:<width$}"),
                    7 => write!(line, "  {cell}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        for flaw in &self.flaws {
            let place = match (&flaw.file, flaw.offset) {
                (Some(file), Some(offset)) => format!("{file}, offset {offset}: "),
                (Some(file), None) => format!("{file}: "),
                _ => String::new(),
            };
            writeln!(out, "\n{place}{}\n  {}: {}", flaw.what, flaw.kind, flaw.implies)?;
        }
        let (count, records) = (self.segments.len(), self.records());
        let verdict = match self.finding() {
            Finding::Unreadable if self.flaws.iter().any(|flaw| flaw.kind == NO_LOG) => "there is no log",
            Finding::Clean => "clean",
            Finding::TornTail => "a torn tail, which a start cuts off",
            Finding::Damage => "damaged: a start refuses",
            Finding::Unreadable => "it can't be read",
        };
        writeln!(out, "\n{count} segments, {records} records: {verdict}")
    }

    /// Writes one JSON object.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let finding = match self.finding() {
            Finding::Clean => "clean",
            Finding::TornTail => "torn-tail",
            Finding::Damage => "damage",
            Finding::Unreadable => "unreadable",
        };
        let object = serde_json::json!({
            "schema": SCHEMA,
            "finding": finding,
            "records": self.records(),
            "segments": self.segments,
            "flaws": self.flaws,
        });
        serde_json::to_writer_pretty(&mut *out, &object)?;
        writeln!(out)
    }

    fn records(&self) -> u64 {
        self.segments.iter().map(|segment| segment.records).sum()
    }

    fn row(&self, segment: &SegmentFigures) -> [String; 8] {
        let versions = segment.versions.map_or("-".to_owned(), |(least, most)| format!("{least}-{most}"));
        let flaw = self.flaws.iter().find(|flaw| flaw.file.as_ref() == Some(&segment.file));
        let state = match flaw {
            Some(flaw) => flaw.kind.to_owned(),
            None if segment.clean_stop => format!("{}, stopped in order", segment.kind),
            None => segment.kind.to_owned(),
        };
        [
            segment.file.clone(),
            segment.records.to_string(),
            segment.live.to_string(),
            segment.superseded.to_string(),
            segment.tombstones.to_string(),
            segment.bytes.to_string(),
            versions,
            state,
        ]
    }
}
