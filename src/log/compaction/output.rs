//! The new segment on its way: what is kept goes in, the header comes last.
//!
//! Knows which records may be dropped, and the order in which a segment is written. Does not know where they come from.

use super::questions::{Fate, QUESTIONS, Questions};
use super::{CompactionError, Steward};
use crate::log::batch::{Batch, Durable, Link, Tally, VerifiedBatch};
use crate::log::error::LogError;
use crate::log::fs::{File, Fs, is_no_space};
use crate::log::record::Record;
use crate::log::segment::{SEGMENT_HEADER, SegmentHeader, SegmentKind};
use crate::mutation::Mutation;
use std::io;

/// Bytes of records that are gathered into one batch.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes after which what was written is synced, so that no sync of it keeps a commit waiting for long.
const SYNC_BYTES: u64 = 1 << 20;

/// The new segment on its way.
pub struct Output {
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
    /// Makes its file.
    pub fn create(fs: &dyn Fs, header: SegmentHeader, name: &str) -> Result<Output, CompactionError> {
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
    pub fn take(
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
    pub fn finish(mut self, steward: &mut dyn Steward) -> Result<(u64, Tally), CompactionError> {
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
