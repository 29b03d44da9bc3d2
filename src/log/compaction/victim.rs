//! A segment that is compacted: read batch after batch, each verified before anything of it is believed.
//!
//! Knows how to read and how to let go of it. Does not know what is kept.

use super::output::Output;
use super::{CompactionError, Steward};
use crate::log::batch::{BATCH_HEADER, Dependency, Link};
use crate::log::checksum::Seed;
use crate::log::error::LogError;
use crate::log::fs::{File, Fs};
use crate::log::scan::Fault;
use crate::log::segment::{HeaderState, SEGMENT_HEADER, SegmentHeader, file_name};
use crate::log::shortage::Shortage;
use crate::log::verified::{BatchFault, BatchHeader, VerifiedBatch};
use std::io;

/// Bytes of a removed file that are given back at a time. All at once, a file system that tells the disk of what is free
/// (`discard`) keeps commits waiting for as much as 200 ms a segment.
const FREE_BYTES: u64 = 4 << 20;

/// A segment that is read.
pub struct Victim {
    file: Box<dyn File>,
    /// Its header.
    pub header: SegmentHeader,
    /// Bytes of its file.
    pub length: u64,
}

impl Victim {
    /// Opens it and reads its header.
    pub fn open(fs: &dyn Fs, number: u64) -> Result<Victim, CompactionError> {
        let name = file_name(number);
        let file = fs.open(&name).map_err(|error| unread(number, "open", error))?;
        let length = file.len().map_err(|error| unread(number, "measure", error))?;
        let mut head = vec![0; SEGMENT_HEADER];
        file.read_at(&mut head, 0).map_err(|error| unread(number, "read", error))?;
        match SegmentHeader::decode(&head) {
            HeaderState::Valid(header) if header.number == number => Ok(Victim { file, header, length }),
            _ => {
                let why = LogError::Damage { name, offset: 0, fault: Fault::Header };
                Err(CompactionError::Spoiled { number, why })
            }
        }
    }

    /// Copies what is to be kept, batch after batch, each verified before anything of it is believed. Returns how much
    /// was read.
    pub fn copy(
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

    /// The older segments that it says it relies on.
    pub fn dependencies(&self) -> Result<Vec<Dependency>, CompactionError> {
        let position = SEGMENT_HEADER as u64;
        if self.header.generation() == 0 || self.length <= position {
            return Ok(Vec::new());
        }
        let (seed, mut bytes) = (self.header.seed(), Vec::new());
        self.read_batch(seed, position, &mut bytes)?;
        let batch = VerifiedBatch::decode(&bytes, seed, position, self.header.first_batch())
            .map_err(|fault| self.damaged(position, Fault::Batch(fault)))?;
        Ok(batch.dependencies().collect())
    }

    /// Reads the batch at a position, whose length is believed only as far as its header's checksum and the file go.
    fn read_batch(&self, seed: Seed, position: u64, bytes: &mut Vec<u8>) -> Result<(), CompactionError> {
        bytes.clear();
        bytes.resize(BATCH_HEADER, 0);
        self.read(bytes, 0, position)?;
        let Some(header) = BatchHeader::decode(bytes, seed, position) else {
            return Err(self.damaged(position, Fault::Batch(BatchFault::Header)));
        };
        let length = header.length as u64 + header.body_length;
        if header.body_length > self.length || length > self.length - position {
            return Err(self.damaged(position, Fault::Batch(BatchFault::CutShort)));
        }
        // A header of format 1 is shorter: of what was read behind it the beginning of the body is right already.
        let read = bytes.len().min(length as usize);
        bytes.resize(length as usize, 0);
        self.read(bytes, read, position)
    }

    /// Fills `bytes` from `from` on with what the file holds there behind `position`.
    fn read(&self, bytes: &mut [u8], from: usize, position: u64) -> Result<(), CompactionError> {
        let into = bytes.get_mut(from..).unwrap_or_default();
        match self.file.read_at(into, position + from as u64) {
            // What the file does not have stays zero, and fails its checksum.
            Ok(_) => Ok(()),
            Err(error) => Err(unread(self.header.number, "read", error)),
        }
    }

    /// Gives its room back, now that it has no name any more, a little at a time. Where another name leads to it, of a
    /// copy that somebody made by linking, nothing of it is touched.
    pub fn free(self, steward: &mut dyn Steward) {
        if self.file.is_named().unwrap_or(true) {
            return;
        }
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

/// A segment that can't be read is left alone from then on, but not for want of something that may be there again later.
fn unread(number: u64, action: &'static str, error: io::Error) -> CompactionError {
    match Shortage::of_open(&error) {
        Some(shortage) => CompactionError::NoSpace(shortage),
        None => CompactionError::Spoiled { number, why: LogError::io(action, &file_name(number))(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::compaction::{Questions, Stopped};
    use crate::log::fs::Disk;
    use crate::log::segment::SegmentKind;
    use crate::timeline::Time;

    /// Counts how often room was given back.
    struct Breaths(usize);

    impl Steward for Breaths {
        fn ask(&mut self, _: &mut Questions) -> Result<(), Stopped> {
            Err(Stopped)
        }

        fn settle(&mut self) -> Result<u64, Stopped> {
            Err(Stopped)
        }

        fn breathe(&mut self) {
            self.0 += 1;
        }

        fn moved(&mut self, _: u64) -> Result<(), Stopped> {
            Err(Stopped)
        }
    }

    #[test]
    fn a_copy_made_by_linking_outlives_the_segment() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = Disk::new(directory.path()).expect("a disk");
        for is_linked in [false, true] {
            let length = 3 * FREE_BYTES;
            let file = disk.create("victim").expect("a file");
            file.set_len(length).expect("room");
            let link = directory.path().join("link");
            if is_linked {
                std::fs::hard_link(directory.path().join("victim"), &link).expect("a link");
            }
            disk.remove("victim").expect("no name any more");
            let header = SegmentHeader {
                kind: SegmentKind::Journal,
                identity: 1,
                secret: None,
                number: 1,
                epoch: 0,
                next_version: 1,
                durable_version: 0,
                link: Link { number: 1, chain: 0 },
                time: Time::default(),
            };
            let mut breaths = Breaths(0);
            Victim { file, header, length }.free(&mut breaths);
            assert_eq!(breaths.0, if is_linked { 0 } else { 2 });
            if is_linked {
                assert_eq!(std::fs::metadata(&link).expect("the copy").len(), length);
            }
        }
    }
}
