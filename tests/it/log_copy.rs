//! A directory that was copied file by file while kvd ran: its files are each sound, and of different moments. A start
//! refuses it where a compaction relied on a later moment than is there, and a repair makes one log of it.

use kvd::log::compaction::{Fate, Questions, Steward, Stopped, Task, compact};
use kvd::log::fs::FakeDisk;
use kvd::log::segment::file_name;
use kvd::log::victims::Run;
use kvd::log::{Batch, Ledger, LogError, LogOptions, Mismatch, Progress, Secret, SyncPolicy, Unread, Writer};
use kvd::mutation::{Key, Mutation, Value};
use kvd::table::{Entry, Replay, Table};
use kvd::tools::check;
use kvd::tools::repair::{Policy, repair};
use std::sync::Arc;

const SEGMENT: u64 = 8192;
const SECRET: Secret = Secret::new(5);

struct Log {
    disk: FakeDisk,
    writer: Writer,
    ledger: Ledger,
    next: u64,
}

impl Log {
    fn new() -> Log {
        let disk = FakeDisk::new();
        let writer = Writer::create(Arc::new(disk.clone()), SEGMENT, 1, SECRET).expect("a new store");
        Log { disk, writer, ledger: Ledger::default(), next: 1 }
    }

    fn commit(&mut self, mutation: &Mutation<'_>) {
        let mut batch = Batch::default();
        batch.push(self.next, mutation);
        batch.end_group();
        self.next += 1;
        batch.stamp(1_000, self.next);
        let (first, length, tally) = (batch.first_version(), batch.byte_len() as u64, batch.tally());
        self.writer.append(&mut batch).expect("room");
        self.writer.sync().expect("a disk that works");
        self.ledger.appended(self.writer.active_number(), first, length, tally);
    }

    fn put(&mut self, key: &[u8], bytes: &[u8]) {
        let value = Value { bytes, flags: 0, deadline: 0 };
        self.commit(&Mutation::Put { key: Key::bytes(key), value });
    }

    fn remove(&mut self, key: &[u8]) {
        self.commit(&Mutation::Remove { key: Key::bytes(key) });
    }

    /// Fills the active segment until the next one is begun.
    fn rotate(&mut self) {
        let active = self.writer.active_number();
        while self.writer.active_number() == active {
            self.put(b"filler", &[7; 1500]);
        }
    }

    /// Compacts one segment; what it holds of removals goes.
    fn compact(&mut self, number: u64) {
        self.compact_run(Run { first: number, last: number, keep_removals: false, is_empty: false });
    }

    fn compact_run(&mut self, run: Run) {
        let number = run.last;
        let task = Task { run, present: vec![number], older: self.ledger.older_than(number), secret: SECRET };
        let table = table(&self.disk).expect("a sound log");
        let mut answers = Answers { table: &table, durable: self.writer.durable().version };
        let outcome = compact(&self.disk, &task, &mut answers).expect("room");
        self.ledger.replaced(number, number, outcome.length, outcome.tally);
    }

    fn file(&self, number: u64) -> Vec<u8> {
        self.disk.read(&file_name(number)).expect("the segment")
    }
}

struct Answers<'t> {
    table: &'t Table,
    durable: u64,
}

impl Steward for Answers<'_> {
    fn ask(&mut self, questions: &mut Questions) -> Result<(), Stopped> {
        let table = self.table;
        questions.answer(usize::MAX, |key, version| match table.get(table.probe(key)).map(Entry::version) {
            Some(held) if held == version => Fate::Live,
            Some(_) => Fate::Superseded,
            None => Fate::Absent,
        });
        Ok(())
    }

    fn settle(&mut self) -> Result<u64, Stopped> {
        Ok(self.durable)
    }

    fn moved(&mut self, _: u64) -> Result<(), Stopped> {
        Ok(())
    }
}

fn table(disk: &FakeDisk) -> Result<Table, LogError> {
    let options = LogOptions { segment_size: SEGMENT, sync: SyncPolicy::Always, threads: 1 };
    let copy = disk.crash(kvd::log::fs::Crash::KeepAll);
    let unread = Unread::open(Arc::new(copy), options)?;
    let replay = Replay::new(unread.secret().expose());
    unread.replay(&Progress::default(), &|chunk| replay.apply(chunk))?;
    Ok(replay.finish(0, 1))
}

fn holds(disk: &FakeDisk, key: &[u8]) -> bool {
    let table = table(disk).expect("a sound log");
    table.get(table.probe(Key::bytes(key))).is_some()
}

/// The value of `K` stands in segment 1, its removal in segment 2. Returns the log, and segment 1 as it was first.
fn with_a_removal() -> (Log, Vec<u8>) {
    let mut log = Log::new();
    log.put(b"K", b"value");
    log.rotate();
    log.remove(b"K");
    log.rotate();
    let first = log.file(1);
    log.compact(1);
    log.compact(2);
    assert!(!holds(&log.disk, b"K"));
    (log, first)
}

#[test]
fn row_18_an_earlier_state_of_what_a_compaction_relied_on_is_refused() {
    let (log, first) = with_a_removal();
    log.disk.write(&file_name(1), &first);
    let refused = table(&log.disk).err().expect("refused");
    let LogError::TornCopy { name, why } = &refused else { panic!("{refused}") };
    assert_eq!((name, *why), (&file_name(2), Mismatch::Generation { number: 1, generation: 1, found: 0 }));
}

#[test]
fn a_later_state_of_what_a_compaction_relied_on_is_as_good() {
    let (mut log, _) = with_a_removal();
    log.compact(1);
    assert!(!holds(&log.disk, b"K"));
}

/// Segment 1 was compacted when `K` had been overwritten in the last segment, of which an earlier state is there.
fn with_an_early_end() -> (Log, u64) {
    let mut log = Log::new();
    log.put(b"K", b"first");
    log.rotate();
    let (active, early, last) = (log.writer.active_number(), log.file(2), log.next - 1);
    log.put(b"K", b"second");
    assert_eq!(log.writer.active_number(), active);
    log.compact(1);
    assert!(holds(&log.disk, b"K"));
    log.disk.write(&file_name(active), &early);
    (log, last)
}

#[test]
fn row_19_a_log_that_ends_before_what_a_compaction_relied_on_is_refused() {
    let (log, last) = with_an_early_end();
    let refused = table(&log.disk).err().expect("refused");
    let LogError::TornCopy { name, why } = &refused else { panic!("{refused}") };
    assert_eq!((name, *why), (&file_name(1), Mismatch::Ends { durable: last + 1, last }));
}

/// The files of a disk in a directory.
fn copied(disk: &FakeDisk) -> tempfile::TempDir {
    use kvd::log::fs::Fs as _;
    let directory = tempfile::tempdir().expect("a directory");
    for name in disk.list().expect("names") {
        std::fs::write(directory.path().join(&name), disk.read(&name).expect("a file")).expect("written");
    }
    directory
}

#[test]
fn check_and_repair_know_files_of_different_moments() {
    let (removed, first) = with_a_removal();
    removed.disk.write(&file_name(1), &first);
    let (ended, _) = with_an_early_end();
    for log in [removed, ended] {
        let directory = copied(&log.disk);
        let report = check::check(directory.path());
        assert_eq!(report.finding(), check::Finding::Damage);
        assert_eq!(report.flaws.iter().map(|flaw| flaw.kind).collect::<Vec<_>>(), ["torn-copy"]);
        let told = repair(directory.path(), Policy::KeepStale, false).expect("looked at");
        assert!(!told.is_sound() && !told.suspects.is_empty());
        repair(directory.path(), Policy::DropSuspects, true).expect("repaired");
        let report = check::check(directory.path());
        assert_eq!(report.finding(), check::Finding::Clean, "{:?}", report.flaws);
        let again = repair(directory.path(), Policy::KeepStale, false).expect("looked at");
        assert!(again.is_sound());
    }
}

#[test]
fn a_second_compaction_remembers_what_the_first_relied_on() {
    let mut log = Log::new();
    log.put(b"K", b"value");
    log.put(b"other", b"v");
    log.rotate();
    log.remove(b"K");
    log.rotate();
    let first = log.file(1);
    log.compact(1);
    log.compact(2);
    // Something older is overwritten, so that removals are kept from now on.
    log.put(b"other", b"w");
    let run = Run { first: 2, last: 2, keep_removals: true, is_empty: false };
    log.compact_run(run);
    assert!(!holds(&log.disk, b"K"));
    log.disk.write(&file_name(1), &first);
    let refused = table(&log.disk).err().expect("refused");
    assert!(matches!(refused, LogError::TornCopy { .. }), "{refused}");
}

/// What a repair says of a directory with these files: names of the replaced ones, and how many keys may be stale.
fn told(disk: &FakeDisk) -> (Vec<String>, usize) {
    let directory = copied(disk);
    let report = repair(directory.path(), Policy::KeepStale, false).expect("looked at");
    let replaced = report.replaced.iter().map(|replaced| replaced.0.clone()).collect();
    repair(directory.path(), Policy::DropSuspects, true).expect("repaired");
    let after = check::check(directory.path());
    assert_eq!(after.finding(), check::Finding::Clean, "{:?}", after.flaws);
    (replaced, report.suspects.len())
}

#[test]
fn damage_is_not_taken_for_files_of_different_moments() {
    // What segment 1 relies on lies in the last segment, whose header is damaged: nothing of it is lost.
    let mut log = Log::new();
    log.put(b"K", b"first");
    log.rotate();
    log.put(b"K", b"second");
    log.compact(1);
    let mut bytes = log.file(2);
    bytes[60] ^= 1;
    log.disk.write(&file_name(2), &bytes);
    assert_eq!(told(&log.disk), (vec![file_name(2)], 0));

    // Segment 1, on which segment 2 relies, is damaged: what stands for it is not segment 2, or anything else.
    let (log, _) = with_a_removal();
    let mut bytes = log.file(1);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    log.disk.write(&file_name(1), &bytes);
    assert_eq!(told(&log.disk).0, [file_name(1)]);
}

#[test]
fn what_takes_the_place_of_a_missing_segment_is_as_late_as_others_rely_on() {
    use kvd::log::fs::Fs as _;
    let (mut log, _) = with_a_removal();
    log.compact(1);
    log.compact(2);
    log.disk.remove(&file_name(1)).expect("removed");
    assert_eq!(told(&log.disk).0, [file_name(1)]);
}
