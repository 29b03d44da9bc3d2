//! `kvd dump`: what a log holds, as a line of JSON for each key. Reads only.
//!
//! Goes over the log twice: first to know of each key which record is the newest, then to tell those. So it holds the keys in
//! memory, and no values. Beside a running daemon a compaction may take a segment away between the two; what stood there
//! stands, with the same version, in a later one.

use super::bar::Bar;
use super::line;
use super::survivors::Survivors;
use crate::log::fs::Fs;
use crate::log::record::Record;
use crate::log::recovery::{self, Segment, read_segment, survey};
use crate::log::segment::unix_milliseconds;
use crate::log::{LogError, Progress, open_unlocked};
use crate::mutation::{Key, Mutation, Space};
use crate::timeline::Time;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::Ordering;

/// How often a log is gone over anew, when segments come and go meanwhile.
const ATTEMPTS: usize = 100;

/// What is told.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only keys that start with this.
    pub prefix: Vec<u8>,
    /// Every record there is, in the order of the log, removals and flushes as well.
    pub history: bool,
}

impl Wanted {
    fn names(&self, key: Key<'_>) -> bool {
        self.prefix.is_empty() || (key.space == Space::Bytes && key.bytes.starts_with(&self.prefix))
    }

    /// Whether a record of a history concerns such keys.
    fn concerns(&self, mutation: &Mutation<'_>) -> bool {
        match mutation {
            Mutation::Put { key, .. } | Mutation::Remove { key } | Mutation::Evict { key } => self.names(*key),
            Mutation::Flush { prefix: None } => true,
            Mutation::Flush { prefix: Some(prefix) } => {
                self.prefix.starts_with(prefix) || prefix.starts_with(&self.prefix)
            }
        }
    }
}

/// Why there is no dump. Displays as a sentence.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The log can't be read, or is damaged: what was told until then is not all.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The lines can't be written.
    #[error("can't write the dump: {0}")]
    Output(#[source] io::Error),
    /// Segments came and went again and again.
    #[error("the log changes faster than it can be read: stop the daemon, or dump a copy")]
    Restless,
}

/// Writes a line for each key, in no order, or for each record.
///
/// # Errors
/// A [`DumpError`]. A torn tail is none: nothing that was acknowledged is in it.
pub fn dump(directory: &Path, wanted: &Wanted, out: &mut impl Write) -> Result<(), DumpError> {
    let disk = open_unlocked(directory)?;
    if wanted.history { history(&disk, wanted, out) } else { survivors(&disk, wanted, out) }
}

fn history(disk: &dyn Fs, wanted: &Wanted, out: &mut impl Write) -> Result<(), DumpError> {
    let segments = survey(disk)?.segments;
    // What time it is the last segment tells, which nothing takes away: deadlines are told by the wall clock as it is now.
    let last = segments.last().map_or(&[][..], std::slice::from_ref);
    let time = each_segment(disk, last, &Bar::of_log("read", disk, last), &mut |_, _| ())?;
    let mut lines = Lines::new(time, out);
    each_segment(disk, &segments, &Bar::of_log("dump", disk, &segments), &mut |_, record| {
        if wanted.concerns(&record.mutation) {
            lines.tell(record.version, &record.mutation);
        }
    })?;
    lines.finish()
}

fn survivors(disk: &dyn Fs, wanted: &Wanted, out: &mut impl Write) -> Result<(), DumpError> {
    let mut lines = Lines::new(Time::default(), out);
    let mut survivors = Survivors::default();
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match go_over(disk, wanted, &mut survivors, &mut lines) {
            Ok(()) => return lines.finish(),
            // What is wrong counts if it is the same when looked at again.
            Err(error) if last == error.to_string() => return Err(error.into()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(DumpError::Restless)
}

/// Meets every record, then tells those that count and were not told before.
fn go_over(
    disk: &dyn Fs,
    wanted: &Wanted,
    survivors: &mut Survivors,
    lines: &mut Lines<'_, impl Write>,
) -> Result<(), LogError> {
    let segments = survey(disk)?.segments;
    lines.time = each_segment(disk, &segments, &Bar::of_log("read", disk, &segments), &mut |index, record| {
        survivors.meet(record.version, &record.mutation, index);
    })?;
    each_segment(disk, &segments, &Bar::of_log("dump", disk, &segments), &mut |_, record| {
        if let Mutation::Put { key, .. } = record.mutation
            && wanted.names(key)
            && survivors.take(record.version, &record.mutation, lines.time.now)
        {
            lines.tell(record.version, &record.mutation);
        }
    })?;
    Ok(())
}

/// Gives every record of every segment to `visit`, with the segment's place. Returns what time it is on the log's time line.
fn each_segment(
    disk: &dyn Fs,
    segments: &[Segment],
    bar: &Bar,
    visit: &mut dyn FnMut(usize, Record<'_>),
) -> Result<Time, LogError> {
    let (progress, mut readings) = (Progress::default(), Vec::new());
    for (index, segment) in segments.iter().enumerate() {
        let contents = disk.contents(&segment.name).map_err(LogError::io("read", &segment.name))?;
        let successor = segments.get(index + 1).map(|next| next.header.link);
        let reading =
            read_segment(segment, successor, contents.as_ref(), &progress, &mut |record| visit(index, record));
        bar.at(progress.done.load(Ordering::Relaxed));
        reading.refuse()?;
        readings.push(reading);
    }
    recovery::refuse(&readings)?;
    let last = readings.last().map_or(Time::default(), |reading| reading.report.time);
    Ok(Time::at_start(last, unix_milliseconds()))
}

/// Lines on their way out.
struct Lines<'o, O> {
    /// By which deadlines are told.
    time: Time,
    out: &'o mut O,
    buffer: Vec<u8>,
    failed: io::Result<()>,
}

impl<'o, O: Write> Lines<'o, O> {
    fn new(time: Time, out: &'o mut O) -> Self {
        Lines { time, out, buffer: Vec::new(), failed: Ok(()) }
    }

    fn tell(&mut self, version: u64, mutation: &Mutation<'_>) {
        if self.failed.is_ok() {
            line::write(version, mutation, self.time, &mut self.buffer);
            if self.buffer.len() >= 64 << 10 {
                self.failed = self.out.write_all(&self.buffer);
                self.buffer.clear();
            }
        }
    }

    fn finish(mut self) -> Result<(), DumpError> {
        self.failed.and_then(|()| self.out.write_all(&self.buffer)).map_err(DumpError::Output)?;
        self.buffer.clear();
        self.out.flush().map_err(DumpError::Output)
    }
}
