//! From a directory to a log that can be written: survey, replay, mend.
//!
//! Knows the order of these steps, and what a start adds of its own: a new store's identity and secret, and the versions that an
//! unclean end skips. The steps themselves are elsewhere.

use super::compactor::Compactor;
use super::error::LogError;
use super::fs::Fs;
use super::ledger::{Ledger, Usage};
use super::mend;
use super::policy::SyncPolicy;
use super::recovery::{self, Apply, Progress, Reading, Survey, Verdict};
use super::secret::{Secret, random_bits};
use super::thread::Log;
use super::writer::{Resume, Writer};
use crate::fault;
use crate::timeline::Time;
use std::sync::Arc;

/// Versions skipped by a start after an unclean end: more than can have been handed out and lost.
pub const UNCLEAN_SKIP: u64 = 1 << 32;

/// How a log is opened.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Bytes of a segment.
    pub segment_size: u64,
    /// When a batch is synced.
    pub sync: SyncPolicy,
    /// Threads that replay.
    pub threads: usize,
}

/// What a start found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The version to hand out next.
    pub next_version: u64,
    /// The last time that the log records; none in a new one.
    pub time: Option<Time>,
    /// Segments and records replayed.
    pub segments: usize,
    /// As above.
    pub records: u64,
    /// Whether the last run ended in an orderly way.
    pub clean_stop: bool,
}

/// A log whose segment headers were read and found to belong together, not yet replayed.
#[derive(Debug)]
pub struct Unread {
    fs: Arc<dyn Fs>,
    options: LogOptions,
    survey: Survey,
    identity: u128,
    secret: Secret,
}

impl Unread {
    /// Lists the directory and reads the segment headers. Changes nothing.
    ///
    /// # Errors
    /// What can't be right: a segment that is missing, foreign, newer, renamed, of another store, or whose header is damaged;
    /// and what is in the way.
    pub fn open(fs: Arc<dyn Fs>, options: LogOptions) -> Result<Unread, LogError> {
        let survey = recovery::survey(fs.as_ref())?;
        recovery::refuse_in_the_way(fs.as_ref())?;
        fault::at("start-surveyed").map_err(LogError::io("read", "the data directory"))?;
        let identity = match survey.identity() {
            Some(identity) => identity,
            None => random_bits("the store's identity")?,
        };
        // A store of format 1 has none until its next segment is begun.
        let secret = survey.secret().map_or_else(Secret::random, Ok)?;
        Ok(Unread { fs, options, survey, identity, secret })
    }

    /// What the store keys its hashes by: random, the same for ever.
    pub fn secret(&self) -> Secret {
        self.secret
    }

    /// Whether there is no log yet.
    pub fn is_new(&self) -> bool {
        self.survey.segments.is_empty()
    }

    /// Gives the mutations to `apply`, chunk by chunk, cuts off a torn tail, and returns a log ready to be started. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`LogError::Damage`], and what the disk refuses. What was applied must then be thrown away.
    pub fn replay(self, progress: &Progress, apply: &Apply<'_>) -> Result<(Ready, Recovered), LogError> {
        let Unread { fs, options, survey, identity, secret } = self;
        let disk = Arc::clone(&fs);
        let readings = recovery::read_all(fs.as_ref(), &survey.segments, options.threads, progress, apply)?;
        recovery::refuse(&readings)?;
        fault::at("start-replayed").map_err(LogError::io("read", "the data directory"))?;
        mend::clear_left_overs(fs.as_ref(), &survey, spare_to_keep(&survey, &readings))?;
        let recovered = summarize(&readings);
        let writer = match readings.last() {
            None => Writer::create(fs, options.segment_size, identity, secret)?,
            Some(active) => {
                let (file, durable) = mend::settle(fs.as_ref(), active)?;
                let spare = spare_to_keep(&survey, &readings);
                let resume = Resume { file, header: active.segment.header, report: active.report, durable, spare };
                Writer::resume(fs, options.segment_size, secret, resume, recovered.next_version)?
            }
        };
        let writer = if options.sync == SyncPolicy::Always { writer.synced_batch_by_batch() } else { writer };
        let ledger = Ledger::new(readings.iter().map(usage).collect());
        Ok((Ready { writer, sync: options.sync, ledger, fs: disk, secret }, recovered))
    }
}

/// A log that was replayed and mended, before its thread runs.
#[derive(Debug)]
pub struct Ready {
    writer: Writer,
    sync: SyncPolicy,
    ledger: Ledger,
    fs: Arc<dyn Fs>,
    secret: Secret,
}

impl Ready {
    /// Starts the log thread. `wake` is called on it after each event was queued.
    ///
    /// # Errors
    /// What the system says when it can't make a thread.
    pub fn start(self, wake: impl Fn() + Send + 'static) -> std::io::Result<Log> {
        Log::start(self.writer, self.sync, wake)
    }

    /// The compaction thread for this log, with nothing to do yet. `wake` is called on it after each report was queued.
    ///
    /// # Errors
    /// What the system says when it can't make a thread.
    pub fn compactor(&self, wake: impl Fn() + Send + 'static) -> std::io::Result<Compactor> {
        Compactor::start(Arc::clone(&self.fs), self.secret, wake)
    }

    /// The accounts of the segments, in which nothing is known to count yet: see [`Ledger::found`].
    pub fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// The writer itself, for whoever has no use for a thread.
    pub fn into_writer(self) -> Writer {
        self.writer
    }
}

/// The spare of the next segment, which the writer goes on with. Not where a tail is cut: what is cut off is kept, and may need
/// the room.
fn spare_to_keep(survey: &Survey, readings: &[Reading]) -> Option<u64> {
    let active = readings.last().filter(|active| active.verdict == Verdict::Clean)?;
    let next = active.segment.header.number + 1;
    survey.spares.contains(&next).then_some(next)
}

fn usage(reading: &Reading) -> Usage {
    let header = reading.segment.header;
    Usage {
        first: header.first(),
        number: header.number,
        generation: header.generation(),
        versions_from: header.next_version,
        bytes: reading.report.end,
        tally: reading.tally,
        ..Usage::default()
    }
}

fn summarize(readings: &[Reading]) -> Recovered {
    let reports = || readings.iter().map(|reading| &reading.report);
    let next_version = reports().map(|report| report.next_version).max().unwrap_or(1);
    let clean_stop = reports().next_back().is_none_or(|last| last.clean_stop && last.fault.is_none());
    Recovered {
        // Also where the record of a version that was handed out is lost, none is handed out twice.
        next_version: if clean_stop { next_version } else { next_version.saturating_add(UNCLEAN_SKIP) },
        // The last one, which may be earlier than others: a clock that was wrong once is not believed for ever.
        time: reports().next_back().map(|last| last.time),
        segments: readings.len(),
        records: reports().map(|report| report.records).sum(),
        clean_stop,
    }
}
