//! Appends batches to the active segment and makes the next one when it is full.
//!
//! Knows the order of operations that makes a crash at any of them safe, and what to do when there is no room. Does not
//! know threads, policies or what a batch means. Every method returns with the log in a state that a crash may keep.
//!
//! *Appending.* A batch goes over zeros, in one write, and is durable after the next sync. If there is no room, what was
//! attempted is cut off and the cut synced before anything else is written, so that a refused write never comes back.
//!
//! *Rotating.* The full segment is cut to its length and synced, whatever the policy; then the next one gets its header, is
//! synced, its directory entry too; then it is appended to. So a segment that has a successor is durable to its last
//! byte, and whatever is wrong in it is damage and no torn tail.
//!
//! *Blocks.* What was sized ahead has blocks that were never written, and the first sync that covers one of them has to
//! change the file system's own tables as well. Where every small batch is synced, zeros are therefore written ahead of them,
//! over the zeros that stand there already: one such write spares a hundred syncs a third of their time.
//!
//! *Marks.* What the last batch of the log holds is proven durable by nothing that stands behind it: were one bit of it lost later, it
//! would look like a torn write. So a SYNC has a mark written behind it, a batch without records whose header says that it
//! is durable. Nobody needs a mark of a mark.
//!
//! *Older formats.* Behind batches of an older format none of this one is written: the next segment is begun first, so that an
//! older program, which would take such a batch for a torn one, refuses the directory instead.
//!
//! *The reserve.* One segment ahead, the spare, is always sized before a batch that stores something is taken. A
//! batch that only removes may use it, so that a full disk can be emptied.

use super::batch::{Batch, Durable, Link};
use super::error::LogError;
use super::fs::{File, Fs, create_anew};
use super::scan::SegmentReport;
use super::secret::Secret;
use super::segment::{SEGMENT_HEADER, SegmentHeader, SegmentKind, file_name, unix_milliseconds};
use super::shortage::Shortage;
use crate::fault;
use crate::timeline::Time;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Bytes of blocks that are written ahead at a time.
const AHEAD: u64 = 256 << 10;
/// Largest batch, in bytes, for which that is worth it: the more a sync writes, the less the tables weigh.
const SMALL: u64 = 16 << 10;

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// There is no room. Nothing of the batch is in the log, and nothing of it will come back.
    #[error("{0}")]
    NoSpace(Shortage),
    /// Nothing more can be promised: the process must end without acknowledging anything.
    #[error(transparent)]
    Fatal(#[from] LogError),
}

/// A segment being written.
#[derive(Debug)]
struct Active {
    file: Box<dyn File>,
    header: SegmentHeader,
    /// Where the next batch goes.
    end: u64,
    /// How far the file is sized ahead.
    size: u64,
    /// How far its blocks were written.
    prepared: u64,
}

/// The next segment: sized, without a header.
#[derive(Debug)]
struct Spare {
    file: Box<dyn File>,
    number: u64,
}

/// Where a writer goes on: what recovery found, after it was mended.
#[derive(Debug)]
pub struct Resume {
    /// The active segment's file.
    pub file: Box<dyn File>,
    /// Its header.
    pub header: SegmentHeader,
    /// What it holds.
    pub report: SegmentReport,
    /// What is durable.
    pub durable: Durable,
    /// The next segment's number, if its spare is there.
    pub spare: Option<u64>,
}

/// The log's end.
#[derive(Debug)]
pub struct Writer {
    fs: Arc<dyn Fs>,
    segment_size: u64,
    active: Active,
    spare: Option<Spare>,
    link: Link,
    /// What was written, and what of it was synced.
    written: Durable,
    durable: Durable,
    /// Number of the last batch that is more than a mark, and up to which batch a header that is written says that all are
    /// durable.
    last_batch: u64,
    told: u64,
    next_version: u64,
    /// The last time that the log records. The next segment's header records it too, since nothing may be left of the
    /// batches before when it is compacted.
    time: Time,
    /// What the headers of new segments say.
    secret: Secret,
    /// Bytes that were appended since the start, and how often it was synced.
    appended: u64,
    syncs: u64,
    /// Whether nothing was written since the start.
    is_first: bool,
    /// Whether some of the reserve is lent.
    is_lent: bool,
    /// What is written ahead; empty where nothing is.
    zeros: Vec<u8>,
}

impl Writer {
    /// Makes a new store in a directory without segments.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn create(fs: Arc<dyn Fs>, segment_size: u64, identity: u128, secret: Secret) -> Result<Writer, LogError> {
        let name = file_name(1);
        let file = fs.create(&name).map_err(LogError::io("create", &name))?;
        file.allocate(segment_size).map_err(LogError::io("size", &name))?;
        let header = SegmentHeader {
            kind: SegmentKind::Journal,
            identity,
            secret: Some(secret),
            number: 1,
            epoch: 0,
            next_version: 1,
            durable_version: 0,
            link: Link { number: 1, chain: 0 },
            time: unix_milliseconds().into(),
        };
        install_header(fs.as_ref(), file.as_ref(), &header).map_err(|error| match error {
            AppendError::NoSpace(_) => LogError::io("write", &name)(io::ErrorKind::StorageFull.into()),
            AppendError::Fatal(error) => error,
        })?;
        let report = SegmentReport::of_header(&header);
        let resume = Resume { file, header, report, durable: Durable::default(), spare: None };
        Writer::resume(fs, segment_size, secret, resume, 1)
    }

    /// Goes on where an earlier run ended. `next_version` is the version that will be handed out next.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn resume(
        fs: Arc<dyn Fs>,
        segment_size: u64,
        secret: Secret,
        resume: Resume,
        next_version: u64,
    ) -> Result<Writer, LogError> {
        let Resume { file, header, report, durable, spare } = resume;
        let SegmentReport { end, link, last_batch, proven: told, time, .. } = report;
        let spare = match spare {
            Some(number) => adopt_spare(fs.as_ref(), number, segment_size)?,
            None => None,
        };
        let size = file.len().map_err(LogError::io("measure", &file_name(header.number)))?;
        let active = Active { file, header, end, size, prepared: end };
        let (written, is_first, zeros) = (durable, true, Vec::new());
        let is_lent = false;
        Ok(Writer {
            fs,
            segment_size,
            active,
            spare,
            link,
            written,
            durable,
            last_batch,
            told,
            next_version,
            time,
            secret,
            appended: 0,
            syncs: 0,
            is_first,
            is_lent,
            zeros,
        })
    }

    /// From here on every batch is synced by itself: blocks are written ahead.
    #[must_use]
    pub fn synced_batch_by_batch(self) -> Writer {
        Writer { zeros: vec![0; AHEAD as usize], ..self }
    }

    /// Writes a batch at the end of the log. It is durable after the next [`Writer::sync`].
    ///
    /// The first one since the start is durable at once: were it shown and then lost, the log would end as it did before
    /// this start, and the next one would hand out the same versions.
    ///
    /// # Errors
    /// [`AppendError::NoSpace`] leaves the log as it was and usable; after [`AppendError::Fatal`] it must not be used.
    pub fn append(&mut self, batch: &mut Batch) -> Result<(), AppendError> {
        let length = batch.byte_len() as u64;
        self.time = batch.time();
        self.make_place(length, batch.frees_room())?;
        let position = self.active.end;
        let (bytes, next) = batch.seal(self.active.header.seed(), position, self.link, self.durable);
        let placed = fault::at("commit-placed");
        let written = fault::after("commit-written", placed.and_then(|()| self.active.file.write_at(bytes, position)));
        let name = file_name(self.active.header.number);
        match written {
            Ok(count) if count as u64 == length => {}
            Ok(_) => return Err(self.retract(Shortage::Disk)),
            Err(error) => {
                return Err(match Shortage::of_write(&error) {
                    Some(shortage) => self.retract(shortage),
                    None => LogError::io("write", &name)(error).into(),
                });
            }
        }
        self.active.end += length;
        self.appended += length;
        self.prepare(length)?;
        self.told = self.told.max(self.durable.batch);
        if !batch.is_mark() {
            self.last_batch = self.link.number;
        }
        self.written = Durable { batch: self.link.number, version: batch.last_version().max(self.written.version) };
        self.link = next;
        self.next_version = self.next_version.max(batch.next_version());
        if std::mem::replace(&mut self.is_first, false) {
            self.sync()?;
        }
        Ok(())
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// Any error is final: it is never tried again, since the next sync would report success for pages that the failed one lost.
    pub fn sync(&mut self) -> Result<(), LogError> {
        let synced = fault::after("commit-synced", self.active.file.sync());
        synced.map_err(LogError::io("sync", &file_name(self.active.header.number)))?;
        self.durable = self.written;
        self.syncs += 1;
        Ok(())
    }

    /// Makes everything written durable, and proves it: once this has returned, none of it is ever taken for a torn tail.
    ///
    /// # Errors
    /// [`AppendError::NoSpace`] if there is no room for the mark that this may take: then all is durable, and not proven.
    pub fn prove(&mut self) -> Result<(), AppendError> {
        if self.durable.batch < self.last_batch {
            self.sync()?;
        }
        self.mark()?;
        // Whatever told of it must be durable as well.
        if self.is_dirty() { Ok(self.sync()?) } else { Ok(()) }
    }

    /// Says that what is durable is, unless a header that is written does so already.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub fn mark(&mut self) -> Result<(), AppendError> {
        if self.told >= self.last_batch {
            return Ok(());
        }
        let mut mark = Batch::mark();
        mark.stamp(self.time, self.next_version);
        self.make_place(mark.byte_len() as u64, true)?;
        // Where a segment was begun for it, that says as much, and stays empty for the next batch.
        if self.told >= self.last_batch { Ok(()) } else { self.append(&mut mark) }
    }

    /// Whether something was written since the last sync.
    pub fn is_dirty(&self) -> bool {
        self.durable != self.written
    }

    /// Makes place for a batch of so many bytes that stores something, and makes the reserve whole. Returns whether such a
    /// batch can be taken now.
    ///
    /// # Errors
    /// What the disk refuses for another reason than room.
    pub fn make_room(&mut self, length: u64) -> Result<bool, LogError> {
        if self.is_lent {
            return Ok(false);
        }
        match self.fill_spare().and_then(|()| self.make_place(length, false)) {
            Ok(()) => Ok(true),
            Err(AppendError::NoSpace(_)) => Ok(false),
            Err(AppendError::Fatal(error)) => Err(error),
        }
    }

    /// Gives so many bytes up of what is sized ahead, the most that there are, for a compaction on a disk without room: of the
    /// spare, or, where removals have used that, of the active segment. Until [`Writer::take_back`] they are not missed. Returns
    /// whether it does: where there are too few, removals keep them, since they would not help, and others may take them.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn lend(&mut self, bytes: RangeInclusive<u64>) -> Result<bool, LogError> {
        let Active { file, header, end, size, prepared } = &mut self.active;
        let (lender, number, length, used) = match &self.spare {
            Some(spare) => {
                let length = spare.file.len().map_err(LogError::io("measure", &file_name(spare.number)))?;
                (&spare.file, spare.number, length, 0)
            }
            None => (&*file, header.number, *size, *end),
        };
        let there_are = length.saturating_sub(used);
        self.is_lent = there_are >= *bytes.start();
        if self.is_lent {
            let left = length - there_are.min(*bytes.end());
            lender.set_len(left).map_err(LogError::io("cut", &file_name(number)))?;
            if self.spare.is_none() {
                (*size, *prepared) = (left, left.min(*prepared));
            }
        }
        Ok(self.is_lent)
    }

    /// What was lent is missed again: [`Writer::make_room`] makes the reserve whole.
    pub fn take_back(&mut self) {
        self.is_lent = false;
    }

    /// Marks an orderly stop, cuts off what was sized ahead and makes all of it durable. A full disk only costs the mark.
    ///
    /// # Errors
    /// What the disk refuses for another reason than room.
    pub fn finish(&mut self, time: impl Into<Time>, next_version: u64) -> Result<(), LogError> {
        self.sync()?;
        fault::at("stop-synced").map_err(LogError::io("sync", "the log"))?;
        let mut mark = Batch::clean_stop();
        mark.stamp(time, next_version);
        match self.append(&mut mark) {
            Ok(()) | Err(AppendError::NoSpace(_)) => {}
            Err(AppendError::Fatal(error)) => return Err(error),
        }
        fault::at("stop-marked").map_err(LogError::io("write", "the log"))?;
        self.cut_active()?;
        if let Some(spare) = self.spare.take() {
            let name = file_name(spare.number);
            fault::after("stop-spare-removed", self.fs.remove(&name)).map_err(LogError::io("remove", &name))?;
        }
        fault::after("stop-directory-synced", self.fs.sync_dir()).map_err(LogError::io("sync", "the data directory"))
    }

    /// Number of the active segment.
    pub fn active_number(&self) -> u64 {
        self.active.header.number
    }

    /// Bytes of all batches that were appended since the start, marks included.
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// How often it was synced.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    /// What is durable.
    pub fn durable(&self) -> Durable {
        self.durable
    }

    /// Writes the blocks ahead, if a small batch has come to the end of those that were.
    fn prepare(&mut self, length: u64) -> Result<(), LogError> {
        let Active { file, end, size, prepared, header } = &mut self.active;
        if *prepared >= *end || self.zeros.is_empty() {
            return Ok(());
        }
        *prepared = *end;
        let ahead = self.zeros.get(..AHEAD.min(size.saturating_sub(*end)) as usize).unwrap_or_default();
        if length > SMALL || ahead.is_empty() {
            return Ok(());
        }
        match fault::after("commit-prepared", file.write_at(ahead, *end)) {
            Ok(written) => *prepared += written as u64,
            // It was for speed alone.
            Err(error) if Shortage::of_write(&error).is_some() => {}
            Err(error) => return Err(LogError::io("write", &file_name(header.number))(error)),
        }
        Ok(())
    }

    /// Finds room for `length` bytes: in the active segment, or in the next one.
    fn make_place(&mut self, length: u64, frees_room: bool) -> Result<(), AppendError> {
        let end = self.active.end + length;
        let is_new = self.active.end == SEGMENT_HEADER as u64;
        let fits = end <= self.segment_size.max(self.active.size) || is_new;
        if fits && self.active.header.is_current() {
            if !frees_room {
                self.ensure_spare()?;
            }
            match self.ensure_size(end) {
                // No room left in place, but there is the reserve.
                Err(AppendError::NoSpace(_)) if frees_room && self.spare.is_some() => {}
                sized => return sized,
            }
        }
        self.ensure_spare()?;
        self.fit_spare(length)?;
        // The reserve is whole again before this batch uses it up, unless the batch is what the reserve is for.
        let after = if frees_room {
            None
        } else {
            let second = self.create_spare(self.active.header.number + 2);
            Some(second.or_else(|error| self.shrink_spare().map_err(AppendError::from).and(Err(error)))?)
        };
        self.rotate()?;
        self.spare = after;
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), AppendError> {
        let Some(spare) = self.spare.take() else { return Err(AppendError::NoSpace(Shortage::Disk)) };
        self.cut_active()?;
        fault::at("segment-sealed").map_err(LogError::io("sync", &file_name(self.active.header.number)))?;
        let header = SegmentHeader {
            secret: Some(self.secret),
            number: spare.number,
            next_version: self.next_version,
            durable_version: self.durable.version,
            link: self.link,
            time: self.time,
            ..self.active.header
        };
        install_header(self.fs.as_ref(), spare.file.as_ref(), &header)?;
        let size = spare.file.len().map_err(LogError::io("measure", &file_name(header.number)))?;
        let end = SEGMENT_HEADER as u64;
        self.active = Active { file: spare.file, header, end, size, prepared: end };
        // What has a successor must be whole to its last byte.
        self.told = self.durable.batch;
        fault::at("segment-begun").map_err(LogError::io("measure", &file_name(spare.number)))?;
        Ok(())
    }

    /// Cuts the active segment to its length and syncs it.
    fn cut_active(&mut self) -> Result<(), LogError> {
        let name = file_name(self.active.header.number);
        fault::after("segment-cut", self.active.file.set_len(self.active.end)).map_err(LogError::io("cut", &name))?;
        (self.active.size, self.active.prepared) = (self.active.end, self.active.end);
        self.sync()
    }

    /// After a write without room: what it may have left is cut off, for good, before anything else is written.
    fn retract(&mut self, shortage: Shortage) -> AppendError {
        match self.cut_active() {
            Ok(()) => AppendError::NoSpace(shortage),
            Err(error) => AppendError::Fatal(error),
        }
    }

    /// Sizes the active segment ahead, at least to `end`.
    fn ensure_size(&mut self, end: u64) -> Result<(), AppendError> {
        let wanted = self.segment_size.max(end);
        if self.active.size >= wanted {
            return Ok(());
        }
        let name = file_name(self.active.header.number);
        let sized = fault::after("segment-sized-anew", self.active.file.allocate(wanted));
        // Also after a failure: it may have got half way.
        self.active.size = self.active.file.len().map_err(LogError::io("measure", &name))?;
        match sized {
            Ok(()) => Ok(()),
            // Not the whole segment, but enough for now.
            Err(error) if Shortage::of_write(&error).is_some() && self.active.size >= end => Ok(()),
            Err(error) => Err(refused(Shortage::of_write, error, "size", &name)),
        }
    }

    fn ensure_spare(&mut self) -> Result<(), AppendError> {
        if self.spare.is_none() {
            self.spare = Some(self.create_spare(self.active.header.number + 1)?);
        }
        Ok(())
    }

    /// Makes the spare whole, where some of it was lent.
    fn fill_spare(&mut self) -> Result<(), AppendError> {
        let Some(spare) = &self.spare else { return Ok(()) };
        let sized = spare.file.allocate(self.segment_size);
        sized.map_err(|error| refused(Shortage::of_write, error, "size", &file_name(spare.number)))
    }

    fn create_spare(&self, number: u64) -> Result<Spare, AppendError> {
        let name = file_name(number);
        // One may be there, into which a rotation found no room for its header. No number above the active one holds data.
        let created = fault::after("segment-created", create_anew(self.fs.as_ref(), &name));
        let file = created.map_err(|error| refused(Shortage::of_open, error, "create", &name))?;
        match fault::after("segment-sized", file.allocate(self.segment_size)) {
            Ok(()) => Ok(Spare { file, number }),
            Err(error) => {
                // What was allocated of it must not stay taken on a disk that is full.
                self.fs.remove(&name).map_err(LogError::io("remove", &name))?;
                Err(refused(Shortage::of_write, error, "size", &name))
            }
        }
    }

    /// A batch larger than a segment gets a segment of its own size.
    fn fit_spare(&mut self, length: u64) -> Result<(), AppendError> {
        let Some(spare) = &self.spare else { return Ok(()) };
        let wanted = SEGMENT_HEADER as u64 + length;
        if wanted <= self.segment_size {
            return Ok(());
        }
        let sized = spare.file.allocate(wanted);
        sized.or_else(|error| {
            self.shrink_spare()?;
            Err(refused(Shortage::of_write, error, "size", &file_name(self.active.header.number + 1)))
        })
    }

    /// Gives back what the spare was made larger by, for a batch that is refused after all.
    fn shrink_spare(&self) -> Result<(), LogError> {
        let Some(spare) = &self.spare else { return Ok(()) };
        spare.file.set_len(self.segment_size).map_err(LogError::io("cut", &file_name(spare.number)))
    }
}

/// Goes on with the spare of an earlier run, whose segments may have had another size. Without room for it, there is none.
fn adopt_spare(fs: &dyn Fs, number: u64, segment_size: u64) -> Result<Option<Spare>, LogError> {
    let name = file_name(number);
    let file = fs.open(&name).map_err(LogError::io("open", &name))?;
    match file.allocate(segment_size) {
        Ok(()) => Ok(Some(Spare { file, number })),
        Err(error) if Shortage::of_write(&error).is_some() => {
            fs.remove(&name).map_err(LogError::io("remove", &name))?;
            Ok(None)
        }
        Err(error) => Err(LogError::io("size", &name)(error)),
    }
}

/// Writes a segment's header and makes it and its directory entry durable.
fn install_header(fs: &dyn Fs, file: &dyn File, header: &SegmentHeader) -> Result<(), AppendError> {
    let name = file_name(header.number);
    let written = fault::after("segment-header-written", file.write_at(&header.encode(), 0));
    let written = written.map_err(|error| refused(Shortage::of_write, error, "write", &name))?;
    if written < SEGMENT_HEADER {
        return Err(AppendError::NoSpace(Shortage::Disk));
    }
    fault::after("segment-header-synced", file.sync()).map_err(LogError::io("sync", &name))?;
    fault::after("segment-entry-synced", fs.sync_dir()).map_err(LogError::io("sync", "the data directory"))?;
    Ok(())
}

/// A refusal where the error is a shortage, as `judge` has it, and the end otherwise.
fn refused(
    judge: fn(&io::Error) -> Option<Shortage>,
    error: io::Error,
    action: &'static str,
    name: &str,
) -> AppendError {
    match judge(&error) {
        Some(shortage) => AppendError::NoSpace(shortage),
        None => LogError::io(action, name)(error).into(),
    }
}
