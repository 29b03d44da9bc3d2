//! The log after a crash at every single operation, keeping any part of what was not synced: recovery is a prefix that holds
//! everything acknowledged, it never reads as damage, and the log can be written again.

use crate::log_store::{Group, SEGMENT_SIZE, Written, batch_of, commit, open, open_with, prefix_groups, workload};
use kvd::log::fs::{Crash, FakeDisk, FaultPlan, Fs as _};
use kvd::log::{AppendError, UNCLEAN_SKIP};

/// When a run syncs, beside rotation.
#[derive(Clone, Copy, Debug)]
enum Sync {
    EveryBatch,
    EveryThird,
    Never,
}

/// Runs the workload until an operation fails. Returns how many groups were written and how many of them synced.
fn run(disk: &FakeDisk, batches: &[Vec<Group>], sync: Sync) -> (usize, usize) {
    let (mut written, mut synced) = (0, 0);
    let Ok(opened) = open(disk) else { return (0, 0) };
    let mut writer = opened.writer;
    for (number, batch) in batches.iter().enumerate() {
        if writer.append(&mut batch_of(batch)).is_err() {
            break;
        }
        written += batch.len();
        let now = match sync {
            Sync::EveryBatch => true,
            Sync::EveryThird => number % 3 == 2,
            Sync::Never => false,
        };
        if now && writer.sync().is_err() {
            break;
        }
        // Rotation syncs too; the writer says so.
        if !writer.is_dirty() {
            synced = written;
        }
    }
    (written, synced)
}

/// The number of operations of an undisturbed run.
fn operations(batches: &[Vec<Group>], sync: Sync) -> u64 {
    let disk = FakeDisk::new();
    disk.plan(FaultPlan::default());
    run(&disk, batches, sync);
    disk.operations()
}

fn crashes() -> impl Iterator<Item = Crash> {
    [Crash::LoseAll, Crash::KeepAll].into_iter().chain((1..=6).map(Crash::Random))
}

fn crash_everywhere(sync: Sync) {
    let batches = workload(14);
    let total = operations(&batches, sync);
    assert!(total > 40, "the workload rotates: {total} operations");
    for power_off_at in 0..total {
        let disk = FakeDisk::new();
        disk.plan(FaultPlan { power_off_at: Some(power_off_at), ..FaultPlan::default() });
        let (written, synced) = run(&disk, &batches, sync);
        for crash in crashes() {
            let context = format!("{sync:?}, power off at {power_off_at} of {total}, {crash:?}");
            let found = disk.crash(crash);
            let opened = open(&found).unwrap_or_else(|error| panic!("{context}: {error}"));
            let kept = prefix_groups(&opened.records, &batches);
            assert!(kept >= synced, "{context}: {kept} groups of {synced} synced");
            if crash == Crash::KeepAll {
                assert!(kept >= written, "{context}: a kill lost {kept} of {written}");
            }
            goes_on(&found, opened.writer, &opened.records, opened.recovered.next_version, &context);
        }
    }
}

/// After a recovery the log is written again, and what was recovered has become durable by then.
fn goes_on(disk: &FakeDisk, mut writer: kvd::log::Writer, recovered: &[Written], next_version: u64, context: &str) {
    let more: Group = vec![Written::put(next_version, b"after", &[7; 600])];
    commit(&mut writer, std::slice::from_ref(&more)).unwrap_or_else(|error| panic!("{context}: {error}"));
    let again = open(&disk.crash(Crash::LoseAll)).unwrap_or_else(|error| panic!("{context}, second start: {error}"));
    let expected: Vec<Written> = recovered.iter().chain(&more).cloned().collect();
    assert_eq!(again.records, expected, "{context}: the second start");
    assert!(again.recovered.next_version > next_version, "{context}: no version twice");
}

#[test]
fn a_crash_after_any_operation_keeps_a_prefix_when_every_batch_is_synced() {
    crash_everywhere(Sync::EveryBatch);
}

#[test]
fn a_crash_after_any_operation_keeps_a_prefix_when_batches_are_synced_now_and_then() {
    crash_everywhere(Sync::EveryThird);
}

#[test]
fn a_crash_after_any_operation_keeps_a_prefix_when_only_rotation_syncs() {
    crash_everywhere(Sync::Never);
}

#[test]
fn a_crash_at_any_operation_of_a_recovery_loses_nothing_either() {
    let batches = workload(9);
    let total = operations(&batches, Sync::EveryThird);
    for power_off_at in (0..total).step_by(3) {
        let disk = FakeDisk::new();
        disk.plan(FaultPlan { power_off_at: Some(power_off_at), ..FaultPlan::default() });
        let (_, synced) = run(&disk, &batches, Sync::EveryThird);
        for crash in [Crash::KeepAll, Crash::Random(11), Crash::Random(12)] {
            for second in 0..12 {
                let found = disk.crash(crash);
                found.plan(FaultPlan { power_off_at: Some(second), ..FaultPlan::default() });
                // Whatever it manages, including all of it.
                drop(open(&found));
                for again in [Crash::LoseAll, Crash::KeepAll, Crash::Random(second + 1)] {
                    let opened = open(&found.crash(again)).unwrap_or_else(|error| {
                        panic!("off at {power_off_at}, {crash:?}, then at {second}, {again:?}: {error}")
                    });
                    assert!(prefix_groups(&opened.records, &batches) >= synced);
                }
            }
        }
    }
}

#[test]
fn what_a_recovery_showed_survives_even_where_the_first_sync_had_failed() {
    let disk = FakeDisk::new();
    let mut writer = open(&disk).unwrap().writer;
    let first: Group = vec![Written::put(1, b"a", b"1")];
    let second: Group = vec![Written::put(2, b"a", b"2")];
    commit(&mut writer, std::slice::from_ref(&first)).unwrap();
    writer.append(&mut batch_of(std::slice::from_ref(&second))).unwrap();
    disk.plan(FaultPlan { fail: Some((0, std::io::ErrorKind::Other)), ..FaultPlan::default() });
    assert!(writer.sync().is_err());
    drop(writer);
    // The process ends and starts again on the same page cache, which shows the second batch.
    let opened = open(&disk).unwrap();
    assert_eq!(opened.records.len(), 2);
    // It may be observed from now on, so it has to be on the disk.
    assert_eq!(open(&disk.crash(Crash::LoseAll)).unwrap().records.len(), 2);
}

#[test]
fn what_is_written_after_any_failed_operation_survives_a_power_failure() {
    let batches = workload(6);
    for failing in 0..operations(&batches, Sync::EveryBatch) {
        let disk = FakeDisk::new();
        disk.plan(FaultPlan { fail: Some((failing, std::io::ErrorKind::Other)), ..FaultPlan::default() });
        run(&disk, &batches, Sync::EveryBatch);
        disk.plan(FaultPlan::default());
        // The process ended, the machine did not: the page cache shows what the disk may not have.
        let mut opened = open(&disk).unwrap_or_else(|error| panic!("failing {failing}: {error}"));
        let version = opened.recovered.next_version;
        commit(&mut opened.writer, &[vec![Written::put(version, b"after", b"1")]]).unwrap();
        let found = open(&disk.crash(Crash::LoseAll)).unwrap_or_else(|error| panic!("failing {failing}: {error}"));
        assert_eq!(found.records.len(), opened.records.len() + 1, "failing operation {failing}");
    }
}

#[test]
fn an_error_from_a_sync_or_a_write_is_final() {
    let total = operations(&workload(6), Sync::EveryBatch);
    for failing in 0..total {
        let disk = FakeDisk::new();
        disk.plan(FaultPlan { fail: Some((failing, std::io::ErrorKind::Other)), ..FaultPlan::default() });
        let batches = workload(6);
        let (_, synced) = run(&disk, &batches, Sync::EveryBatch);
        let opened = open(&disk.crash(Crash::LoseAll)).unwrap_or_else(|error| panic!("failing {failing}: {error}"));
        assert!(prefix_groups(&opened.records, &batches) >= synced, "failing operation {failing}");
    }
}

#[test]
fn a_write_that_is_cut_short_is_refused_and_what_it_left_is_gone() {
    let (total, mut refusals) = (operations(&workload(14), Sync::EveryBatch), 0);
    for short in 0..total {
        let disk = FakeDisk::new();
        disk.plan(FaultPlan { short: Some(short), ..FaultPlan::default() });
        // A new store that can't be made is no store.
        let Ok(opened) = open(&disk) else { continue };
        let (mut writer, mut accepted) = (opened.writer, Vec::new());
        for groups in workload(14) {
            match commit(&mut writer, &groups) {
                Ok(()) => accepted.extend(groups),
                Err(AppendError::NoSpace(_)) => refusals += 1,
                Err(AppendError::Fatal(error)) => panic!("operation {short}: {error}"),
            }
        }
        let found = open(&disk.crash(Crash::LoseAll)).unwrap_or_else(|error| panic!("operation {short}: {error}"));
        assert!(found.records == accepted.concat(), "operation {short}");
    }
    assert!(refusals > 10, "{refusals} were refused");
}

#[test]
fn versions_are_never_handed_out_twice() {
    let disk = FakeDisk::new();
    let mut opened = open(&disk).unwrap();
    assert_eq!(opened.recovered.next_version, 1);
    commit(&mut opened.writer, &[vec![Written::put(1, b"a", b"1")]]).unwrap();
    let unclean = open(&disk.crash(Crash::KeepAll)).unwrap();
    assert_eq!(unclean.recovered.next_version, 2 + UNCLEAN_SKIP);
    opened.writer.finish(2_000, 2).unwrap();
    let mut clean = open(&disk.crash(Crash::LoseAll)).unwrap();
    assert_eq!(clean.recovered.next_version, 2);
    assert_eq!(clean.recovered.time, Some(2_000.into()));
    // A clean stop counts for one start only.
    commit(&mut clean.writer, &[vec![Written::put(2, b"a", b"2")]]).unwrap();
}

#[test]
fn a_version_that_was_shown_and_lost_is_not_handed_out_again() {
    // Nothing is synced, as with `--fsync never`: what was acknowledged may be lost, but its versions never come again.
    for stops in [false, true] {
        let mut disk = FakeDisk::new();
        let mut shown = 0;
        for start in 0..4 {
            let mut opened = open(&disk).unwrap();
            let version = opened.recovered.next_version;
            assert!(version > shown, "start {start}: {version} after {shown}");
            for more in 0..2 {
                let group = vec![Written::put(version + more, b"a", b"1")];
                opened.writer.append(&mut batch_of(&[group])).unwrap();
                shown = version + more;
            }
            if stops && start % 2 == 0 {
                opened.writer.finish(2_000, shown + 1).unwrap();
            }
            disk = disk.crash(Crash::LoseAll);
        }
    }
}

#[test]
fn the_next_segment_records_the_time_too() {
    // Later than any clock that this may run on.
    const LATER: u64 = 1 << 42;
    let disk = FakeDisk::new();
    let mut writer = open(&disk).unwrap().writer;
    for version in 1..=5 {
        let mut batch = batch_of(&[vec![Written::put(version, b"a", &[7; 1000])]]);
        batch.stamp(LATER + version, version + 1);
        writer.append(&mut batch).unwrap();
    }
    assert_eq!(writer.active_number(), 2);
    // Its batch is lost, and nothing may be left of those before it: they may have been compacted.
    let found = disk.crash(Crash::LoseAll);
    let survey = kvd::log::recovery::survey(&found).unwrap();
    assert_eq!(survey.segments[1].header.time.now, LATER + 4);
}

#[test]
fn an_orderly_stop_gives_back_what_was_sized_ahead() {
    let disk = FakeDisk::new();
    let mut opened = open(&disk).unwrap();
    commit(&mut opened.writer, &[vec![Written::put(1, b"a", b"1")]]).unwrap();
    opened.writer.finish(2_000, 2).unwrap();
    assert_eq!(disk.list().unwrap(), ["segment-00000000000000000001.log"]);
    assert!(disk.read("segment-00000000000000000001.log").unwrap().len() < 4500);
}

/// Fills a disk of this size until a batch that stores something is refused.
fn fill(writer: &mut kvd::log::Writer, accepted: &mut Vec<Group>, version: &mut u64) {
    loop {
        let group = vec![Written::put(*version, format!("key{version}").as_bytes(), &[1; 700])];
        match commit(writer, std::slice::from_ref(&group)) {
            Ok(()) => accepted.push(group),
            Err(AppendError::NoSpace(_)) => break,
            Err(AppendError::Fatal(error)) => panic!("a full disk is no reason to end: {error}"),
        }
        *version += 1;
    }
}

#[test]
fn a_write_refused_for_a_full_disk_never_comes_back() {
    for capacity in (24_000..60_000).step_by(1_777) {
        let disk = FakeDisk::new();
        disk.plan(FaultPlan { capacity: Some(capacity), ..FaultPlan::default() });
        let mut writer = open(&disk).unwrap().writer;
        let (mut accepted, mut version) = (Vec::new(), 1);
        fill(&mut writer, &mut accepted, &mut version);
        // The refused version is burned.
        version += 1;
        // Removals find the reserve: a whole segment of them.
        let mut removed = 0;
        while removed < 4 {
            let group = vec![Written::remove(version, b"key1"), Written::remove(version + 1, &[b'k'; 700])];
            commit(&mut writer, std::slice::from_ref(&group)).unwrap_or_else(|e| panic!("capacity {capacity}: {e}"));
            accepted.push(group);
            version += 2;
            removed += 1;
        }
        disk.plan(FaultPlan { capacity: Some(capacity + 40_000), ..FaultPlan::default() });
        assert!(writer.make_room(700).unwrap(), "capacity {capacity}: there is room again");
        let before = accepted.len();
        fill(&mut writer, &mut accepted, &mut version);
        assert!(accepted.len() > before, "capacity {capacity}: writes go on");
        for crash in [Crash::KeepAll, Crash::LoseAll] {
            let opened = open(&disk.crash(crash)).unwrap();
            let records: Vec<Written> = accepted.iter().flatten().cloned().collect();
            assert_eq!(opened.records, records, "capacity {capacity}, {crash:?}");
        }
    }
}

#[test]
fn the_reserve_outlives_a_restart_on_a_full_disk() {
    let capacity = 40_000;
    let full = FaultPlan { capacity: Some(capacity), ..FaultPlan::default() };
    let disk = FakeDisk::new();
    disk.plan(full.clone());
    let (mut accepted, mut version) = (Vec::new(), 1);
    fill(&mut open(&disk).unwrap().writer, &mut accepted, &mut version);
    // Somebody else takes whatever is left, and what a start would give up for a moment.
    let found = disk.crash(Crash::KeepAll);
    let held: usize = found.list().unwrap().iter().map(|name| found.read(name).unwrap().len()).sum();
    found.plan(FaultPlan { capacity: Some(held as u64 / 2), ..full });
    let opened = open(&found).unwrap();
    let mut writer = opened.writer;
    version = opened.recovered.next_version;
    for _ in 0..2 {
        let group = vec![Written::remove(version, &[b'k'; 1500])];
        commit(&mut writer, &[group]).expect("a removal finds the reserve");
        version += 1;
    }
}

#[test]
fn a_spare_that_there_is_no_room_to_make_larger_is_given_up_and_nothing_else() {
    let disk = FakeDisk::new();
    let group = vec![Written::put(1, b"k", b"v")];
    commit(&mut open(&disk).unwrap().writer, std::slice::from_ref(&group)).unwrap();
    let found = disk.crash(Crash::KeepAll);
    let spares = |disk: &FakeDisk| {
        let names = disk.list().unwrap().into_iter();
        names.filter(|name| disk.read(name).unwrap().iter().all(|byte| *byte == 0)).count()
    };
    assert_eq!(spares(&found), 1);
    let held: usize = found.list().unwrap().iter().map(|name| found.read(name).unwrap().len()).sum();
    let full = FaultPlan { capacity: Some(held as u64), ..FaultPlan::default() };
    // As large as it is, it stays; with larger segments it would have to grow.
    for (size, left) in [(SEGMENT_SIZE, 1), (2 * SEGMENT_SIZE, 0)] {
        let disk = found.crash(Crash::KeepAll);
        disk.plan(full.clone());
        assert_eq!(open_with(&disk, size).unwrap().records, group);
        assert_eq!(spares(&disk), left, "segments of {size}");
    }
}

#[test]
fn a_batch_larger_than_a_segment_gets_its_own() {
    let disk = FakeDisk::new();
    let mut writer = open(&disk).unwrap().writer;
    let groups: Vec<Group> = (1..=6)
        .map(|version| {
            let size = if version % 2 == 0 { 50_000 } else { 300 };
            vec![Written::put(version, b"k", &vec![version as u8; size])]
        })
        .collect();
    for group in &groups {
        commit(&mut writer, std::slice::from_ref(group)).unwrap();
    }
    let opened = open(&disk.crash(Crash::LoseAll)).unwrap();
    assert_eq!(opened.records, groups.concat());
}
