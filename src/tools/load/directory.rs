//! Lines into a directory that has no log yet: a log is written, as a daemon would have.

use super::{LoadError, Sink};
use crate::command::{LARGEST_MAX_VALUE, MAX_KEY};
use crate::log::segment::unix_milliseconds;
use crate::log::{AppendError, Batch, DataDir, LogOptions, Progress, SyncPolicy, Unread, Writer};
use crate::mutation::Space;
use crate::tools::line::Line;
use crate::wire::pickle;
use std::path::Path;

/// Bytes that are written at a time.
const BATCH: usize = 1 << 20;
/// Bytes of a segment, unless a daemon with another `--segment-size` goes on.
const SEGMENT: u64 = 128 << 20;

/// A log being written.
pub(super) struct Directory {
    writer: Writer,
    batch: Batch,
    next_version: u64,
    /// The line up to which everything is written.
    written: u64,
    /// Held until the log is closed.
    _lock: DataDir,
}

impl Directory {
    /// Begins a log in a directory that has none.
    pub fn make(path: &Path) -> Result<Directory, LoadError> {
        let lock = DataDir::open(path)?;
        let options = LogOptions { segment_size: SEGMENT, sync: SyncPolicy::Never, threads: 1 };
        let unread = Unread::open(lock.disk(), options)?;
        if !unread.is_new() {
            return Err(LoadError::NotEmpty(path.to_owned()));
        }
        let (ready, recovered) = unread.replay(&Progress::default(), &|_| ())?;
        let writer = ready.into_writer();
        Ok(Directory { writer, batch: Batch::default(), next_version: recovered.next_version, written: 0, _lock: lock })
    }

    fn write(&mut self, up_to: u64) -> Result<(), LoadError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.batch.stamp(unix_milliseconds(), self.next_version);
        match self.writer.append(&mut self.batch) {
            Ok(()) => self.written = up_to,
            Err(AppendError::NoSpace(shortage)) => {
                // Everything before it is a log that a daemon can go on with.
                self.writer.finish(unix_milliseconds(), self.next_version)?;
                return Err(LoadError::Full { shortage, written: self.written });
            }
            Err(AppendError::Fatal(error)) => return Err(error.into()),
        }
        self.batch.clear();
        Ok(())
    }
}

impl Sink for Directory {
    fn take(&mut self, number: u64, line: &Line<'_>) -> Result<(), LoadError> {
        let refused = |why: &str| Err(LoadError::Impossible { number, why: why.to_owned() });
        if !(1..=MAX_KEY).contains(&line.key.len()) {
            return refused("a key has 1 to 65536 bytes");
        }
        if line.space == Space::Python && !pickle::is_key(&line.key) {
            return refused("its key is no encoding of a key of Python's");
        }
        if line.value.len() > LARGEST_MAX_VALUE {
            return refused("a value has at most 1 GiB");
        }
        self.batch.push(self.next_version, &line.mutation());
        self.batch.end_group();
        self.next_version += 1;
        if self.batch.byte_len() >= BATCH { self.write(number) } else { Ok(()) }
    }

    fn finish(mut self) -> Result<(), LoadError> {
        self.write(u64::MAX)?;
        Ok(self.writer.finish(unix_milliseconds(), self.next_version)?)
    }
}
