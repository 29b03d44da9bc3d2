//! One compaction: what counts of a run of sealed segments is written into one new segment, which takes their place.
//!
//! Knows the order of operations that makes a crash at any of them safe, and which records may be dropped. Asks somebody
//! else which entries the table has. Does not know threads, rates, or when a compaction is worth it
//! ([`super::victims`]).
//!
//! ```text
//! 1  segment-…7.log.tmp is made, filled, synced; so is
//!    the log, if commits are not synced by themselves  a crash leaves a left-over, which a start removes
//! 2  it is renamed to segment-…7.log, in the place of
//!    the newest victim; the directory is synced        the other victims are named in its header: a start removes them
//! 3  the other victims are removed; the directory is
//!    synced                                            done
//! ```
//!
//! *What is kept.* A put whose very version the table has. A removal or a flush, unless every older segment is known
//! to hold nothing that does not count ([`Run::keep_removals`]): then it hides nothing. Neither is needed where the
//! table has a newer version of the key, which hides the same. A put with a deadline may have gone without a removal, by
//! expiring: it is kept as the removal it amounts to, under the same conditions, so that what it hid stays hidden. The table
//! may hold what is not durable yet: were that lost after what it had superseded was dropped, both would be gone. So it is
//! made durable before the new segment takes the place of the old ones. (See
//! `docs/durability.md` for why this is right.)

mod output;
mod questions;
mod victim;
mod writer;

pub use questions::{Fate, QUESTIONS, Questions};
pub use writer::CompactedWriter;

use super::batch::{Dependency, Tally};
use super::error::LogError;
use super::fs::Fs;
use super::secret::Secret;
use super::segment::{Compacted, SegmentHeader, SegmentKind, file_name, temporary_name};
use super::shortage::Shortage;
use super::victims::Run;
use crate::fault;
use output::Output;
use std::collections::BTreeMap;
use std::io;
use victim::Victim;

/// What is to be compacted.
#[derive(Clone, Debug)]
pub struct Task {
    /// Which segments.
    pub run: Run,
    /// The numbers of those of them that have a file, oldest first.
    pub present: Vec<u64>,
    /// The compacted segments before them.
    pub older: Vec<Dependency>,
    /// The store's secret.
    pub secret: Secret,
}

/// What a compaction needs of the rest of kvd.
pub trait Steward {
    /// Has the questions answered.
    ///
    /// # Errors
    /// [`Stopped`] if nobody answers any more.
    fn ask(&mut self, questions: &mut Questions) -> Result<(), Stopped>;
    /// Told when everything was answered, before anything takes effect: has all that the table holds, on which the answers
    /// rest, made durable. Returns the highest version that is durable then.
    ///
    /// # Errors
    /// [`Stopped`] if that can't be had any more.
    fn settle(&mut self) -> Result<u64, Stopped>;
    /// Told between two steps that may each keep the disk busy, now that the compaction is done. May wait a little.
    fn breathe(&mut self) {}
    /// Told of each so many bytes that were read or written. May wait.
    ///
    /// # Errors
    /// [`Stopped`] if the compaction is to be given up.
    fn moved(&mut self, bytes: u64) -> Result<(), Stopped>;
}

/// The compaction was called off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// What came of a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes of the new segment.
    pub length: u64,
    /// Its records.
    pub tally: Tally,
    /// Bytes read of the victims.
    pub read: u64,
    /// Bytes of the victims.
    pub replaced: u64,
}

/// Why nothing came of a compaction. Nothing was removed and nothing was lost.
#[derive(Debug, thiserror::Error)]
pub enum CompactionError {
    /// It was called off.
    #[error("it was called off")]
    Stopped,
    /// There is no room for the new segment.
    #[error("there is no room: {0}")]
    NoSpace(Shortage),
    /// A victim can't be read, or is not what was written.
    #[error("segment {number}: {why}")]
    Spoiled {
        /// Which one.
        number: u64,
        /// What is wrong.
        why: LogError,
    },
    /// Nothing more can be promised: the process must end.
    #[error(transparent)]
    Fatal(#[from] LogError),
}

impl From<Stopped> for CompactionError {
    fn from(_: Stopped) -> Self {
        CompactionError::Stopped
    }
}

/// Does a task.
///
/// # Errors
/// A [`CompactionError`]. Only after [`CompactionError::Fatal`] must the log not be used.
pub fn compact(fs: &dyn Fs, task: &Task, steward: &mut dyn Steward) -> Result<Outcome, CompactionError> {
    let Task { run, present, .. } = task;
    let name = temporary_name(run.last);
    let made = open_victims(fs, present).and_then(|victims| {
        let outcome = write_survivors(fs, task, &victims, steward, &name)?;
        Ok((outcome, victims))
    });
    let (outcome, victims) = match made {
        Ok(made) => made,
        Err(CompactionError::Fatal(error)) => return Err(error.into()),
        Err(other) => {
            // Left over, it would only take room until the next start; gone, it takes none at all.
            if let Err(error) = fs.remove(&name)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(LogError::io("remove", &name)(error).into());
            }
            return Err(other);
        }
    };
    let sync_dir = |point| fault::after(point, fs.sync_dir()).map_err(LogError::io("sync", "the data directory"));
    fault::after("compaction-renamed", fs.rename(&name, &file_name(run.last)))
        .map_err(LogError::io("rename", &name))?;
    sync_dir("compaction-rename-synced")?;
    for &number in present.iter().filter(|&&number| number != run.last) {
        let name = file_name(number);
        fault::at("compaction-removing").map_err(LogError::io("remove", &name))?;
        fault::after("compaction-removed", fs.remove(&name)).map_err(LogError::io("remove", &name))?;
    }
    sync_dir("compaction-removals-synced")?;
    for victim in victims {
        victim.free(steward);
    }
    Ok(outcome)
}

fn open_victims(fs: &dyn Fs, present: &[u64]) -> Result<Vec<Victim>, CompactionError> {
    present.iter().map(|&number| Victim::open(fs, number)).collect()
}

fn write_survivors(
    fs: &dyn Fs,
    task: &Task,
    victims: &[Victim],
    steward: &mut dyn Steward,
    name: &str,
) -> Result<Outcome, CompactionError> {
    let Task { run, older, secret, .. } = task;
    let Some((oldest, newest)) = victims.first().zip(victims.last()) else { return Err(CompactionError::Stopped) };
    let generation = victims.iter().map(|victim| victim.header.generation()).max().unwrap_or(0) + 1;
    let kind = SegmentKind::Compacted(Compacted { first: oldest.header.first(), generation, length: 0 });
    let (next_version, link) = (oldest.header.next_version, oldest.header.link);
    let header = SegmentHeader { kind, secret: Some(*secret), next_version, link, ..newest.header };
    // A removal that is dropped would be missed beside an earlier state of what is older; so would those be that were dropped
    // when the victims were made.
    let relied_on = if run.keep_removals { relied_on(victims)? } else { older.clone() };
    let mut output = Output::create(fs, header, &relied_on, name)?;
    let mut read = 0;
    if !run.is_empty {
        for victim in victims {
            read += victim.copy(run.keep_removals, &mut output, steward)?;
        }
    }
    output.write(steward)?;
    let durable_version = steward.settle()?;
    fault::at("compaction-settled").map_err(|_| Stopped)?;
    let (length, tally) = output.finish(durable_version)?;
    Ok(Outcome { length, tally, read, replaced: victims.iter().map(|victim| victim.length).sum() })
}

/// The segments before all victims on which some of these rely, each in the latest state that is relied on.
fn relied_on(victims: &[Victim]) -> Result<Vec<Dependency>, CompactionError> {
    let first = victims.first().map_or(0, |oldest| oldest.header.first());
    let mut latest = BTreeMap::new();
    for victim in victims {
        for Dependency { number, generation } in victim.dependencies()? {
            let held = latest.entry(number).or_insert(generation);
            *held = generation.max(*held);
        }
    }
    let before = latest.into_iter().take_while(|(number, _)| *number < first);
    Ok(before.map(|(number, generation)| Dependency { number, generation }).collect())
}
