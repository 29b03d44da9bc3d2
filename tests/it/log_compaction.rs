//! Compaction on the fake disk: whatever is compacted, in whatever order, with a crash after any operation, a replay
//! gives what it gave before.
//!
//! The judge is a model of the table: for each key the version that counts. It answers what compaction asks, and is what a
//! replay is held against.

use crate::log_store::SEGMENT_SIZE;
use kvd::log::compaction::{CompactionError, Fate, Questions, Steward, Stopped, Task, compact};
use kvd::log::fs::{Crash, FakeDisk, FaultPlan, Fs};
use kvd::log::segment::file_name;
use kvd::log::victims::{Appetite, Run, choose};
use kvd::log::{Batch, Ledger, LogError, LogOptions, Progress, Secret, Shortage, SyncPolicy, Unread, Writer, record};
use kvd::mutation::{Key, Mutation, Value};
use kvd::table::Replay;
use proptest::prelude::*;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::Arc;

type Rows = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

/// A log with the table that belongs to it, and its accounts.
struct Store {
    disk: FakeDisk,
    writer: Writer,
    ledger: Ledger,
    rows: Rows,
    next: u64,
}

/// A mutation, owned.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    Remove(u8),
    FlushPrefix(u8),
    FlushAll,
    /// An entry leaves the table as one that has expired does: without a record.
    Expire(u8),
    Compact(Appetite),
    Reopen,
}

/// Keys are in two groups, so that a prefix flush takes some.
fn key(number: u8) -> Vec<u8> {
    format!("{}-{number:02}", if number.is_multiple_of(2) { "even" } else { "odd" }).into_bytes()
}

/// Deadlines are in the past for whoever replays with a clock, and not yet for the model: it expires entries by hand.
const DEADLINE: u64 = 5_000;

const SECRET: Secret = Secret::new(2);

/// The log of a disk: its end, its accounts, the table that it replays to, and the next version.
fn open(disk: &FakeDisk) -> Result<(Writer, Ledger, Rows, u64), LogError> {
    let options = LogOptions { segment_size: SEGMENT_SIZE, sync: SyncPolicy::Always, threads: 2 };
    let unread = Unread::open(Arc::new(disk.clone()), options)?;
    let replay = Replay::new(unread.secret().expose());
    let (ready, recovered) = unread.replay(&Progress::default(), &|chunk| replay.apply(chunk))?;
    let table = replay.finish(0, 2);
    let mut ledger = ready.ledger();
    let mut rows = Rows::new();
    for entry in table.iter() {
        ledger.found(entry.version(), record::encoded_len(&entry.mutation()));
        rows.insert(entry.key().bytes.to_vec(), (entry.version(), entry.value().to_vec()));
    }
    Ok((ready.into_writer(), ledger, rows, recovered.next_version))
}

/// What the table holds, and the highest version that is durable.
struct Judge<'s>(&'s Rows, u64);

impl Steward for Judge<'_> {
    fn ask(&mut self, questions: &mut Questions) -> Result<(), Stopped> {
        questions.answer(usize::MAX, |key, version| match self.0.get(key.bytes) {
            Some((held, _)) if *held == version => Fate::Live,
            Some((held, _)) => {
                assert!(*held > version, "an older version counts: {held} and not {version}");
                Fate::Superseded
            }
            None => Fate::Absent,
        });
        Ok(())
    }

    fn settle(&mut self) -> Result<u64, Stopped> {
        // Every batch was synced.
        Ok(self.1)
    }

    fn moved(&mut self, _: u64) -> Result<(), Stopped> {
        Ok(())
    }
}

impl Store {
    fn new() -> Store {
        let disk = FakeDisk::new();
        let (writer, ledger, rows, next) = open(&disk).unwrap();
        Store { disk, writer, ledger, rows, next }
    }

    fn length(key: &[u8], value: &[u8], deadline: u64) -> usize {
        let value = Value { bytes: value, flags: 0, deadline };
        record::encoded_len(&Mutation::Put { key: Key::bytes(key), value })
    }

    fn deadline(key: &[u8]) -> u64 {
        // Some keys have one, and those are the ones that may expire.
        if key.ends_with(b"7") || key.ends_with(b"8") { DEADLINE } else { 0 }
    }

    fn died(&mut self, key: &[u8]) {
        if let Some((version, value)) = self.rows.remove(key) {
            let length = Self::length(key, &value, Self::deadline(key));
            self.ledger.died(version, length);
        }
    }

    fn commit(&mut self, mutation: &Mutation<'_>) {
        let mut batch = Batch::default();
        batch.push(self.next, mutation);
        batch.end_group();
        self.next += 1;
        batch.stamp(1_000, self.next);
        let (first, length, tally) = (batch.first_version(), batch.byte_len() as u64, batch.tally());
        self.writer.append(&mut batch).unwrap();
        self.writer.sync().unwrap();
        self.ledger.appended(self.writer.active_number(), first, length, tally);
    }

    fn put(&mut self, key: &[u8], size: usize) {
        let (version, value) = (self.next, vec![size as u8; size]);
        let deadline = Self::deadline(key);
        self.commit(&Mutation::Put { key: Key::bytes(key), value: Value { bytes: &value, flags: 0, deadline } });
        self.died(key);
        self.rows.insert(key.to_vec(), (version, value));
    }

    fn remove(&mut self, key: &[u8]) {
        self.commit(&Mutation::Remove { key: Key::bytes(key) });
        self.died(key);
    }

    fn flush(&mut self, prefix: Option<&[u8]>) {
        self.commit(&Mutation::Flush { prefix });
        let gone: Vec<_> =
            self.rows.keys().filter(|key| key.starts_with(prefix.unwrap_or_default())).cloned().collect();
        for key in &gone {
            self.died(key);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(number, size) => self.put(&key(*number), *size),
            Step::Remove(number) => self.remove(&key(*number)),
            Step::FlushPrefix(number) => self.flush(Some(if number.is_multiple_of(2) { b"even" } else { b"odd" })),
            Step::FlushAll => self.flush(None),
            Step::Expire(number) if Self::deadline(&key(*number)) != 0 => self.died(&key(*number)),
            Step::Expire(_) => {}
            Step::Compact(appetite) => {
                self.compact(*appetite).map_or(Ok(()), |done| done.map(|_| ())).unwrap();
            }
            Step::Reopen => self.reopen(),
        }
    }

    fn task(&self, run: Run, present: Vec<u64>) -> Task {
        Task { run, present, older: self.ledger.older_than(run.first), secret: SECRET }
    }

    fn choice(&self, appetite: Appetite) -> Option<(Run, Vec<u64>)> {
        let (_, sealed) = self.ledger.segments().split_last()?;
        let run = choose(sealed, SEGMENT_SIZE, appetite)?;
        let within = sealed.iter().map(|usage| usage.number).filter(|number| (run.first..=run.last).contains(number));
        Some((run, within.collect()))
    }

    /// `None` if there was nothing to do.
    fn compact(&mut self, appetite: Appetite) -> Option<Result<Run, CompactionError>> {
        let (run, present) = self.choice(appetite)?;
        let disk = self.disk.clone();
        let task = self.task(run, present);
        Some(compact(&disk, &task, &mut Judge(&self.rows, self.writer.durable().version)).map(|outcome| {
            self.ledger.replaced(run.first, run.last, outcome.length, outcome.tally);
            run
        }))
    }

    /// A replay of this disk holds what the table holds, but for entries that have expired, which it may hold still.
    fn agrees(&self, disk: &FakeDisk, context: &str) {
        let (_, ledger, rows, _) = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
        let expired = |key: &Vec<u8>| Self::deadline(key) != 0 && !self.rows.contains_key(key);
        let held: Rows = rows.into_iter().filter(|(key, _)| !expired(key)).collect();
        assert_eq!(held, self.rows, "{context}");
        if disk.read(&file_name(1)).is_some() {
            for usage in ledger.segments() {
                assert!(usage.live <= usage.tally.puts, "{context}: {usage:?}");
            }
        }
    }

    /// Starts again, on all that was written. What had expired may be back, since no clock says that it has.
    fn reopen(&mut self) {
        let disk = self.disk.crash(Crash::KeepAll);
        self.agrees(&disk, "reopened");
        let (writer, ledger, rows, next) = open(&disk).unwrap();
        (self.disk, self.writer, self.ledger, self.rows, self.next) = (disk, writer, ledger, rows, next);
    }

    /// The accounts say what a fresh start would find.
    fn accounts_are_right(&self) {
        let disk = self.disk.crash(Crash::KeepAll);
        let (_, fresh, rows, _) = open(&disk).unwrap();
        if rows != self.rows {
            return; // Something has expired.
        }
        let known: Vec<_> =
            self.ledger.segments().iter().map(|u| (u.number, u.first, u.tally, u.live, u.live_bytes)).collect();
        let found: Vec<_> =
            fresh.segments().iter().map(|u| (u.number, u.first, u.tally, u.live, u.live_bytes)).collect();
        // The first segment is there before anything is in it.
        let found = if known.is_empty() { Vec::new() } else { found };
        assert_eq!(known, found);
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let appetite = prop_oneof![Just(Appetite::Any), Just(Appetite::Quarter), Just(Appetite::Free)];
    let step = prop_oneof![
        12 => (0..20_u8, 100..1800_usize).prop_map(|(key, size)| Step::Put(key, size)),
        4 => (0..20_u8).prop_map(Step::Remove),
        1 => (0..20_u8).prop_map(Step::FlushPrefix),
        1 => Just(Step::FlushAll),
        2 => (0..20_u8).prop_map(Step::Expire),
        5 => appetite.prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn any_order_of_changes_and_compactions_replays_to_the_table(steps in steps()) {
        let mut store = Store::new();
        for step in &steps {
            store.step(step);
        }
        store.agrees(&store.disk.crash(Crash::LoseAll), "the power went");
        store.agrees(&store.disk.crash(Crash::KeepAll), "a kill");
        store.accounts_are_right();
        while store.compact(Appetite::Any).is_some_and(|done| done.is_ok()) {}
        store.agrees(&store.disk.crash(Crash::LoseAll), "compacted to the end");
    }

    #[test]
    fn a_crash_after_any_operation_of_a_compaction_changes_nothing(steps in steps(), seed in 1..1000_u64) {
        let mut store = Store::new();
        for step in &steps {
            store.step(step);
        }
        let Some((run, present)) = store.choice(Appetite::Any) else { return Ok(()) };
        for power_off_at in 0.. {
            let disk = store.disk.crash(Crash::KeepAll);
            disk.plan(FaultPlan { power_off_at: Some(power_off_at), ..FaultPlan::default() });
            let done = compact(&disk, &store.task(run, present.clone()), &mut Judge(&store.rows, store.writer.durable().version));
            for crash in [Crash::LoseAll, Crash::KeepAll, Crash::Random(seed), Crash::Random(seed + 1)] {
                let context = format!("{run:?}, power off at {power_off_at}, {crash:?}");
                let found = disk.crash(crash);
                // Twice: a start removes what is left over, and that must change nothing either.
                store.agrees(&found, &context);
                store.agrees(&found, &context);
                let names = found.list().unwrap();
                assert!(names.iter().all(|name| !name.contains("tmp")), "{context}: {names:?}");
            }
            if done.is_ok() {
                break;
            }
        }
    }
}

/// Fills the active segment until the next one is begun, with values of one key that count for nothing in the end.
fn rotate(store: &mut Store) {
    let active = store.writer.active_number();
    while store.writer.active_number() == active {
        store.put(b"filler", 1500);
    }
}

#[test]
fn a_removal_outlives_the_victim_that_holds_what_it_hides() {
    // Older segment: put K. Newer segment: remove K. Both are compacted together, and the crash leaves one of the two files.
    let mut store = Store::new();
    store.put(b"K", 100);
    rotate(&mut store);
    store.remove(b"K");
    rotate(&mut store);
    let run = Run { first: 1, last: 2, keep_removals: false, is_empty: false };
    for power_off_at in 0.. {
        let disk = store.disk.crash(Crash::KeepAll);
        disk.plan(FaultPlan { power_off_at: Some(power_off_at), ..FaultPlan::default() });
        let done =
            compact(&disk, &store.task(run, vec![1, 2]), &mut Judge(&store.rows, store.writer.durable().version));
        for crash in [Crash::LoseAll, Crash::KeepAll].into_iter().chain((1..40).map(Crash::Random)) {
            let found = disk.crash(crash);
            store.agrees(&found, &format!("power off at {power_off_at}, {crash:?}"));
        }
        if done.is_ok() {
            // The worst case, by hand: the new segment is there, and the old file with the value came back.
            let found = disk.crash(Crash::LoseAll);
            let old = store.disk.read(&file_name(1)).expect("the file with the value");
            assert!(found.read(&file_name(1)).is_none());
            found.write(&file_name(1), &old);
            store.agrees(&found, "the older victim came back");
            assert!(found.read(&file_name(1)).is_none(), "and was removed");
            break;
        }
    }
}

#[test]
fn an_expired_value_goes_on_hiding_the_older_one() {
    let mut store = Store::new();
    store.put(b"K7", 100);
    rotate(&mut store);
    store.put(b"K7", 200);
    rotate(&mut store);
    store.died(b"K7");
    // The older one stands in a segment that is left alone; the expired one goes from its own.
    let run = Run { first: 2, last: 2, keep_removals: true, is_empty: false };
    compact(&store.disk, &store.task(run, vec![2]), &mut Judge(&store.rows, store.writer.durable().version)).unwrap();
    let (_, _, rows, _) = open(&store.disk.crash(Crash::LoseAll)).unwrap();
    assert!(!rows.contains_key(&b"K7"[..]), "{rows:?}");
}

/// A store with a sealed segment that is worth compacting, and how.
fn with_garbage() -> (Store, Run, Vec<u64>) {
    let mut store = Store::new();
    for number in 0..8 {
        store.put(&key(number), 900);
    }
    rotate(&mut store);
    store.remove(&key(1));
    let (run, present) = store.choice(Appetite::Any).unwrap();
    (store, run, present)
}

#[test]
fn damage_in_a_victim_stops_the_compaction_and_removes_nothing() {
    let (store, run, present) = with_garbage();
    let whole = store.disk.read(&file_name(1)).unwrap();
    for at in [5000, 6000, whole.len() - 1, 100] {
        let disk = store.disk.crash(Crash::KeepAll);
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        disk.write(&file_name(1), &damaged);
        let names = disk.list().unwrap();
        let refused =
            compact(&disk, &store.task(run, present.clone()), &mut Judge(&store.rows, store.writer.durable().version));
        assert!(matches!(refused, Err(CompactionError::Spoiled { number: 1, .. })), "at {at}: {refused:?}");
        assert_eq!((disk.list().unwrap(), disk.read(&file_name(1))), (names, Some(damaged)), "at {at}");
    }
    let disk = store.disk.crash(Crash::KeepAll);
    disk.plan(FaultPlan { unreadable: Some(file_name(1)), ..FaultPlan::default() });
    let refused =
        compact(&disk, &store.task(run, present.clone()), &mut Judge(&store.rows, store.writer.durable().version));
    assert!(matches!(refused, Err(CompactionError::Spoiled { number: 1, .. })), "{refused:?}");
    store.agrees(&disk.crash(Crash::LoseAll), "after a medium error");
}

#[test]
fn a_full_disk_in_mid_compaction_changes_nothing() {
    let (store, run, present) = with_garbage();
    let held: usize = store.disk.list().unwrap().iter().map(|name| store.disk.read(name).unwrap().len()).sum();
    for room in [0, 100, 1000, 2000] {
        let disk = store.disk.crash(Crash::KeepAll);
        disk.plan(FaultPlan { capacity: Some((held + room) as u64), ..FaultPlan::default() });
        let names = disk.list().unwrap();
        let refused =
            compact(&disk, &store.task(run, present.clone()), &mut Judge(&store.rows, store.writer.durable().version));
        assert!(matches!(refused, Err(CompactionError::NoSpace(_))), "{room} bytes of room: {refused:?}");
        assert_eq!(disk.list().unwrap(), names);
        store.agrees(&disk.crash(Crash::LoseAll), "after a full disk");
    }
}

#[test]
fn a_shortage_gives_a_compaction_up_and_spoils_no_segment() {
    let (store, run, present) = with_garbage();
    for (errno, shortage) in [
        (Errno::MFILE, Shortage::Descriptors(kvd::descriptors::limit())),
        (Errno::NFILE, Shortage::SystemDescriptors),
        (Errno::NOMEM, Shortage::Memory),
    ] {
        let disk = store.disk.crash(Crash::KeepAll);
        disk.plan(FaultPlan { unopenable: Some(errno.raw_os_error()), ..FaultPlan::default() });
        let names = disk.list().unwrap();
        let refused = compact(&disk, &store.task(run, present.clone()), &mut Judge(&store.rows, store.next - 1));
        assert!(matches!(refused, Err(CompactionError::NoSpace(which)) if which == shortage), "{errno}: {refused:?}");
        assert_eq!(disk.list().unwrap(), names);
        disk.plan(FaultPlan::default());
        compact(&disk, &store.task(run, present.clone()), &mut Judge(&store.rows, store.next - 1))
            .expect("once there are some again");
        store.agrees(&disk.crash(Crash::LoseAll), "after a shortage");
    }
}

#[test]
fn what_counts_for_nothing_goes_without_being_read() {
    let mut store = Store::new();
    store.put(b"K", 100);
    rotate(&mut store);
    store.remove(b"K");
    rotate(&mut store);
    // Segment 1 counts for nothing; it can't be read, and need not be, but for its header.
    let (run, present) = store.choice(Appetite::Free).unwrap();
    assert!(run.is_empty);
    let mut damaged = store.disk.read(&file_name(1)).unwrap();
    damaged[5000] ^= 1;
    store.disk.write(&file_name(1), &damaged);
    let outcome =
        compact(&store.disk, &store.task(run, present), &mut Judge(&store.rows, store.writer.durable().version))
            .unwrap();
    assert_eq!((outcome.length, outcome.read), (4096, 0));
    store.agrees(&store.disk.crash(Crash::LoseAll), "afterwards");
}
