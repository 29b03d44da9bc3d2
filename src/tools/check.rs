//! `kvd check`: what a data directory holds, and what is wrong with it. Reads only.
//!
//! Knows the log's survey, scan and verdicts, and how to tell them to a person. Decides nothing of its own, so that
//! it can't disagree with a start.

use crate::log::LogError;
use crate::log::fs::Disk;
use crate::log::recovery::{Progress, Reading, Survey, Verdict, read_all, refuse_damage, survey};
use std::io::{self, Write};
use std::path::Path;

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

/// Reads the log in `directory` and writes what is in it to `out`, a line a segment. Works beside a running daemon, whose last
/// batches may then look torn.
///
/// # Errors
/// Those of `out`. What is wrong with the directory is a [`Finding`].
pub fn check(directory: &Path, out: &mut impl Write) -> io::Result<Finding> {
    let disk = Disk::unlocked(directory);
    let mut outcome = read(&disk);
    for _ in 1..ATTEMPTS {
        match &outcome {
            Ok((_, readings)) if refuse_damage(readings).is_ok() => break,
            // A running daemon's compaction takes segments away, and cuts them when they have no name any more.
            Ok((surveyed, _)) if survey(&disk).is_ok_and(|now| now.segments == surveyed.segments) => break,
            Ok(_) | Err(_) => outcome = read(&disk),
        }
    }
    match outcome {
        Ok((_, readings)) => report(&readings, out),
        Err(error) => {
            writeln!(out, "{error}")?;
            Ok(if matches!(error, LogError::Io { .. }) { Finding::Unreadable } else { Finding::Damage })
        }
    }
}

fn read(disk: &Disk) -> Result<(Survey, Vec<Reading>), LogError> {
    let survey = survey(disk)?;
    let readings = read_all(disk, &survey.segments, 1, &Progress::default(), &|_| {})?;
    Ok((survey, readings))
}

fn report(readings: &[Reading], out: &mut impl Write) -> io::Result<Finding> {
    let mut worst = Finding::Clean;
    writeln!(
        out,
        "{:<32} {:>10} {:>12} {:>14} {:>20}  state",
        "segment", "batches", "records", "bytes", "next version"
    )?;
    for Reading { segment, report, verdict, .. } in readings {
        let (finding, state) = match verdict {
            Verdict::Clean if report.clean_stop => (Finding::Clean, "clean, stopped in order".to_owned()),
            Verdict::Clean => (Finding::Clean, "clean".to_owned()),
            Verdict::TornTail => (Finding::TornTail, format!("torn tail at offset {}", report.end)),
            Verdict::Damage(fault) => (Finding::Damage, format!("DAMAGED at offset {}: {fault}", report.end)),
        };
        worst = worst.max(finding);
        let name = segment.name.as_str();
        let (batches, records, end, next) = (report.batches, report.records, report.end, report.next_version);
        writeln!(out, "{name:<32} {batches:>10} {records:>12} {end:>14} {next:>20}  {state}")?;
    }
    let verdict = match worst {
        Finding::Clean => "clean",
        Finding::TornTail => "a start would cut off the torn tail; nothing that was acknowledged as durable is in it",
        Finding::Damage => "a start would refuse; restore the directory from a copy",
        Finding::Unreadable => "can't be read",
    };
    let records: u64 = readings.iter().map(|reading| reading.report.records).sum();
    writeln!(out, "{} segments, {records} records: {verdict}", readings.len())?;
    Ok(worst)
}
