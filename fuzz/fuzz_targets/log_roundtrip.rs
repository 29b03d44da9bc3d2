//! Write, damage, recover: what comes back is a prefix of what was written, or the start refuses.
//!
//! The input is a script: how to write, then where to damage which file. Everything runs on the fake disk.
#![no_main]

use arbitrary::Arbitrary;
use kvd::log::fs::{Crash, FakeDisk, Fs};
use kvd::log::{Batch, LogError, LogOptions, Progress, SyncPolicy, Unread, Writer};
use kvd::mutation::{Key, Mutation, Value};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, Mutex};

#[derive(Arbitrary, Debug)]
struct Script {
    /// A batch: groups, each of one to four records, and the size of their values.
    batches: Vec<(Vec<(u8, u16)>, bool)>,
    crash: Option<u64>,
    damage: Vec<Damage>,
}

#[derive(Arbitrary, Debug)]
enum Damage {
    Flip { file: u8, at: u16, bit: u8 },
    Cut { file: u8, at: u16 },
    Zero { file: u8, at: u16, length: u16 },
    Copy { file: u8, from: u16, to: u16, length: u16 },
    Erase { file: u8 },
}

fn open(disk: &FakeDisk) -> Result<(Writer, Vec<u64>), LogError> {
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let options = LogOptions { segment_size: 8192, sync: SyncPolicy::Always, threads: 1 };
    let seen = Mutex::new(Vec::new());
    let (ready, _) = Unread::open(fs, options)?.replay(&Progress::default(), &|chunk| {
        for (version, mutation) in chunk {
            // The value says its version, so that one with another's contents is noticed.
            let Mutation::Put { value, .. } = mutation else { panic!("no such record was written") };
            assert!(value.bytes.iter().all(|byte| *byte == *version as u8), "contents of another record");
            seen.lock().unwrap().push(*version);
        }
    })?;
    let mut versions = seen.into_inner().unwrap();
    versions.sort_unstable();
    Ok((ready.into_writer(), versions))
}

fuzz_target!(|script: Script| {
    let disk = FakeDisk::new();
    let (mut writer, _) = open(&disk).expect("a new store");
    let mut version = 0;
    let mut group_ends = vec![0];
    let mut synced = 0;
    for (groups, sync) in script.batches.iter().take(24) {
        let mut batch = Batch::default();
        for &(records, size) in groups.iter().take(8) {
            for _ in 0..=records % 4 {
                version += 1;
                let bytes = vec![version as u8; usize::from(size % 2048)];
                let value = Value { bytes: &bytes, flags: 0, deadline: 0 };
                batch.push(version, &Mutation::Put { key: Key::bytes(b"k"), value });
            }
            batch.end_group();
            group_ends.push(version);
        }
        if batch.is_empty() {
            continue;
        }
        batch.stamp(1, version + 1);
        writer.append(&mut batch).expect("room");
        if *sync {
            writer.sync().expect("synced");
        }
        if !writer.is_dirty() {
            synced = version;
        }
    }
    let found = disk.crash(script.crash.map_or(Crash::KeepAll, Crash::Random));
    if script.damage.is_empty() {
        let (_, versions) = open(&found).expect("a crash alone never reads as damage");
        assert!(versions.len() as u64 >= synced, "{} of {synced} synced", versions.len());
    }
    for damage in script.damage.iter().take(8) {
        apply(&found, damage);
    }
    let Ok((mut writer, versions)) = open(&found) else { return };
    let last = versions.len() as u64;
    assert_eq!(versions, (1..=last).collect::<Vec<_>>(), "not a prefix");
    assert!(group_ends.contains(&last), "part of a group");
    // And it goes on from there.
    let mut batch = Batch::default();
    batch.push(last + 1, &Mutation::Put { key: Key::bytes(b"k"), value: Value { bytes: b"", flags: 0, deadline: 0 } });
    batch.end_group();
    batch.stamp(1, last + 2);
    writer.append(&mut batch).expect("room");
    writer.sync().expect("synced");
    let (_, again) = open(&found.crash(Crash::LoseAll)).expect("a mended log opens");
    assert_eq!(again, (1..=last + 1).collect::<Vec<_>>());
});

fn apply(disk: &FakeDisk, damage: &Damage) {
    let names: Vec<String> = disk.list().unwrap().into_iter().collect();
    let pick = |file: u8| names.get(usize::from(file) % names.len().max(1)).cloned();
    let edit = |file: u8, change: &dyn Fn(&mut Vec<u8>)| {
        if let Some(name) = pick(file) {
            if let Some(mut bytes) = disk.read(&name) {
                change(&mut bytes);
                disk.write(&name, &bytes);
            }
        }
    };
    match *damage {
        Damage::Flip { file, at, bit } => edit(file, &|bytes| {
            if let Some(byte) = bytes.get_mut(usize::from(at)) {
                *byte ^= 1 << (bit % 8);
            }
        }),
        Damage::Cut { file, at } => edit(file, &|bytes| bytes.truncate(usize::from(at))),
        Damage::Zero { file, at, length } => edit(file, &|bytes| {
            let end = bytes.len().min(usize::from(at) + usize::from(length));
            if let Some(range) = bytes.get_mut(usize::from(at)..end) {
                range.fill(0);
            }
        }),
        Damage::Copy { file, from, to, length } => edit(file, &|bytes| {
            let (from, to, length) = (usize::from(from), usize::from(to), usize::from(length));
            if from + length <= bytes.len() && to + length <= bytes.len() {
                bytes.copy_within(from..from + length, to);
            }
        }),
        Damage::Erase { file } => {
            if let Some(name) = pick(file) {
                disk.erase(&name);
            }
        }
    }
}
