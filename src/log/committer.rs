//! Group commit: what is done with a batch, and when with all of them.
//!
//! Knows when to sync, and when to look for room. Does not know the order of file operations ([`super::writer`]), whose thread
//! it is on, or who waits for a batch.
//!
//! While one batch is written and synced the next one forms at the caller's; that is the whole of group commit.
//! One batch is here at a time, so that a batch which finds no room takes down exactly what was evaluated on top of it.

use super::batch::Batch;
use super::error::LogError;
use super::policy::SyncPolicy;
use super::shortage::Shortage;
use super::writer::{AppendError, Writer};
use crate::timeline::Time;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a full disk is looked at for new room.
const ROOM_INTERVAL: Duration = Duration::from_millis(100);

/// What comes of it.
#[derive(Debug)]
pub enum Event {
    /// The submitted batch is committed as the policy wants it.
    Committed {
        /// It comes back empty, for reuse.
        batch: Batch,
        /// Number of the segment that it is in.
        segment: u64,
        /// Bytes by which the log has grown since the last such event: those of the batch, and of marks before it.
        length: u64,
    },
    /// There was no room for the submitted batch; nothing of it will ever be in the log. Until
    /// [`Event::RoomAgain`] only batches that remove find room.
    Refused {
        /// It comes back empty, for reuse.
        batch: Batch,
        /// What there is not enough of.
        shortage: Shortage,
    },
    /// There is room again for batches that store.
    RoomAgain,
    /// Whether what was asked for of the reserve is given up.
    Lent(bool),
    /// The sync that was asked for is done: every batch committed before it is on disk.
    Synced {
        /// Whether that is proven as well. It is not where the mark which that takes found no room.
        is_proven: bool,
    },
    /// Nothing more can be promised: acknowledge nothing and exit non-zero.
    Failed(LogError),
}

/// What it is asked for.
#[derive(Debug)]
pub(super) enum Request {
    Append(Batch),
    Sync,
    Lend(RangeInclusive<u64>),
    TakeBack,
    /// Something was done on another thread: what is due when may have changed.
    LookAgain,
}

/// Counters that the thread keeps, for whoever shows them.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) batches: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) active_segment: AtomicU64,
    pub(super) durable_version: AtomicU64,
}

/// The writer, and when what has to be done with it.
#[derive(Debug)]
pub(super) struct Committer {
    writer: Writer,
    policy: SyncPolicy,
    counters: Arc<Counters>,
    /// Of how many bytes the last event told.
    told: u64,
    /// When what was written must be synced.
    sync_due: Option<Instant>,
    /// Whether what the last interval's sync covered is to be marked, if no batch comes that says so.
    mark_due: bool,
    /// How many bytes the batch has that found no room, if none was found for as many since.
    lacking: Option<u64>,
    /// Whether nothing has failed yet. After that nothing is done any more, by whomever.
    is_sound: bool,
}

impl Committer {
    pub(super) fn new(writer: Writer, policy: SyncPolicy, counters: Arc<Counters>) -> Committer {
        let committer = Committer {
            writer,
            policy,
            counters,
            told: 0,
            sync_due: None,
            mark_due: false,
            lacking: None,
            is_sound: true,
        };
        committer.publish();
        committer
    }

    /// Whether it can be relied on.
    pub(super) fn is_sound(&self) -> bool {
        self.is_sound
    }

    /// Makes the reserve whole, so that it is there before the first batch and can be emptied whatever others store on this disk.
    pub(super) fn begin(&mut self) -> Result<(), LogError> {
        let looked = self.find_room(0);
        self.is_sound = looked.is_ok();
        looked
    }

    /// Looks for room for so many bytes.
    fn find_room(&mut self, length: u64) -> Result<(), LogError> {
        self.lacking = (!self.writer.make_room(length)?).then_some(length);
        Ok(())
    }

    /// How long nothing need be done.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        let until_sync = self.sync_due.map(|due| due.saturating_duration_since(now));
        let until_room = self.lacking.map(|_| ROOM_INTERVAL);
        let until_mark = self.mark_due.then_some(Duration::ZERO);
        until_sync.into_iter().chain(until_room).chain(until_mark).min()
    }

    /// Does what is asked. After an error nothing can be relied on.
    pub(super) fn serve(&mut self, request: Request, now: Instant) -> Result<Option<Event>, LogError> {
        if !self.is_sound {
            return Err(LogError::ThreadGone);
        }
        let done = self.attempt(request, now);
        self.is_sound = done.is_ok();
        done
    }

    fn attempt(&mut self, request: Request, now: Instant) -> Result<Option<Event>, LogError> {
        match request {
            Request::Append(batch) => self.append(batch, now).map(Some),
            Request::Sync => self.prove().map(Some),
            Request::Lend(bytes) => self.writer.lend(bytes).map(|lends| Some(Event::Lent(lends))),
            Request::TakeBack => {
                self.writer.take_back();
                self.on_time(now)
            }
            Request::LookAgain => self.on_time(now),
        }
    }

    fn append(&mut self, mut batch: Batch, now: Instant) -> Result<Event, LogError> {
        let length = batch.byte_len() as u64;
        self.mark_due = false;
        let shortage = match self.writer.append(&mut batch) {
            Ok(()) => {
                let due = self.policy.due(now);
                if self.policy == SyncPolicy::Always {
                    self.sync()?;
                } else {
                    self.sync_due = self.sync_due.or(due);
                    self.sync_if_due(now)?;
                }
                self.counters.batches.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(AppendError::NoSpace(shortage)) => {
                self.lacking = Some(length);
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                Some(shortage)
            }
            Err(AppendError::Fatal(error)) => return Err(error),
        };
        batch.clear();
        self.publish();
        if let Some(shortage) = shortage {
            return Ok(Event::Refused { batch, shortage });
        }
        let appended = self.writer.appended();
        let length = appended - std::mem::replace(&mut self.told, appended);
        Ok(Event::Committed { batch, segment: self.writer.active_number(), length })
    }

    fn sync(&mut self) -> Result<(), LogError> {
        if self.writer.is_dirty() {
            self.writer.sync()?;
            self.publish();
        }
        self.sync_due = None;
        Ok(())
    }

    /// Syncs, with proof that outlives the loss of what it covers.
    fn prove(&mut self) -> Result<Event, LogError> {
        let proven = self.writer.prove();
        (self.sync_due, self.mark_due) = (None, false);
        self.publish();
        match proven {
            Ok(()) => Ok(Event::Synced { is_proven: true }),
            Err(AppendError::NoSpace(_)) => Ok(Event::Synced { is_proven: false }),
            Err(AppendError::Fatal(error)) => Err(error),
        }
    }

    fn sync_if_due(&mut self, now: Instant) -> Result<(), LogError> {
        if self.sync_due.is_some_and(|due| due <= now) {
            self.sync()?;
            self.mark_due = true;
        }
        Ok(())
    }

    /// Marks what an interval's sync covered, as no batch came that says so. The mark itself need not be synced.
    fn mark_if_due(&mut self) -> Result<(), LogError> {
        match std::mem::take(&mut self.mark_due).then(|| self.writer.mark()) {
            Some(Err(AppendError::Fatal(error))) => Err(error),
            // Nobody was promised a mark.
            Some(Ok(()) | Err(AppendError::NoSpace(_))) | None => Ok(()),
        }
    }

    fn on_time(&mut self, now: Instant) -> Result<Option<Event>, LogError> {
        self.mark_if_due()?;
        self.sync_if_due(now)?;
        let Some(length) = self.lacking else { return Ok(None) };
        self.find_room(length)?;
        Ok(self.lacking.is_none().then_some(Event::RoomAgain))
    }

    /// Marks an orderly stop, after everything else.
    pub(super) fn finish(&mut self, time: Time, next_version: u64) -> Result<(), LogError> {
        self.writer.finish(time, next_version)
    }

    fn publish(&self) {
        self.counters.bytes.store(self.writer.appended(), Ordering::Relaxed);
        self.counters.syncs.store(self.writer.syncs(), Ordering::Relaxed);
        self.counters.active_segment.store(self.writer.active_number(), Ordering::Relaxed);
        self.counters.durable_version.store(self.writer.durable().version, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Secret;
    use crate::log::fs::{FakeDisk, FaultPlan, Fs as _};
    use crate::mutation::{Key, Mutation, Value};

    const SEGMENT: u64 = 1 << 16;

    fn committer(disk: &FakeDisk, policy: SyncPolicy) -> Committer {
        let writer = Writer::create(Arc::new(disk.clone()), SEGMENT, 1, Secret::new(2)).expect("a new store");
        Committer::new(writer, policy, Arc::default())
    }

    fn sizes(disk: &FakeDisk) -> Vec<u64> {
        disk.list().expect("listed").iter().map(|name| disk.file_len(name).expect("a file")).collect()
    }

    fn used(disk: &FakeDisk) -> u64 {
        sizes(disk).iter().sum()
    }

    /// From here on there is no room but what is given back.
    fn fill(disk: &FakeDisk) {
        disk.plan(FaultPlan { capacity: Some(used(disk)), ..FaultPlan::default() });
    }

    fn batch(version: u64, mutation: &Mutation<'_>) -> Request {
        let mut batch = Batch::default();
        batch.push(version, mutation);
        batch.end_group();
        batch.stamp(1, version + 1);
        Request::Append(batch)
    }

    fn put(version: u64, length: usize) -> Request {
        let value = Value { bytes: &vec![1; length], flags: 0, deadline: 0 };
        batch(version, &Mutation::Put { key: Key::bytes(b"k"), value })
    }

    fn commits(committer: &mut Committer, request: Request, now: Instant) {
        let event = committer.serve(request, now).expect("a disk that works");
        assert!(matches!(event, Some(Event::Committed { .. })), "{event:?}");
    }

    fn refuses(committer: &mut Committer, request: Request) {
        let event = committer.serve(request, Instant::now()).expect("a disk that works");
        assert!(matches!(event, Some(Event::Refused { .. })), "{event:?}");
    }

    fn lends(committer: &mut Committer, bytes: RangeInclusive<u64>) -> bool {
        match committer.serve(Request::Lend(bytes), Instant::now()) {
            Ok(Some(Event::Lent(lends))) => lends,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_written_is_synced_when_its_interval_is_over_and_not_before() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut committer = committer(&FakeDisk::new(), SyncPolicy::Every(Duration::from_secs(1)));
        let counters = Arc::clone(&committer.counters);
        // The first batch of a start is durable at once.
        commits(&mut committer, put(1, 1), at(0));
        let syncs = || counters.syncs.load(Ordering::Relaxed) - 1;
        commits(&mut committer, put(2, 1), at(900));
        assert_eq!((syncs(), committer.patience(at(950))), (0, Some(Duration::from_millis(50))));
        assert!(matches!(committer.serve(Request::LookAgain, at(999)), Ok(None)));
        assert_eq!(syncs(), 0);
        assert!(matches!(committer.serve(Request::LookAgain, at(1000)), Ok(None)));
        assert_eq!((syncs(), committer.patience(at(1000))), (1, Some(Duration::ZERO)), "and a mark is due");
        // Batch after batch leaves no other time.
        for (version, milliseconds, expected) in [(3, 5000, 1), (4, 5999, 1), (5, 6000, 2), (6, 6500, 2)] {
            commits(&mut committer, put(version, 1), at(milliseconds));
            assert_eq!(syncs(), expected, "at {milliseconds} ms");
        }
    }

    /// Where the log ends.
    fn end(disk: &FakeDisk) -> u64 {
        let bytes = disk.read("segment-00000000000000000001.log").expect("a segment");
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
    }

    #[test]
    fn an_interval_that_no_batch_follows_is_marked_once() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let disk = FakeDisk::new();
        let mut committer = committer(&disk, SyncPolicy::Every(Duration::from_secs(1)));
        commits(&mut committer, put(1, 1), at(0));
        for (version, milliseconds) in [(2, 0), (3, 1000)] {
            commits(&mut committer, put(version, 1), at(milliseconds));
        }
        // A batch that follows says what the mark would.
        commits(&mut committer, put(4, 1), at(1001));
        let marked = end(&disk);
        assert!(matches!(committer.serve(Request::LookAgain, at(1500)), Ok(None)));
        assert_eq!(end(&disk), marked);
        assert!(matches!(committer.serve(Request::LookAgain, at(2001)), Ok(None)), "the sync");
        assert_eq!((end(&disk), committer.patience(at(2001))), (marked, Some(Duration::ZERO)));
        let syncs = committer.writer.syncs();
        assert!(matches!(committer.serve(Request::LookAgain, at(2001)), Ok(None)), "the mark");
        assert!(end(&disk) > marked);
        assert_eq!((committer.patience(at(2001)), committer.writer.syncs()), (None, syncs), "it asks for nothing more");
    }

    #[test]
    fn a_sync_marks_what_it_covers_unless_that_is_marked() {
        let disk = FakeDisk::new();
        let now = Instant::now();
        for policy in [SyncPolicy::Always, SyncPolicy::Never] {
            let disk = disk.crash(crate::log::fs::Crash::LoseAll);
            let mut committer = committer(&disk, policy);
            let sync = |committer: &mut Committer| {
                let synced = committer.serve(Request::Sync, now).expect("a disk that works");
                assert!(matches!(synced, Some(Event::Synced { is_proven: true })), "{synced:?}");
                end(&disk)
            };
            assert_eq!(sync(&mut committer), end(&disk), "nothing was written");
            commits(&mut committer, put(1, 100), now);
            commits(&mut committer, put(2, 100), now);
            let before = end(&disk);
            let marked = sync(&mut committer);
            assert!(marked > before && !committer.writer.is_dirty());
            assert_eq!(sync(&mut committer), marked, "a mark needs no mark");
            commits(&mut committer, put(3, 100), now);
            assert!(sync(&mut committer) > marked);
        }
    }

    #[test]
    fn without_room_for_its_mark_a_sync_is_no_proof() {
        let disk = FakeDisk::new();
        let mut committer = committer(&disk, SyncPolicy::Never);
        committer.begin().expect("room");
        fill(&disk);
        // Into the spare, and to its end but for less than a mark takes.
        let mut version = 0;
        while sizes(&disk).len() == 2 && committer.writer.active_number() == 1 || version < 110 {
            version += 1;
            let event =
                committer.serve(batch(version, &Mutation::Remove { key: Key::bytes(&[7; 1000]) }), Instant::now());
            if matches!(event, Ok(Some(Event::Refused { .. }))) {
                break;
            }
        }
        for length in (1..=1000).rev().step_by(100).chain((1..100).rev()) {
            let event = committer
                .serve(batch(version, &Mutation::Remove { key: Key::bytes(&vec![7; length]) }), Instant::now());
            version += u64::from(matches!(event, Ok(Some(Event::Committed { .. }))));
        }
        let refused = committer.serve(Request::Sync, Instant::now());
        assert!(matches!(refused, Ok(Some(Event::Synced { is_proven: false }))), "{refused:?}");
        disk.plan(FaultPlan::default());
        let synced = committer.serve(Request::Sync, Instant::now());
        assert!(matches!(synced, Ok(Some(Event::Synced { is_proven: true }))), "{synced:?}");
    }

    #[test]
    fn the_reserve_is_there_before_the_first_batch() {
        let disk = FakeDisk::new();
        let mut committer = committer(&disk, SyncPolicy::Always);
        assert_eq!(sizes(&disk), [SEGMENT]);
        committer.begin().expect("room");
        assert_eq!(sizes(&disk), [SEGMENT, SEGMENT], "the active segment and the spare");
    }

    #[test]
    fn where_no_file_can_be_opened_a_batch_is_refused_with_the_limit_and_taken_once_one_can() {
        for (errno, shortage) in [
            (libc::EMFILE, Shortage::Descriptors(crate::descriptors::limit())),
            (libc::ENFILE, Shortage::SystemDescriptors),
            (libc::ENOMEM, Shortage::Memory),
        ] {
            let disk = FakeDisk::new();
            let mut committer = committer(&disk, SyncPolicy::Always);
            committer.begin().expect("room");
            disk.plan(FaultPlan { unopenable: Some(errno), ..FaultPlan::default() });
            let now = Instant::now();
            commits(&mut committer, put(1, 60_000), now);
            // The next one needs a segment, and the reserve beyond it a file.
            let refused = committer.serve(put(2, 60_000), now).expect("a disk that works");
            assert!(
                matches!(refused, Some(Event::Refused { shortage: named, .. }) if named == shortage),
                "{refused:?}"
            );
            assert!(matches!(committer.serve(Request::LookAgain, now), Ok(None)), "there is none yet");
            // Removals have the reserve.
            let removal = batch(3, &Mutation::Remove { key: Key::bytes(&[7; 10_000]) });
            commits(&mut committer, removal, now);
            disk.plan(FaultPlan::default());
            assert!(matches!(committer.serve(Request::LookAgain, now), Ok(Some(Event::RoomAgain))));
            commits(&mut committer, put(4, 60_000), now);
        }
    }

    #[test]
    fn what_is_lent_is_given_to_nobody_else_and_comes_back() {
        let disk = FakeDisk::new();
        let mut committer = committer(&disk, SyncPolicy::Always);
        committer.begin().expect("room");
        let used = || used(&disk);
        fill(&disk);
        refuses(&mut committer, put(1, 70_000));
        let (whole, now) = (used(), Instant::now());
        // Too little helps nobody, and stays.
        assert!(!lends(&mut committer, 70_000..=90_000) && used() == whole);
        assert!(lends(&mut committer, 1..=10_000) && used() == whole - 10_000);
        assert!(lends(&mut committer, 50_000..=90_000) && used() == SEGMENT);
        disk.plan(FaultPlan::default());
        assert!(matches!(committer.serve(Request::LookAgain, now), Ok(None)), "there is room, and it is lent");
        assert!(matches!(committer.serve(Request::TakeBack, now), Ok(Some(Event::RoomAgain))));
        assert!(used() >= whole);
        commits(&mut committer, put(2, 70_000), now);
    }

    #[test]
    fn what_others_take_of_a_loan_is_missed_and_the_rest_is_there_to_be_lent() {
        let disk = FakeDisk::new();
        let mut committer = committer(&disk, SyncPolicy::Always);
        committer.begin().expect("room");
        let used = || used(&disk);
        fill(&disk);
        refuses(&mut committer, put(1, 70_000));
        for _ in 0..3 {
            assert!(lends(&mut committer, 1_000..=20_000));
            // All of it is taken, so that the disk is as full as before.
            fill(&disk);
            assert!(matches!(committer.serve(Request::TakeBack, Instant::now()), Ok(None)), "there is no room");
        }
        assert!(lends(&mut committer, 1_000..=20_000) && used() == SEGMENT, "what was left");
        assert!(!lends(&mut committer, 1_000..=20_000));
    }

    #[test]
    fn where_removals_have_used_the_spare_they_keep_what_would_not_do_for_a_loan() {
        let disk = FakeDisk::new();
        let mut committer = committer(&disk, SyncPolicy::Always);
        committer.begin().expect("room");
        let used = || used(&disk);
        fill(&disk);
        let remove = |committer: &mut Committer, versions: RangeInclusive<u64>| {
            for version in versions {
                let removal = batch(version, &Mutation::Remove { key: Key::bytes(&[7; 1000]) });
                commits(committer, removal, Instant::now());
            }
        };
        // Into the spare, and some way on.
        remove(&mut committer, 1..=80);
        refuses(&mut committer, put(81, 60_000));
        let whole = used();
        assert!(!lends(&mut committer, 50_000..=50_000) && used() == whole);
        assert!(lends(&mut committer, 20_000..=20_000) && used() == whole - 20_000);
        // There is room for a new spare, and none for what the active segment was cut by: removals go on in the spare.
        disk.plan(FaultPlan { capacity: Some(used() + SEGMENT), ..FaultPlan::default() });
        assert!(matches!(committer.serve(Request::TakeBack, Instant::now()), Ok(None)));
        remove(&mut committer, 82..=120);
    }
}
