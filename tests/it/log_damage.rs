//! The log under damage: each row of the decision table of `docs/format.md`, and then every cut, every flipped bit and
//! zeros from every byte on. The result is a prefix or a refusal, and a refusal changes nothing.

use crate::log_store::{Group, SEGMENT_SIZE, Written, batch_of, commit, open, prefix_groups, workload};
use kvd::log::fs::{Crash, FakeDisk, FaultPlan, Fs as _};
use kvd::log::recovery::survey;
use kvd::log::scan::Fault;
use kvd::log::segment::{SEGMENT_HEADER, file_name};
use kvd::log::{LogError, LogOptions, SyncPolicy, Unknown, Unread};
use std::sync::Arc;

/// A store of several segments that was killed, and what it holds.
fn killed_store(batches: u64) -> (FakeDisk, Vec<Vec<Group>>) {
    let disk = FakeDisk::new();
    let written = workload(batches);
    let mut writer = open(&disk).unwrap().writer;
    for batch in &written {
        commit(&mut writer, batch).unwrap();
    }
    (disk.crash(Crash::KeepAll), written)
}

fn change(disk: &FakeDisk, number: u64, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.read(&file_name(number)).expect("the segment");
    change(&mut bytes);
    disk.write(&file_name(number), &bytes);
}

/// The numbers of the segments that have a header, and the end of the data in the last.
fn journal(disk: &FakeDisk) -> (u64, usize) {
    let mut last = 0;
    for number in 1.. {
        match disk.read(&file_name(number)) {
            Some(bytes) if bytes.iter().any(|byte| *byte != 0) => last = number,
            _ => break,
        }
    }
    let bytes = disk.read(&file_name(last)).expect("the active segment");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("data") + 1;
    (last, end)
}

/// Everything on the disk, to see that a refusal changes nothing.
fn image(disk: &FakeDisk) -> Vec<(String, Vec<u8>)> {
    disk.list().unwrap().into_iter().map(|name| (name.clone(), disk.read(&name).unwrap())).collect()
}

fn refusal(disk: &FakeDisk) -> LogError {
    let before = image(disk);
    let refused = open(disk).expect_err("a refusal");
    assert_eq!(image(disk), before, "a refusal changed the disk: {refused}");
    refused
}

#[test]
fn row_1_and_3_a_log_that_was_left_whole_is_clean() {
    let (disk, written) = killed_store(14);
    assert!(journal(&disk).0 >= 3, "several segments");
    let opened = open(&disk).unwrap();
    assert_eq!(prefix_groups(&opened.records, &written), written.iter().flatten().count());
}

#[test]
fn row_2_damage_in_a_sealed_segment_is_refused_and_named() {
    let (disk, _) = killed_store(14);
    change(&disk, 1, |bytes| bytes[SEGMENT_HEADER + 200] ^= 1);
    let refused = refusal(&disk);
    assert!(matches!(refused, LogError::Damage { offset: 4096, .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains(&file_name(1)) && text.contains("4096") && text.contains("kvd check"), "{text}");
}

#[test]
fn row_2_a_sealed_segment_that_ends_early_or_late_is_refused() {
    let (disk, _) = killed_store(14);
    let (early, _) = killed_store(14);
    change(&disk, 1, |bytes| bytes.push(0));
    assert!(matches!(refusal(&disk), LogError::Damage { fault: Fault::Trailing, .. }));
    change(&early, 1, |bytes| bytes.truncate(SEGMENT_HEADER));
    assert!(matches!(refusal(&early), LogError::Damage { fault: Fault::Ends { next: 1, .. }, .. }));
}

#[test]
fn row_4_damage_before_a_batch_that_was_durable_is_refused() {
    let (disk, _) = killed_store(3);
    let (number, _) = journal(&disk);
    change(&disk, number, |bytes| bytes[SEGMENT_HEADER + 100] ^= 4);
    let refused = refusal(&disk);
    assert!(matches!(refused, LogError::Damage { offset: 4096, .. }), "{refused:?}");
}

#[test]
fn row_5_a_torn_tail_is_cut_kept_beside_the_log_and_gone_from_it() {
    let (disk, written) = killed_store(3);
    let (number, end) = journal(&disk);
    change(&disk, number, |bytes| bytes[end - 10] ^= 1);
    let opened = open(&disk).unwrap();
    let groups = written.iter().flatten().count();
    assert_eq!(prefix_groups(&opened.records, &written), groups - 3, "the last batch is given up whole");
    drop(opened);
    let saved: Vec<String> = disk.list().unwrap().into_iter().filter(|name| name.contains("torn-tail-at-")).collect();
    assert_eq!(saved.len(), 1, "{saved:?}");
    let cut: usize = saved[0].rsplit('-').next().unwrap().parse().unwrap();
    let after = disk.crash(Crash::LoseAll).read(&file_name(number)).unwrap();
    assert!(after[cut..].iter().all(|byte| *byte == 0), "bytes past the cut are still there");
    assert_eq!(disk.read(&saved[0]).unwrap().len(), end - cut);
}

#[test]
fn row_5_a_torn_tail_is_kept_whole_or_not_cut_however_little_room_there_is() {
    let (torn, written) = killed_store(3);
    let (number, end) = journal(&torn);
    change(&torn, number, |bytes| bytes[end - 10] ^= 1);
    let groups = written.iter().flatten().count();
    let used = torn.list().unwrap().iter().map(|name| torn.file_len(name).unwrap()).sum::<u64>();
    let tails = |disk: &FakeDisk| {
        let names = disk.list().unwrap().into_iter().filter(|name| name.contains("torn-tail-at-"));
        names.map(|name| disk.read(&name).unwrap()).collect::<Vec<_>>()
    };
    let expected = {
        let disk = torn.crash(Crash::KeepAll);
        open(&disk).unwrap();
        tails(&disk).pop().expect("a tail")
    };
    assert!(expected.len() > 100);
    let (mut refused, mut opened) = (0, 0);
    for capacity in (used - 2 * SEGMENT_SIZE..used + SEGMENT_SIZE).step_by(16) {
        let disk = torn.crash(Crash::KeepAll);
        disk.plan(FaultPlan { capacity: Some(capacity), ..FaultPlan::default() });
        match open(&disk) {
            Ok(_) => opened += 1,
            Err(LogError::Io { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        disk.plan(FaultPlan::default());
        assert_eq!(prefix_groups(&open(&disk).unwrap().records, &written), groups - 3, "room for {capacity} bytes");
        assert!(tails(&disk).contains(&expected), "room for {capacity} bytes");
    }
    assert!(refused > 0 && opened > 0, "{refused} refused, {opened} opened");
}

#[test]
fn a_store_keeps_its_identity_and_its_secret_and_no_other_has_them() {
    let identity = |disk: &FakeDisk| {
        let survey = survey(disk).unwrap();
        (survey.identity().unwrap(), survey.secret().unwrap().expose())
    };
    let (one, other) = (killed_store(3).0, killed_store(3).0);
    assert_eq!(identity(&one), identity(&one));
    assert_eq!(identity(&one), identity(&one.crash(Crash::KeepAll)));
    assert_ne!(identity(&one).0, identity(&other).0);
    assert_ne!(identity(&one).1, identity(&other).1);
}

#[test]
fn row_5_a_batch_lost_before_one_that_proves_nothing_is_a_torn_tail() {
    // Without a sync the kernel may write a later batch and not an earlier one.
    let disk = FakeDisk::new();
    let mut writer = open(&disk).unwrap().writer;
    let written = workload(3);
    commit(&mut writer, &written[0]).unwrap();
    writer.append(&mut batch_of(&written[1])).unwrap();
    let (_, second_ends) = journal(&disk);
    writer.append(&mut batch_of(&written[2])).unwrap();
    let disk = disk.crash(Crash::KeepAll);
    change(&disk, 1, |bytes| bytes[second_ends - 20] ^= 1);
    let opened = open(&disk).unwrap();
    assert_eq!(prefix_groups(&opened.records, &written), 3);
    // The third batch stood intact behind the cut; it must not come back behind a new one.
    let mut writer = opened.writer;
    let more: Group = vec![Written::put(opened.recovered.next_version, b"k", b"v")];
    commit(&mut writer, std::slice::from_ref(&more)).unwrap();
    let again = open(&disk.crash(Crash::KeepAll)).unwrap();
    assert_eq!(again.records.len(), opened.records.len() + 1);
}

#[test]
fn row_6_empty_and_zeroed_files_above_the_journal_are_spares() {
    for size in [0, 100, 4096, 100_000] {
        let (disk, written) = killed_store(3);
        let (number, _) = journal(&disk);
        disk.write(&file_name(number + 1), &vec![0; size]);
        let opened = open(&disk).unwrap();
        assert_eq!(prefix_groups(&opened.records, &written), written.iter().flatten().count(), "{size}");
    }
}

#[test]
fn row_7_a_torn_header_with_nothing_behind_it_is_made_anew() {
    let (disk, written) = killed_store(14);
    let (number, _) = journal(&disk);
    // The header of the next segment as it may be after a crash while it was written: sectors are missing.
    let mut torn = disk.read(&file_name(number)).unwrap();
    torn[SEGMENT_HEADER..].fill(0);
    torn[512..4096].fill(0);
    disk.write(&file_name(number + 1), &torn);
    let opened = open(&disk).unwrap();
    assert_eq!(prefix_groups(&opened.records, &written), written.iter().flatten().count());
    assert!(disk.list().unwrap().contains(&format!("{}.torn-header", file_name(number + 1))));
}

#[test]
fn row_8_a_foreign_file_under_a_segments_name_is_refused() {
    let (disk, _) = killed_store(3);
    let (number, _) = journal(&disk);
    disk.write(&file_name(number + 1), b"dear diary");
    assert!(matches!(refusal(&disk), LogError::Foreign { .. }));
}

#[test]
fn row_9_a_damaged_header_is_refused_where_data_was_behind_it() {
    let (disk, _) = killed_store(3);
    let (number, _) = journal(&disk);
    change(&disk, number, |bytes| bytes[20] ^= 1);
    assert!(matches!(refusal(&disk), LogError::Damage { offset: 0, fault: Fault::Header, .. }));
    let (blank, _) = killed_store(3);
    change(&blank, number, |bytes| bytes[..SEGMENT_HEADER].fill(0));
    assert!(matches!(refusal(&blank), LogError::Damage { offset: 0, fault: Fault::Header, .. }));
}

#[test]
fn row_10_a_newer_format_is_refused_by_its_version() {
    let (disk, _) = killed_store(3);
    let (number, _) = journal(&disk);
    change(&disk, number, |bytes| {
        bytes[8..10].copy_from_slice(&9_u16.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..4092]);
        bytes[4092..4096].copy_from_slice(&checksum.to_le_bytes());
    });
    let refused = refusal(&disk);
    assert!(matches!(refused, LogError::Newer { what: Unknown::Format(9), .. }), "{refused:?}");
    assert!(refused.to_string().contains("newer"), "{refused}");
}

#[test]
fn row_11_a_renamed_segment_is_refused() {
    let (disk, _) = killed_store(14);
    let (number, _) = journal(&disk);
    let copy = disk.read(&file_name(number)).unwrap();
    disk.write(&file_name(number + 1), &copy);
    assert!(matches!(refusal(&disk), LogError::Misplaced { says, .. } if says == number));
}

#[test]
fn row_12_a_segment_of_another_store_is_refused() {
    let (disk, _) = killed_store(14);
    let (other, _) = killed_store(14);
    disk.write(&file_name(2), &other.read(&file_name(2)).unwrap());
    assert!(matches!(refusal(&disk), LogError::OtherStore { .. }));
}

#[test]
fn row_13_a_missing_segment_is_refused_by_name() {
    for missing in [1, 2] {
        let (disk, _) = killed_store(14);
        disk.erase(&file_name(missing));
        let refused = refusal(&disk);
        assert!(matches!(&refused, LogError::MissingSegment { name } if *name == file_name(missing)), "{refused:?}");
    }
}

#[test]
fn names_that_are_not_kvds_are_left_alone_and_left_overs_are_removed() {
    let (disk, _) = killed_store(3);
    disk.write("notes.txt", b"mine");
    disk.write("segment-00000000000000000009.log.tmp", b"half");
    open(&disk).unwrap();
    assert_eq!(disk.read("notes.txt"), Some(b"mine".to_vec()));
    assert_eq!(disk.read("segment-00000000000000000009.log.tmp"), None);
}

#[test]
fn a_survey_alone_changes_nothing() {
    let (disk, _) = killed_store(3);
    let before = image(&disk);
    let options = LogOptions { segment_size: SEGMENT_SIZE, sync: SyncPolicy::Always, threads: 1 };
    drop(Unread::open(Arc::new(disk.clone()), options).unwrap());
    assert_eq!(image(&disk), before);
}

/// A prefix or a refusal that changes nothing; returns the prefix.
fn prefix_or_refusal(disk: &FakeDisk, written: &[Vec<Group>], context: &str) -> Option<usize> {
    let before = image(disk);
    match open(disk) {
        Ok(opened) => Some(prefix_groups(&opened.records, written)),
        Err(refused) => {
            assert_eq!(image(disk), before, "{context}: a refusal changed the disk: {refused}");
            None
        }
    }
}

#[test]
fn a_log_cut_at_every_byte_is_a_prefix_or_refused() {
    let (disk, written) = killed_store(6);
    let (active, end) = journal(&disk);
    assert_eq!(active, 2, "one sealed segment, one active");
    for number in 1..=active {
        let whole = disk.read(&file_name(number)).unwrap();
        let mut best = 0;
        for cut in 0..whole.len().min(end + 64) {
            let damaged = disk.crash(Crash::KeepAll);
            damaged.write(&file_name(number), &whole[..cut]);
            let kept = prefix_or_refusal(&damaged, &written, &format!("segment {number} cut at {cut}"));
            assert!(number == active || kept.is_none(), "a sealed segment cut at {cut} was accepted");
            assert!(kept.is_none_or(|kept| kept >= best), "cut later, kept less: {cut}");
            best = kept.unwrap_or(best);
        }
    }
}

#[test]
fn every_flipped_bit_is_a_shorter_prefix_or_refused() {
    let (disk, written) = killed_store(6);
    let (active, end) = journal(&disk);
    let all = written.iter().flatten().count();
    let last_batch = all - written.last().unwrap().len();
    for number in 1..=active {
        let whole = disk.read(&file_name(number)).unwrap();
        let flips = (0..whole.len().min(end + 16)).filter(|at| *at < 128 || *at >= 4000);
        for bit in flips.flat_map(|at| (0..8).map(move |bit| at * 8 + bit)) {
            let damaged = disk.crash(Crash::KeepAll);
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            damaged.write(&file_name(number), &bytes);
            let kept = prefix_or_refusal(&damaged, &written, &format!("segment {number}, bit {bit}"));
            // Only the last batch can pass for torn; behind it, a flipped zero costs nothing.
            let fine = match kept {
                None => true,
                Some(kept) if number < active => panic!("bit {bit} of a sealed segment went unnoticed: {kept} groups"),
                Some(kept) => kept == last_batch || (kept == all && bit / 8 >= end),
            };
            assert!(fine, "segment {number}, bit {bit}: {kept:?} of {all} groups");
        }
    }
}

#[test]
fn zeros_from_every_byte_on_are_a_prefix_or_refused() {
    let (disk, written) = killed_store(6);
    let (active, end) = journal(&disk);
    for number in 1..=active {
        let whole = disk.read(&file_name(number)).unwrap();
        for from in 0..whole.len().min(end) {
            let damaged = disk.crash(Crash::KeepAll);
            let mut bytes = whole.clone();
            bytes[from..].fill(0);
            let unchanged = bytes == whole;
            damaged.write(&file_name(number), &bytes);
            let kept = prefix_or_refusal(&damaged, &written, &format!("segment {number}, zeros from {from}"));
            assert!(number == active || unchanged || kept.is_none(), "zeros from {from} in a sealed segment");
        }
    }
}

#[test]
fn records_and_batches_that_are_moved_or_doubled_never_pass() {
    let (disk, written) = killed_store(3);
    let bytes = disk.read(&file_name(1)).unwrap();
    let (_, end) = journal(&disk);
    let all = written.iter().flatten().count();
    // Each piece of the data, put again right behind the end, where the next batch would be.
    for start in SEGMENT_HEADER..end {
        let doubled = disk.crash(Crash::KeepAll);
        change(&doubled, 1, |copy| {
            let length = (end - start).min(copy.len() - end);
            copy[end..end + length].copy_from_slice(&bytes[start..start + length]);
        });
        let kept = prefix_or_refusal(&doubled, &written, &format!("doubled from {start}"));
        assert!(matches!(kept, Some(kept) if kept == all), "doubled from {start}: {kept:?}");
    }
}
