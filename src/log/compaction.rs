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

use super::batch::{BATCH_HEADER, Batch, BatchHeader, Durable, Link, Tally, VerifiedBatch};
use super::checksum::Seed;
use super::error::LogError;
use super::fs::{File, Fs, is_no_space};
use super::record::Record;
use super::scan::Fault;
use super::segment::{Compacted, HeaderState, SEGMENT_HEADER, SegmentHeader, SegmentKind, file_name, temporary_name};
use super::victims::Run;
use crate::mutation::{Key, Mutation, Space};
use std::io;

/// Bytes of records that are gathered into one batch.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes after which what was written is synced, so that no sync of it keeps a commit waiting for long.
const SYNC_BYTES: u64 = 1 << 20;
/// Bytes of a removed file that are given back at a time. All at once, a file system that tells the disk of what is free
/// (`discard`) keeps commits waiting for as much as 200 ms a segment.
const FREE_BYTES: u64 = 4 << 20;
/// Keys that are asked about at a time.
pub const QUESTIONS: usize = 2048;

/// What the table says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has an entry of this very version.
    Live,
    /// It has a newer one of this key.
    Superseded,
    /// It has none of this key.
    Absent,
}

/// Records of which the table is asked. Filled, answered, read and filled again.
#[derive(Debug, Default)]
pub struct Questions {
    keys: Vec<u8>,
    /// Where each key ends, its space, and the version of the record.
    asked: Vec<(usize, Space, u64)>,
    fates: Vec<Fate>,
}

impl Questions {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.asked.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Asks each.
    pub fn answer(&mut self, mut fate: impl FnMut(Key<'_>, u64) -> Fate) {
        let mut start = 0;
        self.fates.clear();
        for &(end, space, version) in &self.asked {
            let bytes = self.keys.get(start..end).unwrap_or_default();
            self.fates.push(fate(Key { space, bytes }, version));
            start = end;
        }
    }

    fn push(&mut self, key: Key<'_>, version: u64) {
        self.keys.extend_from_slice(key.bytes);
        self.asked.push((self.keys.len(), key.space, version));
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.asked.clear();
        self.fates.clear();
    }
}

/// What a compaction needs of the rest of kvd.
pub trait Steward {
    /// Has the questions answered.
    ///
    /// # Errors
    /// [`Stopped`] if nobody answers any more.
    fn ask(&mut self, questions: &mut Questions) -> Result<(), Stopped>;
    /// Told when everything was answered, before anything takes effect: has all that the table holds, on which the answers
    /// rest, made durable.
    ///
    /// # Errors
    /// [`Stopped`] if that can't be had any more.
    fn settle(&mut self) -> Result<(), Stopped>;
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
    #[error("there is no room on the disk")]
    NoSpace,
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

/// Compacts the segments of `run`; `present` are the numbers of those that have a file, oldest first.
///
/// # Errors
/// A [`CompactionError`]. Only after [`CompactionError::Fatal`] must the log not be used.
pub fn compact(fs: &dyn Fs, run: Run, present: &[u64], steward: &mut dyn Steward) -> Result<Outcome, CompactionError> {
    let name = temporary_name(run.last);
    let made = open_victims(fs, present).and_then(|victims| {
        let outcome = write_survivors(fs, run, &victims, steward, &name)?;
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
    let sync_dir = || fs.sync_dir().map_err(LogError::io("sync", "the data directory"));
    fs.rename(&name, &file_name(run.last)).map_err(LogError::io("rename", &name))?;
    sync_dir()?;
    for &number in present.iter().filter(|&&number| number != run.last) {
        let name = file_name(number);
        fs.remove(&name).map_err(LogError::io("remove", &name))?;
    }
    sync_dir()?;
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
    run: Run,
    victims: &[Victim],
    steward: &mut dyn Steward,
    name: &str,
) -> Result<Outcome, CompactionError> {
    let Some((oldest, newest)) = victims.first().zip(victims.last()) else { return Err(CompactionError::Stopped) };
    let generation = victims.iter().map(|victim| victim.header.generation()).max().unwrap_or(0) + 1;
    let kind = SegmentKind::Compacted(Compacted { first: oldest.header.first(), generation, length: 0 });
    let header =
        SegmentHeader { kind, next_version: oldest.header.next_version, link: oldest.header.link, ..newest.header };
    let mut output = Output::create(fs, header, name)?;
    let mut read = 0;
    if !run.is_empty {
        for victim in victims {
            read += victim.copy(run.keep_removals, &mut output, steward)?;
        }
    }
    let (length, tally) = output.finish(steward)?;
    steward.settle()?;
    Ok(Outcome { length, tally, read, replaced: victims.iter().map(|victim| victim.length).sum() })
}

/// A segment that is read.
struct Victim {
    file: Box<dyn File>,
    header: SegmentHeader,
    length: u64,
}

impl Victim {
    fn open(fs: &dyn Fs, number: u64) -> Result<Victim, CompactionError> {
        let name = file_name(number);
        let spoiled = |why| CompactionError::Spoiled { number, why };
        let file = fs.open(&name).map_err(|error| spoiled(LogError::io("open", &name)(error)))?;
        let length = file.len().map_err(|error| spoiled(LogError::io("measure", &name)(error)))?;
        let mut head = vec![0; SEGMENT_HEADER];
        file.read_at(&mut head, 0).map_err(|error| spoiled(LogError::io("read", &name)(error)))?;
        match SegmentHeader::decode(&head) {
            HeaderState::Valid(header) if header.number == number => Ok(Victim { file, header, length }),
            _ => Err(spoiled(LogError::Damage { name, offset: 0, fault: Fault::Header })),
        }
    }

    /// Copies what is to be kept, batch after batch, each verified before anything of it is believed. Returns how much
    /// was read.
    fn copy(
        &self,
        keep_removals: bool,
        output: &mut Output,
        steward: &mut dyn Steward,
    ) -> Result<u64, CompactionError> {
        let seed = self.header.seed();
        let mut link = self.header.first_batch();
        let mut position = SEGMENT_HEADER as u64;
        let mut bytes = Vec::new();
        while position < self.length {
            self.read_batch(seed, position, &mut bytes)?;
            let batch = VerifiedBatch::decode(&bytes, seed, position, link)
                .map_err(|fault| self.damaged(position, Fault::Batch(fault)))?;
            steward.moved(batch.byte_len())?;
            output.take(&batch, keep_removals, steward)?;
            position += batch.byte_len();
            link = Link { number: link.number + 1, chain: batch.header.checksum };
        }
        Ok(position)
    }

    /// Reads the batch at a position, whose length is believed only as far as its header's checksum and the file go.
    fn read_batch(&self, seed: Seed, position: u64, bytes: &mut Vec<u8>) -> Result<(), CompactionError> {
        bytes.clear();
        bytes.resize(BATCH_HEADER, 0);
        self.read(bytes, 0, position)?;
        let Some(header) = BatchHeader::decode(bytes, seed, position) else {
            return Err(self.damaged(position, Fault::Batch(super::batch::BatchFault::Header)));
        };
        let length = header.body_length;
        if length > self.length - position {
            return Err(self.damaged(position, Fault::Batch(super::batch::BatchFault::CutShort)));
        }
        bytes.resize(BATCH_HEADER + length as usize, 0);
        self.read(bytes, BATCH_HEADER, position)
    }

    /// Fills `bytes` from `from` on with what the file holds there behind `position`.
    fn read(&self, bytes: &mut [u8], from: usize, position: u64) -> Result<(), CompactionError> {
        let number = self.header.number;
        let into = bytes.get_mut(from..).unwrap_or_default();
        match self.file.read_at(into, position + from as u64) {
            // What the file does not have stays zero, and fails its checksum.
            Ok(_) => Ok(()),
            Err(error) => {
                Err(CompactionError::Spoiled { number, why: LogError::io("read", &file_name(number))(error) })
            }
        }
    }

    /// Gives its room back, now that it has no name any more, a little at a time.
    fn free(self, steward: &mut dyn Steward) {
        let mut left = self.length;
        while left > FREE_BYTES {
            left -= FREE_BYTES;
            // If it does not work, all of it goes at once, when the file is closed.
            if self.file.set_len(left).is_err() {
                return;
            }
            steward.breathe();
        }
    }

    fn damaged(&self, offset: u64, fault: Fault) -> CompactionError {
        let number = self.header.number;
        CompactionError::Spoiled { number, why: LogError::Damage { name: file_name(number), offset, fault } }
    }
}

/// The new segment on its way.
struct Output {
    file: Box<dyn File>,
    header: SegmentHeader,
    name: String,
    batch: Batch,
    questions: Questions,
    now: u64,
    link: Link,
    end: u64,
    unsynced: u64,
    tally: Tally,
}

impl Output {
    fn create(fs: &dyn Fs, header: SegmentHeader, name: &str) -> Result<Output, CompactionError> {
        let mut created = fs.create(name);
        if created.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            fs.remove(name).map_err(LogError::io("remove", name))?;
            created = fs.create(name);
        }
        let file = created.map_err(|error| no_space_or_fatal(error, "create", name))?;
        Ok(Output {
            file,
            header,
            name: name.to_owned(),
            batch: Batch::default(),
            questions: Questions::default(),
            now: 0,
            link: header.first_batch(),
            end: SEGMENT_HEADER as u64,
            unsynced: 0,
            tally: Tally::default(),
        })
    }

    /// Takes in what is to be kept of a batch.
    fn take(
        &mut self,
        batch: &VerifiedBatch<'_>,
        keep_removals: bool,
        steward: &mut dyn Steward,
    ) -> Result<(), CompactionError> {
        self.now = self.now.max(batch.header.now);
        let mut records = batch.records().peekable();
        let mut chunk: Vec<Record<'_>> = Vec::new();
        while records.peek().is_some() {
            chunk.clear();
            chunk.extend(records.by_ref().take(QUESTIONS));
            self.questions.clear();
            for record in &chunk {
                if let Mutation::Put { key, .. } | Mutation::Remove { key } = record.mutation {
                    self.questions.push(key, record.version);
                }
            }
            if !self.questions.is_empty() {
                steward.ask(&mut self.questions)?;
            }
            let fates = std::mem::take(&mut self.questions.fates);
            let mut next = fates.iter().copied();
            for record in &chunk {
                // A flush is not asked about.
                let fate = if matches!(record.mutation, Mutation::Flush { .. }) { None } else { next.next() };
                if let Some(mutation) = survivor(&record.mutation, fate, keep_removals) {
                    self.batch.push(record.version, &mutation);
                    self.batch.end_group();
                }
            }
            self.questions.fates = fates;
            if self.batch.byte_len() >= BATCH_BYTES {
                self.write_batch(steward)?;
            }
        }
        Ok(())
    }

    fn write_batch(&mut self, steward: &mut dyn Steward) -> Result<(), CompactionError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.tally += self.batch.tally();
        self.batch.stamp(self.now, self.batch.last_version() + 1);
        let durable = Durable { batch: self.link.number - 1, version: self.header.watermark };
        let (bytes, next) = self.batch.seal(self.header.seed(), self.end, self.link, durable);
        let length = bytes.len() as u64;
        write_whole(self.file.as_ref(), bytes, self.end, &self.name)?;
        self.link = next;
        self.end += length;
        self.unsynced += length;
        self.batch.clear();
        if self.unsynced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(steward.moved(length)?)
    }

    /// Writes what is left, then the header, which makes it a segment, and syncs. Returns its length and its records.
    fn finish(mut self, steward: &mut dyn Steward) -> Result<(u64, Tally), CompactionError> {
        self.write_batch(steward)?;
        let mut header = self.header;
        if let SegmentKind::Compacted(compacted) = &mut header.kind {
            compacted.length = self.end;
        }
        write_whole(self.file.as_ref(), &header.encode(), 0, &self.name)?;
        self.sync()?;
        Ok((self.end, self.tally))
    }

    fn sync(&mut self) -> Result<(), CompactionError> {
        self.unsynced = 0;
        Ok(self.file.sync().map_err(LogError::io("sync", &self.name))?)
    }
}

/// What is kept of a record; `fate` is `None` for a flush.
fn survivor<'a>(mutation: &Mutation<'a>, fate: Option<Fate>, keep_removals: bool) -> Option<Mutation<'a>> {
    match (*mutation, fate) {
        (Mutation::Put { .. }, Some(Fate::Live)) => Some(*mutation),
        (Mutation::Put { key, value }, Some(Fate::Absent)) => {
            (value.deadline != 0 && keep_removals).then_some(Mutation::Remove { key })
        }
        (Mutation::Remove { .. }, Some(Fate::Absent)) | (Mutation::Flush { .. }, _) => {
            keep_removals.then_some(*mutation)
        }
        _ => None,
    }
}

fn write_whole(file: &dyn File, bytes: &[u8], offset: u64, name: &str) -> Result<(), CompactionError> {
    let written = file.write_at(bytes, offset).map_err(|error| no_space_or_fatal(error, "write", name))?;
    if written < bytes.len() { Err(CompactionError::NoSpace) } else { Ok(()) }
}

fn no_space_or_fatal(error: io::Error, action: &'static str, name: &str) -> CompactionError {
    if is_no_space(&error) { CompactionError::NoSpace } else { LogError::io(action, name)(error).into() }
}
