//! Every kind of damage at every place of a log of 64 records, with rotation and compaction behind it: cut, flipped, zeroed,
//! and its records exchanged, doubled and moved to other files. A start refuses it, and then changes nothing; or it finds the
//! rows of the last batch, or of the one before, where the last one can pass for torn. Where everything behind some byte of
//! the last file is gone, it may be any batch of that file. Nothing else passes.
//!
//! A segment's header is a block of 4 KiB, most of it zeros; of these a test run flips some. `KVD_DAMAGE=all` flips all.

use crate::store_steps::Act;
use crate::store_under_test::Store;
use kvd::log::batch::BATCH_HEADER;
use kvd::log::fs::{Crash, FakeDisk, Fs as _};
use kvd::log::record::RECORD_HEADER;
use kvd::log::segment::SEGMENT_HEADER;
use std::ops::Range;

const SEGMENT_SIZE: u64 = 6000;
/// Bytes of a segment's header that are not zeros are before this one.
const HEADER_FIELDS: usize = 128;

struct Log {
    store: Store,
    /// What is damaged: each file with its bytes, up to a little behind the last one that is not zero.
    files: Vec<(String, Vec<u8>)>,
}

/// 64 records, overwritten, removed and flushed, of which the first ones were compacted.
fn log() -> Log {
    let mut store = Store::new(SEGMENT_SIZE);
    let ask = |store: &mut Store, line: String| store.act(&Act::Ask(line)).expect("a disk without faults");
    let mut records = 0;
    while records < 64 {
        let (key, value) = (records % 9, 40 + records % 7 * 25);
        match records % 8 {
            3 => ask(&mut store, format!("DEL a{key} b{key}")),
            5 => ask(&mut store, format!("MSET a{key} x*{value} b{key} y*{value}")),
            _ => ask(&mut store, format!("SET a{key} z*{value}")),
        }
        records += if records % 8 == 5 { 2 } else { 1 };
        if records % 3 == 0 || records >= 64 {
            store.act(&Act::Commit { synced: true }).expect("a disk without faults");
        }
        if records == 40 {
            ask(&mut store, "FLUSH PREFIX b".into());
            store.act(&Act::Compact { appetite: None, wide: true, meanwhile: Vec::new() }).expect("compacted");
        }
    }
    let names = store.disk.list().expect("names");
    let files = names.into_iter().filter_map(|name| {
        let bytes = store.disk.read(&name)?;
        let end = bytes.iter().rposition(|byte| *byte != 0)? + 1;
        let seen = bytes.len().min(end + 16);
        Some((name, bytes[..seen].to_vec()))
    });
    let files: Vec<_> = files.collect();
    assert!(files.len() >= 3, "several segments");
    Log { store, files }
}

impl Log {
    /// What a start finds where this file holds these bytes; `None` if it refuses.
    fn found(&self, name: &str, torn: usize, change: impl FnOnce(&mut Vec<u8>), context: &str) -> Option<usize> {
        let disk = self.store.disk.crash(Crash::KeepAll);
        let mut bytes = disk.read(name).expect("a file");
        change(&mut bytes);
        disk.write(name, &bytes);
        let before = image(&disk);
        let found = self.store.judge_damaged(&disk, torn, context);
        assert!(found.is_some() || image(&disk) == before, "{context}: a refusal changed the disk");
        found
    }

    fn is_last(&self, name: &str) -> bool {
        self.files.last().is_some_and(|(last, _)| last == name)
    }
}

fn image(disk: &FakeDisk) -> Vec<(String, Option<Vec<u8>>)> {
    disk.list().expect("names").into_iter().map(|name| (name.clone(), disk.read(&name))).collect()
}

/// Where the records of a segment stand.
fn records(bytes: &[u8]) -> Vec<Range<usize>> {
    let (mut at, mut found) = (SEGMENT_HEADER, Vec::new());
    while bytes.get(at..at + BATCH_HEADER).is_some_and(|header| header[0] != 0) {
        let body = u64::from_le_bytes(bytes[at + 48..at + 56].try_into().expect("8 bytes")) as usize;
        let end = at + BATCH_HEADER + body;
        let mut record = at + BATCH_HEADER;
        while record < end {
            let length = u32::from_le_bytes(bytes[record + 4..record + 8].try_into().expect("4 bytes")) as usize;
            found.push(record..record + RECORD_HEADER + length);
            record += RECORD_HEADER + length;
        }
        at = end;
    }
    found
}

#[test]
fn a_log_cut_at_any_byte() {
    let log = log();
    for (name, bytes) in &log.files {
        for cut in 0..bytes.len() - 16 {
            let found = log.found(name, usize::MAX, |bytes| bytes.truncate(cut), &format!("{name} cut at {cut}"));
            assert!(log.is_last(name) || found.is_none(), "{name}, sealed, cut at {cut}");
        }
    }
}

#[test]
fn a_log_with_any_bit_flipped() {
    let log = log();
    let all = std::env::var("KVD_DAMAGE").is_ok_and(|which| which == "all");
    let (mut flips, mut unnoticed) = (0, 0);
    for (name, bytes) in &log.files {
        let places = (0..bytes.len()).filter(|at| all || *at < HEADER_FIELDS || *at >= SEGMENT_HEADER || at % 97 == 0);
        for (at, bit) in places.flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let context = format!("{name}, bit {bit} of byte {at}");
            let found = log.found(name, 1, |bytes| bytes[at] ^= 1 << bit, &context);
            assert!(log.is_last(name) || found.is_none(), "{context}: sealed");
            flips += 1;
            unnoticed += usize::from(found.is_some());
        }
    }
    println!("{flips} flips, {unnoticed} of them in or behind the last batch");
}

#[test]
fn a_log_zeroed_from_any_byte_on() {
    let log = log();
    for (name, bytes) in &log.files {
        for from in 0..bytes.len() - 16 {
            let found =
                log.found(name, usize::MAX, |bytes| bytes[from..].fill(0), &format!("{name} zeroed from {from} on"));
            let is_damaged = bytes[from..].iter().any(|byte| *byte != 0);
            assert!(log.is_last(name) || !is_damaged || found.is_none(), "{name}, sealed, zeroed from {from} on");
        }
    }
}

/// Each record over each other one of the log, as far as that goes: doubled, moved into another file, and exchanged where both are
/// of one length.
#[test]
fn a_log_with_any_record_in_the_place_of_another() {
    let log = log();
    let all: Vec<(usize, Range<usize>)> = (log.files.iter().enumerate())
        .flat_map(|(file, (_, bytes))| records(bytes).into_iter().map(move |record| (file, record)))
        .collect();
    assert!(all.len() >= 40, "{} records", all.len());
    for (from, record) in &all {
        let bytes = log.files[*from].1[record.clone()].to_vec();
        for (file, place) in all.iter().filter(|(file, place)| (file, place) != (from, record)) {
            let name = &log.files[*file].0;
            let context = format!("{record:?} of file {from} at {place:?} of {name}");
            let length = record.len().min(place.len());
            let put = |target: &mut Vec<u8>| target[place.start..][..length].copy_from_slice(&bytes[..length]);
            let found = log.found(name, 1, put, &context);
            assert!(log.is_last(name) || found.is_none(), "{context}: sealed");
            if file == from && place.start > record.start && place.len() == record.len() {
                let exchange = |target: &mut Vec<u8>| {
                    target.copy_within(place.clone(), record.start);
                    target[place.clone()].copy_from_slice(&bytes);
                };
                // Both may be of the last two batches.
                let found = log.found(name, 2, exchange, &format!("exchanged: {context}"));
                assert!(log.is_last(name) || found.is_none(), "exchanged, sealed: {context}");
            }
        }
    }
}
