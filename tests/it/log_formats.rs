//! Formats beside each other: a directory that an older kvd wrote is gone on with so that the older one refuses it, and what
//! only a newer kvd can have written is refused, never cut off.

use crate::daemon::Store;
use crate::log_store::{Written, batch_of, commit, open};
use kvd::log::batch::BATCH_HEADER;
use kvd::log::fs::{FakeDisk, Fs as _};
use kvd::log::recovery::survey;
use kvd::log::segment::{SEGMENT_HEADER, file_name};
use kvd::log::{LogError, Unknown};
use std::path::Path;

fn fixture(number: u64) -> Vec<u8> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1/directory");
    std::fs::read(directory.join(file_name(number))).expect("a segment of version 1")
}

fn version_of(segment: &[u8]) -> u16 {
    u16::from_le_bytes([segment[8], segment[9]])
}

/// A disk with the directory of version 1.
fn older() -> FakeDisk {
    let disk = FakeDisk::new();
    for number in [1, 2] {
        disk.write(&file_name(number), &fixture(number));
    }
    disk
}

#[test]
fn nothing_is_written_behind_batches_of_an_older_format() {
    let disk = older();
    assert_eq!((version_of(&fixture(1)), version_of(&fixture(2))), (1, 1));
    let mut opened = open(&disk).expect("version 1 is read");
    let next = opened.recovered.next_version;
    commit(&mut opened.writer, &[vec![Written::put(next, b"new", b"v")]]).expect("room");
    let begun = disk.read(&file_name(3)).expect("a segment of its own");
    assert_eq!(version_of(&begun), 2);
    let last = disk.read(&file_name(2)).expect("still there");
    assert!(fixture(2).starts_with(&last) || last == fixture(2), "it was appended to");
    let secret = survey(&disk).expect("headers").secret().expect("the store has one now");
    let again = open(&disk).expect("both are read");
    assert!(again.records.iter().any(|record| record.key == b"new") && again.records.len() > 1);
    assert_eq!(survey(&disk).expect("headers").secret(), Some(secret), "and keeps it");
}

#[test]
fn a_clean_stop_without_a_write_leaves_no_batch_for_an_older_kvd_to_cut() {
    let disk = older();
    let mut opened = open(&disk).expect("version 1 is read");
    let next = opened.recovered.next_version;
    opened.writer.finish(5_000, next).expect("room");
    let survey = survey(&disk).expect("headers");
    assert_eq!(survey.segments.last().map(|last| (last.header.number, last.header.is_current())), Some((3, true)));
    let again = open(&disk).expect("both are read");
    assert!(again.recovered.clean_stop && again.recovered.next_version == next);
}

#[test]
fn a_daemon_goes_on_with_a_directory_of_the_first_version() {
    let store = Store::new();
    std::fs::create_dir(store.path()).expect("a directory");
    for number in [1, 2] {
        std::fs::write(store.path().join(file_name(number)), fixture(number)).expect("a copy");
    }
    let daemon = store.start();
    let before = daemon.client().say("COUNT");
    assert!(daemon.client().say("SET new v").starts_with("OK"));
    daemon.kill();
    let newest = store.segments().into_iter().rfind(|path| version_of(&std::fs::read(path).expect("read")) != 0);
    assert_eq!(version_of(&std::fs::read(newest.expect("a segment")).expect("read")), 2);
    let daemon = store.start();
    assert_ne!(daemon.client().say("COUNT"), before);
    assert!(daemon.client().say("GET new").starts_with("OK v "));
    daemon.kill();
}

/// A log whose last batch, of one record, was changed by a program that knows more.
fn log_of_two(change: &dyn Fn(&mut Vec<u8>, usize)) -> FakeDisk {
    let disk = FakeDisk::new();
    let mut opened = open(&disk).expect("a new store");
    commit(&mut opened.writer, &[vec![Written::put(1, b"known", b"v")]]).expect("room");
    let at = SEGMENT_HEADER + batch_of(&[vec![Written::put(1, b"known", b"v")]]).byte_len();
    commit(&mut opened.writer, &[vec![Written::put(2, b"unknown", b"v")]]).expect("room");
    let seed = survey(&disk).expect("headers").segments[0].header.seed();
    let mut bytes = disk.read(&file_name(1)).expect("the segment");
    change(&mut bytes, at);
    // Everything is summed anew, from the inside out.
    let record = at + BATCH_HEADER;
    let length = u32::from_le_bytes(bytes[record + 4..record + 8].try_into().expect("4 bytes")) as usize + 20;
    let sum = seed.at(record as u64, &bytes[record + 4..record + length]);
    bytes[record..record + 4].copy_from_slice(&sum.to_le_bytes());
    let mut body = seed.body();
    body.add(sum);
    bytes[at + 60..at + 64].copy_from_slice(&body.finish().to_le_bytes());
    let sum = seed.at(at as u64, &bytes[at + 8..at + BATCH_HEADER]);
    bytes[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
    disk.write(&file_name(1), &bytes);
    disk
}

/// Whether such a log is read.
fn changed(change: impl Fn(&mut Vec<u8>, usize)) -> Result<(), LogError> {
    let disk = log_of_two(&change);
    let contents = |disk: &FakeDisk| disk.list().expect("names").iter().map(|name| disk.read(name)).collect::<Vec<_>>();
    let before = contents(&disk);
    let found = open(&disk);
    assert!(found.is_ok() || contents(&disk) == before, "a refusal changes nothing");
    found.map(|opened| assert_eq!(opened.records.len(), 2))
}

#[test]
fn row_17_what_only_a_newer_kvd_can_have_written_is_refused_and_never_cut() {
    changed(|_, _| ()).expect("unchanged it is read");
    let unknown = |change: &dyn Fn(&mut Vec<u8>, usize)| match changed(change) {
        Err(LogError::Newer { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(unknown(&|bytes, at| bytes[at + 68] = 9), Unknown::BatchKind(9));
    let kind = |bytes: &mut Vec<u8>, at: usize| bytes[at + BATCH_HEADER + 16] = 7;
    assert_eq!(unknown(&kind), Unknown::Record { kind: 7, marks: 3 });
    let marks = |bytes: &mut Vec<u8>, at: usize| bytes[at + BATCH_HEADER + 17] |= 16;
    assert_eq!(unknown(&marks), Unknown::Record { kind: 1, marks: 19 });
    let refused = changed(kind).expect_err("refused").to_string();
    assert!(refused.contains("newer kvd") && refused.contains("kind 7"), "{refused}");
}

#[test]
fn a_repair_gives_nothing_up_that_only_a_newer_kvd_can_have_written() {
    use kvd::tools::repair::{Policy, RepairError, repair};
    let kind = |bytes: &mut Vec<u8>, at: usize| bytes[at + 68] = 9;
    let record = |bytes: &mut Vec<u8>, at: usize| bytes[at + BATCH_HEADER + 16] = 7;
    for unknown in [&kind as &dyn Fn(&mut Vec<u8>, usize), &record] {
        // With damage before it, where a start does not even come to it.
        let disk = log_of_two(&|bytes, at| {
            unknown(bytes, at);
            bytes[at - 1] ^= 1;
        });
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(file_name(1)), disk.read(&file_name(1)).expect("a segment"))
            .expect("written");
        let refused = repair(directory.path(), Policy::KeepStale, false).expect_err("refused");
        assert!(matches!(refused, RepairError::Log(LogError::Newer { .. })), "{refused}");
    }
}
