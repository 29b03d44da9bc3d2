//! A compacted segment on its way to the disk: records go in, the header comes last.
//!
//! Knows the order in which such a segment is written: what makes it one is its header, so that a file which is cut short is
//! none. Does not know where the records come from, nor why they are kept.

use super::CompactionError;
use crate::fault;
use crate::log::batch::{Batch, Dependency, Durable, Link, Tally};
use crate::log::error::LogError;
use crate::log::fs::{File, Fs, create_anew};
use crate::log::segment::{SEGMENT_HEADER, SegmentHeader, SegmentKind};
use crate::log::shortage::Shortage;
use crate::mutation::Mutation;
use crate::timeline::Time;
use std::io;

/// Bytes of records that are gathered into one batch.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes after which what was written is synced, so that no sync of it keeps a commit waiting for long.
const SYNC_BYTES: u64 = 1 << 20;

/// The segment being written.
pub struct CompactedWriter {
    file: Box<dyn File>,
    header: SegmentHeader,
    name: String,
    batch: Batch,
    time: Time,
    link: Link,
    end: u64,
    unsynced: u64,
    tally: Tally,
}

impl CompactedWriter {
    /// Makes its file, in place of one of this name that was left over. Of the header, the length is filled in at the end.
    ///
    /// # Errors
    /// No room, or what else the disk refuses.
    pub fn create(fs: &dyn Fs, header: SegmentHeader, name: &str) -> Result<CompactedWriter, CompactionError> {
        let file = fault::after("compaction-created", create_anew(fs, name));
        let file = file.map_err(|error| refused(Shortage::of_open, error, "create", name))?;
        Ok(CompactedWriter {
            file,
            header,
            name: name.to_owned(),
            batch: Batch::default(),
            time: header.time,
            link: header.first_batch(),
            end: SEGMENT_HEADER as u64,
            unsynced: 0,
            tally: Tally::default(),
        })
    }

    /// What follows was written at this time, or earlier.
    pub fn at(&mut self, time: Time) {
        self.time = time;
    }

    /// Says which older segments it relies on, before anything else.
    ///
    /// # Errors
    /// As [`CompactedWriter::create`].
    pub fn rely_on(&mut self, older: &[Dependency]) -> Result<(), CompactionError> {
        if older.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::dependencies(older);
        batch.stamp(self.time, self.header.next_version);
        self.append(batch).map(drop)
    }

    /// Adds a record, a group of its own. Versions rise from call to call.
    pub fn push(&mut self, version: u64, mutation: &Mutation<'_>) {
        self.batch.push(version, mutation);
        self.batch.end_group();
    }

    /// Writes what was added, if it is enough for a batch. Returns how many bytes that was.
    ///
    /// # Errors
    /// As [`CompactedWriter::create`].
    pub fn write_if_full(&mut self) -> Result<u64, CompactionError> {
        if self.batch.byte_len() >= BATCH_BYTES { self.write() } else { Ok(0) }
    }

    /// Writes what was added. Returns how many bytes that was.
    ///
    /// # Errors
    /// As [`CompactedWriter::create`].
    pub fn write(&mut self) -> Result<u64, CompactionError> {
        if self.batch.is_empty() {
            return Ok(0);
        }
        let before = self.end;
        let mut batch = std::mem::take(&mut self.batch);
        self.tally += batch.tally();
        batch.stamp(self.time, batch.last_version() + 1);
        self.batch = self.append(batch)?;
        self.batch.clear();
        Ok(self.end - before)
    }

    /// Writes a batch, and returns it.
    fn append(&mut self, mut batch: Batch) -> Result<Batch, CompactionError> {
        let durable = Durable { batch: self.link.number - 1, version: self.header.durable_version };
        let (bytes, next) = batch.seal(self.header.seed(), self.end, self.link, durable);
        let length = bytes.len() as u64;
        write_whole(self.file.as_ref(), bytes, self.end, &self.name)?;
        fault::at("compaction-written").map_err(LogError::io("write", &self.name))?;
        self.link = next;
        self.end += length;
        self.unsynced += length;
        if self.unsynced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(batch)
    }

    /// Writes what is left, then the header, which makes it a segment, and syncs. What was dropped rests on the log up to
    /// `durable_version`; where nothing was, on no more than its header said already. Returns its length and its records.
    ///
    /// # Errors
    /// As [`CompactedWriter::create`].
    pub fn finish(mut self, durable_version: Option<u64>) -> Result<(u64, Tally), CompactionError> {
        self.write()?;
        let mut header = self.header;
        header.durable_version = durable_version.unwrap_or(header.durable_version);
        if let SegmentKind::Compacted(compacted) = &mut header.kind {
            compacted.length = self.end;
        }
        write_whole(self.file.as_ref(), &header.encode(), 0, &self.name)?;
        fault::at("compaction-header-written").map_err(LogError::io("write", &self.name))?;
        self.sync()?;
        Ok((self.end, self.tally))
    }

    fn sync(&mut self) -> Result<(), CompactionError> {
        self.unsynced = 0;
        Ok(fault::after("compaction-synced", self.file.sync()).map_err(LogError::io("sync", &self.name))?)
    }
}

fn write_whole(file: &dyn File, bytes: &[u8], offset: u64, name: &str) -> Result<(), CompactionError> {
    let written = file.write_at(bytes, offset).map_err(|error| refused(Shortage::of_write, error, "write", name))?;
    if written < bytes.len() { Err(CompactionError::NoSpace(Shortage::Disk)) } else { Ok(()) }
}

/// A refusal where the error is a shortage, as `judge` has it, and the end otherwise.
fn refused(
    judge: fn(&io::Error) -> Option<Shortage>,
    error: io::Error,
    action: &'static str,
    name: &str,
) -> CompactionError {
    match judge(&error) {
        Some(shortage) => CompactionError::NoSpace(shortage),
        None => LogError::io(action, name)(error).into(),
    }
}
